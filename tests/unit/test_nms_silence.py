"""What the counters of the media plane tell about a path before its next probe is due."""

from __future__ import annotations

import pytest
from nms_world import FAR, INSIDE, PHONE, UPLINKS, Gateway

from sipnemo.media.flow import FlowKey
from sipnemo.roles.nms.settings import ProbeSettings

UP1, UP2 = UPLINKS.values()
SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
KIND = "Content-Type: application/sdp"


def gateway_that_probes_rarely() -> Gateway:
    """A metered link: a minute between probes, with and without calls."""
    gateway = Gateway(probe=ProbeSettings(probe_every=60.0, probe_idle_every=60.0))
    invite = gateway.call(KIND, body=SDP.format("10.7.0.11"))
    gateway.answer(FAR, invite, 200, KIND, "Contact: <sip:cn@192.0.2.9>", body=SDP.format("192.0.2.9"))
    gateway.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn")
    gateway.run(1.0)
    return gateway


def listen(gateway: Gateway, seconds: int, hears: bool) -> None:
    """The phone speaks all the time; the far end is heard, or is not."""
    (session,) = gateway.node.calls.open
    assert session.media is not None
    for _ in range(seconds):
        for key in session.media.flows:
            packets = gateway.counters.get(key, (0, 0))[0]
            if key.host == INSIDE or (hears and key.host == session.path.address):
                gateway.counters[FlowKey(*key)] = (packets + 50, (packets + 50) * 172)
        gateway.run(1.0)


@pytest.mark.req("MH-3", "R13")
def test_a_path_whose_media_falls_silent_is_probed_at_once() -> None:
    gateway = gateway_that_probes_rarely()
    listen(gateway, 8, hears=True)
    gateway.silent.add(UP1)
    listen(gateway, 6, hears=False)
    assert [path.address for path in gateway.node.paths.on()] == [UP2]


def test_a_path_on_which_something_is_heard_is_not_probed_sooner() -> None:
    gateway = gateway_that_probes_rarely()
    gateway.silent.add(UP1)
    listen(gateway, 14, hears=True)
    assert [path.address for path in gateway.node.paths.on()] == [UP1, UP2]


def test_a_far_end_that_says_nothing_costs_its_path_one_probe() -> None:
    gateway = gateway_that_probes_rarely()
    listen(gateway, 8, hears=True)
    before = gateway.node.last_heard(gateway.node.paths.all[0])
    listen(gateway, 6, hears=False)
    after = gateway.node.last_heard(gateway.node.paths.all[0])
    assert before is not None
    assert after is not None
    assert after > before
    listen(gateway, 10, hears=False)
    assert gateway.node.last_heard(gateway.node.paths.all[0]) == after
    assert [path.on for path in gateway.node.paths.all] == [True, True]

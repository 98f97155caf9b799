"""Calls whose two ends have vanished: they end, and nothing is kept of them."""

from __future__ import annotations

import pytest
from nms_world import FAR, INSIDE, PHONE, UPLINKS, Gateway

from sipnemo.roles.nms.settings import SessionSettings
from sipnemo.roles.node import Link

UP1, UP2 = UPLINKS.values()
SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
KIND = "Content-Type: application/sdp"
CONTACT = "Contact: <sip:cn@192.0.2.9>"
TIMER = "Session-Expires: 90;refresher=uac"
MN_TO_CN = {"to": "<sip:cn@192.0.2.9>;tag=cn"}
CN_TO_MN = {"from_": "<sip:cn@192.0.2.9>;tag=cn", "to": "<sip:mn@else.example>;tag=mn"}


def talk(gateway: Gateway, *lines: str) -> None:
    """A call with media, answered with these lines."""
    invite = gateway.call(KIND, body=SDP.format("10.7.0.11"))
    gateway.answer(FAR, invite, 200, KIND, CONTACT, *lines, body=SDP.format("192.0.2.9"))
    gateway.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", **MN_TO_CN)
    assert gateway.node.ports.used == 1


def hears(gateway: Gateway, packets: int) -> None:
    """What the media plane has counted for each flow of the call."""
    for session in gateway.node.calls.open:
        assert session.media is not None
        gateway.counters.update(dict.fromkeys(session.media.flows, (packets, packets * 172)))


def assert_nothing_is_left(gateway: Gateway) -> None:
    calls = gateway.node.calls
    assert not calls.open
    assert not calls.sessions
    assert not calls.invitations
    assert gateway.node.ports.used == gateway.node.ports.misreleased == 0
    assert not any(path.sessions for path in gateway.node.paths.all)
    gateway.run(70.0)
    assert not gateway.node.layer.servers
    assert all(client.method == "REGISTER" for client in gateway.node.layer.clients.values())


@pytest.mark.req("RO-6")
def test_a_call_whose_session_timer_has_run_out_ends() -> None:
    """RFC 4028 §10: whoever should have refreshed it has not, and whoever waited has not sent BYE either."""
    gateway = Gateway()
    talk(gateway, TIMER)
    gateway.run(90.0 + 31.0)
    assert gateway.node.calls.open
    gateway.run(1.0 + 6.0)
    assert [bye.cseq for bye in gateway.got(FAR, "BYE")][:1] == [2]
    assert gateway.got(PHONE, "BYE")
    assert_nothing_is_left(gateway)


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_a_refreshed_session_timer_begins_anew(method: str) -> None:
    gateway = Gateway()
    talk(gateway, TIMER)
    gateway.run(80.0)
    gateway.request(PHONE, INSIDE, method, "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>", cseq=2, **MN_TO_CN)
    gateway.answer(FAR, gateway.got(FAR, method)[-1], 200, CONTACT, TIMER)
    gateway.run(110.0)
    assert gateway.node.calls.open
    gateway.run(20.0)
    assert not gateway.node.calls.open


@pytest.mark.req("R18")
def test_a_move_is_a_refresh_of_the_session_timer() -> None:
    gateway = Gateway()
    talk(gateway, TIMER)
    gateway.run(80.0)
    gateway.node.paths.command(gateway.node.paths.all[0], "off", gateway.now)
    gateway.run(0.5)
    gateway.answer(FAR, gateway.got(FAR, "INVITE")[-1], 200, KIND, CONTACT, TIMER, body=SDP.format("192.0.2.9"))
    gateway.run(110.0)
    assert gateway.node.calls.open
    gateway.run(20.0)
    assert not gateway.node.calls.open


def test_a_far_end_gets_no_bye_while_there_is_no_path() -> None:
    gateway = Gateway(session=SessionSettings(suspend_for=3600.0))
    talk(gateway, TIMER)
    for index, name in enumerate(UPLINKS, 3):
        gateway.feed(Link(name, index, False, ()))
    gateway.run(130.0)
    assert not gateway.got(FAR, "BYE")
    assert gateway.got(PHONE, "BYE")
    assert not gateway.node.calls.open


@pytest.mark.req("RO-6")
def test_a_call_without_session_timer_ends_when_it_has_been_silent_for_long() -> None:
    gateway = Gateway(session=SessionSettings(silent_after=60.0))
    talk(gateway)
    for packets in range(8):
        hears(gateway, packets + 1)
        gateway.run(10.0)
    assert gateway.node.calls.open
    gateway.request(FAR, UP1, "INFO", "sip:mn@198.51.100.7", cseq=1, **CN_TO_MN)
    gateway.answer(PHONE, gateway.got(PHONE, "INFO")[-1], 200)
    gateway.run(58.0)
    assert gateway.node.calls.open
    gateway.run(8.0)
    assert gateway.got(FAR, "BYE")
    assert gateway.got(PHONE, "BYE")
    assert_nothing_is_left(gateway)


def test_silence_ends_no_call_where_it_may_last_for_ever() -> None:
    gateway = Gateway(session=SessionSettings(silent_after=0.0))
    talk(gateway)
    gateway.run(200.0)
    assert gateway.node.calls.open

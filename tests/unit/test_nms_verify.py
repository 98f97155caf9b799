"""After a move: what the counters say of both directions, and what is made of it (R7)."""

from __future__ import annotations

from typing import Any

import pytest
from nms_world import FAR, INSIDE, PHONE, SETTINGS, UPLINKS, Gateway

from sipnemo.media.flow import INSIDE as TO_PHONES
from sipnemo.media.flow import FlowKey
from sipnemo.roles.nms.move.outcome import Reason, reason_of
from sipnemo.roles.nms.settings import EfaceSettings
from sipnemo.roles.node import Link
from sipnemo.sip.message import Request

UP1, UP2 = UPLINKS.values()
UP3 = "198.18.0.7"
KIND = "Content-Type: application/sdp"
CONTACT = "Contact: <sip:cn@192.0.2.9>"


def sdp(host: str, direction: str = "sendrecv", address: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {address or host}\r\nt=0 0\r\n"
        f"m=audio 4000 RTP/AVP 0\r\na={direction}\r\n"
    )


class Call:
    """A call with media through a gateway with three uplinks; what its ends send is counted when a test says so."""

    def __init__(self) -> None:
        uplinks = (*SETTINGS.efaces, EfaceSettings(id=3, priority=3, interface="wifi0"))
        self.gateway = gateway = Gateway(efaces=uplinks)
        gateway.feed(Link("wifi0", 5, True, (UP3,)))
        gateway.run(1.0)
        invite = gateway.call(KIND, body=sdp("10.7.0.11"))
        gateway.answer(FAR, invite, 200, KIND, CONTACT, body=sdp("192.0.2.9"))
        gateway.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn")
        (self.session,) = gateway.node.calls.open
        assert self.session.media is not None
        self.media = self.session.media
        (port,) = self.media.ports
        assert port is not None
        self.port = port
        self.answered = 1
        "CSeq of the last INVITE that the far end has answered."
        self.direction = "sendrecv"
        self.address = ""
        "In the far end's next answers."

    def say(self, *hosts: str, rtcp: bool = False, packets: int = 10) -> None:
        """Packets arrive at these addresses of ours: what comes to INSIDE is the phone's."""
        for host in hosts:
            key = FlowKey(host, self.port + rtcp)
            before = self.gateway.counters.get(key, (0, 0))[0]
            self.gateway.counters[key] = (before + packets, 0)

    def talk(self, *hosts: str, seconds: int) -> None:
        """They say something in each of some seconds."""
        for _ in range(seconds):
            self.say(*hosts)
            self.gateway.run(1.0)

    def answer(self) -> list[str]:
        """The far end answers what it was asked meanwhile; from where."""
        sources = []
        for again in self.gateway.got(FAR, "INVITE"):
            assert isinstance(again, Request)
            if again.cseq <= self.answered:
                continue
            sources.append(self.gateway.flows[id(again)].local.host)
            body = sdp("192.0.2.9", self.direction, self.address)
            self.gateway.answer(FAR, again, 200, KIND, CONTACT, body=body)
            self.answered = again.cseq
        return sources

    def cut(self) -> None:
        self.gateway.feed(Link("wwan0", 3, False, (UP1,)))

    def ended(self) -> dict[str, Any]:
        """The last call's move, as `sipnemo moves` has it."""
        found: dict[str, Any] = self.gateway.node.handover.waves[-1].row()["each"][-1]
        return found


@pytest.mark.req("R7")
@pytest.mark.parametrize(
    ("spoke", "direction", "after", "ended", "media"),
    [
        pytest.param((INSIDE, UP1), "sendrecv", [(INSIDE, UP2)], "verified", "seen seen", id="both"),
        pytest.param((INSIDE, UP1), "sendrecv", [(UP2,)], "unverified not sent", "missing seen", id="phone stops"),
        pytest.param((UP1,), "sendrecv", [(UP2,)], "verified", "silent seen", id="phone was silent before"),
        pytest.param((INSIDE,), "sendrecv", [(INSIDE,)], "unverified silent", "seen silent", id="far end never spoke"),
        pytest.param((), "sendrecv", [], "unverified silent", "silent silent", id="nobody ever spoke"),
        pytest.param((INSIDE, UP1), "inactive", [], "unverified held", "held held", id="on hold"),
        pytest.param((INSIDE, UP1), "recvonly", [(INSIDE,)], "verified", "seen held", id="far end on hold hears music"),
        pytest.param((UP1,), "recvonly", [], "unverified held", "silent held", id="far end on hold, no music"),
        pytest.param((INSIDE, UP1), "sendonly", [(UP2,)], "verified", "held seen", id="far end plays music"),
    ],
)
def test_both_directions_are_judged_by_who_was_heard_and_who_may_speak(
    spoke: tuple[str, ...], direction: str, after: list[tuple[str, ...]], ended: str, media: str
) -> None:
    call = Call()
    call.talk(*spoke, seconds=5)
    call.direction = direction
    call.cut()
    assert call.answer() == [UP2]
    call.gateway.run(0.05)
    for hosts in after:
        call.say(*hosts)
    call.gateway.run(10.0)
    row = call.ended()
    assert f"{row['ended']} {row['reason']}".strip() == ended
    assert f"{row['media_up']} {row['media_down']}" == media
    assert call.answer() == []
    assert call.session.live
    assert call.session.move is None


@pytest.mark.req("R7")
@pytest.mark.parametrize("direction", ["inactive", "sendrecv"], ids=["held", "silent for long"])
def test_rtcp_alone_shows_that_a_quiet_far_end_has_followed(direction: str) -> None:
    call = Call()
    call.talk(INSIDE, UP1, seconds=5)
    call.say(UP1, rtcp=True)
    call.gateway.run(10.0)
    call.direction = direction
    call.cut()
    call.answer()
    call.gateway.run(5.5)  # RFC 3550 §6.2: every five seconds, more or less
    assert call.session.move is not None
    call.say(UP2, rtcp=True, packets=1)
    call.gateway.run(1.1)
    assert (call.ended()["ended"], call.ended()["media_down"]) == ("verified", "seen")
    assert call.ended()["gap_down_ms"] is None, "nobody was waiting"


@pytest.mark.req("R7")
def test_hold_by_address_leaves_nothing_to_verify() -> None:
    call = Call()
    call.talk(INSIDE, UP1, seconds=5)
    call.direction, call.address = "inactive", "0.0.0.0"
    call.cut()
    call.answer()
    call.gateway.run(10.0)
    assert (call.ended()["ended"], call.ended()["reason"]) == ("unverified", "held")


@pytest.mark.req("R7")
@pytest.mark.parametrize(
    ("late", "tried", "stays"),
    [
        pytest.param(None, [UP2, UP3, UP2], UP2, id="none is better: back to the policy's favourite"),
        pytest.param(UP2, [UP2, UP3, UP2], UP2, id="the first is slow: back to it"),
        pytest.param(UP3, [UP2, UP3], UP3, id="the second is heard"),
    ],
)
def test_the_next_path_is_tried_and_the_best_one_stays(late: str | None, tried: list[str], stays: str) -> None:
    call = Call()
    call.talk(INSIDE, UP1, seconds=5)
    call.cut()
    asked = call.answer()
    call.gateway.run(2.1)
    asked += call.answer()
    for _ in range(4):
        call.gateway.run(0.1)
        call.say(INSIDE, *([late] if late is not None else []))
        call.gateway.run(2.0)
        asked += call.answer()
    assert asked == tried
    assert call.session.path.address == stays
    reached = call.ended()
    if late is None:
        assert (reached["ended"], reached["reason"]) == ("unverified", "not heard")
    else:
        assert (reached["ended"], reached["reason"]) == ("verified", "")
    ups = [flow for flow in call.media.flows.values() if flow.group != TO_PHONES]
    assert {flow.group for flow in ups} == {call.session.path.group}
    assert call.session.move is None


@pytest.mark.req("R7")
def test_the_present_path_keeps_the_uplink_until_the_next_has_been_agreed_to() -> None:
    call = Call()
    call.talk(INSIDE, UP1, seconds=5)
    call.cut()
    call.answer()
    call.gateway.run(2.1)
    assert call.gateway.flows[id(call.gateway.got(FAR, "INVITE")[-1])].local.host == UP3
    assert call.session.path.address == UP2
    call.answer()
    assert call.session.path.address == UP3


@pytest.mark.req("R7", "R2")
def test_a_second_choice_that_does_not_answer_leaves_the_call_where_it_was() -> None:
    call = Call()
    call.talk(INSIDE, UP1, seconds=5)
    call.cut()
    call.answer()
    call.gateway.run(2.1)
    silent = call.gateway.got(FAR, "INVITE")[-1]
    call.answered = silent.cseq  # never answered
    call.gateway.run(4.1)
    again = call.gateway.got(FAR, "INVITE")[-1]
    assert again is not silent
    assert call.answer() == [UP2]
    call.gateway.run(2.1)
    assert call.session.path.address == UP2
    assert (call.ended()["ended"], call.ended()["reason"]) == ("unverified", "not heard")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.CHALLENGED),
        (407, Reason.CHALLENGED),
        (408, Reason.NO_ANSWER),
        (481, Reason.NO_CALL),
        (488, Reason.REFUSED),
        (603, Reason.REFUSED),
    ],
)
def test_a_refusal_is_one_of_few_reasons(status: int, reason: Reason) -> None:
    assert reason_of(status) is reason


@pytest.mark.req("R7")
def test_a_refusal_is_told_with_its_words() -> None:
    call = Call()
    call.cut()
    (again,) = call.gateway.got(FAR, "INVITE")[1:]
    call.gateway.answer(FAR, again, 488)
    assert [call.ended()[key] for key in ("ended", "reason", "detail")] == ["failed", "refused", "488 Whatever"]

"""What a far end may answer to a re-INVITE of ours, and the defined state each answer ends in."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.roles.nms.settings import TrunkCredentials
from sipnemo.sip.message import Request

SECOND = "203.0.113.7"
CHALLENGE = 'Digest realm="trunk", nonce="n1", algorithm=MD5, qop="auth"'


def moved(*answers: int | tuple[int, str], **options: Any) -> tuple[Fleet, str, list[tuple[float, Request]]]:
    """A call whose far end answers the move so; 20 seconds later."""
    fleet = Fleet(inside=1, outside=1, **options)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    phone = fleet.refuse_moves("out1", *answers)
    fleet.cut(0)
    fleet.world.run(20.0)
    return fleet, call_id, phone.refused


def outcome(fleet: Fleet) -> dict[str, Any]:
    (wave,) = fleet.nms.command("moves")
    found: dict[str, Any] = wave["ended"]
    return found


def in_order(fleet: Fleet, call_id: str) -> None:
    """The call lives, both directions flow, it can be ended, and nothing stays behind."""
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up("out1")
    fleet.world.run(1.0)
    assert not fleet.up("in1", call_id)
    assert fleet.leaks() == []


@pytest.mark.req("R4", "R5", "R2")
@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((491,), id="491 glare"),
        pytest.param((491, 491, 491), id="491 three times"),
        pytest.param((500,), id="500"),
        pytest.param(((500, "Retry-After: 3"),), id="500 with Retry-After"),
        pytest.param(((503, "Retry-After: 2"),), id="503 with Retry-After"),
        pytest.param((408,), id="408"),
        pytest.param((504,), id="504"),
        pytest.param((0,), id="silence once"),
        pytest.param((0, 0, 491), id="silence twice, then glare"),
    ],
)
def test_the_move_is_tried_again_and_succeeds(answers: tuple[int | tuple[int, str], ...]) -> None:
    fleet, call_id, refused = moved(*answers)
    assert len(refused) == len(answers)
    assert outcome(fleet) == {"verified": 1}
    in_order(fleet, call_id)


@pytest.mark.req("R5")
def test_retry_after_is_obeyed() -> None:
    fleet, _, refused = moved((503, "Retry-After: 4"))
    (wave,) = fleet.nms.command("moves")
    assert wave["answered_ms"]["worst"] >= 4000.0
    assert len(refused) == 1


@pytest.mark.req("R4")
@pytest.mark.parametrize(
    ("status", "header"), [(401, "WWW-Authenticate"), (407, "Proxy-Authenticate")], ids=["401", "407"]
)
def test_a_challenge_is_answered_with_the_trunks_credentials(status: int, header: str) -> None:
    trunk = (TrunkCredentials("trunk", "fleet", "secret"),)
    fleet, call_id, refused = moved((status, f"{header}: {CHALLENGE}"), nms={"trunk": trunk})
    assert len(refused) == 1
    assert outcome(fleet) == {"verified": 1}
    in_order(fleet, call_id)


@pytest.mark.req("R4")
@pytest.mark.parametrize("status", [401, 407])
def test_a_challenge_without_credentials_keeps_the_call_and_says_so(status: int) -> None:
    header = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    fleet, call_id, _ = moved((status, f"{header}: {CHALLENGE}"))
    assert outcome(fleet) == {"waiting": 1}
    assert fleet.up("in1", call_id)
    assert fleet.talking(call_id, "out1")  # the direction that needs nobody's consent
    fleet.hang_up("in1")
    fleet.world.run(1.0)
    assert not fleet.up("out1", call_id)
    assert fleet.leaks() == []


@pytest.mark.req("R2")
def test_488_keeps_the_call_and_says_so() -> None:
    fleet, call_id, _ = moved(488)
    assert outcome(fleet) == {"failed": 1}
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id)
    fleet.hang_up("in1")
    fleet.world.run(1.0)
    assert not fleet.up("out1", call_id)
    assert fleet.leaks() == []


@pytest.mark.req("R6")
def test_481_ends_the_call_at_the_phone_too() -> None:
    fleet, call_id, _ = moved(481)
    ended = fleet.ended("in1", call_id)
    assert ended is not None
    assert ended["by"] == "them"
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R5")
def test_glare_both_ends_re_invite_at_once() -> None:
    fleet = Fleet(inside=1, outside=1)
    call_id = fleet.call("out1", "in1")
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.phones["out1"].command("hold", call_id=call_id)
    assert fleet.world.run_until(lambda: bool(fleet.phones["out1"].notices("held")), within=10.0)
    fleet.world.run(5.0)
    fleet.phones["out1"].command("resume", call_id=call_id)
    fleet.world.run(5.0)
    assert fleet.uplink_of(call_id) == SECOND
    in_order(fleet, call_id)


@pytest.mark.req("R18")
def test_a_move_refreshes_the_session_timer() -> None:
    fleet = Fleet(inside=1, outside=1, phone={"session_expires": 90})
    call_id = fleet.call("in1", "out1")
    fleet.cut(0)
    fleet.world.run(400.0)
    in_order(fleet, call_id)


@pytest.mark.req("R18")
@pytest.mark.parametrize("caller", ["in1", "out1"])
def test_session_timers_run_through_the_gateway(caller: str) -> None:
    fleet = Fleet(inside=1, outside=1, phone={"session_expires": 90}, rtp_every=0.1)
    call_id = fleet.call(caller, "out1" if caller == "in1" else "in1")
    fleet.world.run(300.0)
    in_order(fleet, call_id)


@pytest.mark.req("R4", "R18")
def test_a_phones_session_refresh_takes_a_challenged_move_along() -> None:
    """It is an UPDATE without a description (RFC 4028 §7.4); the gateway's offer travels in it."""
    fleet = Fleet(inside=1, outside=1, phone={"session_expires": 90})
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    fleet.refuse_moves("out1", (407, f"Proxy-Authenticate: {CHALLENGE}"))
    fleet.cut(0)
    fleet.world.run(5.0)
    assert outcome(fleet) == {"waiting": 1}
    assert not fleet.talking(call_id, "in1")
    fleet.world.run(60.0)
    assert outcome(fleet) == {"verified": 1}
    assert fleet.disagreements(call_id, "in1", "out1") == []
    assert fleet.offers_broken() == []
    in_order(fleet, call_id)


@pytest.mark.req("R4", "R5")
def test_holding_a_call_takes_its_challenged_move_along() -> None:
    fleet, call_id, _ = moved((401, f"WWW-Authenticate: {CHALLENGE}"))
    assert outcome(fleet) == {"waiting": 1}
    fleet.phones["in1"].command("hold", call_id=call_id)
    fleet.world.run(1.0)
    fleet.phones["in1"].command("resume", call_id=call_id)
    fleet.world.run(3.0)
    assert fleet.disagreements(call_id, "in1", "out1") == []
    assert outcome(fleet)["verified"] == 1
    in_order(fleet, call_id)

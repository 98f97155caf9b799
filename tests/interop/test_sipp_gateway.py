"""Every pair of SIPp scenarios through the gateway, out of the mobile network and into it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from sipnemo.lab.processes import secret
from sipnemo.sip.digest import ha1, parse_answer, response_for

from .gateway import INSIDE, UPLINKS, GatewayWorld, tail
from .programs import Kamailio
from .sippkit import (
    PAIRS,
    Agent,
    Outcome,
    Wire,
    copies,
    cseq_is_consistent,
    hides,
    is_one_dialog,
    leads_through,
    media_goes_to,
    register,
    run_pair,
)

pytestmark = pytest.mark.programs("kamailio", "sipp", "openssl")

Way = Literal["out", "in"]
WAYS: tuple[Way, ...] = ("out", "in")
SECRET = "wonder"
TRUNK_PASSWORD = "gate way"
RUNS = itertools.count()


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    trunk = {"realm": "trunk", "username": "fleet", "password_file": str(secret(directory, "trunk", TRUNK_PASSWORD))}
    # Each test cuts uplink1 anew and wants its call to begin there: it shall not be taken for one that flaps.
    with GatewayWorld(directory, {"[[trunk]]": trunk, "[damping]": {"suppress": 1000.0}}) as world:
        Kamailio(world.hosts["server"], "proxy", {"alice": SECRET}).start()
        yield world


@pytest.fixture(scope="module")
def registered(world: GatewayWorld) -> dict[Wire, Agent]:
    """Agents behind the gateway, registered by it at their own server over each transport."""
    domain = world.hosts["server"].address
    agents: dict[Wire, Agent] = {
        "udp": Agent(world.hosts["mn1"], "alice", domain, 5070),
        "tcp": Agent(world.hosts["mn2"], "alice", domain, 5072),
    }
    register(agents["udp"], SECRET, f"{INSIDE}:5060", world.directory / "register")
    return agents


def run(world: GatewayWorld, inside: Agent, way: Way, name: str, tag: str = "", **options: object) -> Outcome:
    """Run a pair; what must hold in every dialog through the gateway is checked."""
    directory = world.directory / f"{name}-{way}{tag}"
    place = world.hosts["cn1"].address
    # A port of its own for every run: the late end of a call that failed must not meet the next one.
    outside = Agent(world.hosts["cn1"], "correspondent", place, 5100 + next(RUNS))
    caller, called = (inside, outside) if way == "out" else (outside, inside)
    remote = f"{INSIDE}:5060" if way == "out" else f"{inside.domain}:5060"
    target = f"sip:{outside.user}@{outside.contact}" if way == "out" else inside.uri
    try:
        outcome = run_pair(name, caller, called, remote, directory, target, **options)  # type: ignore[arg-type]
    except AssertionError as error:
        raise AssertionError(f"{error}\n--- nms\n{tail(world.servers[-1].log)}") from None
    is_one_dialog(outcome)
    cseq_is_consistent(outcome)
    seen_inside, seen_outside = (outcome.caller, outcome.called) if way == "out" else (outcome.called, outcome.caller)
    hides(outcome, seen_outside, "10.7.0.")
    hides(outcome, seen_inside, place, ("Via", "Record-Route", "Route"))
    leads_through(outcome, seen_inside, INSIDE)
    media_goes_to(outcome, seen_outside, set(UPLINKS.values()))
    media_goes_to(outcome, seen_inside, {INSIDE})
    return outcome


@pytest.mark.req("MH-10", "MH-11", "RO-6", "RO-7", "RO-8", "RO-9")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PAIRS)
def test_pair(world: GatewayWorld, registered: dict[Wire, Agent], name: str, way: Way) -> None:
    outcome = run(world, registered["udp"], way, name, keys={"padding": "x" * 400})
    if name == "retransmissions":
        invites = copies(outcome.called, "INVITE", "INVITE")
        assert len(invites) >= 2, "the gateway repeats an INVITE that is not answered"
        assert len({invite.text for invite in invites}) == 1, "and repeats it as it was (RFC 3261 section 17.1.1.2)"
        assert len(copies(outcome.caller, "SIP/2.0 200", "INVITE")) >= 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [700, 3500])
def test_an_invite_of_many_fragments_arrives_whole(
    world: GatewayWorld, registered: dict[Wire, Agent], size: int, way: Way
) -> None:
    """Header and body each get that much longer; nobody listens on TCP, so UDP remains (RFC 3261 section 18.1.1)."""
    outcome = run(world, registered["udp"], way, "large", f"-{size}", keys={"padding": "x" * size})
    assert all(len(invite.text) > 2 * size for invite in copies(outcome.called, "INVITE", "INVITE"))


def test_a_long_invite_goes_by_tcp_where_the_far_end_takes_it(
    world: GatewayWorld, registered: dict[Wire, Agent]
) -> None:
    outcome = run(world, registered["udp"], "out", "large", "-tcp", keys={"padding": "x" * 700}, called_wire="tcp")
    assert "SIP/2.0/TCP" in copies(outcome.called, "INVITE", "INVITE")[0].header("Via")


def test_a_call_over_tcp(world: GatewayWorld, registered: dict[Wire, Agent]) -> None:
    register(registered["tcp"], SECRET, f"{INSIDE}:5060", world.directory / "register-tcp", "tcp")
    outcome = run(world, registered["tcp"], "out", "basic", "-tcp", wire="tcp", called_wire="udp")
    assert "SIP/2.0/UDP" in copies(outcome.called, "INVITE", "INVITE")[0].header("Via")


@pytest.mark.req("MH-12", "R5", "RO-8", "RO-10")
@pytest.mark.parametrize("refusal", ["491 Request Pending", "500 Server Error", "503 Service Unavailable"])
def test_a_refused_move_is_tried_again_and_the_dialog_goes_on_both_ways(
    world: GatewayWorld, registered: dict[Wire, Agent], refusal: str
) -> None:
    with world.calm():
        outcome = run(
            world,
            registered["udp"],
            "out",
            "moved_out",
            refusal[:3],
            called_says={"491 Request Pending": refusal},
            meanwhile=lambda: world.cut("uplink1", "silent"),
        )
        invites = [m.header("Contact") for m in copies(outcome.called, "INVITE", "INVITE")]
        assert all(UPLINKS["uplink2"] in contact for contact in invites[1:]), invites


@pytest.mark.req("R5", "R6")
def test_a_re_invite_of_the_far_end_meets_ours_and_both_come_through(
    world: GatewayWorld, registered: dict[Wire, Agent]
) -> None:
    """RFC 3261 section 14.1: 491 both ways, and who made the Call-ID waits longer."""
    with world.calm():
        outcome = run(world, registered["udp"], "out", "moved_glare", meanwhile=lambda: world.cut("uplink1", "silent"))
    assert sum(m.status == 491 for m in outcome.called if not m.sent) == 1
    assert sum(m.status == 491 for m in outcome.called if m.sent) == 1


@pytest.mark.req("R4", "R6")
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("status", [401, 407])
def test_a_challenged_move_is_signed_with_the_trunks_credentials(
    world: GatewayWorld, registered: dict[Wire, Agent], status: int, algorithm: str
) -> None:
    asks = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    signs = "Authorization" if status == 401 else "Proxy-Authorization"
    challenge = f'{asks}: Digest realm="trunk", nonce="{status}{algorithm}", qop="auth", algorithm={algorithm}'
    with world.calm():
        outcome = run(
            world,
            registered["udp"],
            "out",
            "moved_out",
            f"{status}{algorithm}",
            called_says={"491 Request Pending": f"{status} Who Are You", "Retry-After: 1": challenge},
            meanwhile=lambda: world.cut("uplink1", "silent"),
        )
    signed = next(m for m in outcome.called if not m.sent and m.method == "INVITE" and m.header(signs))
    answer = parse_answer(signed.header(signs))
    assert answer is not None
    assert (answer.realm, answer.nonce, answer.nc) == ("trunk", f"{status}{algorithm}", 1)
    user = ha1(algorithm, "fleet", "trunk", TRUNK_PASSWORD)
    assert answer.response == response_for(answer, user, "INVITE", "")


def test_nothing_is_left_of_any_of_these_calls(world: GatewayWorld) -> None:
    with world.calm():
        pass

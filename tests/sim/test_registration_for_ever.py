"""R12: whatever the SIP-HS does, registration comes back by itself, and nobody is hammered meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.fleet import HOME, INSIDE, Fleet
from sim.moody_home import Home, Refusal
from sipnemo.roles.nms.settings import ProbeSettings
from sipnemo.roles.node import SendFailed
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, uri_of

pytestmark = pytest.mark.req("R12")

BOTH = {1: "sip:198.51.100.7:5060", 2: "sip:203.0.113.7:5060"}
MINUTE, HOUR = 60.0, 3600.0
RARELY = {"probe": ProbeSettings(probe_idle_every=20.0)}
"Probes cost time when hours are played."


def fleet_and_home(**options: object) -> tuple[Fleet, Home]:
    fleet = Fleet(inside=0, outside=0, **options)  # type: ignore[arg-type]
    return fleet, Home(fleet)


def refresh(fleet: Fleet) -> None:
    """All flows register now."""
    for flow in fleet.nms_node.home.flows.values():
        flow.register(fleet.world.now)


def reasons(fleet: Fleet) -> list[str]:
    return [str(log.fields["why"]) for _, log in fleet.nms.logs if log.text == "not registered at home"]


def registered(fleet: Fleet) -> bool:
    return all(flow.registered and not flow.refused for flow in fleet.nms_node.home.flows.values())


def challenge(realm: str, nonce: str, algorithm: str = "SHA-256", stale: bool = False) -> Refusal:
    value = f'Digest realm="{realm}", nonce="{nonce}", qop="auth", algorithm={algorithm}'
    return 401, (f"WWW-Authenticate: {value}{', stale=true' if stale else ''}",)


def ever_new_nonces() -> Callable[[Request], Refusal | None]:
    count = iter(range(1_000_000))
    return lambda _request: challenge("home.example", f"n{next(count)}", stale=True)


@pytest.mark.parametrize(
    ("mood", "most", "back"),
    [
        # Per flow, in the first half hour: after 0, 1, 3, 7, 15 and 30 minutes at most, and before its binding ends.
        pytest.param((503, ()), 20, 30 * MINUTE, id="503"),
        pytest.param((503, ("Retry-After: 120",)), 32, 3 * MINUTE, id="503 with Retry-After"),
        pytest.param((500, ()), 20, 30 * MINUTE, id="500"),
        pytest.param((408, ()), 20, 30 * MINUTE, id="408"),
        pytest.param((603, ()), 20, 30 * MINUTE, id="603"),
        pytest.param((403, ()), 10, 30 * MINUTE, id="403"),
        pytest.param((404, ()), 10, 30 * MINUTE, id="404"),
        pytest.param((423, ()), 20, 30 * MINUTE, id="423 that does not say what it wants"),
        pytest.param((423, ("Min-Expires: 99999999",)), 20, 30 * MINUTE, id="423 that wants a year"),
        pytest.param((400, ()), 30, 30 * MINUTE, id="400"),
        pytest.param((439, ()), 30, 30 * MINUTE, id="439 for ever"),
        pytest.param(challenge("home.example", "n"), 30, 30 * MINUTE, id="401 for ever"),
        pytest.param(challenge("other.example", "n"), 30, 30 * MINUTE, id="401 of a new realm for ever"),
        pytest.param(ever_new_nonces(), 40, 30 * MINUTE, id="401 stale for ever"),
        pytest.param((401, ()), 10, 30 * MINUTE, id="401 without a challenge"),
        pytest.param((302, ("Contact: <sip:elsewhere>",)), 20, 30 * MINUTE, id="302"),
    ],
)
def test_a_refused_registration_is_tried_ever_more_slowly_and_comes_back(
    mood: Refusal | Callable[[Request], Refusal | None], most: int, back: float
) -> None:
    fleet, home = fleet_and_home(nms=RARELY)
    home.refuse(mood)
    began = fleet.world.now
    refresh(fleet)
    fleet.world.run(30 * MINUTE)
    asked = home.asked(began)
    assert 4 <= len(asked) <= most
    later = [at for at, _ in asked if at > began + 5.0]
    assert len(reasons(fleet)) <= 6, "said once, not with every try"
    assert later
    home.refuse(None)
    assert fleet.world.run_until(lambda: registered(fleet), within=back, step=1.0)
    assert home.listed() == BOTH
    assert len(fleet.nms_node.paths.on()) == 2


def test_a_wrong_password_is_explained_and_never_hammered() -> None:
    fleet, home = fleet_and_home(nms=RARELY)
    home.refuse((403, ()))
    refresh(fleet)
    fleet.world.run(8 * HOUR)
    assert len(home.asked(fleet.world.now - HOUR)) <= 2 * 5
    (said,) = set(reasons(fleet))
    assert "check [nms] account and password_file" in said


def test_423_is_obeyed() -> None:
    fleet, home = fleet_and_home()

    def wants_longer(request: Request) -> Refusal | None:
        short = ";expires=600" in request.value("contact")
        return (423, ("Min-Expires: 1200",)) if short else None

    home.refuse(wants_longer)
    refresh(fleet)
    fleet.world.run(1.0)
    assert registered(fleet)
    assert not reasons(fleet)


def test_439_registers_without_outbound() -> None:
    fleet, home = fleet_and_home()
    registrar = Lists()
    home.refuse(lambda request: (439, ()) if "reg-id" in request.value("contact") else registrar(request))
    refresh(fleet)
    fleet.world.run(1.0)
    assert registered(fleet)
    last = [request for _, request in home.asked()][-1]
    assert not last.has_token("supported", "outbound")
    assert "reg-id" not in last.value("contact")


class Lists:
    """A registrar of another make: it lists whatever it has been told."""

    def __init__(self) -> None:
        self._contacts: dict[str, str] = {}

    def __call__(self, request: Request) -> Refusal:
        for value in request.values("contact"):
            self._contacts[uri_of(value)] = value
            if value.endswith("expires=0"):
                del self._contacts[uri_of(value)]
        return 200, tuple(f"Contact: {value}" for value in self._contacts.values())


@pytest.mark.parametrize(
    "mood",
    [
        pytest.param(challenge("home.example", "fresh", stale=True), id="stale"),
        pytest.param(challenge("new.example", "fresh"), id="new realm"),
        pytest.param(challenge("home.example", "fresh", "MD5"), id="algorithm changed"),
    ],
)
def test_a_new_challenge_is_answered_at_once(mood: Refusal) -> None:
    fleet, home = fleet_and_home()
    began = fleet.world.now
    registrar = Lists()
    for flow in fleet.nms_node.home.flows.values():
        registrar._contacts[flow.uri] = flow.contact

    def once_each(request: Request) -> Refusal | None:
        seen = [known for _, known in home.asked(began) if known.value("contact") == request.value("contact")]
        return mood if len(seen) == 1 else registrar(request)

    home.refuse(once_each)
    refresh(fleet)
    fleet.world.run(1.0)
    assert registered(fleet)
    assert len(home.asked(began)) == 4


def test_a_name_that_dns_does_not_know_is_asked_again_soon() -> None:
    fleet, _ = fleet_and_home()
    known = fleet.world.names.pop(("home.example", "A"))
    fleet.nms.kill()
    fleet.nms.restart()
    fleet.world.inside_link(fleet.nms, "lan0", INSIDE)
    for uplink in fleet.uplinks:
        fleet.world.tell(fleet.nms, uplink)
    fleet.world.run(10 * MINUTE)
    assert set(reasons(fleet)) == {"home cannot be located"}
    fleet.world.names["home.example", "A"] = known
    assert fleet.world.run_until(lambda: registered(fleet), within=3 * MINUTE)


def test_a_connection_that_is_refused_and_one_that_ends() -> None:
    fleet, home = fleet_and_home(nms={"home": "sip:home.example;transport=tcp"})
    assert registered(fleet)
    assert {flow.carrier.local.transport for flow in fleet.nms_node.home.flows.values() if flow.carrier} == {"TCP"}
    home.restart(after=20.0)  # every connection is reset, new ones are refused for a while
    fleet.world.run(10.0)
    assert registered(fleet)
    record = home.record
    assert record is not None
    assert all(binding.flow in home.node.connected for binding in record.bindings.values())


@pytest.mark.parametrize("away", [2.0, 20.0, 300.0, HOUR])
@pytest.mark.parametrize("empty", [False, True])
def test_a_home_server_that_was_away_is_found_again_at_once(away: float, empty: bool) -> None:
    fleet, home = fleet_and_home()
    home.restart(empty, after=away)
    began = fleet.world.now
    assert fleet.world.run_until(lambda: home.listed() == BOTH and registered(fleet), within=15.0)
    fleet.world.run(MINUTE)
    assert len(home.asked(began)) <= 10


def test_a_home_server_that_lost_everything_in_a_blink_is_noticed_by_its_new_name() -> None:
    fleet, home = fleet_and_home()
    home.restart(empty=True)
    assert fleet.world.run_until(lambda: home.listed() == BOTH, within=10.0)


def test_a_host_that_refuses_packets_tells_that_its_server_is_being_restarted() -> None:
    fleet, home = fleet_and_home()
    home.restart(empty=True)
    home.node._told_until = 0.0  # a server that says nothing of itself
    path = fleet.nms_node.paths.all[0]
    fleet.nms.handle(SendFailed(Flow(path.locals["UDP"], (HOME, 5060)), "Connection refused"))
    assert fleet.world.run_until(lambda: home.listed() == BOTH, within=10.0)


def test_a_refresh_that_fails_is_tried_again_before_the_binding_ends() -> None:
    fleet, home = fleet_and_home(nms=RARELY)
    fleet.world.run(400.0)
    home.refuse((500, ()))
    fleet.world.run(170.0)  # refreshes are due after 450 to 510 seconds, bindings end after 600
    home.refuse(None)
    assert fleet.world.run_until(lambda: registered(fleet), within=45.0)
    assert len(reasons(fleet)) <= 2


def test_a_slow_home_server_is_waited_for() -> None:
    fleet, home = fleet_and_home()
    home.slow(10.0)
    began = fleet.world.now
    refresh(fleet)
    fleet.world.run(25 * MINUTE)
    assert registered(fleet)
    assert home.listed() == BOTH
    assert not reasons(fleet)
    # Each is repeated while it waits (Timer E), and a challenge is not remembered as answered.
    assert len(home.asked(began)) <= 40


def test_no_flow_stays_in_back_off_when_its_path_changes() -> None:
    fleet, home = fleet_and_home()
    home.refuse((500, ()))
    refresh(fleet)
    fleet.world.run(20 * MINUTE)
    home.refuse(None)
    fleet.readdress(0, "198.51.100.99")
    fleet.world.run(1.0)
    assert home.listed()[1] == "sip:198.51.100.99:5060"


def test_a_thousand_gateways_do_not_come_back_in_one_instant() -> None:
    """What one gateway waits is drawn from its own seed: the fleet's REGISTERs are spread over seconds."""
    waits = []
    for seed in range(40):
        fleet, home = fleet_and_home(seed=seed, settle=0.5)
        home.restart(after=30.0)
        began = fleet.world.now
        fleet.world.run(20.0)
        first = [at - began for at, request in home.asked(began)]
        assert len(first) <= 8
        waits.append(first[0])
    tenths = [sum(1 for wait in waits if tenth <= wait * 10 < tenth + 1) for tenth in range(100)]
    assert max(tenths) <= 8, "at most a fifth of the fleet in the same tenth of a second"
    assert max(waits) <= 8.0
    assert max(waits) - min(waits) >= 1.0

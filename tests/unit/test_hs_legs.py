"""Several copies of one request on their way to one SIP-NMS: which answer is the SIP-NMS's, and how soon it comes."""

from __future__ import annotations

import pytest
from hs_world import Gateway, Home, Peer


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def gateway(home: Home) -> Gateway:
    return Gateway(home, paths=3)


@pytest.fixture
def uri(gateway: Gateway) -> str:
    uri = gateway.register()
    for path in gateway.paths:
        path.inbox.clear()
    return uri


@pytest.fixture
def caller(home: Home) -> Peer:
    return Peer(home, ("203.0.113.9", 5060))


@pytest.mark.req("MH-11", "RO-7")
@pytest.mark.parametrize("inside", [pytest.param(False, id="initial"), pytest.param(True, id="within a dialog")])
@pytest.mark.parametrize("status", [302, 404, 407, 480, 481, 486, 491, 504, 603])
def test_what_the_gateway_answers_over_any_path_is_its_answer(
    home: Home, gateway: Gateway, uri: str, caller: Peer, inside: bool, status: int
) -> None:
    one, two, three = gateway.paths
    one.dead = True
    caller.request("INVITE", uri, to=f"<{uri}>;tag=t" if inside else "")
    home.run(0.9 if inside else 2.1)
    two.answer(two.got("INVITE"), status)
    assert caller.starts == ["100", str(status)]
    sent = len(one.starts)
    home.run(40)
    one.dead = False
    assert (len(one.starts), three.starts) == (sent, [])
    assert caller.starts[1:] == [str(status)] * (len(caller.starts) - 1)
    home.run(100)
    assert home.clean


@pytest.mark.req("MH-11")
@pytest.mark.parametrize(("status", "upstream"), [(408, "408"), (503, "500")])
def test_a_gateway_that_cannot_is_asked_by_its_other_paths_and_then_believed(
    home: Home, gateway: Gateway, uri: str, caller: Peer, status: int, upstream: str
) -> None:
    one, two, three = gateway.paths
    one.dead = True
    caller.request("INVITE", uri)
    home.run(2.1)
    two.answer(two.got("INVITE"), status)
    assert caller.starts == ["100"]
    three.answer(three.got("INVITE"), status)
    assert caller.starts == ["100", upstream]


@pytest.mark.req("MH-11")
def test_that_one_flow_has_failed_says_nothing_of_the_others(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two, three = gateway.paths
    caller.request("INVITE", uri)
    home.run(2.1)
    two.answer(two.got("INVITE"), 430)
    three.answer(three.got("INVITE"), 430)
    assert caller.starts == ["100"]
    one.answer(one.got("INVITE"), 486)
    assert caller.starts == ["100", "486"]


@pytest.mark.req("MH-11")
@pytest.mark.parametrize(
    ("method", "inside", "merged"),
    [
        pytest.param("INVITE", False, 482, id="a call"),
        pytest.param("INVITE", True, 500, id="a re-INVITE: its CSeq is known already"),
        pytest.param("INFO", True, 500, id="any other request within a dialog"),
    ],
)
def test_the_answer_that_a_dead_path_swallowed_is_fetched_by_the_path_that_works(
    home: Home, gateway: Gateway, uri: str, caller: Peer, method: str, inside: bool, merged: int
) -> None:
    """The SIP-NMS has the first copy, and its answer is lost: the same transaction comes by the other path."""
    one, two, _ = gateway.paths
    caller.request(method, uri, to=f"<{uri}>;tag=t" if inside else "")
    first = one.got(method)
    one.dead = True
    home.run(0.9 if inside else 2.1)
    two.answer(two.got(method), merged)
    assert two.got(method).branch == first.branch
    two.answer(first, 200)
    assert caller.starts[-1] == "200"
    home.run(140)
    assert home.clean


def test_what_is_refused_by_either_way_is_refused(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two, _ = gateway.paths
    one.dead = True
    caller.request("INVITE", uri, to=f"<{uri}>;tag=t")
    home.run(0.9)
    two.answer(two.got("INVITE"), 500)
    two.answer(two.got("INVITE"), 500)
    assert caller.starts == ["100", "500"]


def test_a_copy_that_arrives_after_the_answer_rings_nowhere(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two, _ = gateway.paths
    caller.request("INVITE", uri)
    first = one.got("INVITE")
    home.run(2.1)
    two.answer(two.got("INVITE"), 486)
    one.answer(first, 180)
    assert one.starts[-1] == "CANCEL"
    one.answer(one.got("CANCEL"), 200)
    one.answer(first, 487)
    assert caller.starts == ["100", "486"]
    home.run(140)
    assert home.clean


@pytest.mark.parametrize("status", [200, 486])
def test_no_copy_is_taken_to_another_path_when_the_answer_is_there(
    home: Home, gateway: Gateway, uri: str, caller: Peer, status: int
) -> None:
    one, two, _ = gateway.paths
    one.dead = True
    caller.request("INVITE", uri)
    home.run(2.1)
    two.answer(two.got("INVITE"), status)
    before = two.starts.count("INVITE")
    two.register(gateway.contact(1, extra=";expires=0"))  # the path has gone
    home.run(60)
    assert two.starts.count("INVITE") == before


def test_the_copies_of_a_message_end_with_its_answer(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two, _ = gateway.paths
    caller.request("MESSAGE", uri)
    home.run(2.1)
    two.answer(two.got("MESSAGE"), 200)
    sent = len(one.starts)
    home.run(20)
    assert len(one.starts) == sent
    assert caller.starts == ["200"]


def test_a_hang_up_waits_for_no_dead_path(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two, _ = gateway.paths
    one.dead = True
    branch = caller.request("INVITE", uri)
    home.run(2.1)
    two.answer(two.got("INVITE"), 180)
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    two.answer(two.got("CANCEL"), 200)
    two.answer(two.got("INVITE"), 487)
    assert caller.starts == ["100", "180", "200", "487"]


# ------------------------------------------------------------------------------------------------- within a dialog


@pytest.mark.req("MH-11", "RO-7")
@pytest.mark.parametrize("method", ["BYE", "INVITE", "INFO", "UPDATE"])
def test_within_a_dialog_a_silent_path_is_followed_in_less_than_a_second(
    home: Home, gateway: Gateway, uri: str, caller: Peer, method: str
) -> None:
    one, two, three = gateway.paths
    one.dead = True
    caller.request(method, uri, to=f"<{uri}>;tag=t")
    home.run(0.9)
    assert (two.starts, three.starts) == ([method], [])
    two.answer(two.got(method), 200)
    assert caller.starts[-1] == "200"
    caller.request(method, uri, to=f"<{uri}>;tag=t")
    assert two.starts[-1] == method  # the path that did not answer comes last now


def test_a_slow_phone_puts_no_path_under_suspicion(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two, _ = gateway.paths
    caller.request("INFO", uri, to=f"<{uri}>;tag=t")
    home.run(0.9)
    two.answer(two.got("INFO"), 500)
    one.answer(one.got("INFO"), 200)
    assert caller.starts == ["200"]
    assert not home.node.suspects

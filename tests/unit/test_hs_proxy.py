"""The SIP-HS in front of its SIP-NMSs: by Priority, with fall-back, and in the dialog by Route."""

from __future__ import annotations

import pytest
from hs_world import TCP, Gateway, Home, Peer

from sipnemo.roles.node import Closed, Received
from sipnemo.sip.message import Response
from sipnemo.sip.parser import parse


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
def test_an_invite_takes_the_best_path_and_keeps_its_request_uri(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", f"{uri};mn=k3", "X-Any: kept,  as it came", body="v=0\r\n", forwards=5)
    assert [path.starts for path in gateway.paths] == [["INVITE"], [], []]
    invite = gateway.paths[0].got("INVITE")
    assert invite.uri == f"{uri};mn=k3"
    assert invite.values("record-route") == [f"<{uri};lr>"]
    assert invite.value("max-forwards") == "4"
    assert "X-Any: kept,  as it came" in invite.lines
    assert invite.body == "v=0\r\n"
    assert len(invite.values("via")) == 2
    assert caller.starts == ["100"]


@pytest.mark.req("RO-7")
@pytest.mark.parametrize(
    ("method", "there", "added"),
    [
        pytest.param("INVITE", "", True, id="INVITE"),
        pytest.param("SUBSCRIBE", "", True, id="SUBSCRIBE"),
        pytest.param("REFER", "", True, id="REFER"),
        pytest.param("MESSAGE", "", False, id="MESSAGE begins no dialog"),
        pytest.param("INVITE", "Record-Route: <{uri};lr>", False, id="never twice"),
        pytest.param(
            "INVITE", "Record-Route: <sip:a@b;lr>, <{uri};transport=udp;lr>", False, id="never twice, in a list"
        ),
        pytest.param("INVITE", "Record-Route: <sip:other@home.example;lr>", True, id="another's"),
    ],
)
def test_record_route(gateway: Gateway, uri: str, caller: Peer, method: str, there: str, added: bool) -> None:
    lines = [there.format(uri=uri)] if there else []
    caller.request(method, uri, *lines)
    before = sum(len(line.split("<")) - 1 for line in lines)
    routes = gateway.paths[0].got(method).values("record-route")
    assert len(routes) == before + added
    assert not added or routes[0] == f"<{uri};lr>"


@pytest.mark.req("MH-11")
def test_answers_pass_back_and_nothing_is_left(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    invite = gateway.paths[0].got("INVITE")
    for status in (100, 180, 183, 200):
        gateway.paths[0].answer(invite, status, body="v=0\r\n" if status > 180 else "")
    assert caller.starts == ["100", "180", "183", "200"]
    last = caller.inbox[-1]
    assert len(last.values("via")) == 1
    assert last.values("record-route") == [f"<{uri};lr>"]
    home.run(40)
    assert home.clean
    assert not home.node.calls


def test_every_2xx_passes_also_a_repeated_one_and_a_forked_one(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    invite = gateway.paths[0].got("INVITE")
    for tag in ("a", "a", "b"):
        gateway.paths[0].answer(invite, 200, tag=tag)
    assert [item.to_tag for item in caller.inbox[1:]] == ["a", "a", "b"]


def test_forked_provisionals_pass(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    invite = gateway.paths[0].got("INVITE")
    gateway.paths[0].answer(invite, 183, "Require: 100rel", "RSeq: 1", tag="a")
    gateway.paths[0].answer(invite, 183, "Require: 100rel", "RSeq: 7", tag="b")
    assert [item.value("rseq") for item in caller.inbox[1:]] == ["1", "7"]


@pytest.mark.req("MH-11")
def test_a_silent_path_is_followed_by_the_next(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    gateway.paths[0].dead = True
    caller.request("INVITE", uri)
    home.run(1.9)
    assert gateway.paths[1].starts == []
    home.run(0.2)
    assert gateway.paths[1].starts == ["INVITE"]
    assert gateway.paths[2].starts == []
    gateway.paths[1].answer(gateway.paths[1].got("INVITE"), 180)
    gateway.paths[1].answer(gateway.paths[1].got("INVITE"), 200)
    home.run(100)
    assert caller.starts == ["100", "180", "200"]
    assert gateway.paths[2].starts == []
    assert home.clean


@pytest.mark.req("MH-11")
def test_all_paths_silent_ends_with_408(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    for path in gateway.paths:
        path.dead = True
    caller.request("INVITE", uri)
    home.run(40)
    assert caller.starts[:2] == ["100", "408"]
    home.run(100)
    assert home.clean


@pytest.mark.req("MH-11")
def test_a_path_that_was_silent_comes_last_until_it_is_heard(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    gateway.paths[0].dead = True
    caller.request("OPTIONS", uri)
    home.run(2.1)
    gateway.paths[1].answer(gateway.paths[1].got("OPTIONS"), 200)
    caller.request("OPTIONS", uri)
    assert gateway.paths[1].starts == ["OPTIONS", "OPTIONS"]  # without a pause
    gateway.paths[0].dead = False
    gateway.paths[0].send("\0\1\0\0\x21\x12\xa4\x42abcdefghijkl")
    caller.request("OPTIONS", uri)
    assert gateway.paths[0].starts == ["OPTIONS"]


@pytest.mark.req("MH-11")
def test_a_network_error_tries_the_next_path_at_once(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    gateway.paths[0].unreachable()
    assert gateway.paths[1].starts == ["INVITE"]
    gateway.paths[1].unreachable()
    gateway.paths[2].unreachable()
    assert caller.starts == ["100", "480"]


@pytest.mark.req("MH-11")
@pytest.mark.parametrize(
    ("status", "following", "upstream"),
    [
        pytest.param(430, True, "430", id="flow failed"),
        pytest.param(503, True, "500", id="unavailable"),
        pytest.param(408, True, "408", id="timeout"),
        pytest.param(480, False, "480", id="the phone is not there: no path helps"),
        pytest.param(486, False, "486", id="busy"),
        pytest.param(404, False, "404", id="no such phone"),
        pytest.param(603, False, "603", id="declined"),
        pytest.param(302, False, "302", id="moved"),
    ],
)
def test_which_answers_try_the_next_path(
    gateway: Gateway, uri: str, caller: Peer, status: int, following: bool, upstream: str
) -> None:
    caller.request("INVITE", uri)
    gateway.paths[0].answer(gateway.paths[0].got("INVITE"), status)
    assert gateway.paths[0].starts == ["INVITE", "ACK"]
    assert gateway.paths[1].starts == (["INVITE"] if following else [])
    if following:
        gateway.paths[1].answer(gateway.paths[1].got("INVITE"), status)
        gateway.paths[2].answer(gateway.paths[2].got("INVITE"), status)
    assert caller.starts == ["100", upstream]


def test_after_a_provisional_no_other_path_is_tried(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    gateway.paths[0].answer(gateway.paths[0].got("INVITE"), 100)
    home.run(60)
    assert gateway.paths[1].starts == []
    gateway.paths[0].answer(gateway.paths[0].got("INVITE"), 503)
    assert caller.starts == ["100", "500"]


def test_a_late_first_path_and_a_merged_request_make_one_call(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two, _ = gateway.paths
    caller.request("INVITE", uri)
    home.run(2.5)
    two.answer(two.got("INVITE"), 482)  # the SIP-NMS has the call from the first path already
    assert caller.starts == ["100"]
    one.answer(one.got("INVITE"), 180)
    one.answer(one.got("INVITE"), 200)
    assert caller.starts == ["100", "180", "200"]


def test_the_copy_that_speaks_later_is_cancelled(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two, _ = gateway.paths
    caller.request("INVITE", uri)
    home.run(2.5)
    two.answer(two.got("INVITE"), 180, tag="two")
    one.answer(one.got("INVITE"), 180, tag="one")
    assert one.starts[-1] == "CANCEL"
    assert one.got("CANCEL").branch == one.got("INVITE").branch
    one.answer(one.got("CANCEL"), 200)
    one.answer(one.got("INVITE"), 487, tag="one")
    two.answer(two.got("INVITE"), 200, tag="two")
    assert caller.starts == ["100", "180", "200"]
    assert caller.inbox[-1].to_tag == "two"


def test_a_silent_copy_is_not_repeated_once_another_has_spoken(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two, _ = gateway.paths
    caller.request("INVITE", uri)
    home.run(2.5)
    two.answer(two.got("INVITE"), 180)
    sent = len(one.starts)
    home.run(28)
    assert len(one.starts) == sent
    one.answer(one.got("INVITE"), 100)
    assert one.starts[-1] == "CANCEL"


# --------------------------------------------------------------------------------------------------------- CANCEL


def test_cancel_reaches_the_gateway_and_487_comes_back(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    branch = caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 180)
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    assert caller.starts == ["100", "180", "200"]
    cancel = path.got("CANCEL")
    assert cancel.uri == uri
    assert cancel.branch == path.got("INVITE").branch
    path.answer(cancel, 200)
    path.answer(path.got("INVITE"), 487)
    assert path.starts == ["INVITE", "CANCEL", "ACK"]
    assert caller.starts == ["100", "180", "200", "487"]
    home.run(100)
    assert home.clean


def test_cancel_waits_for_the_first_provisional(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    branch = caller.request("INVITE", uri)
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    path = gateway.paths[0]
    assert path.starts == ["INVITE"]
    home.run(3)
    assert gateway.paths[1].starts == []  # no further path for a call nobody wants
    path.answer(path.got("INVITE"), 100)
    assert path.starts[-1] == "CANCEL"
    path.answer(path.got("CANCEL"), 200)
    path.answer(path.got("INVITE"), 487)
    assert caller.starts == ["100", "200", "487"]


def test_a_gateway_that_ignores_cancel_is_given_up(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    branch = caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 180)
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    home.run(33)
    assert "487" in caller.starts
    home.run(100)
    assert home.clean


def test_cancel_of_nothing_is_answered_481(uri: str, caller: Peer) -> None:
    caller.request("CANCEL", uri)
    assert caller.starts == ["481"]


def test_ringing_ends_after_timer_c(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 180)
    home.run(100)
    path.answer(path.got("INVITE"), 180)
    home.run(150)
    assert "CANCEL" not in path.starts  # a provisional starts Timer C anew
    home.run(60)
    assert "CANCEL" in path.starts
    home.run(60)
    assert caller.starts[-1] in ("408", "487")
    home.run(100)
    assert home.clean


# ------------------------------------------------------------------------------------------------------ in dialogs


@pytest.mark.req("RO-7")
def test_in_dialog_requests_find_the_gateway_by_route(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 200)
    to = caller.inbox[-1].value("to")
    caller.request("ACK", "sip:198.51.7.1:5060;x=1", f"Route: <{uri};lr>", to=to, cseq=1)
    ack = path.got("ACK")
    assert ack.uri == "sip:198.51.7.1:5060;x=1"
    assert not ack.values("route")
    gateway.paths[1].register(gateway.contact(1, extra=";expires=0"))  # the path has gone meanwhile
    caller.request("BYE", "sip:198.51.7.1:5060;x=1", f"Route: <{uri};lr>, <sip:further@elsewhere;lr>", to=to)
    bye = gateway.paths[1].got("BYE")
    assert bye.uri == "sip:198.51.7.1:5060;x=1"
    assert bye.values("route") == ["<sip:further@elsewhere;lr>"]
    assert not bye.values("record-route")
    gateway.paths[1].answer(bye, 200)
    assert caller.starts[-1] == "200"


def test_a_strict_router_before_us_is_understood(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("BYE", f"{uri};lr", "Route: <sip:a@b;lr>, <sip:198.51.7.1;x=1>", to=f"<{uri}>;tag=t1")
    bye = gateway.paths[0].got("BYE")
    assert (bye.uri, bye.values("route")) == ("sip:198.51.7.1;x=1", ["<sip:a@b;lr>"])


def test_our_own_route_without_user_is_taken_off(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri, "Route: <sip:home.example;lr>, <sip:192.0.2.1:5060;lr>")
    assert not gateway.paths[0].got("INVITE").values("route")


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY", "MESSAGE", "PUBLISH", "FOO"])
def test_every_method_passes(gateway: Gateway, uri: str, caller: Peer, method: str) -> None:
    caller.request(method, uri, to=f"<{uri}>;tag=t1")
    gateway.paths[0].answer(gateway.paths[0].got(method), 202)
    assert caller.starts == ["202"]


def test_a_request_that_is_repeated_is_forwarded_once(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    for _ in range(3):
        caller.request("MESSAGE", uri, branch="z9hG4bKsame", cseq=1)
    assert gateway.paths[0].starts == ["MESSAGE"]
    gateway.paths[0].answer(gateway.paths[0].got("MESSAGE"), 200)
    caller.request("MESSAGE", uri, branch="z9hG4bKsame", cseq=1)
    assert caller.starts == ["200", "200"]


# ------------------------------------------------------------------------------------------- connections and names


def test_a_connection_is_reused_and_when_it_has_ended_the_contact_is_called(home: Home) -> None:
    path = Peer(home, ("198.51.7.1", 40001), local=TCP, name="fleet7", password="secret7")
    contact = '<sip:198.51.7.1:5060;transport=tcp>;+sip.instance="<urn:uuid:1>";reg-id=1'
    uri = path.register(contact).value("p-associated-uri").strip("<>")
    caller = Peer(home, ("203.0.113.9", 5060))
    caller.request("OPTIONS", uri)
    assert path.starts[-1] == "OPTIONS"
    assert path.got("OPTIONS").value("via").startswith("SIP/2.0/TCP 192.0.2.1:5060;")
    listener = Peer(home, ("198.51.7.1", 5060), local=TCP)
    home.feed(Closed(path.flow))
    caller.request("OPTIONS", uri)
    assert listener.starts == ["OPTIONS"]
    home = home.restarted()
    caller.request("OPTIONS", uri)
    assert listener.starts == ["OPTIONS", "OPTIONS"]


@pytest.mark.req("RO-11")
def test_below_another_gateway_the_way_leads_through_its_home(home: Home) -> None:
    parent = Peer(home, ("198.51.9.1", 5060), name="fleet7", password="secret7")
    contact = '<sip:fleet9-ab@other.example;mn=k>;+sip.instance="<urn:uuid:1>";reg-id=1'
    uri = parent.register(contact, via="Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKsub").value("p-associated-uri")
    other = Peer(home, ("192.0.2.200", 5060))
    home.names["other.example"] = "192.0.2.200"
    caller = Peer(home, ("203.0.113.9", 5060))
    caller.request("INVITE", uri.strip("<>"))
    invite = other.got("INVITE")
    assert invite.uri == uri.strip("<>")
    assert invite.values("route") == ["<sip:fleet9-ab@other.example;mn=k;lr>"]


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("method", "uri", "lines", "forwards", "status"),
    [
        pytest.param("INVITE", "sip:nobody@home.example", [], 70, 404, id="unknown"),
        pytest.param("INVITE", "sip:alice@home.example", [], 70, 480, id="user without contact"),
        pytest.param("INVITE", "sip:x@elsewhere.example", [], 70, 403, id="relaying"),
        pytest.param(
            "INVITE", "sip:alice@home.example", ["Route: <sip:x@elsewhere;lr>"], 70, 403, id="relaying by Route"
        ),
        pytest.param("REGISTER", "sip:elsewhere.example", [], 70, 403, id="relaying REGISTER"),
        pytest.param("INVITE", "tel:+15551234", [], 70, 416, id="tel"),
        pytest.param("INVITE", "sip:a@b@c", [], 70, 400, id="malformed URI"),
        pytest.param("INVITE", "sip:alice@home.example", ["Route: <nonsense>"], 70, 400, id="malformed Route"),
        pytest.param("INVITE", "sip:alice@home.example", ["Proxy-Require: magic"], 70, 420, id="Proxy-Require"),
        pytest.param("MESSAGE", "sip:alice@home.example", [], 0, 483, id="too many hops"),
        pytest.param("MESSAGE", "sip:alice@home.example", [], "x", 400, id="Max-Forwards"),
        pytest.param("INVITE", "sip:home.example", [], 70, 405, id="call to the server"),
        pytest.param("OPTIONS", "sip:home.example", [], 70, 200, id="OPTIONS"),
        pytest.param("OPTIONS", "sip:home.example", [], 0, 200, id="OPTIONS, last hop"),
        pytest.param("OPTIONS", "sip:192.0.2.1", [], 70, 200, id="OPTIONS to the address"),
        pytest.param("OPTIONS", "sip:home.example:5061", [], 70, 403, id="another port is another server"),
        pytest.param("OPTIONS", "sip:home.example", ["Require: magic"], 70, 420, id="Require"),
    ],
)
def test_answers_of_the_server_itself(
    home: Home, caller: Peer, method: str, uri: str, lines: list[str], forwards: int, status: int
) -> None:
    caller.request(method, uri, *lines, forwards=forwards)
    assert [start for start in caller.starts if start != "100"] == [str(status)]
    assert not home.node.layer.clients


def test_an_in_dialog_request_to_the_server_finds_no_dialog(caller: Peer) -> None:
    caller.request("BYE", "sip:home.example", to="<sip:home.example>;tag=x")
    assert caller.starts == ["481"]


@pytest.mark.req("MH-11")
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param([], "407", id="a challenge"),
        pytest.param(["Max-Breadth: many"], "400", id="a refusal"),
    ],
)
def test_the_ack_of_our_own_refusal_goes_no_further(
    gateway: Gateway, uri: str, caller: Peer, lines: list[str], status: str
) -> None:
    """RFC 3261 §17.1.1.3: hop by hop, also where nothing was kept of the INVITE (§8.2.7)."""
    whose = "<sip:alice@home.example>;tag=a" if status == "407" else ""
    branch = caller.request("INVITE", uri, *lines, from_=whose)
    refusal = caller.inbox[-1]
    assert isinstance(refusal, Response)
    assert caller.starts == [status]
    for _ in range(2):
        caller.request("ACK", uri, branch=branch, cseq=caller.cseq, from_=whose, to=refusal.value("to"))
    assert [path.starts for path in gateway.paths] == [[], [], []]
    caller.request("ACK", uri, cseq=caller.cseq, from_=whose, to=f"<{uri}>;tag=theirs")
    assert gateway.paths[0].starts == ["ACK"]  # of a 2xx: end to end


def test_an_ack_is_never_answered_nor_relayed(home: Home, caller: Peer) -> None:
    caller.request("ACK", "sip:x@203.0.113.77", to="<sip:x@y>;tag=x")
    caller.request("ACK", "sip:nobody@home.example", to="<sip:x@y>;tag=x")
    assert caller.starts == []
    assert home.stray == []


def test_a_request_that_comes_back_unchanged_is_a_loop(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("OPTIONS", uri)
    came = gateway.paths[0].raw[-1].decode("latin-1")
    back = came.replace("Max-Forwards: 69", "Max-Forwards: 68")
    head, _, rest = back.partition("\r\n")
    caller.send(f"{head}\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;rport;branch=z9hG4bKloop\r\n{rest}")
    assert caller.starts == ["482"]
    spiral = head.replace(uri, f"{uri};mn=other")
    caller.send(f"{spiral}\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;rport;branch=z9hG4bKspiral\r\n{rest}")
    assert gateway.paths[0].starts == ["OPTIONS", "OPTIONS"]


def test_responses_of_strangers_are_carried_nowhere(home: Home, caller: Peer) -> None:
    for status in (180, 200, 404):
        caller.send(
            f"SIP/2.0 {status} OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx\r\n"
            "Via: SIP/2.0/UDP 203.0.113.50:5060;branch=z9hG4bKy\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\n"
            "Call-ID: c\r\nCSeq: 1 INVITE\r\n\r\n"
        )
    assert home.stray == []


def test_a_very_late_2xx_still_reaches_the_caller(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 200)
    home.run(60)
    path.answer(path.got("INVITE"), 200)
    assert caller.starts == ["100", "200", "200"]


@pytest.mark.parametrize(
    ("old", "new", "after", "passed"),
    [
        pytest.param("", "", 60.0, True, id="as the INVITE came"),
        pytest.param("tag=f1", "tag=other", 60.0, True, id="whatever else it says"),
        pytest.param("received=203.0.113.9", "received=203.0.113.50", 60.0, False, id="to somebody else"),
        pytest.param("rport=5060", "rport=5999", 60.0, False, id="to another port"),
        pytest.param("branch=z9hG4bK", "branch=z9hG4bKx", 60.0, False, id="of a branch we have not made"),
        pytest.param("", "", 1300.0, False, id="long after the call"),
    ],
)
def test_a_late_2xx_reaches_nobody_but_the_caller(
    home: Home, gateway: Gateway, uri: str, caller: Peer, old: str, new: str, after: float, passed: bool
) -> None:
    """Whoever was sent an INVITE knows how our branches begin; that must not make this server a reflector."""
    victim = Peer(home, ("203.0.113.50", 5060))
    caller.request("INVITE", uri)
    path = gateway.paths[0]
    path.answer(path.got("INVITE"), 200)
    home.run(after)
    before = len(caller.starts)
    path.send(path.sent[-1].decode("latin-1").replace(old, new, 1) if old else path.sent[-1])
    assert len(caller.starts) - before == passed
    assert not victim.inbox
    assert not home.stray


# ------------------------------------------------------------------------------------------------------------ STUN


@pytest.mark.req("MH-3")
def test_stun_is_answered_on_the_sip_socket(home: Home, caller: Peer) -> None:
    caller.send("\0\1\0\0\x21\x12\xa4\x42abcdefghijkl")
    assert caller.raw[-1][:2] == b"\x01\x01"
    assert caller.raw[-1][8:20] == b"abcdefghijkl"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0", id="one octet"),
        pytest.param(b"\0\1\0\0", id="cut"),
        pytest.param(b"\0\1\0\x08\x21\x12\xa4\x42abcdefghijkl", id="wrong length"),
        pytest.param(b"\1\1\0\0\x21\x12\xa4\x42abcdefghijkl", id="a response"),
        pytest.param(b"\r\n\r\n", id="keep-alive"),
        pytest.param(b"\r\n", id="pong"),
        pytest.param(b"hello\r\n\r\n", id="text"),
        pytest.param(b"SIP/2.0 200 OK\r\n\r\n", id="bare response"),
        pytest.param(bytes(range(4, 256)), id="octets"),
    ],
)
def test_garbage_is_not_answered(home: Home, caller: Peer, data: bytes) -> None:
    home.feed(Received(data, caller.flow))
    assert caller.raw == []


def test_commands(home: Home, gateway: Gateway, uri: str) -> None:
    status = home.command("status")
    assert (status["gateways"], status["bindings"], status["domain"]) == (1, 3, "home.example")
    assert [row["uri"] for row in home.command("bindings")["bindings"]] == [uri] * 3
    assert home.command("bindings", user="nobody")["bindings"] == []
    assert "error" in home.command("paths")


def test_what_is_passed_back_is_well_formed(gateway: Gateway, uri: str, caller: Peer) -> None:
    caller.request("INVITE", uri)
    gateway.paths[0].answer(gateway.paths[0].got("INVITE"), 486)
    answer = parse(caller.raw[-1])
    assert isinstance(answer, Response)
    assert (answer.status, answer.reason) == (486, "Whatever")


def test_knowing_a_call_is_no_licence_to_relay() -> None:
    """Within a dialog, requests may leave for elsewhere only whence a call was answered or somebody is registered."""
    home = Home()
    home.names["elsewhere.example"] = "203.0.113.200"
    gateway = Gateway(home)
    uri = gateway.register()
    caller = Peer(home, ("203.0.113.9", 5060))
    caller.request("INVITE", uri, call_id="known")
    gateway.paths[0].answer(gateway.paths[0].got("INVITE"), 200, "Contact: <sip:x@198.51.7.1>")
    stranger = Peer(home, ("203.0.113.66", 5060))
    for source in (stranger, caller):
        for method in ("MESSAGE", "ACK"):
            source.request(method, "sip:v@elsewhere.example", call_id="known", to="<sip:v@elsewhere.example>;tag=x")
    assert not home.stray
    assert stranger.starts == ["403"]
    gateway.paths[1].request("BYE", "sip:v@elsewhere.example", call_id="known", to="<sip:v@elsewhere.example>;tag=x")
    assert len(home.stray) == 1

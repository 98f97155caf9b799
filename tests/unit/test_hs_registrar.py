"""REGISTER at the SIP-HS: assigned URIs, Priorities, flows, spans, order, durability."""

from __future__ import annotations

from typing import Any

import pytest
from hs_world import UDP, Gateway, Home, Peer

from sipnemo.sip.flow import Local
from sipnemo.sip.message import Response


@pytest.fixture
def home() -> Home:
    return Home()


def contacts(answer: Response) -> list[str]:
    return [value.partition(">")[0].lstrip("<") for value in answer.values("contact")]


def test_it_listens_first_and_is_ready(home: Home) -> None:
    assert home.listening == list(home.settings.listen)
    assert [notice.name for notice in home.notices] == ["ready"]


@pytest.mark.req("RO-1", "RO-2")
def test_a_gateway_gets_one_uri_for_all_its_paths_and_for_ever(home: Home) -> None:
    gateway = Gateway(home, paths=2)
    uri = gateway.register()
    assert uri.startswith("sip:fleet7-")
    assert uri.endswith("@home.example")
    assert gateway.register() == uri
    assert gateway.paths[0].register("*", expires=0).status == 200
    home = home.restarted()
    assert gateway.register() == uri


@pytest.mark.req("RO-2")
def test_two_gateways_of_one_account_get_two_uris(home: Home) -> None:
    one, two = Gateway(home, number=1), Gateway(home, number=2)
    assert one.register() != two.register()
    query = one.paths[0].register()
    assert len(contacts(query)) == 4
    assert len(query.value("p-associated-uri").split(",")) == 2


def test_digest_offers_sha_before_md5(home: Home) -> None:
    peer = Peer(home, ("198.51.7.1", 5060))
    peer.request("REGISTER", "sip:home.example", "Contact: <sip:198.51.7.1>", to="<sip:fleet7@home.example>")
    challenges = next(item for item in peer.inbox if isinstance(item, Response)).values_raw("www-authenticate")
    found = [value.partition("algorithm=")[2].partition(",")[0] for value in challenges]
    assert found == ["SHA-256", "SHA-512-256", "MD5"]
    assert all('realm="home.example"' in value for value in challenges)


def test_the_200_tells_every_contact_with_what_it_was_registered(home: Home) -> None:
    gateway = Gateway(home)
    gateway.register()
    home.run(100)
    answer = gateway.paths[0].register(gateway.contact(1), expires=300)
    assert answer.values("contact") == [
        f'<sip:198.51.7.2:5060>;expires=500;q=0.8;+sip.instance="<{gateway.instance}>";reg-id=2',
        f'<sip:198.51.7.1:5060>;expires=300;q=0.9;+sip.instance="<{gateway.instance}>";reg-id=1',
    ]
    assert answer.value("require") == "outbound"
    assert answer.value("date") == "Fri, 15 Jan 2027 08:03:20 GMT"


@pytest.mark.req("MH-7")
def test_a_priority_belongs_to_one_path_of_a_gateway(home: Home) -> None:
    gateway = Gateway(home)
    gateway.register(1)
    answer = gateway.paths[1].register(gateway.contact(2, q=0.9))
    assert (answer.status, answer.reason) == (400, "Priority is not unique")
    assert "reg-id 2 and reg-id 1 cannot both have q=0.9" in answer.value("warning")
    assert contacts(gateway.paths[0].register()) == ["sip:198.51.7.1:5060"]
    assert Gateway(home, number=8).register(1)  # another gateway may have the same


@pytest.mark.req("MH-7")
def test_two_paths_exchange_their_priorities_in_one_register(home: Home) -> None:
    gateway = Gateway(home)
    gateway.register()
    answer = gateway.paths[0].register(gateway.contact(1, q=0.8), gateway.contact(2, q=0.9))
    assert answer.status == 200
    flows = {row["reg_id"]: row["flow"] for row in home.command("bindings")["bindings"]}
    assert flows == {1: "UDP 198.51.7.1:5060", 2: "UDP 198.51.7.2:5060"}


@pytest.mark.req("RO-2")
def test_a_new_address_replaces_the_old_one_of_the_same_path(home: Home) -> None:
    gateway = Gateway(home, paths=1)
    gateway.register()
    moved = Peer(home, ("198.51.100.99", 5060), name="fleet7", password="secret7")
    answer = moved.register(gateway.contact(1).replace("198.51.7.1", "198.51.100.99"))
    assert contacts(answer) == ["sip:198.51.100.99:5060"]


@pytest.mark.req("MH-8")
def test_a_dead_path_is_removed_over_a_surviving_one(home: Home) -> None:
    gateway = Gateway(home)
    gateway.register()
    answer = gateway.paths[1].register(gateway.contact(1, extra=";expires=0"), expires=600)
    assert contacts(answer) == ["sip:198.51.7.2:5060"]
    assert [row["flow"] for row in home.command("bindings")["bindings"]] == ["UDP 198.51.7.2:5060"]


@pytest.mark.parametrize(
    ("asked", "header", "status", "granted"),
    [
        pytest.param("", None, 200, 600, id="default"),
        pytest.param(";expires=60", None, 200, 60, id="contact"),
        pytest.param("", 70, 200, 70, id="header"),
        pytest.param(";expires=60", 70, 200, 60, id="contact before header"),
        pytest.param(";expires=99999999999999", None, 200, 3600, id="cut"),
        pytest.param(";expires=soon", None, 200, 3600, id="malformed counts as an hour"),
        pytest.param(";expires=4", None, 423, 0, id="too brief"),
        pytest.param("", 1, 423, 0, id="too brief in the header"),
        pytest.param(";expires=0", None, 200, 0, id="nothing to remove"),
    ],
)
def test_spans(home: Home, asked: str, header: int | None, status: int, granted: int) -> None:
    gateway = Gateway(home, paths=1)
    answer = gateway.paths[0].register(gateway.contact(1, extra=asked), expires=header)
    assert answer.status == status
    if status == 423:
        assert answer.value("min-expires") == "5"
    else:
        assert [f";expires={granted};" in value for value in answer.values("contact")] == ([True] if granted else [])


@pytest.mark.parametrize(
    ("contact", "status"),
    [
        pytest.param("<sip:198.51.7.1>", 400, id="no instance"),
        pytest.param('<sip:198.51.7.1>;+sip.instance="<urn:uuid:1>"', 400, id="no reg-id"),
        pytest.param('<sip:198.51.7.1>;+sip.instance="<urn:uuid:1>";reg-id=0', 400, id="reg-id 0"),
        pytest.param('<sip:198.51.7.1>;+sip.instance="<urn:uuid:1>";reg-id=1;q=2', 400, id="q"),
        pytest.param('<tel:123>;+sip.instance="<urn:uuid:1>";reg-id=1', 416, id="tel"),
        pytest.param("<sip:>", 400, id="no URI"),
        pytest.param("<<>", 400, id="garbage"),
        pytest.param("*", 400, id="* without Expires: 0"),
        pytest.param('"a, b" <sip:198.51.7.1:5060;ob>;reg-id=1;+sip.instance="<urn:uuid:1>"', 200, id="fine"),
        pytest.param('<sip:198.51.7.1:5060>;+SIP.Instance="<urn:uuid:1>";Reg-ID=1;Q=0.5', 200, id="case"),
    ],
)
def test_contacts_of_a_gateway(home: Home, contact: str, status: int) -> None:
    peer = Peer(home, ("198.51.7.1", 5060), name="fleet7", password="secret7")
    assert peer.register(contact).status == status


@pytest.mark.parametrize(
    ("name", "password", "user", "status"),
    [
        pytest.param("fleet7", "wrong", "fleet7", 401, id="wrong password"),
        pytest.param("nobody", "x", "nobody", 401, id="no such account"),
        pytest.param("fleet8", "secret8", "fleet7", 403, id="another account's name"),
        pytest.param("alice", "wonder", "fleet7", 403, id="a phone"),
        pytest.param("alice", "wonder", "carol", 404, id="no such user"),
        pytest.param("alice", "wonder", "bob", 403, id="another user"),
    ],
)
def test_who_may_register_what(home: Home, name: str, password: str, user: str, status: int) -> None:
    peer = Peer(home, ("198.51.7.1", 5060), name=name, password=password)
    assert peer.register("<sip:198.51.7.1>", user=user).status == status
    assert home.rows == {}


def test_the_assigned_uri_may_be_registered_itself_but_by_its_gateway_only(home: Home) -> None:
    one, two = Gateway(home, number=1), Gateway(home, number=2)
    user = one.register(1).split(":")[1].split("@")[0]
    assert one.paths[0].register(one.contact(1), user=user).status == 200
    assert two.paths[0].register(two.contact(1), user=user).status == 403
    assert two.register()
    assert one.paths[0].register("*", user=user, expires=0).status == 200
    assert len(contacts(two.paths[0].register())) == 2


def test_a_register_that_was_overtaken_changes_nothing(home: Home) -> None:
    gateway = Gateway(home, paths=1)
    peer = gateway.paths[0]
    gateway.register()
    cseq = peer.cseq
    assert peer.register(gateway.contact(1, q=0.1), cseq=cseq - 1).status == 400
    assert peer.register(gateway.contact(1), cseq=cseq).status == 200  # again, as after a lost 200 and a restart
    assert peer.register("*", expires=0, cseq=cseq).status == 400
    assert peer.register(gateway.contact(1, q=0.1), cseq=1, call_id="new").status == 200


def test_an_unknown_extension_is_refused(home: Home) -> None:
    answer = Gateway(home).paths[0].register("<sip:a@b>", lines=["Require: outbound, teleport"])
    assert answer.status == 420
    assert answer.value("unsupported") == "teleport"


def test_expired_bindings_go_after_a_grace(home: Home) -> None:
    gateway = Gateway(home)
    uri = gateway.register(expires=10)
    home.run(9)
    gateway.register(2, expires=100)
    home.run(3)
    caller = Peer(home, ("203.0.113.9", 5060))
    caller.request("OPTIONS", uri)
    assert gateway.paths[0].starts[-1] == "OPTIONS"  # within the grace
    home.run(10)
    assert [row["reg_id"] for row in home.command("bindings")["bindings"]] == [2]
    (row,) = home.rows.values()
    assert [binding["reg_id"] for binding in row["bindings"]] == [2]
    home.run(200)
    (row,) = home.rows.values()
    assert row["bindings"] == []


def test_too_many_contacts_and_instances_are_refused() -> None:
    home = Home(max_contacts=2, max_instances=1)
    gateway = Gateway(home, paths=3)
    gateway.register(1, 2)
    assert gateway.paths[2].register(gateway.contact(3)).status == 403
    other = Gateway(home, number=8)
    assert other.paths[0].register(other.contact(1)).status == 403


# ------------------------------------------------------------------------------------------------------- durability


def test_200_comes_when_the_store_says_so_and_not_before(home: Home) -> None:
    gateway = Gateway(home, paths=1)
    gateway.register()
    peer = gateway.paths[0]
    home.hold_store = True
    before = len(peer.inbox)
    peer.request(
        "REGISTER",
        "sip:home.example",
        f"Authorization: {peer._auth.authorization('REGISTER', 'sip:home.example', '', 'c')[0][1]}",
        f"Contact: {gateway.contact(1, q=0.5)}",
        from_="<sip:fleet7@home.example>;tag=x",
        to="<sip:fleet7@home.example>",
    )
    assert len(peer.inbox) == before
    home.release()
    assert peer.starts[before:] == ["200"]


def test_a_query_waits_for_what_it_would_confirm(home: Home) -> None:
    gateway = Gateway(home, paths=1)
    gateway.register()
    peer = gateway.paths[0]
    home.hold_store = True
    before = len(peer.inbox)
    for lines in ([f"Contact: {gateway.contact(1, q=0.5)}"], []):
        own = f"Authorization: {peer._auth.authorization('REGISTER', 'sip:home.example', '', 'c')[0][1]}"
        aor = "<sip:fleet7@home.example>"
        peer.request("REGISTER", "sip:home.example", own, *lines, from_=aor + ";tag=x", to=aor)
    assert len(peer.inbox) == before
    home.release()
    assert peer.starts[before:] == ["200", "200"]


def test_what_the_store_refuses_is_not_registered(home: Home) -> None:
    gateway = Gateway(home)
    gateway.register(1)
    home.store_error = "disk full"
    answer = gateway.paths[1].register(gateway.contact(2))
    assert answer.status == 500
    assert answer.value("retry-after")
    home.store_error = ""
    assert contacts(gateway.paths[0].register()) == ["sip:198.51.7.1:5060"]
    assert any("disk full" in log.text for log in home.logs)


def test_after_a_crash_the_gateway_is_reached_by_its_stored_flow(home: Home) -> None:
    gateway = Gateway(home)
    uri = gateway.register()
    home = home.restarted()
    caller = Peer(home, ("203.0.113.9", 5060))
    caller.request("INVITE", uri)
    assert gateway.paths[0].starts[-1] == "INVITE"


def test_after_a_crash_with_another_address_the_flow_leaves_from_there(home: Home) -> None:
    gateway = Gateway(home, paths=1)
    uri = gateway.register()
    here = Local("UDP", "192.0.2.77", 5060)
    home = home.restarted(listen=(here,))
    gateway.paths[0].local = here
    caller = Peer(home, ("203.0.113.9", 5060), local=here)
    caller.request("INVITE", uri)
    assert gateway.paths[0].starts[-1] == "INVITE"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(None, id="nothing"),
        pytest.param({"account": "fleet7"}, id="half"),
        pytest.param({"account": "fleet7", "instance": "i", "bindings": [{"contact": 1}]}, id="no binding"),
        pytest.param({"account": "fleet7", "instance": "i", "bindings": [{"flow": []}]}, id="no flow"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_rest_is_used(row: Any) -> None:
    home = Home()
    gateway = Gateway(home)
    uri = gateway.register()
    home.rows["fleet7-bad"] = row
    home = home.restarted()
    assert gateway.register() == uri
    assert any("fleet7-bad" in log.text and log.level == "error" for log in home.logs)


def test_a_removed_account_is_not_served_but_not_forgotten(home: Home) -> None:
    gateway = Gateway(home)
    uri = gateway.register()
    home = home.restarted(accounts={})
    caller = Peer(home, ("203.0.113.9", 5060))
    assert caller.ask("OPTIONS", uri).status == 404
    home = home.restarted()
    caller.request("OPTIONS", uri)
    assert gateway.paths[0].starts[-1] == "OPTIONS"


def test_an_address_is_a_home_domain_too() -> None:
    local = Local("UDP", "127.0.0.1", 5070)
    home = Home(domain="127.0.0.1:5070", listen=(local,))
    peer = Peer(home, ("127.0.0.1", 6001), local=local, name="fleet7", password="secret7")
    aor = "<sip:fleet7@127.0.0.1:5070>"
    contact = 'Contact: <sip:127.0.0.1:6001>;+sip.instance="<urn:uuid:1>";reg-id=1'
    answer = peer.ask("REGISTER", "sip:127.0.0.1:5070", contact, from_=aor + ";tag=1", to=aor)
    assert answer.status == 200
    uri = answer.value("p-associated-uri").strip("<>")
    assert uri.endswith("@127.0.0.1:5070")
    caller = Peer(home, ("127.0.0.1", 6002), local=local)
    caller.request("INVITE", uri)
    assert peer.starts[-1] == "INVITE"
    assert UDP not in home.listening

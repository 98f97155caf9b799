"""`register = "early"`: the phone is told 200 before its own server has been asked (RO-3)."""

from __future__ import annotations

import pytest
from nms_world import FAR, INSIDE, PHONE, Gateway

from sipnemo.sip.message import Request

pytestmark = pytest.mark.req("RO-3")
AOR = "<sip:mn@192.0.2.9>"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(register="early")


def register(gateway: Gateway, expires: str, cseq: int = 1) -> Request:
    """The phone registers for this long; the REGISTER that its server got."""
    contact = f"Contact: <sip:mn@10.7.0.11>;expires={expires}"
    ends = {"from_": f"{AOR};tag=r", "to": AOR}
    gateway.request(PHONE, INSIDE, "REGISTER", "sip:192.0.2.9", contact, call_id="r", cseq=cseq, **ends)
    found = gateway.got(FAR, "REGISTER")[-1]
    assert isinstance(found, Request)
    return found


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param("600", "600", id="as asked"),
        pytest.param("999999", "3600", id="no longer than it is bound"),
        pytest.param("soon", "3600", id="malformed"),
    ],
)
def test_the_phone_is_told_how_long_it_is_bound(gateway: Gateway, asked: str, told: str) -> None:
    register(gateway, asked)
    (answer,) = gateway.got(PHONE, "200")
    assert answer.value("contact") == f"<sip:mn@10.7.0.11>;expires={told}"
    (mn,) = gateway.node.bindings.by_token.values()
    assert mn.expires_at == gateway.now + int(told) + 5.0


def test_a_contact_that_is_taken_out_is_not_listed(gateway: Gateway) -> None:
    register(gateway, "600")
    register(gateway, "0", cseq=2)
    assert not gateway.got(PHONE, "200")[-1].values("contact")
    assert not gateway.node.bindings.by_token


@pytest.mark.parametrize(
    ("status", "bound"),
    [
        (403, False),
        (404, False),
        (500, False),
        (603, False),
        pytest.param(401, True, id="401, which the phone cannot answer"),
        (407, True),
        (423, True),
        pytest.param(183, True, id="183, which is no answer"),
    ],
)
def test_what_the_phones_own_server_refuses_is_unbound(gateway: Gateway, status: int, bound: bool) -> None:
    gateway.answer(FAR, register(gateway, "600"), status)
    assert bool(gateway.node.bindings.by_token) is bound
    assert len(gateway.sent[PHONE]) == 1


def test_a_refused_refresh_leaves_what_was_bound_before(gateway: Gateway) -> None:
    first = register(gateway, "600")
    gateway.answer(FAR, first, 200, f"Contact: {first.value('contact')}")
    until = gateway.now + 605.0
    gateway.run(300.0)
    gateway.answer(FAR, register(gateway, "600", cseq=2), 500)
    (mn,) = gateway.node.bindings.by_token.values()
    assert mn.expires_at == until


def test_a_refusal_that_a_later_register_has_overtaken_unbinds_nothing(gateway: Gateway) -> None:
    first, second = register(gateway, "600"), register(gateway, "600", cseq=2)
    gateway.answer(FAR, second, 200, f"Contact: {second.value('contact')}")
    gateway.answer(FAR, first, 500)
    assert gateway.node.bindings.by_token


@pytest.mark.req("R12")
@pytest.mark.parametrize("status", [0, 408, 503, 504])
def test_a_promise_that_the_server_has_not_heard_is_said_again_until_it_has(gateway: Gateway, status: int) -> None:
    first = register(gateway, "600")
    if status:
        gateway.answer(FAR, first, status)
    gateway.run(100.0)
    again = [asked for asked in gateway.got(FAR, "REGISTER") if asked.branch != first.branch]
    assert len({asked.branch for asked in again}) >= 2
    assert {(asked.call_id, asked.cseq) for asked in again} == {(first.call_id, first.cseq)}
    assert gateway.node.bindings.by_token
    gateway.answer(FAR, again[-1], 200, f"Contact: {first.value('contact')}")
    before = len(gateway.got(FAR, "REGISTER"))
    gateway.run(200.0)
    assert len(gateway.got(FAR, "REGISTER")) == before
    assert len(gateway.got(PHONE, "200")) == 1


@pytest.mark.req("R12")
def test_a_promise_that_the_phone_has_replaced_is_not_said_again(gateway: Gateway) -> None:
    gateway.answer(FAR, register(gateway, "600"), 503)
    second = register(gateway, "600", cseq=2)
    gateway.answer(FAR, second, 200, f"Contact: {second.value('contact')}")
    gateway.run(200.0)
    assert len(gateway.got(FAR, "REGISTER")) == 2
    assert not gateway.node.registering.owed

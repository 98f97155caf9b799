"""The SIP-NMS between one phone and one far end, message by message: the corners of RFC 3261 and its relatives."""

from __future__ import annotations

from itertools import pairwise

import pytest
from nms_world import FAR, HOME, INSIDE, PHONE, STRANGER, UPLINKS, Gateway

from sipnemo.nemo.policy import weighted
from sipnemo.roles.node import Link
from sipnemo.sip.message import Request

UP1, UP2 = UPLINKS.values()


@pytest.fixture
def gateway() -> Gateway:
    gateway = Gateway()
    assert [path.on for path in gateway.node.paths.all] == [True, True]
    return gateway


def test_a_call_given_up_before_any_answer_is_cancelled_when_the_first_comes(gateway: Gateway) -> None:
    """RFC 3261 §9.1."""
    branch = "z9hG4bKquick"
    gateway.request(PHONE, INSIDE, "INVITE", "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>", branch=branch)
    gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch=branch)
    assert not gateway.got(FAR, "CANCEL")
    invite = gateway.got(FAR, "INVITE")[0]
    gateway.answer(FAR, invite, 180)
    assert len(gateway.got(FAR, "CANCEL")) == 1
    gateway.answer(FAR, invite, 487)
    assert len(gateway.got(PHONE, "487")) >= 1
    assert not gateway.node.calls.open


def test_a_call_given_up_is_not_begun_again_over_another_path(gateway: Gateway) -> None:
    branch = "z9hG4bKquick"
    gateway.request(PHONE, INSIDE, "INVITE", "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>", branch=branch)
    gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch=branch)
    before = len(gateway.got(FAR, "INVITE"))
    gateway.node.paths.command(gateway.node.paths.all[0], "off", gateway.now)
    gateway.silent.add(UP1)
    gateway.run(2.0)
    over_other = [m for m in gateway.got(FAR, "INVITE")[before:] if gateway.flows[id(m)].local.host == UP2]
    assert not over_other


def test_forks_count_their_requests_each_by_itself(gateway: Gateway) -> None:
    """RFC 3261 §12.2.2: CSeq belongs to a dialog, and every fork is one."""
    invite = gateway.call()
    for tag in ("one", "two"):
        gateway.answer(FAR, invite, 183, "Contact: <sip:cn@192.0.2.9>", "Require: 100rel", "RSeq: 1", tag=tag)
        gateway.request(
            PHONE, INSIDE, "PRACK", "sip:cn@192.0.2.9", "RAck: 1 1 INVITE", to=f"<sip:cn@192.0.2.9>;tag={tag}", cseq=2
        )
    assert not gateway.got(PHONE, "500")
    pracks = gateway.got(FAR, "PRACK")
    assert [prack.to_tag for prack in pracks] == ["one", "two"]
    for tag, cseq in (("one", 700), ("two", 5)):
        dialog = {"from_": f"<sip:cn@192.0.2.9>;tag={tag}", "to": "<sip:mn@else.example>;tag=mn"}
        gateway.request(FAR, UP1, "INFO", "sip:mn@198.51.100.7", cseq=cseq, **dialog)
    assert not gateway.got(FAR, "500")
    assert len(gateway.got(PHONE, "INFO")) == 2


def test_a_request_out_of_order_within_a_dialog_is_refused(gateway: Gateway) -> None:
    gateway.talk()
    for cseq in (3, 2):
        gateway.request(PHONE, INSIDE, "INFO", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn", cseq=cseq)
    assert [m.cseq for m in gateway.got(PHONE, "500")] == [2]


@pytest.mark.parametrize(
    ("method", "lines", "lives"),
    [
        pytest.param("NOTIFY", ("Event: refer", "Subscription-State: terminated"), True, id="that subscription only"),
        pytest.param("INFO", (), True, id="that request only"),
        pytest.param("UPDATE", (), False, id="the far end knows of no call"),
    ],
)
def test_what_a_481_ends(gateway: Gateway, method: str, lines: tuple[str, ...], lives: bool) -> None:
    """RFC 5057 §5.1: a usage of the dialog; only INVITE and UPDATE speak for the call."""
    gateway.talk()
    gateway.request(PHONE, INSIDE, method, "sip:cn@192.0.2.9", *lines, to="<sip:cn@192.0.2.9>;tag=cn", cseq=2)
    gateway.answer(FAR, gateway.got(FAR, method)[0], 481)
    gateway.run(40.0)
    assert bool(gateway.node.calls.open) is lives


def test_a_second_call_cannot_take_the_names_of_a_live_one(gateway: Gateway) -> None:
    gateway.talk()
    session = next(iter(gateway.node.calls.open))
    gateway.request(("10.7.0.66", 5060), INSIDE, "INVITE", "sip:cn@192.0.2.9", "Contact: <sip:x@10.7.0.66>", cseq=9)
    assert len(gateway.got(("10.7.0.66", 5060), "482")) == 1
    assert list(gateway.node.calls.open) == [session]


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        pytest.param("to-tag=mn;from-tag=cn", "404", id="the dialog itself"),
        pytest.param("to-tag=mn;from-tag=guess", "403", id="another far end's tag"),
        pytest.param("to-tag=mn", "403", id="no far end's tag"),
    ],
)
def test_replaces_opens_the_door_only_with_the_whole_name_of_a_dialog(gateway: Gateway, tags: str, status: str) -> None:
    """RFC 3891 §3."""
    gateway.talk()
    gateway.request(
        STRANGER,
        UP1,
        "INVITE",
        "sip:mn@198.51.100.7",
        f"Replaces: c1;{tags}",
        "Contact: <sip:x@192.0.2.66>",
        call_id="c2",
        from_="<sip:x@y>;tag=x",
        to="<sip:mn@else.example>",
    )
    assert len(gateway.got(STRANGER, status)) >= 1


def test_a_cancel_is_answered_with_the_tag_that_its_invite_gets(gateway: Gateway) -> None:
    """RFC 3261 §8.2.6.2 and §9.2."""
    branch = "z9hG4bKtags"
    gateway.request(PHONE, INSIDE, "INVITE", "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>", branch=branch)
    gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch=branch)
    ok, ended = gateway.got(PHONE, "200")[0], gateway.got(PHONE, "487")[0]
    assert ok.to_tag
    assert ok.to_tag == ended.to_tag
    gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch="z9hG4bKnobody")
    assert gateway.got(PHONE, "481")[0].to_tag


def test_what_a_stranger_sends_is_not_remembered(gateway: Gateway) -> None:
    before = len(gateway.node.layer.servers)
    for number in range(50):
        for method in ("INVITE", "MESSAGE", "BYE"):
            tag = ";tag=x" if method == "BYE" else ""
            gateway.request(STRANGER, UP1, method, "sip:mn@198.51.100.7", call_id=f"s{number}", to=f"<sip:mn@x>{tag}")
    assert len(gateway.got(STRANGER, "403")) == 100
    assert len(gateway.got(STRANGER, "481")) == 50
    assert len(gateway.node.layer.servers) == before
    gateway.run(5.0)
    assert len(gateway.sent[STRANGER]) == 150  # nothing is repeated to an address that may be forged


def test_a_scanner_does_not_set_the_pace_of_the_log(gateway: Gateway) -> None:
    def told() -> list[str]:
        return [log.fields["source"] for log in gateway.logs if "stranger" in log.text]

    def scan(*hosts: int) -> None:
        for host in hosts:
            source = (f"192.0.2.{host}", 5060)
            for number in range(20):
                gateway.request(source, UP1, "INVITE", "sip:mn@198.51.100.7", call_id=f"s{host}-{number}")
            assert len(gateway.got(source, "403")) >= 20

    scan(66, 67)
    assert told() == ["192.0.2.66", "192.0.2.67"]
    gateway.run(61.0)
    scan(66)
    assert told()[2:] == ["192.0.2.66"]
    scan(*range(68, 250))
    assert len(told()) == 3 + 63


def test_subscriptions_take_bounded_room(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipnemo.roles.nms.call.relay.MOST_USAGES", 20)
    for number in range(30):
        gateway.request(
            PHONE, INSIDE, "SUBSCRIBE", "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>", call_id=f"s{number}"
        )
    assert len(gateway.node.relay.usages) == 20
    assert len(gateway.got(PHONE, "503")) == 10


def test_a_refused_subscription_is_forgotten(gateway: Gateway) -> None:
    gateway.request(PHONE, INSIDE, "SUBSCRIBE", "sip:cn@192.0.2.9", "Contact: <sip:mn@10.7.0.11>")
    assert len(gateway.node.relay.usages) == 1
    gateway.answer(FAR, gateway.got(FAR, "SUBSCRIBE")[0], 489)
    assert not gateway.node.relay.usages


def register(gateway: Gateway, number: int = 0) -> Request:
    """A phone registers with its server; the REGISTER that the server got."""
    aor = "<sip:mn@192.0.2.9>"
    contact = f"Contact: <sip:mn{number}@10.7.0.11>;expires=600"
    gateway.request(
        PHONE, INSIDE, "REGISTER", "sip:192.0.2.9", contact, call_id=f"r{number}", from_=f"{aor};tag=r", to=aor
    )
    found = gateway.got(FAR, "REGISTER")[-1]
    assert isinstance(found, Request)
    return found


def test_a_phone_too_many_is_told_so(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipnemo.roles.nms.phone.bindings.MAX_SIP_MNS", 1)
    for number in (0, 1):
        asked = register(gateway, number)
        gateway.answer(FAR, asked, 200, f"Contact: {asked.value('contact')}")
    assert len(gateway.got(PHONE, "200")) == 1
    assert len(gateway.got(PHONE, "503")) == 1


def test_a_home_server_that_repeats_423_is_not_asked_in_a_circle(gateway: Gateway) -> None:
    gateway.register_status = (423, ("Min-Expires: 60",))
    before = len(gateway.registers)
    gateway.node.home.flows[gateway.node.paths.all[0]].register(gateway.now)
    gateway.run(1.0)
    assert len(gateway.registers) - before <= 2


def test_nobody_can_answer_in_the_place_of_whom_was_asked(gateway: Gateway) -> None:
    """Whoever has seen one branch of ours does not know the next: forged answers find no transaction."""
    branches = [gateway.node.ids.branch() for _ in range(50)]
    assert len(set(branches)) == 50
    common = len("z9hG4bK") + 8  # by which we know our own
    secrets = {branch[common:] for branch in branches}
    assert all(len(secret) >= 16 for secret in secrets)
    tails = [int(secret[:16], 16) for secret in (branch[common:] for branch in branches)]
    assert min(abs(a - b) for a, b in pairwise(tails)) > 1 << 32


def test_only_the_home_server_may_call_a_phone(gateway: Gateway) -> None:
    asked = register(gateway)
    gateway.answer(FAR, asked, 200, f"Contact: {asked.value('contact')}")
    token = next(iter(gateway.node.bindings.by_token))
    call = {"from_": "<sip:x@y>;tag=x", "to": "<sip:mn@192.0.2.9>", "call_id": "in1"}
    gateway.request(STRANGER, UP1, "INVITE", f"sip:fleet7-a@home.example;mn={token}", **call)
    assert not gateway.got(PHONE, "INVITE")
    gateway.request(HOME, UP1, "INVITE", f"sip:fleet7-a@home.example;mn={token}", **call)
    assert len(gateway.got(PHONE, "INVITE")) == 1


def test_a_call_refused_for_its_description_leaves_nothing(gateway: Gateway) -> None:
    asked = register(gateway)
    gateway.answer(FAR, asked, 200, f"Contact: {asked.value('contact')}")
    token = next(iter(gateway.node.bindings.by_token))
    for number in range(3):
        gateway.request(
            HOME,
            UP1,
            "INVITE",
            f"sip:fleet7-a@home.example;mn={token}",
            "Content-Type: application/sdp",
            body="v=0\r\nnonsense",
            call_id=f"bad{number}",
        )
    assert len(gateway.got(HOME, "488")) >= 3
    assert not gateway.node.calls.invitations
    assert not gateway.node.calls.open
    assert not gateway.node.ports.used


def test_a_policy_knows_which_call_begins() -> None:
    gateway = Gateway(policy=weighted)
    for number in range(40):
        gateway.call(call_id=f"spread{number}")
    used = {gateway.flows[id(invite)].local.host for invite in gateway.got(FAR, "INVITE")}
    assert used == {UP1, UP2}


def test_a_call_begins_on_a_path_of_the_far_ends_family(gateway: Gateway) -> None:
    gateway.feed(Link("wwan0", 3, True, ("2001:db8::7",)))
    gateway.node.paths.command(gateway.node.paths.all[0], "on", gateway.now)
    assert [(path.address, path.on) for path in gateway.node.paths.all] == [("2001:db8::7", True), (UP2, True)]
    invite = gateway.call()
    assert gateway.flows[id(invite)].local.host == UP2
    assert UP2 in invite.value("contact")


def test_an_emergency_call_moves_before_the_others(gateway: Gateway) -> None:
    for call_id, lines in (("one", ()), ("sos", ("Priority: emergency",)), ("two", ())):
        invite = gateway.call(*lines, call_id=call_id)
        gateway.answer(FAR, invite, 200, "Contact: <sip:cn@192.0.2.9>")
        gateway.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn", call_id=call_id)
    gateway.feed(Link("wwan0", 3, False, (UP1,)))
    assert [moving.call_id for moving in gateway.got(FAR, "UPDATE")] == ["sos", "one", "two"]


@pytest.mark.parametrize(("ended", "kept", "port"), [("two", "one", 7001), ("one", "two", 7002)])
def test_of_two_forks_that_answer_the_one_that_is_kept_has_the_media(
    gateway: Gateway, ended: str, kept: str, port: int
) -> None:
    """RFC 3261 §13.2.2.4: the caller ends one of them, and may choose which."""
    invite = gateway.call("Content-Type: application/sdp", body=sdp(PHONE[0], 4000))
    for number, tag in enumerate(("one", "two"), 7001):
        lines = ("Contact: <sip:cn@192.0.2.9>", "Content-Type: application/sdp")
        gateway.answer(FAR, invite, 200, *lines, tag=tag, body=sdp("192.0.2.9", number))
        gateway.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to=f"<sip:cn@192.0.2.9>;tag={tag}")
    assert len(gateway.got(PHONE, "200")) == 2
    gateway.request(PHONE, INSIDE, "BYE", "sip:cn@192.0.2.9", to=f"<sip:cn@192.0.2.9>;tag={ended}", cseq=2)
    gateway.answer(FAR, gateway.got(FAR, "BYE")[-1], 200)
    (session,) = gateway.node.calls.open
    assert session.media is not None
    assert {flow.peer for flow in session.media.flows.values() if flow.key.host == INSIDE} >= {("192.0.2.9", port)}
    gateway.request(PHONE, INSIDE, "BYE", "sip:cn@192.0.2.9", to=f"<sip:cn@192.0.2.9>;tag={kept}", cseq=3)
    gateway.answer(FAR, gateway.got(FAR, "BYE")[-1], 200)
    assert not gateway.node.calls.open


def sdp(host: str, port: int) -> str:
    """One audio stream."""
    lines = ("v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", f"m=audio {port} RTP/AVP 0", "")
    return "\r\n".join(lines)

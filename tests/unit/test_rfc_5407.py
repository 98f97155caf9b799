"""The race conditions of RFC 5407 across the gateway: what each end gets, before any move and after one.

RFC 5407 tells what the two ends do; a dialog-transparent gateway has to bring each of them what the other has sent,
and to add nothing but the 491 that an end would have given.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dialog_world import UP1, UP2, Talk, sdp
from nms_world import FAR, PHONE

MN_OFFER = sdp("10.7.0.11", "sendonly", 2)
CN_OFFER = sdp("192.0.2.9", "sendonly", 2)


class Race(Talk):
    """A call, and the address by which the far end reaches it."""

    at = UP1

    def moved(self) -> None:
        self.cut()
        self.cn_answers(200, body=sdp("192.0.2.9"))
        self.hear()
        assert self.outcome == {"verified": 1}
        self.at = UP2
        self.to_cn(), self.to_mn()

    def got(self) -> tuple[list[str], list[str]]:
        """Methods and statuses that the far end and the phone have got."""
        return [text.split()[0] for text in self.to_cn()], [text.split()[0] for text in self.to_mn()]


def bye_crosses_bye(race: Race) -> None:
    """3.2.1."""
    race.mn("BYE")
    race.cn("BYE", at=race.at)
    race.mn_answers(200, method="BYE")
    race.cn_answers(200, method="BYE")


def re_invite_of_the_far_end_crosses_bye(race: Race) -> None:
    """3.2.2: whoever has sent BYE answers with 481."""
    race.mn("BYE")
    race.cn("INVITE", at=race.at, body=CN_OFFER)
    race.mn_answers(481)
    race.cn_answers(200, method="BYE")


def re_invite_of_the_phone_crosses_bye(race: Race) -> None:
    """3.2.2, the other way round."""
    race.mn("INVITE", body=MN_OFFER)
    race.cn("BYE", at=race.at)
    race.mn_answers(200, method="BYE")
    race.cn_answers(481)


def answer_to_a_re_invite_after_bye(race: Race) -> None:
    """3.2.3: the 200 still gets its ACK."""
    race.mn("INVITE", body=MN_OFFER)
    cseq = race.mn_cseq
    race.mn("BYE")
    race.cn_answers(200, body=sdp("192.0.2.9", "recvonly", 2))
    race.mn("ACK", cseq=cseq)
    race.cn_answers(200, method="BYE")


def re_invite_crosses_re_invite(race: Race) -> None:
    """3.3.1: both are refused, and tried again."""
    race.mn("INVITE", body=MN_OFFER)
    race.cn("INVITE", at=race.at, body=CN_OFFER)
    race.cn_answers(491)


def update_of_the_far_end_crosses_re_invite(race: Race) -> None:
    """3.3.2."""
    race.mn("INVITE", body=MN_OFFER)
    race.cn("UPDATE", at=race.at, body=CN_OFFER)
    race.cn_answers(491)


def update_of_the_phone_crosses_re_invite(race: Race) -> None:
    """3.3.2, the other way round."""
    race.cn("INVITE", at=race.at, body=CN_OFFER)
    race.mn("UPDATE", body=MN_OFFER)
    race.mn_answers(491)


def refer_crosses_bye(race: Race) -> None:
    """3.3.3."""
    race.mn("BYE")
    race.cn("REFER", "Refer-To: <sip:x@y>", at=race.at)
    race.mn_answers(481, method="REFER")
    race.cn_answers(200, method="BYE")


ESTABLISHED = [
    pytest.param(bye_crosses_bye, ["BYE", "200"], ["BYE", "200"], id="3.2.1 BYE, BYE"),
    pytest.param(
        re_invite_of_the_far_end_crosses_bye, ["BYE", "481"], ["INVITE", "ACK", "200"], id="3.2.2 BYE, re-INVITE"
    ),
    pytest.param(
        re_invite_of_the_phone_crosses_bye, ["INVITE", "200", "ACK"], ["BYE", "481"], id="3.2.2 re-INVITE, BYE"
    ),
    pytest.param(
        answer_to_a_re_invite_after_bye,
        ["INVITE", "BYE", "ACK"],
        ["200", "200"],
        id="3.2.3 200 for a re-INVITE, BYE",
    ),
    pytest.param(re_invite_crosses_re_invite, ["INVITE", "491", "ACK"], ["491"], id="3.3.1 re-INVITE, re-INVITE"),
    pytest.param(
        update_of_the_far_end_crosses_re_invite, ["INVITE", "491", "ACK"], ["491"], id="3.3.2 re-INVITE, UPDATE"
    ),
    pytest.param(
        update_of_the_phone_crosses_re_invite, ["491"], ["INVITE", "491", "ACK"], id="3.3.2 UPDATE, re-INVITE"
    ),
    pytest.param(refer_crosses_bye, ["BYE", "481"], ["REFER", "200"], id="3.3.3 BYE, REFER"),
]


@pytest.mark.req("R5", "R6")
@pytest.mark.parametrize("moved", [False, True], ids=["at rest", "after a move"])
@pytest.mark.parametrize(("happens", "cn", "mn"), ESTABLISHED)
def test_races_of_an_established_call(
    happens: Callable[[Race], None], cn: list[str], mn: list[str], moved: bool
) -> None:
    race = Race()
    if moved:
        race.moved()
    happens(race)
    assert race.got() == (cn, mn)
    over = "BYE" in cn or "BYE" in mn
    race.gateway.run(70.0)
    assert bool(race.gateway.node.calls.open) is not over
    assert not race.gateway.node.layer.servers
    assert over or race.session.pending is None


@pytest.mark.req("R5")
@pytest.mark.parametrize("dies", [False, True], ids=["its path lives", "its path dies"])
@pytest.mark.parametrize(
    ("steps", "passes"),
    [
        pytest.param(["INVITE again"], [], id="3.1.1 INVITE again"),
        pytest.param(["CANCEL"], [], id="3.1.2 CANCEL"),
        pytest.param(["BYE"], ["BYE"], id="3.1.3, 3.1.6 BYE"),
        pytest.param(["INVITE"], ["INVITE"], id="3.1.4 re-INVITE, no ACK"),
        pytest.param(["INVITE", "ACK"], ["INVITE", "ACK"], id="3.1.5 re-INVITE before the ACK"),
    ],
)
def test_races_before_the_ack(steps: list[str], passes: list[str], dies: bool) -> None:
    """3.1: the callee has answered, and the ACK has not come (Moratorium)."""
    race = Race(acknowledged=False)
    if dies:
        race.cut()
        assert race.got() == ([], []), "no re-INVITE before the ACK"
    invite = race.gateway.sent[PHONE][-1]
    for step in steps:
        match step:
            case "INVITE again":
                race.mn("INVITE", cseq=1, branch=invite.branch, body=race.mn_sdp)
            case "CANCEL":
                race.mn("CANCEL", cseq=1, branch=invite.branch)
            case "ACK":
                race.mn("ACK", cseq=1)
            case _:
                race.mn(step, body=MN_OFFER if step == "INVITE" else "")
    cn, mn = race.got()
    assert cn == passes
    assert [text for text in mn if text != "200"] == []
    if "INVITE" in passes:
        offer = race.last(FAR, "INVITE")
        assert race.via(offer) == (UP2 if dies else UP1)
        race.cn_answers(491)
        assert race.got()[1] == ["491"], "the far end refuses until it has its ACK; the phone tries again"


@pytest.mark.req("R5", "R6")
def test_an_ack_that_comes_after_the_bye_of_the_callee_passes() -> None:
    """3.2.4."""
    race = Race(acknowledged=False)
    race.cn("BYE")
    race.mn("ACK", cseq=1)
    race.mn_answers(200, method="BYE")
    assert race.got() == (["ACK", "200"], ["BYE"])
    assert not race.gateway.node.calls.open

"""How a call's move may end, and why: two closed sets, so that rows, logs and metrics say the same few words."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one call's move has ended."""

    VERIFIED = "verified"
    "The SIP-CN has answered, and media were seen on the new path in every direction in which there were any."

    UNVERIFIED = "unverified"
    "The SIP-CN has answered; of its media nothing is known, or too little. The reason says which."

    FAILED = "failed"
    "The SIP-CN has not agreed. The call lives: on the old path where that works, else half on the new one."

    OVERTAKEN = "overtaken"
    "The new path has failed as well, and another move has begun."

    WAITING = "waiting"
    "Not ended yet: it goes on with the SIP-MN's next request, which alone can be signed for the SIP-CN."

    HUNG_UP = "hung up"
    "The call has ended meanwhile."


class Reason(StrEnum):
    """Why a move has not ended `verified`."""

    NONE = ""

    # Unverified
    HELD = "held"
    "By the descriptions in force no media flow (RFC 3264 §8.4), and no RTCP came either."

    SILENT = "silent"
    "The SIP-CN was not heard before the move either: no path can be judged by its silence."

    NO_MEDIA = "no media"
    "The call has no media that pass this gateway."

    NOT_HEARD = "not heard"
    "The SIP-CN was heard before, and is not by any path that it has agreed to."

    NOT_SENT = "not sent"
    "The SIP-CN is heard; the SIP-MN's packets, which came before, have stopped."

    # Failed
    NO_ANSWER = "no answer"
    "The re-INVITE was not answered by any path."

    UNREACHABLE = "unreachable"
    "The network refuses it, or no path fits the SIP-CN's address family or transport."

    CHALLENGED = "challenged"
    "401 or 407, and no credentials that fit."

    REFUSED = "refused"
    "Another final answer: the details say which."

    NO_CALL = "no call"
    "481: the SIP-CN knows of no such call any more."


def reason_of(status: int) -> Reason:
    """The reason that a final answer to a re-INVITE gives."""
    match status:
        case 401 | 407:
            return Reason.CHALLENGED
        case 408 | 504:
            return Reason.NO_ANSWER
        case 481:
            return Reason.NO_CALL
        case _:
            return Reason.REFUSED

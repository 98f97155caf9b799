"""How long a failed registration waits before it is tried again (RFC 5626 §4.5).

The wait doubles from failure to failure and half of it is chance, so that the gateways of a fleet do not come back to
a SIP-HS in one instant. Two kinds of failure are not the RFC's: a name that DNS does not know costs the SIP-HS nothing
and is asked sooner; a refusal that only a person can mend (wrong password, unknown account) is asked rarely.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sipnemo.sip.message import Response

ALL_FAILED: Final = 30.0
"base-time while no flow works, seconds."
OTHERS_WORK: Final = 90.0
"base-time while another flow does."
MOST: Final = 1800.0
"max-time."
NO_NAME: Final = 1.0
NO_NAME_MOST: Final = 60.0
REFUSED: Final = 300.0
LONGEST_RETRY_AFTER: Final = 3600.0
"Nobody is kept out for longer by one answer, seconds."
SPREAD: Final = 0.25
"Share of a Retry-After that is added by chance: many gateways are told the same span."


class Failure(NamedTuple):
    """Why a registration failed, and what that means for the next."""

    why: str
    "For people."

    retry_after: float = 0.0
    "Seconds that the SIP-HS wants to be left alone."

    for_people: bool = False
    "It stays as it is until somebody changes a configuration."


NOT_LOCATED: Final = "home cannot be located"


def why_refused(response: Response, address_of_record: str) -> Failure:
    """The failure that a final response tells of."""
    status, said = response.status, f"{response.status} {response.reason}"
    match status:
        case 401 | 407 | 403:
            what = "check [nms] account and password_file"
            return Failure(f"{said}: home refuses {address_of_record}; {what}", for_people=True)
        case 404:
            what = "check [nms] home and account"
            return Failure(f"{said}: home does not know {address_of_record}; {what}", for_people=True)
        case _:
            warning = response.value("warning")
            text = response.value("retry-after").partition(";")[0].partition("(")[0].strip()
            after = float(text) if text.isdecimal() and text.isascii() and len(text) < 8 else 0.0
            return Failure(f"{said} ({warning})" if warning else said, min(after, LONGEST_RETRY_AFTER))


def pause(failure: Failure, failures: int, others_work: bool, chance: float, spread: float) -> float:
    """Seconds until the next try after so many failures in a row; `chance` and `spread` are in [0, 1)."""
    if failure.why == NOT_LOCATED:
        longest = min(NO_NAME_MOST, NO_NAME * 2.0 ** min(failures, 10))
    elif failure.for_people:
        longest = min(MOST, REFUSED * 2.0 ** min(failures - 1, 10))
    else:
        longest = min(MOST, (OTHERS_WORK if others_work else ALL_FAILED) * 2.0 ** min(failures, 10))
    if failure.retry_after:
        # The SIP-HS knows best when it has room again: no longer than it says, but for the spread.
        return failure.retry_after * (1.0 + SPREAD * spread)
    return longest * (0.5 + chance / 2)

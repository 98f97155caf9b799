"""What a final response over one of several ways to the same place says: of the request, or of that way only.

Over whichever path a SIP-NMS has answered, that is its answer: a copy of the request on another path could bring no
better one, and a dead path would bring none for half a minute. Three kinds of responses are no such answer.

- 430: this flow has failed (RFC 5626 §11.4); the others may do.
- 408 and 503: whoever is behind this way cannot now; the next way is tried at once, and the last one is believed.
- 482, and 500 within a dialog: the request is known already (RFC 3261 §8.2.2.2, §12.2.2 by its CSeq). It is at work on
  the copy that came before, and the answer to that one was lost or is late.
"""

from __future__ import annotations

from typing import Final

from sipnemo.sip.message import Response

FLOW_FAILED: Final = 430
"RFC 5626 §11.4."
NOT_THIS_WAY: Final = frozenset((408, FLOW_FAILED, 503))
"The next way is tried."


def is_known_already(status: int, within_dialog: bool) -> bool:
    """Whether a response may mean that another copy of the request has come before."""
    return status == 482 or (status == 500 and within_dialog)


def weight(status: int, response: Response | None) -> int:
    """The heavier, the more a final response says about the request rather than about one of the ways to it."""
    if status in (482, FLOW_FAILED):
        return 0
    if status in (408, 480, 503):
        return 2 if response is not None else 1
    return 3

"""The header translation of RO §2.4 as text: a message of one side as the other side gets it.

Lines that need no change are handed on as they came, in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Final

from sipnemo.sip.message import Message, Request, Response, contact_on

_OF_THE_HOP: Final = frozenset(("via", "max-forwards", "route", "record-route", "content-length", "cseq"))
"Headers that belong to one side; they stand in front of those that pass."
Passing = Callable[[list[str]], tuple[str, ...]]


def request(
    message: Request,
    uri: str,
    own: list[str],
    cseq: int,
    body: str,
    contact: str = "",
    replaced: dict[str, str] | None = None,
) -> bytes:
    """The request on its next side: `own` are our lines (Via, Max-Forwards, Route, Record-Route), on top.

    `contact`: URI that replaces the one in Contact, whose parameters stay; empty: Contact passes untouched.
    `replaced`: header lines to put in the place of those that came, by canonical name.
    """
    names, lines = message.names, message.lines
    if (contact and "contact" in names) or replaced is not None:
        lines = _with(names, lines, contact, replaced)
    passed = _passed(names)(lines)
    start, cseq_line = f"{message.method} {uri} SIP/2.0", f"CSeq: {cseq} {message.method}"
    end = f"Content-Length: {len(body)}\r\n\r\n{body}"
    return "\r\n".join((start, *own, cseq_line, *passed, end)).encode("latin-1")


def response(
    message: Response,
    asked: Request,
    body: str,
    contact: str = "",
    record_routes: list[str] | None = None,
) -> bytes:
    """The response as the other side, which sent `asked`, gets it; `record_routes` are whole lines."""
    names, lines = message.names, message.lines
    if contact and message.status < 300 and "contact" in names:
        lines = _with(names, lines, contact, None)
    passed = _passed(names)(lines)
    start, cseq_line = f"SIP/2.0 {message.status} {message.reason}", asked.lines[asked.names.index("cseq")]
    own = (*lines_of(asked, "via"), *(record_routes or ()))
    end = f"Content-Length: {len(body)}\r\n\r\n{body}"
    return "\r\n".join((start, *own, cseq_line, *passed, end)).encode("latin-1")


def _passed(names: tuple[str, ...]) -> Passing:
    """What takes the lines that pass out of all lines."""
    return _passing(names) if len(names) <= 64 else _passing.__wrapped__(names)


@lru_cache(maxsize=1024)
def _passing(names: tuple[str, ...]) -> Passing:
    """Cached: the messages of one phone have the same few sequences of headers in every call."""
    # Call-ID, From and To are among them, so that there are always several.
    return itemgetter(*(at for at, name in enumerate(names) if name not in _OF_THE_HOP))


def _with(names: tuple[str, ...], lines: list[str], contact: str, replaced: dict[str, str] | None) -> list[str]:
    """The lines with another URI in Contact (where one is given), and with those of `replaced` in their places."""
    changed = lines.copy()
    if contact and "contact" in names:
        at = names.index("contact")
        changed[at] = contact_line(lines[at], contact)
        for _ in range(names.count("contact") - 1):
            at = names.index("contact", at + 1)
            changed[at] = contact_line(lines[at], contact)
    if replaced:
        for name, line in replaced.items():
            changed[names.index(name)] = line
    return changed


def contact_line(line: str, uri: str) -> str:
    """A Contact line with another URI; what stands behind `>` (feature tags, isfocus, …) stays."""
    return f"Contact: <{uri}>{contact_on(line)[1]}"


def lines_of(message: Message, name: str) -> list[str]:
    """The whole lines of one header, in order."""
    names, lines = message.names, message.lines
    if names.count(name) == 1:
        return [lines[names.index(name)]]
    return [line for known, line in zip(names, lines, strict=True) if known == name]

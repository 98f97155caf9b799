"""The header translation of RO §2.4 as text: a message of one side as the other side gets it.

Lines that need no change are handed on as they came, in their order.
"""

from __future__ import annotations

from typing import Final

from sipnemo.sip.message import Message, Request, Response, end_of_uri

_OF_THE_HOP: Final = frozenset(("via", "max-forwards", "route", "record-route", "content-length", "cseq"))
"Headers that belong to one side."
_OF_THE_ANSWER: Final = frozenset(("via", "record-route", "content-length", "cseq"))


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
    `replaced`: header lines to put in the place of those that came, by canonical name; an empty line drops it.
    """
    lines = [f"{message.method} {uri} SIP/2.0", *own]
    for name, line in zip(message.names, message.lines, strict=True):
        if name in _OF_THE_HOP:
            if name == "cseq":
                lines.append(f"CSeq: {cseq} {message.method}")
        elif name == "contact" and contact:
            lines.append(contact_line(line, contact))
        elif replaced is not None and name in replaced:
            if replaced[name]:
                lines.append(replaced[name])
        else:
            lines.append(line)
    lines.append(f"Content-Length: {len(body)}\r\n\r\n{body}")
    return "\r\n".join(lines).encode("latin-1")


def response(
    message: Response,
    asked: Request,
    body: str,
    contact: str = "",
    record_routes: list[str] | None = None,
) -> bytes:
    """The response as the other side, which sent `asked`, gets it; `record_routes` are whole lines."""
    lines = [f"SIP/2.0 {message.status} {message.reason}"]
    cseq = ""
    for name, line in zip(asked.names, asked.lines, strict=True):
        if name == "via":
            lines.append(line)
        elif name == "cseq":
            cseq = line
    if record_routes:
        lines += record_routes
    for name, line in zip(message.names, message.lines, strict=True):
        if name in _OF_THE_ANSWER:
            if name == "cseq":
                lines.append(cseq)
        elif name == "contact" and contact and message.status < 300:
            lines.append(contact_line(line, contact))
        else:
            lines.append(line)
    lines.append(f"Content-Length: {len(body)}\r\n\r\n{body}")
    return "\r\n".join(lines).encode("latin-1")


def contact_line(line: str, uri: str) -> str:
    """A Contact line with another URI; what stands behind `>` (feature tags, isfocus, …) stays."""
    value = line[line.index(":") + 1 :].strip()
    close = end_of_uri(value)
    return f"Contact: <{uri}>{value[close + 1 :] if close >= 0 else ''}"


def lines_of(message: Message, name: str) -> list[str]:
    """The whole lines of one header, in order."""
    return [line for known, line in zip(message.names, message.lines, strict=True) if known == name]

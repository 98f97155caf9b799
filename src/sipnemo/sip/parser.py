"""Octets to messages (RFC 3261 §7, §25). Raises only ParseError, which knows its own answer.

Two depths, because a gateway hands most headers on unread: `parse` reads the start line, cuts the headers and reads
what identifies transaction and dialog; it is strict about those, since a mistake there makes two elements disagree
about which message belongs to what. Everything else is checked by whoever uses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final

from sipnemo.sip.errors import ParseError
from sipnemo.sip.message import COMPACT, Message, Request, Response, tag_of

_TOKEN: Final = r"[A-Za-z0-9.!%*_+`'~-]+"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) ([A-Za-z][A-Za-z0-9+.-]*:[^ \t<>]+) SIP/(\d+\.\d+)")
_STATUS_LINE: Final = re.compile(r"SIP/2\.0 (\d{3}) (.*)", re.S)
_CSEQ: Final = re.compile(rf"(\d{{1,10}})[ \t]+({_TOKEN})")
_VIA: Final = re.compile(
    rf"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*{_TOKEN}[ \t]+{_HOST}[ \t]*(?::[ \t]*\d+)?[ \t]*"
    rf"(?:;[ \t]*{_TOKEN}[ \t]*(?:=[ \t]*(?:{_TOKEN}|{_HOST}|\"[^\"]*\")[ \t]*)?)*(?:,.*)?",
    re.I | re.S,
)
_SENT_BY: Final = re.compile(rf"SIP/2\.0/{_TOKEN} {_HOST}(?::\d{{1,5}})?;")
"The beginning of a Via that a response can be sent by, whatever stands behind it."
_BRANCH: Final = re.compile(r";[ \t]*branch[ \t]*=[ \t]*([^;,\s]+)", re.I)
_ADDRESS: Final = re.compile(
    r"""(?:"(?:[^"\\]|\\.)*"[ \t]*<[^<>\s]+>|[^"<>;,]*<[^<>\s]+>|[A-Za-z][A-Za-z0-9+.-]*:[^\s<>",;?]+)[ \t]*(?:;.*)?""",
    re.S,
)
# The shapes that nearly every message has, read in one go from the whole line; what differs goes the long way.
_USUAL_VIA: Final = re.compile(rf"[^:]+: SIP/2\.0/[A-Z]+ ({_HOST}(?::\d+)?)(?:;rport)?;branch=([^;,\s]+)(?:;[\w.=]+)*")
_USUAL_ADDRESS: Final = re.compile(r'[^:]+: (?:"[^"\\]*" ?|[\w ]*)<[^<>\s]+>(?:;tag=([^;,\s"]+))?')
_USUAL_CSEQ: Final = re.compile(r"[^:]+: (\d{1,9}) ([A-Z]+)")
_USUAL_LENGTH: Final = re.compile(r"[^:]+: (\d{1,9})", re.A)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FOLD: Final = re.compile(r"[ \t]*\r\n[ \t]+")
_NEEDED: Final = ("via", "from", "to", "call-id", "cseq")
_ODD: Final = frozenset("%?")
"In a Request-URI: to be looked at closely."
_REMEMBERED: Final = 256
"Longest line worth remembering: the same few lines come back in every message of a call, and of a phone."
_REMEMBERED_HEAD: Final = 4096
"Longest head whose lines' names are remembered: made-up lines must not fill the memory."
_REMEMBERED_NAMES: Final = 64
"Most headers whose sequence is remembered."
Places = Callable[[list[str]], tuple[str, ...]]
_SINGLE: Final = frozenset(("from", "to", "call-id", "cseq", "content-length", "max-forwards"))
MAX_CSEQ: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much to read (RFC 3261 §21.4.11, §21.5.14)."""

    message: int = 65_535
    "Octets of a whole message; beyond: 513."

    headers: int = 256
    "Header lines; beyond: 513."

    body: int = 60_000
    "Octets of a body; beyond: 413."


LIMITS: Final = Limits()


def _name_of(line: str) -> str:
    """The name of a header line in lower case, its compact form spelt out; "" for one that has none, or is folded."""
    name, colon, _ = line.partition(":")
    if not colon or line[0] in " \t":
        return ""
    name = name.strip()
    if not name or " " in name:
        return ""
    key = name.lower()
    return COMPACT.get(key, key)


_remembered_name: Final = lru_cache(maxsize=4096)(_name_of)
"Nine lines of ten have come before, in this call or from this phone: half the time of reading each one's name."


def parse(data: bytes, limits: Limits = LIMITS) -> Request | Response:
    """The message in one datagram or one frame of a stream; octets behind its Content-Length are ignored (§18.3)."""
    text = data.decode("latin-1")
    if text.startswith("\r\n"):
        text = text.lstrip("\r\n")
    head, end, body = text.partition("\r\n\r\n")
    if not end:
        head, body = text.rstrip("\r\n"), ""
    start, *lines = head.split("\r\n")
    names = [*map(_remembered_name if len(head) <= _REMEMBERED_HEAD else _name_of, lines)]
    malformed = ""
    if "" in names:
        if "\r\n " in head or "\r\n\t" in head:
            head = _FOLD.sub(" ", head)
            start, *lines = head.split("\r\n")
            names = [*map(_name_of, lines)]
        malformed = "Malformed header line" if "" in names else ""
    if head.count("\n") != len(lines) or head.count("\r") != len(lines):
        malformed = (
            "CR or LF within a header"  # where the next element sees a line end, it would see a header of its own
        )
    message: Request | Response
    if start.startswith("SIP/"):
        status, reason = _status_line(start)
        message = Response(status, reason, names, lines, body)
    else:
        message = _request(start, names, lines, body)
    if malformed or not end:
        raise ParseError(malformed or "No end of headers", message=_answerable(message))
    _identify(message)
    if len(data) > limits.message or len(lines) > limits.headers:
        raise ParseError("Message Too Large", 513, _answerable(message))
    _cut_body(message, limits)
    return message


@lru_cache(maxsize=256)
def _status_line(line: str) -> tuple[int, str]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or not 100 <= int(match[1]) <= 699:
        raise ParseError("Malformed Status-Line")
    return int(match[1]), match[2]


def _request(start: str, names: list[str], lines: list[str], body: str) -> Request:
    usual = _usual_request_line(start) if len(start) <= _REMEMBERED else None
    if usual is not None:
        return Request(usual[0], usual[1], names, lines, body)
    match = _REQUEST_LINE.fullmatch(start)
    if match is not None and match[3] == "2.0":
        if "%" in match[2] and _BAD_ESCAPE.search(match[2]):
            raise ParseError(
                "Bad escape in Request-URI", message=_answerable(Request(match[1], match[2], names, lines, body))
            )
        if "?" in match[2].rpartition("@")[2] and match[2][:4].lower() in ("sip:", "sips"):
            raise ParseError(  # §19.1.1: they may not stand here, and smuggled ones would be obeyed
                "Headers in Request-URI", message=_answerable(Request(match[1], match[2], names, lines, body))
            )
        return Request(match[1], match[2], names, lines, body)
    words = start.split()
    if len(words) < 2 or ":" in words[0]:
        raise ParseError("Not a SIP message")
    broken = _answerable(Request(words[0], words[1], names, lines, body))
    if match is not None or (len(words) == 3 and re.fullmatch(r"SIP/\d+\.\d+", words[2]) and words[2] != "SIP/2.0"):
        raise ParseError("Version Not Supported", 505, broken)
    raise ParseError("Malformed Request-Line", message=broken)


def _answerable(message: Message) -> Message | None:
    """The message if a response to it can be addressed (it is a request with a Via), else None."""
    if not isinstance(message, Request) or message.method == "ACK" or "via" not in message.names:
        return None
    message.branch = _branch(message.value("via"))
    message.sent_by = _sent_by(message)
    message.call_id = message.value("call-id")
    message.from_tag = tag_of(message.value("from"))
    message.to_tag = tag_of(message.value("to"))
    message.cseq_method = message.method
    return message


def _sent_by(message: Message) -> str:
    line = message.lines[message.names.index("via")]
    return line.partition(",")[0].partition(";")[0].rpartition(" ")[2]


def _branch(via: str) -> str:
    found = _BRANCH.search(via.partition(",")[0])
    return found[1] if found else ""


def _identify(message: Request | Response) -> None:
    """Read Via, From, To, Call-ID and CSeq, strictly."""
    places = _places(tuple(message.names)) if len(message.names) <= _REMEMBERED_NAMES else None
    if places is None:
        places = _unusual_places(message)
    via, from_line, to_line, call_id, cseq_line = places(message.lines)
    usual = _USUAL_VIA.fullmatch(via)
    if usual is not None:
        message.sent_by, message.branch = usual.groups()
    else:
        message.branch = _unusual_via(message)
        message.sent_by = _sent_by(message)
    tag = _usual_tag(from_line) if len(from_line) <= _REMEMBERED else None
    message.from_tag = tag if tag is not None else _unusual_address(message, "from")
    tag = _usual_tag(to_line) if len(to_line) <= _REMEMBERED else None
    message.to_tag = tag if tag is not None else _unusual_address(message, "to")
    cseq = _usual_cseq(cseq_line) if len(cseq_line) <= _REMEMBERED else None
    message.cseq, message.cseq_method = cseq if cseq is not None else _unusual_cseq(message)
    message.call_id = call_id[call_id.index(":") + 1 :].strip()
    if not message.call_id:
        raise ParseError("Empty Call-ID header", message=_answerable(message))
    if isinstance(message, Request) and message.cseq_method != message.method:
        raise ParseError("CSeq method does not match the Request-Line", message=_answerable(message))


@lru_cache(maxsize=1024)
def _places(names: tuple[str, ...]) -> Places | None:
    """What takes the needed lines out of all; None: one is missing, or one that must be alone is not.

    Cached: the messages of one phone have the same few sequences of headers in every call.
    """
    if len(names) != len(set(names)) and any(names.count(name) > 1 for name in _SINGLE):
        return None
    return itemgetter(*map(names.index, _NEEDED)) if set(_NEEDED) <= set(names) else None


def _unusual_places(message: Message) -> Places:
    names = message.names
    for name in _SINGLE:
        if names.count(name) > 1:
            raise ParseError(f"More than one {name.title()} header", message=_answerable(message))
    for name in _NEEDED:
        if name not in names:
            raise ParseError(f"Missing {name.title()} header", message=_answerable(message))
    return itemgetter(*map(names.index, _NEEDED))


@lru_cache(maxsize=4096)
def _usual_request_line(line: str) -> tuple[str, str] | None:
    """Method and Request-URI of a line with nothing odd in it."""
    match = _REQUEST_LINE.fullmatch(line)
    return (match[1], match[2]) if match is not None and match[3] == "2.0" and not _ODD & set(line) else None


@lru_cache(maxsize=4096)
def _usual_tag(line: str) -> str | None:
    """The tag of a From or To line of the usual shape, "" when it has none; None: it has another shape."""
    match = _USUAL_ADDRESS.fullmatch(line)
    return match[1] or "" if match is not None else None


@lru_cache(maxsize=1024)
def _usual_cseq(line: str) -> tuple[int, str] | None:
    match = _USUAL_CSEQ.fullmatch(line)
    return (int(match[1]), match[2]) if match is not None else None


@lru_cache(maxsize=4096)
def _usual_length(line: str) -> int | None:
    match = _USUAL_LENGTH.fullmatch(line)
    return int(match[1]) if match is not None else None


def _unusual_cseq(message: Message) -> tuple[int, str]:
    match = _CSEQ.fullmatch(message.value("cseq"))
    if match is None or int(match[1]) > MAX_CSEQ:
        raise ParseError("Malformed CSeq header", message=_answerable(message))
    return int(match[1]), match[2]


def _unusual_via(message: Message) -> str:
    via = message.value("via")
    if _VIA.fullmatch(via) is None:
        raise ParseError("Malformed Via header", message=_answerable(message) if _SENT_BY.match(via) else None)
    return _branch(via)


def _unusual_address(message: Message, name: str) -> str:
    value = message.value(name)
    if _ADDRESS.fullmatch(value) is None:
        raise ParseError("Malformed From or To header", message=_answerable(message))
    return tag_of(value)


def _cut_body(message: Request | Response, limits: Limits) -> None:
    """Hold the body against Content-Length (§18.3); a datagram may leave the header out."""
    names, there = message.names, len(message.body)
    if "content-length" in names:
        line = message.lines[names.index("content-length")]
        size = _usual_length(line) if len(line) <= _REMEMBERED else None
        if size is None:
            size = _unusual_length(message, limits)
        if size > there:
            raise ParseError("Body shorter than Content-Length", message=_answerable(message))
        if size < there:
            message.body = message.body[:size]
            there = size
    if there > limits.body:
        raise ParseError("Request Entity Too Large", 413, _answerable(message))


def _unusual_length(message: Request | Response, limits: Limits) -> int:
    length = message.value("content-length")
    if not length:
        return len(message.body)
    if not length.isdecimal() or not length.isascii():
        raise ParseError("Malformed Content-Length header", message=_answerable(message))
    return int(length) if len(length) < 10 else limits.message + 1

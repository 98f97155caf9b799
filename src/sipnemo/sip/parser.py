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
from typing import Final, NamedTuple

from sipnemo.sip.errors import ParseError
from sipnemo.sip.message import COMPACT, Message, Request, Response, tag_of

_TOKEN: Final = r"[A-Za-z0-9.!%*_+`'~-]+"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) ([A-Za-z][A-Za-z0-9+.-]*:[^ \t<>]+) SIP/(\d+\.\d+)")
_STATUS_LINE: Final = re.compile(r"SIP/2\.0 (\d{3}) (.*)", re.S)
_CSEQ: Final = re.compile(rf"(\d{{1,10}})[ \t]+({_TOKEN})")
# `received` has IPv6 addresses without brackets (RFC 5118 §4.5), and some branches more characters than a token may.
_VIA: Final = re.compile(
    rf"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*{_TOKEN}[ \t]+{_HOST}[ \t]*(?::[ \t]*\d+)?[ \t]*"
    rf"(?:;[ \t]*{_TOKEN}[ \t]*(?:=[ \t]*(?:[^;,\s\"]+|\"[^\"]*\")[ \t]*)?)*(?:,.*)?",
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
_USUAL_NAMES: Final = re.compile(r"\r\n([^:\r\n]+):")
_USUAL_SENDER: Final = re.compile(
    rf"[^:]+: *SIP/2\.0/[A-Z]+ ({_HOST}(?::\d+)?)(?:;rport(?:=\d+)?|;received=[0-9A-Fa-f:.]+)*"
)
_USUAL_BRANCH: Final = re.compile(r'([^;,\s"]+)(?:;[\w.-]+(?:=(?:[^;,\s"]+|"[\w.-]*"))?)*', re.A)
_USUAL_ADDRESS: Final = re.compile(r'[^:]+: *(?:"[^"\\]*" ?|[\w ]*)<[^<>\s]+>(?:;tag=([^;,\s"]+))?')
_USUAL_CSEQ: Final = re.compile(r"[^:]+: *(\d{1,9}) ([A-Z]+)")
_USUAL_LENGTH: Final = re.compile(r"[^:]+: *(\d{1,9})", re.A)  # some phones leave room for five digits
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AROUND_COLON: Final = re.compile(r"[ \t]*:[ \t]*")
_FOLD: Final = re.compile(r"[ \t]*\r\n[ \t]+")
_NEEDED: Final = ("via", "from", "to", "call-id", "cseq")
_ODD: Final = frozenset("%?")
"In a Request-URI: to be looked at closely."
_REMEMBERED: Final = 2000
"Longest head worth remembering anything of: the same few lines come back in every message of a call, and of a phone."
_REMEMBERED_NAMES: Final = 64
"Most headers whose sequence is remembered."
_MOST_SHAPES: Final = 1024
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


def parse(data: bytes, limits: Limits = LIMITS) -> Request | Response:
    """The message in one datagram or one frame of a stream; octets behind its Content-Length are ignored (§18.3)."""
    text = data.decode("latin-1")
    head, end, body = text.partition("\r\n\r\n")
    if end and len(head) <= _REMEMBERED and len(data) <= limits.message:
        message = _usual(head, body, limits)
        if message is not None:
            return message
    return _unusual(text, len(data), limits)


class _Shape(NamedTuple):
    """A sequence of header names, and where what a message is known by stands in it."""

    names: tuple[str, ...]
    written: tuple[str, ...]
    "As they came, with their colons."

    needed: Callable[[list[str]], tuple[str, ...]]
    "Takes the lines of `_NEEDED` out of all."

    length: int
    "Index of Content-Length; -1: there is none."


_last_shapes: Final[dict[tuple[str, int], _Shape]] = {}
"By the beginning of the first line and the number of headers."


@lru_cache(maxsize=_MOST_SHAPES)
def _shape(written: tuple[str, ...]) -> _Shape | None:
    """Cached: the messages of one phone have the same few sequences of headers in every call.

    None: a name that is none, one that is needed missing, or one that must be alone is not.
    """
    names = tuple([_name_of(f"{name}:") for name in written])
    if len(names) > _REMEMBERED_NAMES or "" in names or not set(_NEEDED) <= set(names):
        return None
    if any(names.count(name) > 1 for name in _SINGLE):
        return None
    length = names.index("content-length") if "content-length" in names else -1
    return _Shape(names, tuple([f"{name}:" for name in written]), itemgetter(*map(names.index, _NEEDED)), length)


def _usual(head: str, body: str, limits: Limits) -> Request | Response | None:
    """The message, if nothing in it is out of the ordinary; None: `_unusual` has to say what it is."""
    lines = head.split("\r\n")
    joined = "".join(lines)
    if "\r" in joined or "\n" in joined:
        return None  # within a header: to the next element it may be a line end
    start = lines.pop(0)
    count = len(lines)
    # First messages of this kind with so many headers are held against the last one: half the time of reading names.
    shape = _last_shapes.get((start[:11], count))
    if shape is None or False in map(str.startswith, lines, shape.written):
        shape = _shape(tuple(_USUAL_NAMES.findall(head)))
        if shape is None or len(shape.names) != count:
            return None
        if len(_last_shapes) >= _MOST_SHAPES:
            _last_shapes.clear()
        _last_shapes[start[:11], count] = shape
    via, from_line, to_line, call_id, cseq_line = shape.needed(lines)
    sender, mark, behind = via.partition(";branch=")
    sent_by = _usual_sender(sender)
    branch = behind
    if not mark or not behind.isalnum():
        match = _USUAL_BRANCH.fullmatch(behind)
        if match is None:
            return None
        branch = match[1]
    from_tag = _usual_tag(from_line)
    to_tag = _usual_tag(to_line)
    cseq = _usual_cseq(cseq_line)
    call_id = call_id[call_id.index(":") + 1 :].strip()
    if sent_by is None or from_tag is None or to_tag is None or cseq is None or not call_id or count > limits.headers:
        return None
    there = len(body)
    if shape.length >= 0:
        size = _usual_length(lines[shape.length])
        if size is None or size > there:
            return None
        if size < there:
            body = body[:size]
            there = size
    if there > limits.body:
        return None
    number, method = cseq
    if start.startswith("SIP/"):
        status, reason = _status_line(start)
        return Response(
            status, reason, shape.names, lines, body, branch, sent_by, call_id, from_tag, to_tag, number, method
        )
    usual = _usual_request_line(start)
    if usual is None or usual[0] != method:
        return None
    return Request(
        method, usual[1], shape.names, lines, body, branch, sent_by, call_id, from_tag, to_tag, number, method
    )


def _unusual(text: str, size: int, limits: Limits) -> Request | Response:
    """The message, or what is wrong with it."""
    if text.startswith("\r\n"):
        text = text.lstrip("\r\n")
    head, end, body = text.partition("\r\n\r\n")
    if not end:
        head, body = text.rstrip("\r\n"), ""
    start, *lines = head.split("\r\n")
    names = tuple(map(_name_of, lines))
    malformed = ""
    if "" in names:
        if "\r\n " in head or "\r\n\t" in head:
            head = _FOLD.sub(" ", head)
            start, *lines = head.split("\r\n")
            names = tuple(map(_name_of, lines))
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
    if size > limits.message or len(lines) > limits.headers:
        raise ParseError("Message Too Large", 513, _answerable(message))
    _cut_body(message, limits)
    return message


@lru_cache(maxsize=256)
def _status_line(line: str) -> tuple[int, str]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or not 100 <= int(match[1]) <= 699:
        raise ParseError("Malformed Status-Line")
    return int(match[1]), match[2]


def _request(start: str, names: tuple[str, ...], lines: list[str], body: str) -> Request:
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
    before = message.value("via").partition(",")[0].partition(";")[0]
    return _AROUND_COLON.sub(":", before).strip().rpartition(" ")[2]


def _branch(via: str) -> str:
    found = _BRANCH.search(via.partition(",")[0])
    return found[1] if found else ""


def _identify(message: Request | Response) -> None:
    """Read Via, From, To, Call-ID and CSeq, strictly."""
    names = message.names
    for name in _SINGLE:
        if names.count(name) > 1:
            raise ParseError(f"More than one {name.title()} header", message=_answerable(message))
    for name in _NEEDED:
        if name not in names:
            raise ParseError(f"Missing {name.title()} header", message=_answerable(message))
    via = message.value("via")
    if _VIA.fullmatch(via) is None:
        raise ParseError("Malformed Via header", message=_answerable(message) if _SENT_BY.match(via) else None)
    message.branch = _branch(via)
    message.sent_by = _sent_by(message)
    message.from_tag = _tag(message, "from")
    message.to_tag = _tag(message, "to")
    cseq = _CSEQ.fullmatch(message.value("cseq"))
    if cseq is None or int(cseq[1]) > MAX_CSEQ:
        raise ParseError("Malformed CSeq header", message=_answerable(message))
    message.cseq, message.cseq_method = int(cseq[1]), cseq[2]
    message.call_id = message.value("call-id")
    if not message.call_id:
        raise ParseError("Empty Call-ID header", message=_answerable(message))
    if isinstance(message, Request) and message.cseq_method != message.method:
        raise ParseError("CSeq method does not match the Request-Line", message=_answerable(message))


def _tag(message: Message, name: str) -> str:
    value = message.value(name)
    if _ADDRESS.fullmatch(value) is None:
        raise ParseError("Malformed From or To header", message=_answerable(message))
    return tag_of(value)


@lru_cache(maxsize=4096)
def _usual_request_line(line: str) -> tuple[str, str] | None:
    """Method and Request-URI of a line with nothing odd in it."""
    match = _REQUEST_LINE.fullmatch(line)
    return (match[1], match[2]) if match is not None and match[3] == "2.0" and not _ODD & set(line) else None


@lru_cache(maxsize=1024)
def _usual_sender(via: str) -> str | None:
    """The sent-by of the beginning of a Via line, up to its branch."""
    match = _USUAL_SENDER.fullmatch(via)
    return match[1] if match is not None else None


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


def _cut_body(message: Request | Response, limits: Limits) -> None:
    """Hold the body against Content-Length (§18.3); a datagram may leave the header out."""
    there = len(message.body)
    length = message.value("content-length")
    if length:
        if not length.isdecimal() or not length.isascii():
            raise ParseError("Malformed Content-Length header", message=_answerable(message))
        size = int(length) if len(length) < 10 else limits.message + 1
        if size > there:
            raise ParseError("Body shorter than Content-Length", message=_answerable(message))
        message.body = message.body[:size]
        there = size
    if there > limits.body:
        raise ParseError("Request Entity Too Large", 413, _answerable(message))

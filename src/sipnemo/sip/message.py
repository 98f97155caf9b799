"""A SIP message: raw header lines, typed when asked (RFC 3261 §7).

Header lines stay as they came and are handed on untouched; only what identifies transaction and dialog is read at
once. Text is Latin-1, one character per octet, so that every octet survives.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from sipnemo.sip.errors import REASONS

COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"RFC 3261 §7.3.3 and the registry of compact forms."

_PRINTED: Final = {
    "via": "Via",
    "from": "From",
    "to": "To",
    "call-id": "Call-ID",
    "cseq": "CSeq",
    "contact": "Contact",
    "route": "Route",
    "record-route": "Record-Route",
    "max-forwards": "Max-Forwards",
    "content-length": "Content-Length",
    "content-type": "Content-Type",
    "www-authenticate": "WWW-Authenticate",
    "rack": "RAck",
    "rseq": "RSeq",
    "min-se": "Min-SE",
}


def printed(name: str) -> str:
    """A header's canonical (lower-case) name as people write it."""
    known = _PRINTED.get(name)
    return known if known is not None else "-".join(part.capitalize() for part in name.split("-"))


def split_list(value: str) -> list[str]:
    """The elements of a comma-separated header value, commas in quotes and angle brackets respected."""
    if "," not in value:
        return [value]
    parts: list[str] = []
    start = depth = 0
    quoted = escaped = False
    for i, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            if char == "\\":
                escaped = True
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == "<":
            depth += 1
        elif char == ">":
            depth = max(0, depth - 1)
        elif char == "," and depth == 0:
            parts.append(value[start:i].strip())
            start = i + 1
    parts.append(value[start:].strip())
    return [part for part in parts if part]


_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)


def end_of_uri(value: str) -> int:
    """Where the `>` of a name-addr stands; -1 when the URI is not in angle brackets (RFC 3261 §20.10).

    Neither a display name before it nor a quoted parameter behind it (`+sip.instance="<urn:uuid:…>"`) misleads.
    """
    at = 0
    if value.startswith('"'):
        name = _QUOTED.match(value)
        if name is None:
            return -1
        at = name.end()
    opened = value.find("<", at)
    if opened < 0 or value.find(";", at, opened) > -1:
        return -1
    return value.find(">", opened)


def parameter(value: str, name: str) -> str | None:
    """The value of `;name=value` behind the URI of a header value; "" when it has none, None when it is absent."""
    for part in value[end_of_uri(value) + 1 :].split(";")[1:]:
        key, _, text = part.partition("=")
        if key.strip().lower() == name:
            return text.strip()
    return None


def tag_of(value: str) -> str:
    """The tag of a From or To value, "" when it has none."""
    return parameter(value, "tag") or "" if ";" in value else ""


def uri_of(value: str) -> str:
    """The URI inside a name-addr or addr-spec value (RFC 3261 §20.10), as text."""
    close = end_of_uri(value)
    if close < 0:
        return value.split(";", 1)[0].strip()
    return value[value.rfind("<", 0, close) + 1 : close]


@lru_cache(maxsize=4096)
def _contact_on(line: str) -> tuple[str, str]:
    """The URI of a Contact line, and what stands behind its `>`; a phone's is the same in every message."""
    value = line[line.index(":") + 1 :].strip()
    close = end_of_uri(value)
    return uri_of(value), value[close + 1 :] if close >= 0 else ""


def contact_on(line: str) -> tuple[str, str]:
    """The URI of a Contact line (RFC 3261 §20.10), and what stands behind its `>`."""
    return _contact_on(line) if len(line) <= 256 else _contact_on.__wrapped__(line)


class Message:
    """What requests and responses share. `names[i]` is the canonical name of `lines[i]`, a whole raw line."""

    __slots__ = (
        "body",
        "branch",
        "call_id",
        "cseq",
        "cseq_method",
        "from_tag",
        "lines",
        "names",
        "sent_by",
        "to_tag",
    )

    names: tuple[str, ...]
    lines: list[str]
    body: str
    branch: str
    "Of the topmost Via."
    sent_by: str
    "Host and port of the topmost Via, as written."
    call_id: str
    from_tag: str
    to_tag: str
    cseq: int
    cseq_method: str

    def value(self, name: str) -> str:
        """The first header of that canonical name, without surrounding white space; "" when absent."""
        names = self.names
        if name not in names:
            return ""
        line = self.lines[names.index(name)]
        return line[line.index(":") + 1 :].strip()

    @property
    def contact(self) -> str:
        """The URI of the first Contact; "" when there is none."""
        names = self.names
        if "contact" not in names:
            return ""
        line = self.lines[names.index("contact")]
        return _contact_on(line)[0] if len(line) <= 256 else contact_on(line)[0]

    def values(self, name: str) -> list[str]:
        """All elements of the headers of that name, comma-separated ones taken apart, in order."""
        if name not in self.names:
            return []
        found: list[str] = []
        for known, line in zip(self.names, self.lines, strict=True):
            if known == name:
                found += split_list(line[line.index(":") + 1 :].strip())
        return found

    def values_of_line(self, index: int) -> list[str]:
        """The elements of one header line."""
        line = self.lines[index]
        return split_list(line[line.index(":") + 1 :].strip())

    def values_raw(self, name: str) -> list[str]:
        """The values of the headers of that name, commas left alone (challenges, dates)."""
        return [
            line[line.index(":") + 1 :].strip()
            for known, line in zip(self.names, self.lines, strict=True)
            if known == name
        ]

    def has_token(self, name: str, token: str) -> bool:
        """Whether a list header (Supported, Require, Allow, …) names this token, case ignored."""
        return any(value.partition(";")[0].strip().lower() == token for value in self.values(name))

    def set(self, name: str, value: str) -> None:
        """Replace the first header of that name, or append one."""
        line = f"{printed(name)}: {value}"
        if name in self.names:
            self.lines[self.names.index(name)] = line
        else:
            self.append(name, line)

    def strip(self) -> None:
        """Forget header lines and body: only what identifies the message is still wanted."""
        self.names, self.lines, self.body = (), [], ""

    def append(self, name: str, line: str) -> None:
        """Add a whole line below all others."""
        self.names = (*self.names, name)
        self.lines.append(line)

    def push(self, name: str, value: str) -> None:
        """Insert above the first header of that name, or at the top."""
        names = self.names
        at = names.index(name) if name in names else 0
        self.names = (*names[:at], name, *names[at:])
        self.lines.insert(at, f"{printed(name)}: {value}")

    def remove(self, name: str) -> None:
        """Delete every header of that name."""
        while name in self.names:
            self._delete(self.names.index(name))

    def pop(self, name: str) -> str:
        """Take the topmost element of a list header off and return it ("" when there is none)."""
        if name not in self.names:
            return ""
        at = self.names.index(name)
        line = self.lines[at]
        first, *rest = split_list(line[line.index(":") + 1 :].strip()) or [""]
        if rest:
            self.lines[at] = f"{printed(name)}: {', '.join(rest)}"
        else:
            self._delete(at)
        return first

    def _delete(self, at: int) -> None:
        self.names = self.names[:at] + self.names[at + 1 :]
        del self.lines[at]

    @property
    def start_line(self) -> str:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The octets to send; Content-Length is set from the body."""
        self.set("content-length", str(len(self.body)))
        return "\r\n".join((self.start_line, *self.lines, "", self.body)).encode("latin-1")


class Request(Message):
    """A request (RFC 3261 §7.1)."""

    __slots__ = ("method", "uri")

    def __init__(
        self,
        method: str,
        uri: str,
        names: tuple[str, ...],
        lines: list[str],
        body: str,
        branch: str = "",
        sent_by: str = "",
        call_id: str = "",
        from_tag: str = "",
        to_tag: str = "",
        cseq: int = 0,
        cseq_method: str = "",
    ) -> None:
        # Request and Response each set all of it: one more call for every message shows in the cost of a call.
        self.names = names
        self.lines = lines
        self.body = body
        self.branch = branch
        self.sent_by = sent_by
        self.call_id = call_id
        self.from_tag = from_tag
        self.to_tag = to_tag
        self.cseq = cseq
        self.cseq_method = cseq_method
        self.method = method
        self.uri = uri

    @property
    def start_line(self) -> str:
        """The Request-Line."""
        return f"{self.method} {self.uri} SIP/2.0"

    def copy(self) -> Request:
        """An independent copy that may be edited."""
        return Request(
            self.method,
            self.uri,
            self.names,
            self.lines[:],
            self.body,
            self.branch,
            self.sent_by,
            self.call_id,
            self.from_tag,
            self.to_tag,
            self.cseq,
            self.cseq_method,
        )


class Response(Message):
    """A response (RFC 3261 §7.2)."""

    __slots__ = ("reason", "status")

    def __init__(
        self,
        status: int,
        reason: str,
        names: tuple[str, ...],
        lines: list[str],
        body: str,
        branch: str = "",
        sent_by: str = "",
        call_id: str = "",
        from_tag: str = "",
        to_tag: str = "",
        cseq: int = 0,
        cseq_method: str = "",
    ) -> None:
        self.names = names
        self.lines = lines
        self.body = body
        self.branch = branch
        self.sent_by = sent_by
        self.call_id = call_id
        self.from_tag = from_tag
        self.to_tag = to_tag
        self.cseq = cseq
        self.cseq_method = cseq_method
        self.status = status
        self.reason = reason

    @property
    def start_line(self) -> str:
        """The Status-Line."""
        return f"SIP/2.0 {self.status} {self.reason}"


_ECHOED: Final = frozenset(("via", "from", "to", "call-id", "cseq"))
_ECHOED_IN_100: Final = _ECHOED | {"timestamp"}


def reply(
    request: Request,
    status: int,
    reason: str = "",
    *,
    to_tag: str = "",
    headers: tuple[str, ...] = (),
    body: str = "",
) -> bytes:
    """A response to this request (RFC 3261 §8.2.6); `headers` are whole lines, Content-Type among them."""
    lines = [f"SIP/2.0 {status} {reason or REASONS.get(status, 'Unknown')}"]
    echoed = _ECHOED_IN_100 if status == 100 else _ECHOED
    lines += [line for name, line in zip(request.names, request.lines, strict=True) if name in echoed]
    if to_tag and not request.to_tag and "to" in request.names:
        line = request.lines[request.names.index("to")]
        lines[lines.index(line)] = f"{line};tag={to_tag}"
    lines += headers
    lines.append(f"Content-Length: {len(body)}\r\n\r\n{body}")
    return "\r\n".join(lines).encode("latin-1")

"""Whole messages out of a stream of octets (RFC 3261 §18.3), and the keep-alives between them (RFC 5626 §4.4.1)."""

from __future__ import annotations

import re

_CONTENT_LENGTH = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*:(?:[ \t]|\r\n[ \t])*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_COPIED = re.compile(rb"\r\n(?:via|v|from|f|to|t|call-id|i|cseq)[ \t]*:(?:[^\r]|\r\n[ \t])*", re.IGNORECASE)
_REQUEST_LINE = re.compile(rb"([A-Za-z0-9\-.!%*_+`'~]+) [^\r\n]* SIP/2\.0\r\n")


class FramingError(Exception):
    """Where the next message begins can no longer be told: answer with `response`, then close the connection."""

    def __init__(self, status: int, reason: str, head: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.response = _response(status, reason, head)
        "What to send before closing; empty when nothing can be answered (not a request, or an ACK)."


class StreamFramer:
    """Cuts one connection's octets into messages."""

    def __init__(self, max_message: int = 65536) -> None:
        self.max_message = max_message
        self.pings = 0
        "Double CRLFs seen so far; the side that accepted the connection owes a CRLF for each."

        self._buffer = b""
        self._line_ends = 0
        "CRLFs since the last message or ping."

        self._searched = 0
        "Octets of the buffer in which no end of a head was found."

        self._needed = 0
        "Octets of the message at the front of the buffer, 0 while its head is not complete."

    @property
    def pending(self) -> int:
        """Octets of a message that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take in octets; the messages that are whole now. Raises FramingError, after which nothing may be fed."""
        buffer = self._buffer + data if self._buffer else data
        if len(buffer) < self._needed:
            self._buffer = buffer
            return []
        messages: list[bytes] = []
        start = 0
        while True:
            start = self._skip_line_ends(buffer, start)
            if start == len(buffer) or buffer[start:] == b"\r":
                break
            self._line_ends = 0
            needed = self._needed or self._length(buffer, start)
            if not needed or len(buffer) - start < needed:
                self._needed = needed
                break
            messages.append(buffer[start : start + needed])
            start += needed
            self._needed = self._searched = 0
        self._buffer = buffer[start:]
        return messages

    def _skip_line_ends(self, buffer: bytes, start: int) -> int:
        if self._needed:
            return start
        while buffer.startswith(b"\r\n", start):
            start += 2
            self._searched = 0
            self._line_ends += 1
            if self._line_ends == 2:
                self.pings += 1
                self._line_ends = 0
        return start

    def _length(self, buffer: bytes, start: int) -> int:
        """Octets of the message that begins here; 0 when its head is not complete."""
        blank = buffer.find(b"\r\n\r\n", start + max(0, self._searched - 3))
        if blank < 0:
            self._searched = len(buffer) - start
            if self._searched > self.max_message:
                raise FramingError(513, "Message Too Large", _whole_lines(buffer[start:]))
            return 0
        head = buffer[start : blank + 2]
        values = set(_CONTENT_LENGTH.findall(head))
        if not values:
            raise FramingError(400, "Content-Length Required On A Stream", head)
        value = values.pop()
        if values or not value.isdigit():
            raise FramingError(400, "Bad Content-Length", head)
        # Eleven digits are far beyond any limit; longer ones are not worth converting.
        needed = len(head) + 2 + int(value[:11])
        if needed > self.max_message:
            raise FramingError(413 if len(head) + 2 <= self.max_message else 513, "Message Too Large", head)
        return needed


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\r\n") + 2]


def _response(status: int, reason: str, head: bytes) -> bytes:
    """A response with the lines every response copies (RFC 3261 §8.2.6.2), as far as they are there."""
    request = _REQUEST_LINE.match(head)
    if request is None or request[1] == b"ACK":
        return b""
    lines = b"".join(match[0] for match in _COPIED.finditer(head))
    return f"SIP/2.0 {status} {reason}".encode() + lines + b"\r\nContent-Length: 0\r\n\r\n"

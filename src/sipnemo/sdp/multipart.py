"""Find the session description in a body, alone or as a part of multipart/* (RFC 5621), to replace it in place."""

from __future__ import annotations

import re
from typing import Final

_BOUNDARY: Final = re.compile(r';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_MAX_DEPTH: Final = 3
_IDENTITY: Final = frozenset(("", "7bit", "8bit", "binary"))


def find_sdp(content_type: str, body: str) -> tuple[int, int] | None:
    """Start and end of the session description in `body`, or None when there is none to replace.

    The first `application/sdp` part counts, at any depth up to three; one in base64 or quoted-printable does not, as
    it could not be replaced in place.
    """
    return _find(content_type, body, 0, len(body), 1)


def _find(content_type: str, body: str, start: int, end: int, depth: int) -> tuple[int, int] | None:
    kind = media_type(content_type)
    if kind == "application/sdp":
        return (start, end) if start < end else None
    if not kind.startswith("multipart/") or depth > _MAX_DEPTH:
        return None
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return None
    quoted, token = boundary.groups()
    delimiter = "--" + (re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token)
    for part_start, part_end in _parts(body, start, end, delimiter):
        headers_end, content = _part_headers(body, part_start, part_end)
        headers = _headers(body[part_start:headers_end])
        if headers.get("content-transfer-encoding", "").lower() not in _IDENTITY:
            continue
        # A part without a type is text/plain (RFC 2046 §5.1).
        found = _find(headers.get("content-type", "text/plain"), body, content, part_end, depth + 1)
        if found is not None:
            return found
    return None


def media_type(content_type: str) -> str:
    """Type and subtype in lower case, without parameters: 'application/sdp'."""
    return content_type.partition(";")[0].strip().lower()


def _parts(body: str, start: int, end: int, delimiter: str) -> list[tuple[int, int]]:
    """Spans of the parts between delimiter lines, headers included, line end before a delimiter excluded."""
    parts: list[tuple[int, int]] = []
    opened = -1
    at = start
    while at < end:
        newline = body.find("\n", at, end)
        after = end if newline < 0 else newline + 1
        if body.startswith(delimiter, at, end):
            tail = body[at + len(delimiter) : after].rstrip(" \t\r\n")
            if tail in ("", "--"):
                if opened >= 0:
                    parts.append((opened, _before_line_end(body, opened, at)))
                opened = after
                if tail:
                    return parts
        at = after
    return parts  # what follows the last delimiter is cut off, or an epilogue


def _before_line_end(body: str, start: int, at: int) -> int:
    """`at` without the line end in front of it, which belongs to the delimiter (RFC 2046 §5.1.1)."""
    if at > start and body[at - 1] == "\n":
        at -= 1
        if at > start and body[at - 1] == "\r":
            at -= 1
    return at


def _part_headers(body: str, start: int, end: int) -> tuple[int, int]:
    """End of the part's header lines and start of its content."""
    at = start
    while at < end:
        newline = body.find("\n", at, end)
        after = end if newline < 0 else newline + 1
        if body[at:after].strip("\r\n") == "":
            return at, after
        at = after
    return end, end


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in re.sub(r"\r?\n[ \t]+", " ", text).split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    # The compact form of Content-Type (RFC 3261 §7.3.3) is seen inside bodies, too.
    if "c" in headers:
        headers.setdefault("content-type", headers["c"])
    return headers

"""A request as it is passed on: every line as it came but those a proxy must change (RFC 3261 §16.6)."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request
from sipnemo.sip.uri import Uri


class Hop(NamedTuple):
    """One way to one place."""

    uri: str
    "The Request-URI it gets."

    flow: Flow | None
    "Where it goes; None: as `next_uri` says (RFC 3263)."

    next_uri: Uri | None = None

    lines: tuple[str, ...] = ()
    "Header lines of this hop's own: Record-Route, Route."

    watched: bool = False
    "A flow of a SIP-NMS: its silence is remembered, and the next Priority tried."

    gateway: str = ""
    "User part of that SIP-NMS's URI: where flows are looked up that it has registered meanwhile."


class Outgoing:
    """The part of a request that is the same whatever hop it takes."""

    def __init__(self, request: Request, hops_left: int) -> None:
        """`request` is ours to change: Route and credentials have been dealt with."""
        request.set("max-forwards", str(hops_left))
        if "content-length" not in request.names:
            request.set("content-length", str(len(request.body)))
        self.method: Final = request.method
        self._rest: Final = "\r\n".join((*request.lines, "", request.body))

    @property
    def size(self) -> int:
        """Octets, but for the start line and what a hop adds."""
        return len(self._rest)

    def encode(self, via: str, hop: Hop) -> bytes:
        """The octets to send by this hop."""
        if hop.lines:
            own = "\r\n".join(hop.lines)
            return f"{self.method} {hop.uri} SIP/2.0\r\n{via}\r\n{own}\r\n{self._rest}".encode("latin-1")
        return f"{self.method} {hop.uri} SIP/2.0\r\n{via}\r\n{self._rest}".encode("latin-1")


def loop_mark(request: Request) -> str:
    """Ends our branch parameters; the same when the same request comes back to be treated the same (RFC 5393 §4.2)."""
    parts = [request.uri, request.from_tag, request.to_tag, request.call_id, str(request.cseq)]
    for name in ("route", "proxy-require"):
        if name in request.names:
            parts += request.values_raw(name)
    return hashlib.blake2b("|".join(parts).encode("latin-1"), digest_size=6).hexdigest()

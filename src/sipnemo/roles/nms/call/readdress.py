"""An INVITE that is sent again from another path as the same transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import MOVED
from sipnemo.roles.nms.call.media import body_sdp
from sipnemo.roles.nms.call.translate import contact_line
from sipnemo.sip.errors import ParseError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.path.paths import Path


def readdressed(session: Session, data: bytes, path: Path, flow: Flow, moves: int) -> bytes:
    """The INVITE as it was, but for the addresses at which the new path is reached, and the count of its moves."""
    try:
        request = parse(data)
    except ParseError:
        return data
    if not isinstance(request, Request):
        return data
    span = body_sdp(request)
    top = request.names.index("via")
    request.lines[top] = request.lines[top].partition(MOVED)[0] + f"{MOVED}{moves}"
    if span is not None and session.media is not None:
        text = session.media.again(path.media_host)
        request.body = request.body[: span[0]] + text + request.body[span[1] :]
        request.set("content-length", str(len(request.body)))
    if "contact" in request.names:
        at = request.names.index("contact")
        contact = path.contact(flow.local.transport, f";mn={session.token}")
        request.lines[at] = contact_line(request.lines[at], contact)
    return request.encode()

"""Where a request goes, from the URI it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import LARGEST_DATAGRAM
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request
from sipnemo.sip.server_location import Target
from sipnemo.sip.uri import Uri, UriError, host_port, is_address
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    pass

from collections.abc import Callable

Located = Callable[[list[Target], float], None]
"What is done with the targets of a request once they are known."


def sip_uri(text: str) -> Uri:
    """A URI that a request can be sent to; 416 for other schemes, 400 for nonsense (§8.2.2.1)."""
    try:
        uri = parse_uri(text)
    except UriError as error:
        raise SipError(400, f"Bad URI: {error}") from None
    if not uri.is_sip:
        raise SipError(416)
    return uri


def fits(request: Request, body: str) -> bool:
    """Whether a request with this body may go as a datagram (§18.1.1)."""
    return len(body) + 200 + sum(map(len, request.lines)) <= LARGEST_DATAGRAM


def address_in(contact: str) -> str:
    """The address that a Contact URI names; "" when it names none."""
    try:
        host = host_port(parse_uri(contact))[0]
    except UriError:
        return ""
    return host if is_address(host) else ""


def sized(targets: list[Target], uri: Uri, request: Request, body: str) -> list[Target]:
    """A request too large for a datagram tries TCP first, unless the URI insists (§18.1.1)."""
    if targets[0].transport != "UDP" or uri.transport or fits(request, body):
        return targets
    return [target._replace(transport="TCP") for target in targets] + targets

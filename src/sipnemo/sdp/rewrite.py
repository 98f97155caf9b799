"""Move a session description to another address: what a B2BUA does to SDP (RO-9), and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sipnemo.sdp.description import Connection, Description, Media, Origin, parse


class Endpoint(NamedTuple):
    """Where one medium wants to receive."""

    host: str
    "Address literal. With port 0 it may be empty; while `held` it is no address to send to."

    rtp_port: int

    rtcp_host: str

    rtcp_port: int
    "The RTP port itself when both share one; 0 when the medium is not active."

    mux: bool
    "rtcp-mux is offered or answered; in force only when both sides say so (RFC 5761 §5.1.1)."

    active: bool
    "Port is not 0."

    held: bool
    "The address is 0.0.0.0, :: or under .invalid: nothing may be sent there (RFC 3264 §8.4)."

    forwardable: bool
    "Active, unicast and over UDP, so packets can be forwarded; `move` leaves multicast where it is."


def endpoints(description: Description) -> list[Endpoint]:
    """Where the media want to receive, one per `m=` line."""
    return [_endpoint(media) for media in description.media]


def move(
    description: Description | str,
    host: str,
    ports: Sequence[int | None],
    *,
    session_id: str | None = None,
    version: int,
    origin: str = "",
) -> str:
    """The same description, received at `host` and `ports` (RTP port per `m=` line; None rejects the medium).

    Replaced: the address of every `c=` and of `o=` (by `origin` where that is given: in later offers of one session
    `o=` may differ in its version only, RFC 3264 §8), the `o=` version (and session id when given), the `m=` ports,
    and an `a=rtcp` that is there (our RTP port + 1, or the RTP port itself if the original shared it). A port count
    ("49170/2") becomes one, as one pair is forwarded. Removed: everything of ICE (RFC 8839), so that the call uses
    `c=`, and the `a=rtcp` of a medium with port 0. Kept: a medium with port 0 stays at 0; multicast `c=` and the
    ports under it; and hold: an unspecified address in `c=` (RFC 3264 §8.4) stays as it is, since our own address
    there would take the medium off hold. Every other line passes octet for octet. Line ends become CRLF.
    """
    if isinstance(description, str):
        description = parse(description)
    media = description.media
    if len(ports) != len(media):
        raise ValueError(f"{len(ports)} ports for {len(media)} m= lines")
    address = ("IN IP6 " if ":" in host else "IN IP4 ") + host
    fixed = address if not origin else ("IN IP6 " if ":" in origin else "IN IP4 ") + origin
    lines: list[str] = list(description.lines)
    for number, kind, medium in description.edits:
        if kind == "c":
            lines[number] = _moved_c(lines[number], address, description, medium)
        elif kind == "m":
            lines[number] = _moved_m(lines[number], media[medium], ports[medium])
        elif kind == "o":
            lines[number] = _moved_o(description.origin, fixed, session_id, version)
        elif kind == "rtcp" and medium >= 0:
            lines[number] = _moved_rtcp(lines[number], media[medium], ports[medium], address)
        else:
            lines[number] = ""
    if "" in lines:
        lines = [line for line in lines if line]
    lines.append("")
    return "\r\n".join(lines)


def _endpoint(media: Media) -> Endpoint:
    connection = media.connection
    host = "" if connection is None else connection.address
    if media.port == 0:
        return Endpoint(host, 0, host, 0, media.rtcp_mux, False, False, False)
    rtcp_host, rtcp_port = host, media.port + 1
    # Placeholders such as "a=rtcp:9 IN IP4 0.0.0.0" say nothing (RFC 8839 §4.2.1).
    if media.rtcp_port and media.rtcp_address not in ("0.0.0.0", "::"):
        rtcp_port = media.rtcp_port
        if media.rtcp_address is not None:
            rtcp_host = media.rtcp_address
    held = connection is not None and connection.unspecified
    forwardable = connection is not None and not connection.multicast and media.proto[:3].upper() != "TCP"
    return Endpoint(host, media.port, rtcp_host, min(rtcp_port, 65535), media.rtcp_mux, True, held, forwardable)


def _moved_c(line: str, address: str, description: Description, medium: int) -> str:
    connection: Connection | None
    connection = description.connection if medium < 0 else description.media[medium].connection
    if connection is not None and (connection.unspecified or connection.multicast):
        return line
    return "c=" + address


def _moved_m(line: str, media: Media, port: int | None) -> str:
    connection = media.connection
    if media.port and port and connection is not None and connection.multicast:
        return line
    new = port if port and media.port else 0
    # The rest of the line is cut from the original, so that odd spacing in it survives.
    rest = line[2:].split(" ", 2)[2]
    return f"m={media.kind} {new} {rest}"


def _moved_rtcp(line: str, media: Media, port: int | None, address: str) -> str:
    connection = media.connection
    if not port or not media.port:
        return ""
    if connection is not None and connection.multicast:
        return line
    new = port if media.rtcp_port == media.port else port + 1
    if media.rtcp_address is None or media.rtcp_address in ("0.0.0.0", "::"):
        placeholder = line.partition(" ")[2]
        return f"a=rtcp:{new} {placeholder}" if placeholder else f"a=rtcp:{new}"
    return f"a=rtcp:{new} {address}"


def _moved_o(origin: Origin, address: str, session_id: str | None, version: int) -> str:
    return f"o={origin.username} {session_id or origin.sess_id} {version} {address}"

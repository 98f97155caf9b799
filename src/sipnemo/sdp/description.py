"""Parse a session description (RFC 8866), order and unknown lines kept.

One pass over the lines. Besides the values, a `Description` remembers which lines name an address or port, so that
`rewrite.move` can replace exactly those and hand on every other line octet for octet.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple


class SdpError(ValueError):
    """The description cannot be served; the text says which line and why."""


class Origin(NamedTuple):
    """The `o=` line (RFC 8866 §5.2)."""

    username: str
    sess_id: str
    version: int
    nettype: str
    addrtype: str
    address: str


class Connection(NamedTuple):
    """A `c=` line (RFC 8866 §5.7)."""

    addrtype: str
    "IP4 or IP6."

    address: str
    "Address literal without TTL or count; or a name under .invalid, which means hold (RFC 6157 §3.1)."

    unspecified: bool
    "0.0.0.0, :: or .invalid: do not send here (RFC 3264 §8.4)."

    multicast: bool


class Media(NamedTuple):
    """One `m=` line and what follows it."""

    kind: str
    "audio, video, image, …"

    port: int
    "0: rejected or ended (RFC 3264 §6)."

    port_count: int
    proto: str

    formats: str
    "As written: '0 8 101'."

    connection: Connection | None
    "Where this medium wants its packets: its own `c=`, else the session's. None only with port 0."

    rtcp_port: int | None
    "From `a=rtcp` (RFC 3605)."

    rtcp_address: str | None
    "From `a=rtcp`, when it names one."

    rtcp_mux: bool
    "RTP and RTCP are offered on one port (RFC 5761, RFC 8858)."

    direction: str
    "sendrecv, sendonly, recvonly or inactive; the session's when the medium has none."

    ice: bool
    "ICE candidates or credentials are present, here or at session level (RFC 8839)."


Edit = tuple[int, str, int]
"A line that depends on our address: its number, what it is, and which medium (-1: the session) it belongs to."


class Description(NamedTuple):
    """A whole session description."""

    origin: Origin
    connection: Connection | None
    "The session-level `c=`."

    media: tuple[Media, ...]
    "One per `m=` line, in order. May be empty: an offer without media is legal (RFC 3264 §5)."

    direction: str
    "The session-level direction; sendrecv when none is written."

    lines: tuple[str, ...]
    "Every line as it came, without line ends."

    edits: tuple[Edit, ...]
    "The lines that `move` replaces (o=, c=, m=, a=rtcp) or removes (ICE), in order."


# The first four letters of the attributes that matter here; all other attributes pass after one look-up.
_NOTED: Final = frozenset(("rtcp", "send", "recv", "inac", "cand", "ice-", "ice2", "remo", "end-"))
_DIRECTIONS: Final = frozenset(("sendrecv", "sendonly", "recvonly", "inactive"))
_ICE: Final = frozenset(("candidate", "remote-candidates", "end-of-candidates", "ice2"))


def parse(text: str) -> Description:
    """The description in `text`; line ends may be CRLF or LF. Raises SdpError when it cannot be served."""
    lines = split_lines(text)
    origin: Origin | None = None
    session: Connection | None = None
    session_direction = "sendrecv"
    session_ice = False
    edits: list[Edit] = []
    media: list[Media] = []

    # Of the medium being read; `medium` is its number, -1 while the session's own lines are read.
    medium = -1
    m_line: tuple[str, int, int, str, str] = ("", 0, 0, "", "")
    connection: Connection | None = None
    rtcp_port: int | None = None
    rtcp_address: str | None = None
    mux = False
    direction = session_direction
    ice = False

    for number, line in enumerate(lines):
        kind = line[:2]
        if kind == "a=":
            if line[2:6] not in _NOTED:
                continue
            name, _, value = line[2:].partition(":")
            if name in _DIRECTIONS:
                direction = name
            elif name == "rtcp":
                rtcp_port, rtcp_address = _parse_rtcp(value)
                edits.append((number, "rtcp", medium))
            elif name in ("rtcp-mux", "rtcp-mux-only"):
                mux = True
            elif name in _ICE or name[:4] == "ice-":
                ice = True
                edits.append((number, "ice", medium))
        elif kind == "m=":
            if medium < 0:
                session, session_direction, session_ice = connection, direction, ice
            else:
                media.append(_medium(m_line, connection, rtcp_port, rtcp_address, mux, direction, ice))
            medium += 1
            m_line = _parse_m(line)
            connection, direction, ice = session, session_direction, session_ice
            rtcp_port, rtcp_address, mux = None, None, False
            edits.append((number, "m", medium))
        elif kind == "c=":
            connection = _parse_c(line)
            edits.append((number, "c", medium))
        elif kind == "o=":
            if origin is not None or medium >= 0:
                raise SdpError("more than one o= line, or one behind m=")
            origin = _parse_o(line)
            edits.append((number, "o", -1))
    if medium < 0:
        session, session_direction = connection, direction
    else:
        media.append(_medium(m_line, connection, rtcp_port, rtcp_address, mux, direction, ice))
    if origin is None:
        raise SdpError("no o= line")
    return Description(origin, session, tuple(media), session_direction, tuple(lines), tuple(edits))


def split_lines(text: str) -> list[str]:
    """The lines of `text` without their ends and without empty lines. Only CRLF and LF end a line."""
    lines = text.split("\r\n")
    if text.count("\n") != len(lines) - 1:
        lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if "" in lines:
        lines = [line for line in lines if line]
    if not lines or lines[0] != "v=0":
        raise SdpError("does not begin with v=0")
    return lines


def _medium(
    m_line: tuple[str, int, int, str, str],
    connection: Connection | None,
    rtcp_port: int | None,
    rtcp_address: str | None,
    mux: bool,
    direction: str,
    ice: bool,
) -> Media:
    kind, port, count, proto, formats = m_line
    if connection is None and port != 0:
        raise SdpError(f"no c= line for m={kind} {port}")
    return Media(kind, port, count, proto, formats, connection, rtcp_port, rtcp_address, mux, direction, ice)


def _parse_m(line: str) -> tuple[str, int, int, str, str]:
    parts = line[2:].split(" ", 3)
    if len(parts) == 3:
        parts.append("")  # a rejected medium is sometimes sent without formats
    if len(parts) != 4 or not parts[0] or not parts[2]:
        raise SdpError(f"bad m= line: {line!r}")
    port, slash, count = parts[1].partition("/")
    if slash and not (count.isdecimal() and len(count) <= 5 and int(count) > 0):
        raise SdpError(f"bad port count: {line!r}")
    return parts[0], parse_port(port, line), int(count) if slash else 1, parts[2], parts[3]


@lru_cache(maxsize=4096)
def _parse_c(line: str) -> Connection:
    """Cached: a phone writes the same line in every description."""
    parts = line[2:].split()
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        raise SdpError(f"bad c= line: {line!r}")
    return connection_to(parts[1], parts[2].partition("/")[0])


def connection_to(addrtype: str, address: str) -> Connection:
    """The Connection for this address; raises SdpError when it is no literal of that type."""
    if address.endswith(".invalid"):
        return Connection(addrtype, address, unspecified=True, multicast=False)
    literal = _literal(address)
    if literal is None or literal.version != (4 if addrtype == "IP4" else 6):
        # Names are legal in c=, but a medium cannot be forwarded to one without asking DNS per call.
        raise SdpError(f"not an {addrtype} address: {address!r}")
    return Connection(addrtype, address, literal.is_unspecified, literal.is_multicast)


def _literal(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return None if "%" in address else ip_address(address)
    except ValueError:
        return None


def _parse_rtcp(value: str) -> tuple[int, str | None]:
    parts = value.split()
    if len(parts) == 1:
        return parse_port(parts[0], "a=rtcp"), None
    if len(parts) != 4 or parts[1] != "IN" or parts[2] not in ("IP4", "IP6"):
        raise SdpError(f"bad a=rtcp: {value!r}")
    return parse_port(parts[0], "a=rtcp"), connection_to(parts[2], parts[3]).address


def _parse_o(line: str) -> Origin:
    parts = line[2:].split()
    # 20 digits hold any 64-bit number (RFC 3264 §5).
    if len(parts) != 6 or not parts[2].isdecimal() or len(parts[2]) > 20:
        raise SdpError(f"bad o= line: {line!r}")
    return Origin(parts[0], parts[1], int(parts[2]), parts[3], parts[4], parts[5])


def parse_port(text: str, where: str) -> int:
    """The port number in `text`, 0 to 65535."""
    # str.isdecimal on Latin-1 text is true for ASCII digits only.
    if not text.isdecimal() or len(text) > 5 or (port := int(text)) > 65535:
        raise SdpError(f"bad port {text!r} in {where!r}")
    return port

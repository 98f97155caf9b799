"""Which paths a far end can be reached by, where uplinks are of both address families (R9).

Its signalling tells: the next hop of its dialog has an address of the path's family, or it has not. A name that
resolves to both counts for both, and so does a SIP-HS of which both addresses are known.

Its media tell less. The addresses in force are of one family; whether it has one of the other is only known when it is
asked, by a re-INVITE that offers the other family's: a dual-stack far end answers in kind, another with 488, or with
its old address, of no use on this path (ANAT and ccap, which could tell beforehand, nobody speaks). So paths of the
family that its media have come first, whatever the policy; another path is asked about only when none of these is ON,
once per move, and when the answer is no, the call waits as if that path were OFF.

Phones inside notice nothing: the media plane translates between families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.sip.server_location import Target
from sipnemo.sip.uri import Uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Dialog, Session
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path


def fitting(node: MobilityServer, session: Session) -> list[Path]:
    """Paths that are ON and may serve this session, the best one first."""
    ranked = node.ranked(session)
    if not node.paths.mixed:
        return ranked
    reached = [path for path in ranked if _signalling(session.dialog, path)]
    media = media_families(session)
    return sorted(reached, key=lambda path: bool(media) and path.ipv6 not in media)


def candidates(node: MobilityServer, move: Move) -> list[Path]:
    """Paths for a call's move, the best one first."""
    session = move.session
    paths = fitting(node, session)
    if move.unfit:
        paths = [path for path in paths if path.ipv6 not in move.unfit or serves_media(session, path)]
    if move.wave.cause == "nat" and session.path in paths:  # a call stays where it is unless it is moved (R15)
        paths.remove(session.path)
        paths.insert(0, session.path)
    return paths


def home_targets(server: Uri, addresses: tuple[str, ...]) -> list[Target]:
    """Where the SIP-HS is, by the addresses that the operator has written."""
    transport = "TLS" if server.scheme == "sips" else server.transport or "UDP"
    port = server.port or (5061 if transport == "TLS" else 5060)
    return [Target(transport, address, port) for address in addresses]


def other_hop(node: MobilityServer, targets: list[Target]) -> Target | None:
    """A far end's next hop by the family that its first target is not of."""
    first = targets[0]
    six = ":" in first.host
    other = next((target for target in targets if (":" in target.host) != six), None)
    if other is None and first.host in node.home.hosts:
        host = next((host for host in sorted(node.home.hosts) if (":" in host) != six), None)
        other = first._replace(host=host) if host is not None else None
    return other


def serves_media(session: Session, path: Path) -> bool:
    """Whether the addresses that the far end's media have now can be reached by this path."""
    media = media_families(session)
    return not media or path.ipv6 in media


def media_families(session: Session) -> list[bool]:
    """Families (True: IPv6) of the far end's media addresses, offered or in force; empty when it has none."""
    media = session.media
    if media is None:
        return []
    ends = media.pending_cn or media.cn
    return [":" in end.host for end in ends if end.active and end.forwardable and not end.held]


def signalling_families(dialog: Dialog | None) -> tuple[int, ...]:
    """Families, 4 and 6, by which requests can leave to this far end; as long as that is not known, both."""
    hops = [] if dialog is None else [hop for hop in (dialog.next_hop, dialog.other_hop) if hop is not None]
    return tuple(sorted({6 if ":" in hop.host else 4 for hop in hops})) or (4, 6)


def _signalling(dialog: Dialog | None, path: Path) -> bool:
    """Whether requests to this far end can leave by a path; as long as that is not known, they may."""
    return (6 if path.ipv6 else 4) in signalling_families(dialog)

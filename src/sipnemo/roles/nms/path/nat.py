"""Uplinks behind a NAT: which addresses far ends are told, and what happens when the NAT changes its mind (R10).

The SIP-HS is no problem: it answers on the flow that a registration came by (RFC 5626), responses go where `rport` says
(RFC 3581), and requests within a call come through the SIP-HS by our Record-Route. The answers to our probes tell how
it sees us, and this address goes into the Contact of calls, for far ends that send there directly.

Media leave from ports of their own, of which the SIP port's mapping tells two things: the NAT's address, and whether it
keeps ports. If it does, the mapped address and our own port are what a far end must send to. If it does not, nothing
that we could say would be right, and we say our own address: a session border controller recognises it as private, and
sends to where our media come from (comedia); a wrong public one it might believe. An address found by STUN from each
media port would be right for a NAT that maps independently of the far end (RFC 4787 §4.1), at the price of a round trip
before each INVITE and each move, during which nothing is heard; so no such question is asked.

A NAT that has been restarted, or has given our flow another address, is found out by the next probe. Then the path is
registered anew at once, requests that wait for an answer are sent again, and each call of the path gets a re-INVITE on
the same path: its far end learns the new address, or latches anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import host_text
from sipnemo.roles.nms.call.rescue import rescue
from sipnemo.roles.node import Count
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

SETTLES: Final = 1.0
"Seconds between two rounds of re-INVITEs of one path: a NAT with several addresses may change its mind again at once."


class Nat:
    """What the outside sees of each path."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._renewed_at: dict[Path, float] = {}
        self._pending: dict[Path, Timer] = {}

    def added(self, path: Path) -> None:
        """A path is new: what the operator has said of it."""
        external = path.eface.external
        if external and (":" in external) == path.ipv6:
            uris = {transport: _uri(transport, external, local.port) for transport, local in path.locals.items()}
            path.tell(uris, external)

    def removed(self, path: Path) -> None:
        """A path is gone."""
        self._renewed_at.pop(path, None)
        timer = self._pending.pop(path, None)
        if timer is not None:
            timer.cancel()

    def seen(self, path: Path, mapped: tuple[str, int], now: float) -> None:
        """A probe's answer says how the SIP-HS sees this path."""
        before, path.mapped = path.mapped, mapped
        if mapped == before:
            return
        own = (path.address, path.locals["UDP"].port)
        path.natted = mapped != own
        if not path.eface.external and path.eface.nat != "none":
            self._tell(path, mapped)
        if before is None:
            if path.natted:
                self._node.log("info", "path is behind a NAT", path=path.name, mapped=_text(mapped))
            return
        self._node.log("warning", "a NAT maps the path anew", path=path.name, was=_text(before), now=_text(mapped))
        self._node.act(Count("nat_rebinds", (str(path.eface.id),)))
        flow = self._node.home.flows.get(path)
        if flow is not None and flow.registered:
            flow.register(now)
        if path not in self._pending:
            at = max(now, self._renewed_at.get(path, now - SETTLES) + SETTLES)
            self._pending[path] = self._node.timers.set(at, lambda later: self._renew(path, later))

    @staticmethod
    def _tell(path: Path, mapped: tuple[str, int]) -> None:
        """What far ends shall be told of a path. A NAT64 shows an address of a family that nobody could use on it."""
        if not path.natted or (":" in mapped[0]) != path.ipv6:
            path.tell({}, "")
            return
        keeps_ports = mapped[1] == path.locals["UDP"].port
        # A connection has a mapping of its own, which we do not know; its far end knows the connection.
        path.tell({"UDP": _uri("UDP", *mapped)}, mapped[0] if keeps_ports or path.eface.nat == "mapped" else "")

    def find_at_home(self, session: Session) -> None:
        """Another phone of ours names the address that a NAT has for us: its media need not go there and back."""
        media = session.media
        if media is None:
            return
        hidden = {path.media_host: path.address for path in self._node.paths.all if path.natted}
        if any(end.host in hidden or end.rtcp_host in hidden for end in media.cn) and self._is_ours(session):
            media.cn = [
                end._replace(host=hidden.get(end.host, end.host), rtcp_host=hidden.get(end.rtcp_host, end.rtcp_host))
                for end in media.cn
            ]

    def _is_ours(self, session: Session) -> bool:
        """Whether the far end is a phone of this gateway: another's, behind the same NAT, names the same address."""
        return any(
            call_id == session.call_id and tag != session.phone_tag for call_id, tag in self._node.calls.sessions
        )

    def _renew(self, path: Path, now: float) -> None:
        """Tell the far ends of the path's calls."""
        del self._pending[path]
        self._renewed_at[path] = now
        if path.on:
            for session in path.sessions:
                self._node.pinholes.open(session, path)
            self._node.handover.renew(path, now)
            rescue(self._node, now, path)


def _uri(transport: str, host: str, port: int) -> str:
    """A Contact URI."""
    return f"sip:{host_text(host)}:{port}" + ("" if transport == "UDP" else f";transport={transport.lower()}")


def _text(address: tuple[str, int]) -> str:
    return f"{host_text(address[0])}:{address[1]}"

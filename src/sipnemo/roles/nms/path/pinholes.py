"""Pinholes in the NATs of uplinks: opened before the far end sends, and kept open while nothing else passes.

A NAT lets packets in only from where some have gone lately, most of them for 30 seconds and some for less. Phones that
talk keep it open by talking. So a small packet is sent from a media port only when its call has got other addresses,
and when nothing has left by it for `MEDIA_EVERY`: hold, silence suppression, an announcement (RFC 6263). It is a STUN
Binding indication: nobody answers it, and a receiver that knows no STUN sees at its first octet that it is no RTP.
Probes keep the SIP flow to the SIP-HS open. A proxy that an INVITE went to directly is kept in touch until it has
answered, and for the whole call where it sends to our Contact (`record_route = "contact"`), by the line ends that
every SIP server ignores (RFC 5626 §4.4.1).

A registration by TCP or TLS gets them as well, more rarely: a NAT that has forgotten the connection would say nothing.

Paths without a NAT cost nothing here, and calls on them are not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.media.flow import INSIDE, FlowKey
from sipnemo.roles.node import Punch, Send
from sipnemo.sip.stun import encode_indication
from sipnemo.sip.transaction import InviteClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path
    from sipnemo.sip.flow import Flow

MEDIA_EVERY: Final = 15.0
"Seconds without a packet from a media port, after which one is sent (RFC 6263 §7)."
SIGNALLING_EVERY: Final = 15.0
STREAM_EVERY: Final = 100.0
"For a connection (RFC 5626 §4.4.1: 95 to 120)."
KEEP_ALIVE: Final = b"\r\n\r\n"


class Pinholes:
    """Keeps NATs open."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._left: dict[FlowKey, tuple[int, float]] = {}
        "Of flows on paths behind a NAT: packets that have left, and since when no other has."
        self._due_at = 0.0
        self._stream_due_at = 0.0

    def open(self, session: Session, path: Path) -> None:
        """Before the far end of a call sends to this path: let its packets in."""
        media = session.media
        if media is None or not path.natted:
            return
        for flow in media.flows.values():
            if flow.group != INSIDE and (":" in flow.peer[0]) == path.ipv6:
                self._punch(path, flow.source_port, flow.peer)

    def counted(self, counters: Mapping[FlowKey, tuple[int, int]], now: float) -> None:
        """A reading of all counters: what has been silent for too long?"""
        left: dict[FlowKey, tuple[int, float]] = {}
        for path in self._node.paths.all:
            if not path.natted or not path.on:
                continue
            for session in path.sessions:
                for key, flow in session.media.flows.items() if session.media is not None else ():
                    if flow.group == INSIDE:
                        continue
                    packets = counters.get(key, (0, 0))[0]
                    known = self._left.get(key)
                    if known is not None and known[0] == packets and now < known[1] + MEDIA_EVERY:
                        left[key] = known
                        continue
                    left[key] = (packets, now)
                    if known is not None and known[0] == packets:
                        self._punch(path, flow.source_port, flow.peer)
        self._left = left

    def keep(self, now: float) -> None:
        """Signalling that is waited for: keep in touch with those that will send it."""
        if now < self._due_at:
            return
        self._due_at = now + SIGNALLING_EVERY
        paths = [path for path in self._node.paths.all if path.natted and path.on]
        if not paths:
            return
        if now >= self._stream_due_at:
            self._stream_due_at = now + STREAM_EVERY
            for path in paths:
                registration = self._node.home.flows.get(path)
                carrier = registration.carrier if registration is not None else None
                if carrier is not None and carrier.reliable:
                    self._node.act(Send(KEEP_ALIVE, carrier))
        flows: dict[Flow, None] = {}
        hosts = {path.address for path in paths}
        for client in self._node.layer.clients.values():
            if isinstance(client, InviteClient) and client.flow.local.host in hosts and not client.flow.reliable:
                flows[client.flow] = None
        if self._node.settings.record_route == "contact" or not self._node.home.uri:
            for path in paths:
                for session in path.sessions:
                    hop = session.dialog.next_hop if session.dialog is not None else None
                    flow = path.flow_to(hop) if hop is not None else None
                    if flow is not None and not flow.reliable:
                        flows[flow] = None
        for flow in flows:
            if not self._node.home.trusts(flow):
                self._node.act(Send(KEEP_ALIVE, flow))

    def _punch(self, path: Path, port: int, peer: tuple[str, int]) -> None:
        indication = encode_indication(bytes.fromhex(self._node.ids.tag()[:24]))
        self._node.act(Punch(self._node.paths.media_path(path), port, peer, indication))

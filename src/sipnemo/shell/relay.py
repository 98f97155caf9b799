"""Forwarding of media in user space: for hosts without nf_tables, and for what the kernel plane cannot express.

One UDP socket stands at each own address and port; packets arrive at it and those of the other direction leave from
it. All sockets hang in one epoll set of which the event loop sees a single descriptor, so that a wake-up serves every
flow that has something to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, MediaPath
from sipnemo.media.flow_table import FlowTable
from sipnemo.shell.media_port import MediaPort, is_own
from sipnemo.shell.relayed import Group, Relayed, both, check

PACKETS_A_TURN = 256
"Packets sent on before the event loop has its turn."

OnLearned = Callable[[FlowKey, tuple[str, int]], None]
"""Called with the key of a flow whose peer was corrected (the `reverse` of the one that learnt) and that peer.

When it is called both directions are in force already; it may call the plane."""


class PlaneStatistics(NamedTuple):
    """What a media plane holds and what went wrong."""

    kernel_flows: int
    relayed_flows: int

    sockets: int
    "UDP sockets the relay has open."

    unsent: int
    "Packets the relay could not send on: no path, no carrier, no buffer."

    refused: int
    "Times the kernel refused a change and the relay took over."

    last_error: str
    "The latest such trouble in words."


class RelayPlane:
    """The userspace media plane; needs a running event loop. See MediaPlane for what its methods promise."""

    kind = "userspace"

    def __init__(
        self,
        on_learned: OnLearned | None = None,
        on_latched: Callable[[FlowKey, tuple[str, int]], None] | None = None,
    ) -> None:
        self._table = FlowTable()
        self._own: dict[str, bool] = {}
        self._on_learned = on_learned
        # Called with the flow that learnt. With it the owner corrects the other direction: it may be in the kernel.
        self._on_latched = on_latched
        self._asked: dict[FlowKey, MediaFlow] = {}
        self._relayed: dict[FlowKey, Relayed] = {}
        self._by_descriptor: dict[int, Relayed] = {}
        self._ports: dict[FlowKey, MediaPort] = {}
        self._groups: dict[int, Group] = {}
        self._unsent = 0
        self._last_error = ""
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._readable)
        self._closed = False

    # ------------------------------------------------------------------------------------------------------ interface

    def attach(self, devices: Iterable[str]) -> None:
        """Sockets take packets in from everywhere; only the egress interfaces are looked up anew."""
        self.refresh_routes()

    def refresh_routes(self) -> None:
        """Find the egress interfaces by name again with the next packet."""
        self._own.clear()
        for group in self._groups.values():
            group.version += 1

    def add(self, flows: Sequence[MediaFlow]) -> None:
        """Forward these flows from now on, all or (OSError) none; a known key is replaced and keeps its counters."""
        changed = [flow for flow in flows if self._asked.get(flow.key) != flow]
        opened: list[MediaPort] = []
        try:
            for flow in changed:
                check(flow)
                opened.append(self._acquire(flow.key))
        except OSError:
            for port in opened:
                self._release(port)
            raise
        for flow, port in zip(changed, opened, strict=True):
            self._install(flow, port)
            self._asked[flow.key] = flow

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Stop forwarding; unknown keys are ignored."""
        for key in keys:
            relayed = self._relayed.pop(key, None)
            if relayed is None:
                continue
            self._asked.pop(key, None)
            self._table.pop(key)
            self._by_descriptor.pop(relayed.arrival.sock.fileno(), None)
            self._epoll.unregister(relayed.arrival.sock)
            self._unbind(relayed)
            self._release(relayed.arrival)

    def holds(self, keys: Iterable[FlowKey]) -> Collection[FlowKey]:
        """Those of the keys that are forwarded here."""
        return self._relayed.keys() & keys if self._relayed else ()

    def retire(self, keys: Iterable[FlowKey]) -> dict[FlowKey, tuple[int, int]]:
        """Remove flows that another plane has taken over: what has already arrived is sent on. Returns the counters."""
        leaving = self.holds(keys)
        for key in leaving:
            self._empty(self._relayed[key])
        counted = self.counters(leaving)
        self.remove(leaving)
        return counted

    def set_path(self, path: MediaPath) -> None:
        """Every flow of the group leaves by this path from the next packet on."""
        group = self._groups.setdefault(path.group, Group())
        six = ":" in path.source
        group.paths[six] = path
        if path.group != INSIDE:
            group.paths[not six] = None
        group.version += 1

    def punch(self, path: MediaPath, port: int, peer: tuple[str, int], data: bytes) -> None:
        """Send these octets once from a media port by a path, for the NATs on it; what cannot be sent is not."""
        if (":" in peer[0]) != (":" in path.source) or not 0 < peer[1] < 65536 or self._is_own(peer[0]):
            return
        flow = MediaFlow(FlowKey(path.source, port), peer, port, path.group)
        socket_there = self._leaving(flow, path.source, path.device)
        if socket_there is None:
            return
        with contextlib.suppress(OSError):
            socket_there.sock.sendto(data, peer)
        self._release(socket_there)

    def counters(self, keys: Iterable[FlowKey] | None = None) -> dict[FlowKey, tuple[int, int]]:
        """Packets and octets taken in so far per flow; unknown keys are absent."""
        wanted = self._relayed if keys is None else keys
        found = ((key, self._relayed.get(key)) for key in wanted)
        return {key: (relayed.packets, relayed.octets) for key, relayed in found if relayed is not None}

    def statistics(self) -> PlaneStatistics:
        """What the plane holds and what went wrong."""
        return PlaneStatistics(0, len(self._relayed), len(self._ports), self._unsent, 0, self._last_error)

    def close(self) -> None:
        """Close every socket. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.remove(list(self._relayed))
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    # ------------------------------------------------------------------------------------------------------- sockets

    def _acquire(self, key: FlowKey) -> MediaPort:
        port = self._ports.get(key)
        if port is None:
            port = self._ports[key] = MediaPort(key)
        port.users += 1
        return port

    def _release(self, port: MediaPort) -> None:
        port.users -= 1
        if not port.users:
            del self._ports[port.key]
            port.sock.close()

    def _install(self, flow: MediaFlow, port: MediaPort) -> None:
        old = self._relayed.get(flow.key)
        relayed = Relayed(flow, port, self._groups.setdefault(flow.group, Group()))
        if old is None:
            self._epoll.register(port.sock, select.EPOLLIN)
        else:
            relayed.packets, relayed.octets = old.packets, old.octets
            self._unbind(old)
            self._release(port)  # one socket, held once
        self._table.put(flow)
        self._relayed[flow.key] = self._by_descriptor[port.sock.fileno()] = relayed

    def _unbind(self, relayed: Relayed) -> None:
        if relayed.departure is not None:
            self._release(relayed.departure)
            relayed.departure = relayed.send = None
        if relayed.second is not None:
            self._release(relayed.second)
            relayed.second = None

    def _bind(self, relayed: Relayed) -> None:
        """Find the socket that this flow's packets leave from, under the group's present path."""
        relayed.version = relayed.group.version
        self._unbind(relayed)
        flow = relayed.flow
        path = relayed.group.paths[":" in flow.peer[0]]
        if path is None:
            return
        relayed.departure = self._leaving(flow, path.source, path.device)
        if path.also is not None and (":" in path.also[0]) == (":" in path.source) and not self._is_own(flow.peer[0]):
            relayed.second = self._leaving(flow, *path.also)
        senders = [port.sock.sendto for port in (relayed.departure, relayed.second) if port is not None]
        relayed.send = both(*senders) if len(senders) == 2 else senders[0] if senders else None

    def _leaving(self, flow: MediaFlow, source: str, device: str) -> MediaPort | None:
        """The socket at an address of ours that sends by an interface; None when it cannot be."""
        try:
            # What goes to an own address must not be bound to an uplink's device.
            by_device = device and not self._is_own(flow.peer[0])
            ifindex = socket.if_nametoindex(device) if by_device else 0
            port = self._acquire(FlowKey(source, flow.source_port))
        except OSError as error:
            self._last_error = str(error)
            return None
        try:
            port.leave_by(ifindex)
        except OSError as error:
            self._last_error = f"sending by {device}: {error.strerror}"
            self._release(port)
            return None
        return port

    def _is_own(self, host: str) -> bool:
        known = self._own.get(host)
        if known is None:
            known = self._own[host] = is_own(host)
        return known

    # ------------------------------------------------------------------------------------------------------- packets

    def _readable(self) -> None:
        """Send on what has arrived, within reason: the event loop has other things to do."""
        left = PACKETS_A_TURN
        while left > 0:
            # Asked anew rather than reading each socket until it is empty: an empty read costs more than all the rest.
            ready = self._epoll.poll(0, left)
            if not ready:
                return
            left -= len(ready)
            self._pass_on(ready)

    def _pass_on(self, ready: list[tuple[int, int]]) -> None:
        """Send one packet of each of these sockets on."""
        buffer, view, flows = self._buffer, self._view, self._by_descriptor
        for descriptor, _events in ready:
            relayed = flows.get(descriptor)
            if relayed is None:
                continue
            if relayed.admit is not None:
                self._learn(relayed)
                continue
            if relayed.version != relayed.group.version:
                self._bind(relayed)
            try:
                size = relayed.receive(buffer)
            except OSError:
                continue  # taken by `retire`, or a checksum was wrong
            relayed.packets += 1
            relayed.octets += size + relayed.overhead
            try:
                if relayed.send is not None:
                    relayed.send(view[:size], relayed.flow.peer)
                else:
                    self._unsent += 1
            except OSError as error:
                self._not_sent(relayed, error)

    def _empty(self, relayed: Relayed) -> None:
        """Send on all that has arrived for one flow, whoever sent it."""
        relayed.admit = None
        if relayed.version != relayed.group.version:
            self._bind(relayed)
        with contextlib.suppress(BlockingIOError):
            while True:
                size = relayed.receive(self._buffer)
                relayed.packets += 1
                relayed.octets += size + relayed.overhead
                try:
                    if relayed.send is not None:
                        relayed.send(self._view[:size], relayed.flow.peer)
                except OSError as error:
                    self._not_sent(relayed, error)

    def _not_sent(self, relayed: Relayed, error: OSError) -> None:
        self._unsent += 1
        self._last_error = f"sending to {relayed.flow.peer[0]}: {error.strerror}"

    def _learn(self, relayed: Relayed) -> None:
        """Send one packet on and look at where it comes from."""
        try:
            size, address = relayed.arrival.sock.recvfrom_into(self._buffer)
        except OSError:
            return
        relayed.packets += 1
        relayed.octets += size + relayed.overhead
        if relayed.version != relayed.group.version:
            self._bind(relayed)
        try:
            if relayed.send is None:
                self._unsent += 1
            else:
                relayed.send(self._view[:size], relayed.flow.peer)
        except OSError as error:
            self._not_sent(relayed, error)
        source = (address[0], address[1])
        if relayed.admit is not None and source[0] in relayed.admit:
            relayed.admit = None
            (self._on_latched or self._correct)(relayed.flow.key, source)

    def _correct(self, key: FlowKey, peer: tuple[str, int]) -> None:
        """Send the other direction of a flow to where its packets come from."""
        learnt = self._table.flows[key]
        moved = [flow for flow in self._table.opposite(learnt) if flow.peer != peer]
        for flow in moved:
            corrected = flow._replace(peer=peer)
            self._table.put(corrected)
            opposite = self._relayed[flow.key]
            opposite.flow = corrected
            opposite.version = 0
        if moved and learnt.reverse is not None and self._on_learned is not None:
            self._on_learned(learnt.reverse, peer)

"""SIP over UDP: one socket per own address, drained in batches; nothing here ever blocks.

An address that is not there yet is retried on every change of a link and every `RETRY_EVERY` seconds. IP_FREEBIND
would bind at once, but then a packet sent too early would fail with "invalid argument" instead of a plain reason,
and IPv6 addresses would be used while they are still tentative.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from sipnemo.roles.node import Count, Input, Link, Received, Send, SendFailed, received
from sipnemo.shell import sockets
from sipnemo.shell.source_memory import WILDCARDS, SourceMemory
from sipnemo.sip.flow import Address, Flow, Local

logger = logging.getLogger("sipnemo.shell")

RECEIVE_BUFFER = 4 << 20
BATCH = 64
"Datagrams worked on per wake-up, so that timers and other sockets get their turn."
LOOK_AHEAD = 1024
"Datagrams taken out of the kernel before they are worked on."

REMEMBERED = 10_000
"Far addresses of which something is kept, for each socket."

RETRY_EVERY = 1.0
MAX_DATAGRAM = 65535
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3


class UdpSocket:
    """One bound socket."""

    def __init__(self, local: Local, feed: Callable[[Input], None], count: Callable[[Count], object]) -> None:
        self.local = local
        self._feed = feed
        self._count = count
        self._literals: set[str] = set()
        self._flows: dict[tuple[Any, ...], Flow] = {}
        "By where datagrams have come from: mostly from the same few places."
        self._sock = sock = sockets.open_socket(socket.SOCK_DGRAM, local.host, local.device)
        try:
            sockets.allow_fragments(sock)
            sockets.report_errors(sock)
            self.receive_buffer = sockets.set_buffer(sock, sockets.SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sockets.set_buffer(sock, sockets.SO_SNDBUFFORCE, socket.SO_SNDBUF, RECEIVE_BUFFER)
            sock.bind((local.host, local.port))
        except OSError:
            sock.close()
            raise
        self._transmit: Callable[[bytes, Address], object] = sock.sendto
        self._receive: Callable[[int], tuple[bytes, Any]] = sock.recvfrom
        if local.host in WILDCARDS:
            memory = SourceMemory(sock)
            self._transmit, self._receive = memory.transmit, memory.receive
        self._waiting: deque[Received] = deque()
        "Taken in, and not worked on yet."
        self._working = False
        "There is more, and a turn of the loop to come for it."
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send one datagram; what cannot be sent comes back as `SendFailed`."""
        remote = flow.remote
        if remote[0] not in self._literals:
            self._admit(remote[0])
        try:
            self._transmit(data, remote)
        except BlockingIOError:
            self._count(Count("udp_dropped", ("send_buffer_full",)))
        except OSError:
            self._send_again(data, flow)

    def close(self) -> None:
        """Receive and send nothing more."""
        self._waiting.clear()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _send_again(self, data: bytes, flow: Flow) -> None:
        # The error may be an ICMP message about an earlier datagram, to somebody else (IP_RECVERR): hand that one
        # out, then try once more to learn about this datagram.
        self._report_icmp_errors()
        try:
            self._transmit(data, flow.remote)
        except BlockingIOError:
            self._count(Count("udp_dropped", ("send_buffer_full",)))
        except OSError as error:
            self._feed(SendFailed(flow, sockets.reason(error)))

    def _admit(self, host: str) -> None:
        if not sockets.is_literal(host):
            raise ValueError(f"{host!r} is not an IP address")
        if len(self._literals) >= REMEMBERED:
            self._literals.clear()
        self._literals.add(host)

    def _readable(self) -> None:
        """Take in what has come; STUN at once, the rest in its order.

        An answer to a probe that waited behind hundreds of SIP messages would make a path look dead just when calls are
        moving to it.
        """
        receive = self._receive
        flows = self._flows
        waiting = self._waiting
        for turn in range(LOOK_AHEAD - len(waiting)):
            try:
                data, address = receive(MAX_DATAGRAM)
            except BlockingIOError:
                if turn == 0:
                    self._report_icmp_errors()  # woken, but not by a datagram
                break
            except OSError as error:
                if error.errno == errno.EBADF:
                    return  # the node closed this socket while it handled an earlier datagram
                self._report_icmp_errors()
                continue
            flow = flows.get(address)
            input = received((data, flow if flow is not None else self._flow_from(address)))
            if data and data[0] < 4:  # RFC 7983
                self._feed(input)
            else:
                waiting.append(input)
        if not self._working:
            self._work()

    def _work(self) -> None:
        """Feed a batch of what waits, and the next one when timers and other sockets have had their turn."""
        feed = self._feed
        waiting = self._waiting
        for _turn in range(min(BATCH, len(waiting))):
            if not waiting:
                break  # the node closed this socket
            feed(waiting.popleft())
        self._working = bool(waiting)
        if waiting:
            self._loop.call_soon(self._work)

    def _flow_from(self, address: tuple[Any, ...]) -> Flow:
        if len(self._flows) >= REMEMBERED:
            self._flows.clear()
        flow = self._flows[address] = Flow(self.local, (_without_zone(address[0]), address[1]))
        return flow

    def _report_icmp_errors(self) -> None:
        for _turn in range(BATCH):
            try:
                _data, ancillary, _flags, address = self._sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            remote: Address = (_without_zone(address[0]), address[1])
            for _level, _kind, body in ancillary:
                code, origin, *_ = _EXTENDED_ERROR.unpack_from(body)
                # "Message too long" only tells the kernel's own cache: the next datagram is fragmented.
                if origin in (_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6) and code != errno.EMSGSIZE:
                    self._feed(SendFailed(Flow(self.local, remote), sockets.reason(OSError(code, ""))))


class Udp:
    """All UDP sockets of the process."""

    def __init__(self, feed: Callable[[Input], None], count: Callable[[Count], object] = lambda _count: None) -> None:
        self._feed = feed
        self._count = count
        self._sockets: dict[Local, UdpSocket] = {}
        self._wanted: dict[Local, str] = {}
        "Asked for but not open, with the last reason why not."
        self._ifindex: dict[str, int] = {}
        self._retry: asyncio.TimerHandle | None = None
        self.streams: Callable[[Send], object] = lambda _action: None
        "Sends what is not for UDP."

    @property
    def open(self) -> frozenset[Local]:
        """The listening points that have a socket now."""
        return frozenset(self._sockets)

    def listen(self, local: Local) -> None:
        """Open a socket now, or as soon as its address is there."""
        if local not in self._sockets and local not in self._wanted:
            self._wanted[local] = ""
            self._try(local)
            self._schedule()

    def unlisten(self, local: Local) -> None:
        """Close the socket."""
        self._wanted.pop(local, None)
        if (sock := self._sockets.pop(local, None)) is not None:
            sock.close()

    def send(self, action: Send) -> None:
        """Send one datagram from the socket of the flow's own address; what is for no datagram socket, by a stream."""
        data, flow = action
        sock = self._sockets.get(flow.local)
        if sock is not None:
            sock.send(data, flow)
        elif flow.local.transport == "UDP":
            self._no_socket(flow)
        else:
            self.streams(action)

    def link_changed(self, link: Link) -> None:
        """Try again what waits for an address; reopen what was bound to an interface that has been re-created."""
        before = self._ifindex.get(link.name)
        self._ifindex[link.name] = link.ifindex
        if before is not None and before != link.ifindex:
            for local in [local for local in self._sockets if local.device == link.name]:
                self._sockets.pop(local).close()
                self._wanted[local] = ""
        for local in list(self._wanted):
            self._try(local)
        self._schedule()

    def close(self) -> None:
        """Close every socket."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._wanted.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _no_socket(self, flow: Flow) -> None:
        local = flow.local
        why = self._wanted.get(local) or "no socket is open for this address"
        self._feed(SendFailed(flow, why))

    def _try(self, local: Local) -> None:
        try:
            self._sockets[local] = UdpSocket(local, self._feed, self._count)
        except OSError as error:
            why = sockets.why_not_bound(error, sockets.endpoint(*local), local.port)
            if why != self._wanted[local]:
                self._wanted[local] = why
                waits = error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV)
                logger.log(logging.INFO if waits else logging.ERROR, "%s (retried until it works)", why)
        else:
            del self._wanted[local]

    def _schedule(self) -> None:
        if self._wanted and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_EVERY, self._try_all)

    def _try_all(self) -> None:
        self._retry = None
        for local in list(self._wanted):
            self._try(local)
        self._schedule()


def _without_zone(host: str) -> str:
    return host.partition("%")[0] if "%" in host else host

"""The phone's RTP engine: numbered packets every 20 ms on every stream, and exact times of what arrives.

One wheel of ten slots 2 ms apart turns for all streams, so that 500 of them send 50 at a time and not 500 at once.
Sockets are drained when the wheel turns, and not one wake-up a packet: the kernel notes when each packet arrived
(SO_TIMESTAMPNS), so a busy or even a stopped process measures the same gaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream, StreamOpened
from sipnemo.shell.rtp_reception import LONGEST_SILENCE, MARK, Reception, StreamReport

logger = logging.getLogger("sipnemo.shell")

PACKET_EVERY: Final = 0.02
SAMPLES: Final = 160
SLOTS: Final = 10
SLOT: Final = PACKET_EVERY / SLOTS
REPORT_EVERY: Final = 250
"Packets between two RTCP sender reports: 5 s."

LATEST: Final = 0.1
"Seconds behind time after which the wheel starts anew instead of catching up: the process was stopped."

_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq") if struct.calcsize("l") == 8 else struct.Struct("=ii")
_SPACE: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_HEAD: Final = struct.Struct(">BBHIIQ")
_NTP_EPOCH: Final = 2_208_988_800
_EXPEDITED: Final = 0xB8
"DSCP EF (RFC 3246) as the TOS octet."


class Stream:
    """One stream and its sockets."""

    __slots__ = (
        "_buffer",
        "_send",
        "_sequence",
        "_ssrc",
        "_stamp",
        "_turns_left",
        "_until_report",
        "every",
        "host",
        "payload_type",
        "peer",
        "reception",
        "report",
        "rtcp",
        "rtcp_peer",
        "rtp",
        "slot",
        "symmetric",
    )

    def __init__(
        self, action: OpenStream, rtp: socket.socket, rtcp: socket.socket | None, longest_silence: float
    ) -> None:
        self.rtp = rtp
        self.rtcp = rtcp
        self.host = action.host
        self.report = StreamReport(action.account, action.call_id, rtp.getsockname()[1])
        self.reception = Reception(self.report, longest_silence)
        self.peer: tuple[str, int] | None = None
        self.rtcp_peer: tuple[str, int] | None = None
        self.symmetric = False
        "It sends to where packets come from (RFC 4961), whatever was signalled: that end may be behind a NAT."
        self.payload_type = 0
        self.slot = 0
        self.every = 1
        "Turns of the wheel from one packet to the next."
        self._turns_left = 1
        self._send = rtp.sendto
        self._ssrc = random.getrandbits(32)
        self._sequence = random.getrandbits(16)
        self._stamp = random.getrandbits(32)
        self._until_report = random.randrange(50, REPORT_EVERY)
        # The instant of sending, which only we read, and G.711 silence.
        self._buffer = bytearray(bytes(20) + MARK + b"\xff" * (SAMPLES - 12))

    def send(self, now_ns: int, samples: int) -> None:
        """Send the next packet; `samples` have passed since the last one."""
        self._stamp = (self._stamp + samples) & 0xFFFFFFFF
        peer = self.peer
        if peer is None:
            return
        if self.every > 1:
            self._turns_left -= 1
            if self._turns_left:
                return
            self._turns_left = self.every
        self._sequence = (self._sequence + 1) & 0xFFFF
        _HEAD.pack_into(self._buffer, 0, 0x80, self.payload_type, self._sequence, self._stamp, self._ssrc, now_ns)
        self.report.sent += 1
        try:
            self._send(self._buffer, peer)
        except OSError:
            self.report.unsent += 1
        self._until_report -= 1
        if not self._until_report:
            self._until_report = REPORT_EVERY
            self._send_report()

    def skip(self, samples: int) -> None:
        """Let the RTP clock show time in which nothing was sent."""
        self._stamp = (self._stamp + samples) & 0xFFFFFFFF

    def drain(self, at_offset: float) -> None:
        """Take in what has arrived; `at_offset` turns the kernel's time of day into monotonic seconds."""
        receive, take = self.rtp.recvmsg, self.reception.take
        while True:
            try:
                data, ancillary, _, source = receive(2048, _SPACE)
            except BlockingIOError:
                return
            except OSError:
                return  # an ICMP error about something we sent, or closed under our feet
            if ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                at = seconds + nanoseconds * 1e-9 - at_offset
            else:
                at = time.monotonic()
            take(data, at, source if len(source) == 2 else source[:2])
            if self.symmetric and self.peer is not None and self.reception.source[1]:
                self.peer = self.reception.source

    def drain_rtcp(self) -> None:
        """Count RTCP on its own port."""
        with contextlib.suppress(OSError):
            while self.rtcp is not None:
                self.rtcp.recv(2048)
                self.report.rtcp_received += 1

    def _send_report(self) -> None:
        """A sender report with our name (RFC 3550 §6.4.1, §6.5)."""
        if self.rtcp_peer is None:
            return
        now = time.time()
        name = f"{self._ssrc:08x}@{self.host}".encode()
        item = struct.pack(">IBB", self._ssrc, 1, len(name)) + name
        item += bytes(4 - len(item) % 4)
        packet = struct.pack(
            ">BBHIIIIII",
            0x80,
            200,
            6,
            self._ssrc,
            (int(now) + _NTP_EPOCH) & 0xFFFFFFFF,
            int(now % 1 * (1 << 32)),
            self._stamp,
            self.report.sent & 0xFFFFFFFF,
            self.report.sent * SAMPLES & 0xFFFFFFFF,
        )
        packet += struct.pack(">BBH", 0x81, 202, len(item) // 4) + item
        sock = self.rtp if self.rtcp_peer == self.peer or self.rtcp is None else self.rtcp
        with contextlib.suppress(OSError):
            sock.sendto(packet, self.rtcp_peer)
            self.report.rtcp_sent += 1


class Rtp:
    """All streams of the process."""

    def __init__(
        self,
        feed: Callable[[Any], object],
        ports: tuple[int, int],
        on_report: Callable[[StreamReport], object] = lambda _report: None,
        longest_silence: float = LONGEST_SILENCE,
        symmetric: bool = False,
        every: Callable[[str], int] = lambda _account: 1,
    ) -> None:
        """`ports`: first and last to use; RTP takes the even ones. `on_report` gets the last word on every stream.

        `symmetric`: each stream sends to where its packets come from. `every`: of an account's streams, how many times
        20 ms pass from one packet to the next; longer silences than usual count as gaps accordingly.
        """
        self._feed = feed
        self._first = ports[0] + ports[0] % 2
        self._pairs = max(0, (ports[1] + 1 - self._first) // 2)
        self._next_pair = 0
        self._on_report = on_report
        self._longest_silence = longest_silence
        self._symmetric = symmetric
        self._every = every
        self._streams: dict[int, Stream] = {}
        self._by_descriptor: dict[int, Stream] = {}
        self._poll = select.epoll()
        self._slots: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._turn = 0
        "Slots passed since `_began`."
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------------------------------------------- actions

    def open(self, action: OpenStream) -> None:
        """Bind sockets for a stream on the next free pair of ports."""
        for _ in range(self._pairs):
            port = self._first + 2 * self._next_pair
            self._next_pair = (self._next_pair + 1) % self._pairs
            try:
                rtp = _bound(action.host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    logger.error("RTP cannot use %s: %s", action.host, error.strerror)
                    break
                continue
            try:
                rtcp = _bound(action.host, port + 1)
            except OSError:
                rtp.close()
                continue
            self._add(action, rtp, rtcp)
            self._feed(StreamOpened(action.ticket, port))
            return
        self._feed(StreamOpened(action.ticket, 0))

    def set(self, action: SetStream) -> None:
        """Send to, and expect from, the address that was negotiated."""
        stream = self._streams.get(action.stream)
        if stream is None:
            return
        stream.payload_type = action.payload_type
        stream.peer = action.peer
        stream.rtcp_peer = action.rtcp
        if action.peer is not None:
            stream.reception.peer = action.peer
        if not action.expect:
            self._drain()
            stream.reception.pause()
        if action.rtcp is not None and action.rtcp == action.peer and stream.rtcp is not None:
            self._forget(stream.rtcp)
            stream.rtcp = None

    def close_stream(self, action: CloseStream) -> None:
        """End a stream and hand out its report."""
        stream = self._streams.pop(action.stream, None)
        if stream is None:
            return
        stream.drain(_offset())
        self._slots[stream.slot].remove(stream)
        self._forget(stream.rtp)
        if stream.rtcp is not None:
            stream.drain_rtcp()
            self._forget(stream.rtcp)
        if not self._streams:
            self._stop()
        self._on_report(stream.report)

    # --------------------------------------------------------------------------------------------------- others

    def reports(self) -> list[StreamReport]:
        """How every live stream stands."""
        self._drain()
        return [stream.report for stream in self._streams.values()]

    def close(self) -> None:
        """End every stream and hand out the reports."""
        for number in list(self._streams):
            self.close_stream(CloseStream(number))
        self._stop()
        self._poll.close()

    def _add(self, action: OpenStream, rtp: socket.socket, rtcp: socket.socket) -> None:
        every = self._every(action.account)
        usual = self._longest_silence if every == 1 else max(self._longest_silence, 1.5 * every * PACKET_EVERY)
        stream = Stream(action, rtp, rtcp, usual)
        stream.every = every
        stream.symmetric = self._symmetric
        self._streams[action.stream] = stream
        for sock in (rtp, rtcp):
            self._by_descriptor[sock.fileno()] = stream
            self._poll.register(sock.fileno(), select.EPOLLIN)
        stream.slot = min(range(SLOTS), key=lambda slot: len(self._slots[slot]))
        self._slots[stream.slot].append(stream)
        if self._timer is None:
            self._start()

    def _forget(self, sock: socket.socket) -> None:
        self._by_descriptor.pop(sock.fileno(), None)
        with contextlib.suppress(OSError):
            self._poll.unregister(sock.fileno())
        sock.close()

    # ------------------------------------------------------------------------------------------------- the wheel

    def _start(self) -> None:
        self._began = self._loop.time()
        self._turn = 0
        self._schedule()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        """Wake up for the next slot that has streams."""
        turn = self._turn
        slots = self._slots
        for _ in range(SLOTS):
            if slots[turn % SLOTS]:
                break
            turn += 1
        self._turn = turn
        self._timer = self._loop.call_at(self._began + turn * SLOT, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        late = now - (self._began + self._turn * SLOT)
        samples = SAMPLES
        if late > LATEST:
            # The process was stopped: a phone goes on with the present; its RTP clock shows the time that passed.
            passed = int(late / PACKET_EVERY)
            samples += passed * SAMPLES
            for number, slot in enumerate(self._slots):
                if number != self._turn % SLOTS:
                    for stream in slot:
                        stream.skip(passed * SAMPLES)
            self._began += passed * PACKET_EVERY
        while True:
            now_ns = time.monotonic_ns()
            for stream in self._slots[self._turn % SLOTS]:
                stream.send(now_ns, samples)
            self._turn += 1
            samples = SAMPLES
            if self._began + self._turn * SLOT > self._loop.time():
                break
        self._drain()
        self._schedule()

    def _drain(self) -> None:
        ready = self._poll.poll(0, 4096)
        if not ready:
            return
        offset = _offset()
        streams = self._by_descriptor
        for descriptor, _ in ready:
            stream = streams.get(descriptor)
            if stream is None:
                continue
            if descriptor == stream.rtp.fileno():
                stream.drain(offset)
            else:
                stream.drain_rtcp()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _EXPEDITED)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _EXPEDITED)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _offset() -> float:
    """Time of day less monotonic time, from two readings with nothing in between."""
    offset = 0.0
    for _ in range(4):
        before = time.monotonic()
        offset = time.time() - before
        if time.monotonic() - before < 2e-5:
            break
    return offset

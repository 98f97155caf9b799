"""One direction of a delay line: frames in by one device, out by another, later, some of them never.

    python -I -S delay.py IN OUT [--delay MS] [--jitter MS] [--loss PERCENT] [--rate MBIT] [--record FILE]
    python -I -S delay.py DEVICE … --tap --record PREFIX

needs only CAP_NET_RAW in its network namespace. One JSON object per line on standard input changes it while it runs
({"delay": 40, "black_hole": true}); each, and the start, is answered by one with the instant it took effect. Two of
these, one per direction, make a line (`DelayLine`): no interpreter lock is shared between directions.

With --tap nothing is forwarded: the SIP messages that pass the devices, either way, are recorded.
A recording is a file of packets and a file of SIP messages (`read_packets`, `read_messages`).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from typing import IO, NamedTuple

ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
SO_RCVBUFFORCE = 33
PR_SET_TIMERSLACK = 29
OTHER, RTP, RTCP, SIP, STUN = range(5)
KINDS = ("other", "rtp", "rtcp", "sip", "stun")
PACKET = struct.Struct("<dHBB")
MESSAGE = struct.Struct("<dB4s4sHHI")
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = b"\x08\x00", b"\x86\xdd"
UDP, TCP = 17, 6


class Packet(NamedTuple):
    """One frame that reached the line."""

    at: float
    "Monotonic seconds, on arrival."

    size: int
    "Octets, with the Ethernet header."

    kind: int
    "OTHER, RTP, RTCP, SIP or STUN."

    dropped: bool
    "It fell into the black hole, was lost at random, or found the queue full."


class Message(NamedTuple):
    """One SIP message (or, over TCP, one segment that begins like one) that reached the line."""

    at: float
    dropped: bool
    source: tuple[str, int]
    destination: tuple[str, int]
    data: bytes


def payload(frame: bytes) -> tuple[int, int]:
    """Where the UDP or TCP header of an unfragmented frame begins, and its protocol; (0, 0) for anything else."""
    kind = frame[12:14]
    if kind == ETHERTYPE_IPV4 and len(frame) > 42 and not frame[20] & 0x1F:
        return 14 + (frame[14] & 15) * 4, frame[23]
    if kind == ETHERTYPE_IPV6 and len(frame) > 62:
        return 54, frame[20]
    return 0, 0


def classify(frame: bytes) -> int:
    """What a frame carries, by the first octets of its payload (RFC 7983 §7; SIP begins with a letter)."""
    start, protocol = payload(frame)
    if protocol == UDP:
        start += 8
    elif protocol == TCP and len(frame) > start + 12:
        start += (frame[start + 12] >> 4) * 4
    else:
        return OTHER
    if len(frame) < start + 4:
        return OTHER
    first = frame[start]
    if 0x41 <= first <= 0x5A:
        return SIP if b"SIP/2.0" in frame[start : start + 600] else OTHER
    if protocol == UDP and first >> 6 == 2:
        return RTCP if 192 <= frame[start + 1] <= 223 else RTP
    if protocol == UDP and first < 4 and frame[start + 4 : start + 8] == b"\x21\x12\xa4\x42":
        return STUN
    return OTHER


class Record:
    """The two files of a recording; buffered, flushed when told."""

    def __init__(self, path: str) -> None:
        self.packets: IO[bytes] = open(path, "wb", buffering=1 << 18)  # noqa: SIM115
        self.messages: IO[bytes] = open(path + ".sip", "wb")  # noqa: SIM115

    def note(self, at: float, frame: bytes, dropped: bool) -> None:
        """Remember one frame."""
        kind = classify(frame)
        self.packets.write(PACKET.pack(at, min(len(frame), 65535), kind, dropped))
        if kind == SIP:
            start, protocol = payload(frame)
            source_port, port = struct.unpack_from("!HH", frame, start)
            data = frame[start + (8 if protocol == UDP else (frame[start + 12] >> 4) * 4) :]
            # Of an IPv6 address the last four octets are kept: enough to tell hosts of a lab apart.
            here = frame[26:34] if frame[12:14] == ETHERTYPE_IPV4 else frame[34:38] + frame[50:54]
            self.messages.write(MESSAGE.pack(at, dropped, here[:4], here[4:], source_port, port, len(data)) + data)

    def flush(self) -> None:
        """Everything noted so far can be read by others afterwards."""
        self.packets.flush()
        self.messages.flush()


def read_packets(path: str) -> list[Packet]:
    """The packets of a recording, in order."""
    with open(path, "rb") as file:
        data = file.read()
    whole = data[: len(data) - len(data) % PACKET.size]
    return [Packet(at, size, kind, bool(dropped)) for at, size, kind, dropped in PACKET.iter_unpack(whole)]


def read_messages(path: str) -> list[Message]:
    """The SIP messages of a recording, in order."""
    with open(path + ".sip", "rb") as file:
        data = file.read()
    found, offset = [], 0
    while offset + MESSAGE.size <= len(data):
        at, dropped, source, destination, source_port, port, size = MESSAGE.unpack_from(data, offset)
        offset += MESSAGE.size
        ends = (socket.inet_ntoa(source), source_port), (socket.inet_ntoa(destination), port)
        found.append(Message(at, bool(dropped), *ends, data[offset : offset + size]))
        offset += size
    return found


class Line:
    """One direction, running."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.receive, self.send = (packet_socket(device) for device in settings.devices)
        self.delay = settings.delay
        self.jitter = settings.jitter
        self.loss = settings.loss
        self.rate = settings.rate
        self.queue_limit = 0.5
        self.black_hole = False
        self.record = Record(settings.record) if settings.record else None
        self.queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self.last = 0.0
        "When the youngest queued frame leaves: order is kept, whatever the jitter."

        self.busy_until = 0.0
        "When a link of this rate has sent all it was given."

        self.partial = b""
        self.open = True

    def run(self) -> None:
        """Forward until standard input ends."""
        queue, now = self.queue, time.monotonic
        inputs: list[socket.socket | int] = [self.receive, 0]
        self.say()
        while self.open:
            while queue and queue[0][0] <= now():
                frame = queue.popleft()[1]
                with contextlib.suppress(OSError):  # unplugged, or the buffer is full: a wire tells nobody either
                    self.send.send(frame)
            wait = max(0.0, queue[0][0] - now()) if queue else None
            ready: list[socket.socket | int] = select.select(inputs, [], [], wait)[
                0
            ]  # epoll would round to milliseconds
            if self.receive in ready:
                self.take()
            if 0 in ready:
                self.obey()

    def take(self) -> None:
        """Queue what has arrived."""
        for _ in range(64):
            try:
                frame = self.receive.recv(65535)
            except OSError:
                return
            at = time.monotonic()
            leaves = self.fate(at, len(frame))
            if self.record:
                self.record.note(at, frame, leaves is None)
            if leaves is not None:
                self.queue.append((leaves, frame))

    def fate(self, at: float, size: int) -> float | None:
        """When a frame leaves the line, or None when it never does."""
        if self.black_hole or (self.loss and random.random() * 100 < self.loss):
            return None
        sent = at
        if self.rate:
            sent = max(at, self.busy_until) + size * 8 / (self.rate * 1e6)
            if sent - at > self.queue_limit:
                return None
            self.busy_until = sent
        jitter = random.uniform(-self.jitter, self.jitter) if self.jitter else 0.0
        self.last = max(self.last, sent + (self.delay + jitter) / 1e3)
        return self.last

    def obey(self) -> None:
        """Carry out the orders that have come on standard input."""
        data = os.read(0, 65536)
        self.open = bool(data)
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            for name, value in json.loads(line).items():
                if name in ("delay", "jitter", "loss", "rate", "black_hole", "queue_limit"):
                    setattr(self, name, value)
            self.say()

    def say(self) -> None:
        """Answer: from this instant on it is so."""
        if self.record:
            self.record.flush()
        os.write(1, json.dumps({"at": time.monotonic()}).encode() + b"\n")


def packet_socket(device: str, both_ways: bool = False) -> socket.socket:
    """A socket that sees every frame arriving at this device (or also leaving it) and sends frames out of it."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((device, ETH_P_ALL))
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 0 if both_ways else 1)
    made.setblocking(False)
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    except OSError:  # refused in a user namespace
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    return made


def tap(devices: list[str], prefix: str) -> None:
    """Record the SIP messages at these devices, in `PREFIX.DEVICE.sip`, until standard input ends."""
    records = {packet_socket(device, both_ways=True): Record(f"{prefix}.{device}") for device in devices}
    os.write(1, json.dumps({"at": time.monotonic()}).encode() + b"\n")
    inputs: list[socket.socket | int] = [*records, 0]
    while True:
        ready: list[socket.socket | int] = select.select(inputs, [], [])[0]
        at = time.monotonic()
        for one, record in records.items():
            with contextlib.suppress(OSError):
                while one in ready:
                    frame = one.recv(65535)
                    if classify(frame) == SIP:
                        record.note(at, frame, dropped=False)
                        record.flush()
        if 0 in ready and not os.read(0, 4096):
            return


def main() -> None:
    """Run one direction."""
    parser = argparse.ArgumentParser(description="one direction of a delay line")
    parser.add_argument("devices", nargs="+")
    parser.add_argument("--tap", action="store_true")
    for name in ("--delay", "--jitter", "--loss", "--rate"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("--record", default="")
    settings = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    if settings.tap:
        tap(settings.devices, settings.record)
        return
    line = Line(settings)
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)  # 1 µs instead of 50
    try:
        line.run()
    finally:
        if line.record:
            line.record.flush()


if __name__ == "__main__":
    main()

"""What a phone's interface carries: RTP counted per direction, SIP kept to be read when a test fails."""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, NamedTuple

from .hosts import Host, wait_until

Direction = Literal["in", "out"]

PACKET_OUTGOING = 4
RTCP_TYPES = range(72, 77)  # RTCP packet types 200 to 204, seen through the RTP payload type mask (RFC 5761 §4)
Endpoint = tuple[str, int]


class RtpPacket(NamedTuple):
    """One RTP packet seen at the interface."""

    at: float
    "When the kernel saw it, in seconds since 1970."
    source: Endpoint
    destination: Endpoint
    payload_type: int
    sequence: int
    ssrc: int


class SipPacket(NamedTuple):
    """SIP text seen at the interface: one datagram, or one segment of a TCP connection."""

    at: float
    direction: Direction
    source: Endpoint
    destination: Endpoint
    text: str


class Tap:
    """Watches one interface of a host from entering the context to leaving it."""

    def __init__(self, host: Host, interface: str = "eth0") -> None:
        self.host = host
        self.interface = interface
        self.sip: list[SipPacket] = []
        self._rtp: dict[Direction, list[RtpPacket]] = {"in": [], "out": []}

    def __enter__(self) -> Tap:
        self._socket = self.host.socket("tap", self.interface)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name=f"tap {self.host.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for used in (self._socket, self._wake, self._woken):
            used.close()

    def rtp(self, direction: Direction, after: float = 0.0) -> list[RtpPacket]:
        """The RTP packets of a direction that were seen later than `after`."""
        return [packet for packet in list(self._rtp[direction]) if packet.at > after]

    def last(self, direction: Direction) -> float:
        """When the last RTP packet of this direction was seen; 0.0 when none was."""
        packets = self._rtp[direction]
        return packets[-1].at if packets else 0.0

    def wait_for_rtp(self, count: int = 10, timeout: float = 10.0, after: float | None = None) -> None:
        """Wait until `count` RTP packets have gone each way since `after` (default: since now)."""
        since = max(self.last("in"), self.last("out")) if after is None else after
        for direction in ("in", "out"):
            wait_until(
                lambda direction=direction: len(self.rtp(direction, since)) >= count,  # type: ignore[misc]
                timeout,
                f"{count} RTP packets {direction} at {self.host.name}",
            )

    def longest_gap(self, direction: Direction, after: float = 0.0) -> float:
        """The longest silence between two RTP packets that follow each other, in seconds."""
        times = [packet.at for packet in self.rtp(direction, after)]
        return max((later - sooner for sooner, later in itertools.pairwise(times)), default=float("inf"))

    def lost(self, direction: Direction, after: float = 0.0) -> int:
        """How many sequence numbers are missing, summed over the streams of this direction."""
        streams: dict[int, list[int]] = {}
        for packet in self.rtp(direction, after):
            streams.setdefault(packet.ssrc, []).append(packet.sequence)
        missing = 0
        for numbers in streams.values():
            offsets = {(number - numbers[0] + 0x8000) % 0x10000 for number in numbers}
            missing += max(offsets) - min(offsets) + 1 - len(offsets)
        return missing

    def ladder(self, limit: int = 30) -> str:
        """The last SIP messages as text, first lines only, for people."""
        lines = [
            f"  {packet.at % 1000:8.3f} {packet.direction:3} {packet.source[0]}:{packet.source[1]}"
            f" > {packet.destination[0]}:{packet.destination[1]}  {packet.text.splitlines()[0]}"
            for packet in self.sip[-limit:]
        ]
        return f"{self.host.name} {self.interface}:\n" + "\n".join(lines)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    return
                try:
                    data, ancillary, _, address = self._socket.recvmsg(65536, 64)
                except OSError:
                    continue  # ENETDOWN when the interface goes down: it may come up again
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                outgoing = address[2] == PACKET_OUTGOING
                self._note(data, seconds + nanoseconds / 1e9, "out" if outgoing else "in")

    def _note(self, frame: bytes, at: float, direction: Direction) -> None:
        """Sort one IPv4 packet: RTP, SIP, or of no interest."""
        if len(frame) < 28 or frame[0] >> 4 != 4 or int.from_bytes(frame[6:8], "big") & 0x1FFF:
            return  # not IPv4, or a later fragment
        header = (frame[0] & 0x0F) * 4
        protocol = frame[9]
        frame = frame[: int.from_bytes(frame[2:4], "big")]
        source_port, destination_port = struct.unpack_from("!HH", frame, header)
        source = (socket.inet_ntoa(frame[12:16]), source_port)
        destination = (socket.inet_ntoa(frame[16:20]), destination_port)
        if protocol == socket.IPPROTO_UDP:
            payload = frame[header + 8 :]
        elif protocol == socket.IPPROTO_TCP:
            payload = frame[header + (frame[header + 12] >> 4) * 4 :]
        else:
            return
        if protocol == socket.IPPROTO_UDP and len(payload) >= 12 and payload[0] >> 6 == 2:
            if payload[1] & 0x7F not in RTCP_TYPES:
                sequence, _, ssrc = struct.unpack_from("!HII", payload, 2)
                self._rtp[direction].append(RtpPacket(at, source, destination, payload[1] & 0x7F, sequence, ssrc))
        elif b"SIP/2.0" in payload[:1500].split(b"\r\n", 1)[0]:
            self.sip.append(SipPacket(at, direction, source, destination, payload.decode("latin-1")))

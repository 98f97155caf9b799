"""A call of more packets than a sequence number can count, encrypted, moves to and fro: its keys fit to the end (R8).

`sipnemo phone` signals; real libsrtp at both ends makes and checks every packet, faster than any codec would.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pylibsrtp
import pytest

from phone_process import PhoneProcess

from .calls import USERS, start_servers
from .gateway import INSIDE, GatewayWorld
from .hosts import Host, wait_until
from .tap import Tap

pytestmark = [pytest.mark.programs("kamailio", "kamailio-tls", "openssl"), pytest.mark.long]

KEY = bytes(range(30))
PORT = 9
"What `sipnemo phone --no-media` names (discard): here somebody listens."
WRAPPED = 0x10000
BURST = 20
"Packets sent at a time each way."
IN_FLIGHT = 400
"A burst waits while so many packets have not come out yet: the lines need 25 ms, and no queue may overflow."


@pytest.fixture(scope="module", params=["auto", "userspace"])
def world(directory: Path, request: pytest.FixtureRequest) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory / request.param, {"[media]": {"plane": request.param}}) as world:
        start_servers(world)
        yield world


class End:
    """The media of one phone: an SRTP stream out and one in, on the port that its SDP names."""

    def __init__(self, host: Host, ssrc: int) -> None:
        self.host = host
        self.tap = Tap(host)
        self.to: tuple[str, int] = ("", 0)
        self.sent = self.heard = 0
        self.highest = -1
        "The greatest packet number that came in, counted from 0 without wrapping."
        self._socket = host.socket("udp", host.address, str(PORT))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._ssrc = ssrc
        out, into = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
        self._out = pylibsrtp.Session(pylibsrtp.Policy(key=KEY, ssrc_type=out))
        self._in = pylibsrtp.Session(pylibsrtp.Policy(key=KEY, ssrc_type=into))

    def close(self) -> None:
        self._socket.close()

    def follow(self) -> bool:
        """Send to where the last description that came here asks for media."""
        for packet in reversed(self.tap.sip):
            place = re.search(r"^c=IN IP4 (\S+)", packet.text, re.MULTILINE)
            port = re.search(r"^m=audio (\d+)", packet.text, re.MULTILINE)
            if packet.direction == "in" and place and port:
                self.to = (place[1], int(port[1]))
                return True
        return False

    def send(self, packets: int) -> None:
        for number in range(self.sent, self.sent + packets):
            header = struct.pack("!BBHII", 0x80, 8, number % WRAPPED, number * 160 % (1 << 32), self._ssrc)
            self._socket.sendto(self._out.protect(header + struct.pack("!Q", number)), self.to)
        self.sent += packets

    def hear(self) -> None:
        """Take in what has come; a packet whose key does not fit raises."""
        while True:
            try:
                packet = self._socket.recv(2048)
            except BlockingIOError:
                return
            plain = self._in.unprotect(packet)
            self.heard += 1
            self.highest = max(self.highest, struct.unpack_from("!Q", plain, 12)[0])


def talk(one: End, other: End, until: int, timeout: float = 120.0) -> None:
    """Both send until packet `until` of each has come out at the other end."""
    end_at = time.monotonic() + timeout
    while min(one.highest, other.highest) < until:
        assert time.monotonic() < end_at, (
            f"heard {one.heard} and {other.heard} of {one.sent} and {other.sent}, sent to {one.to} and {other.to}"
        )
        for end, far in ((one, other), (other, one)):
            end.follow()
            if end.sent - far.highest < IN_FLIGHT:
                end.send(BURST)
            else:
                end.send(1)  # what was lost on a dead path does not stop the rest
                time.sleep(0.002)
            far.hear()


@pytest.mark.req("R8", "R10", "RO-10")
def test_an_encrypted_call_of_many_packets_moves_to_and_fro(world: GatewayWorld) -> None:
    domain = world.hosts["server"].address
    with world.calm(), ExitStack() as stack:
        alice, carol = End(world.hosts["mn1"], 0xA11CE), End(world.hosts["cn1"], 0xCA201)
        for end in (alice, carol):
            stack.callback(end.close)
            stack.enter_context(end.tap)
        inner = stack.enter_context(phone(world.hosts["mn1"], "alice", domain, f"sip:{INSIDE}"))
        outer = stack.enter_context(phone(world.hosts["cn1"], "carol", domain))
        for process in (inner, outer):
            process.wait_for("registered")
        inner.command("call", f"sip:carol@{domain}")
        for process in (inner, outer):
            process.wait_for("answered")

        for end in (alice, carol):
            wait_until(end.follow, 5, "the description to have come")
        talk(alice, carol, 30_000)
        for cut, survivor, goal in (("uplink1", 2, WRAPPED + 1_000), ("uplink2", 1, WRAPPED + 3_000)):
            world.cut(cut, "carrier")
            wait_until(lambda s=survivor: {c["eface_id"] for c in world.sessions()} == {s}, 10, "the call to move")  # type: ignore[misc]
            talk(alice, carol, goal)
            world.mend()
        for end, far in ((alice, carol), (carol, alice)):
            assert far.heard > 0.9 * end.sent, "what was lost was lost at the cuts"
        inner.command("hangup")
        outer.wait_for("ended")


def phone(host: Host, user: str, domain: str, proxy: str = "") -> PhoneProcess:
    """A phone that leaves its media to the test."""
    password = host.directory / "password"
    password.write_text(f"{USERS[user]}\n")
    flags: list[str | Path] = ["--account", f"{user}@{domain}", "--password-file", password, "--no-media"]
    flags += ["--server", f"sip:{domain}", "--bind", host.address]
    if proxy:
        flags += ["--proxy", proxy]
    return PhoneProcess(*flags, popen=host.namespace.popen, log=host.directory / "phone.log")

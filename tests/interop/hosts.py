"""The worlds real programs run in, and a host of one as a test uses it. Namespaces and lines are `sipnemo.lab`'s."""

from __future__ import annotations

import array
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from sipnemo.lab import topology
from sipnemo.lab.line import Quality
from sipnemo.lab.namespace import Namespace
from sipnemo.lab.topology import Port, Route, Segment, Topology, World

Found = TypeVar("Found")

OPENER = Path(__file__).with_name("opener.py")


def wait_until(condition: Callable[[], Found | None], timeout: float, what: str) -> Found:
    """The first true value of `condition`, asked again and again; AssertionError naming `what` after `timeout`."""
    end_at = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end_at:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.02)


class Host:
    """One machine of a world, with a directory for what its programs write."""

    def __init__(self, namespace: Namespace, address: str, directory: Path) -> None:
        self.namespace = namespace
        self.name = namespace.name
        self.address = address
        self.directory = directory / self.name
        self.directory.mkdir(parents=True, exist_ok=True)

    def start(self, *command: str | Path, log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program; its output goes to `log`. The world ends it at the latest."""
        with log.open("ab") as sink:
            process: subprocess.Popen[bytes] = self.namespace.popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=cwd
            )
        return process

    def run(self, *command: str | Path) -> str:
        """Run a short command and return its output; AssertionError with its complaint when it fails."""
        words = [str(word) for word in command]
        done = self.namespace.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name}: {' '.join(words)}: {done.stderr or done.stdout}"
        return str(done.stdout)

    def socket(self, kind: str, *arguments: str) -> socket.socket:
        """A socket that lives in this host, for use in this process; see opener.py for the kinds."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            words = [sys.executable, "-I", "-S", str(OPENER), kind, *arguments]
            done = self.namespace.run(words, stdin=theirs, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ConnectionError(f"{self.name}: {kind} {arguments}: {done.stderr.strip()}")
            handles = array.array("i")
            _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_LEN(handles.itemsize))
            handles.frombytes(ancillary[0][2][: handles.itemsize])
        return socket.socket(fileno=handles[0])

    def listens(self, address: str, port: int, transport: str = "udp") -> bool:
        """Whether a program here listens on this address and port."""
        return bool(self.run("ss", "-Hln", "-u" if transport == "udp" else "-t", "src", f"{address}:{port}").strip())


class Lan:
    """Hosts on one Ethernet, 192.0.2.11 and up: the world of programs that meet without sipnemo."""

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        ports = tuple(Port(name, "eth0", (f"192.0.2.{number}/24",)) for number, name in enumerate(names, 11))
        plan = Topology(tuple(topology.Host(name) for name in names), (Segment("net", ports),))
        self.world = World(plan)
        self.hosts = hosts_of(self.world, names, directory)


def hosts_of(world: World, names: Iterable[str], directory: Path) -> dict[str, Host]:
    """The named hosts of a world."""
    return {name: Host(world.host(name), world.topology.address(name), directory) for name in names}


OUTSIDE = {"hs": 10, "server": 20, "server2": 21, "cn1": 31, "cn2": 32}
"What stands on the internet, with the last number of its address in 192.0.2.0/24."


def gateway_topology(quality: Quality) -> Topology:
    """Phones mn1 and mn2 behind the gateway nms with two uplinks; home server, the phones' servers, correspondents."""
    tolerant: dict[str, int | str] = {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/default/rp_filter": 0}
    inside, outside = (Route("10.7.0.1", "eth0"),), (Route("192.0.2.1", "eth0"),)
    gateway = (Route("198.51.100.1", "wan1", metric=101), Route("203.0.113.1", "wan2", metric=102))
    return Topology(
        hosts=(
            topology.Host("mn1", inside),
            topology.Host("mn2", inside),
            topology.Host("nms", gateway, tolerant),
            topology.Host("internet", sysctls=tolerant | {"net/ipv4/ip_forward": 1}),
            *(topology.Host(name, outside) for name in OUTSIDE),
        ),
        segments=(
            Segment(
                "lan",
                (
                    Port("nms", "lan0", ("10.7.0.1/24",)),
                    Port("mn1", "eth0", ("10.7.0.11/24",)),
                    Port("mn2", "eth0", ("10.7.0.12/24",)),
                ),
            ),
            Segment(
                "uplink1",
                (Port("nms", "wan1", ("198.51.100.7/24",)), Port("internet", "up1", ("198.51.100.1/24",))),
                quality,
            ),
            Segment(
                "uplink2",
                (Port("nms", "wan2", ("203.0.113.7/24",)), Port("internet", "up2", ("203.0.113.1/24",))),
                quality,
            ),
            Segment(
                "outside",
                (
                    Port("internet", "eth0", ("192.0.2.1/24",)),
                    *(Port(name, "eth0", (f"192.0.2.{number}/24",)) for name, number in OUTSIDE.items()),
                ),
            ),
        ),
    )

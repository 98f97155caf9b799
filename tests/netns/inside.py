"""Things of another host at hand in a test: its UDP sockets, and a media plane that runs there.

phone = open_udp(world.phone, "10.7.0.2", 4000)    # a socket of this process, in that host's network
with PlaneIn(world.nms, "kernel") as plane:
    plane.add(...)
"""

from __future__ import annotations

import array
import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sipnemo.lab.namespace import Namespace
from sipnemo.media.flow import FlowKey, MediaFlow, MediaPath

SERVER = str(Path(__file__).with_name("plane_server.py"))

GIVE = """
import array, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
host, port, kind, protocol = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, protocol)
made.bind((host, port))
channel.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
"""


def open_udp(
    host: Namespace, address: str, port: int, kind: int = socket.SOCK_DGRAM, protocol: int = 0
) -> socket.socket:
    """A socket of this process that lives in the network of another host; reads give up after five seconds."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [str(theirs.fileno()), address, str(port), str(int(kind)), str(protocol)]
        host.run([sys.executable, "-I", "-S", "-c", GIVE, *words], pass_fds=[theirs.fileno()], check=True)
        _data, ancillary, _flags, _address = ours.recvmsg(1, socket.CMSG_SPACE(4))
    descriptor = array.array("i", ancillary[0][2])[0]
    made = socket.socket(fileno=descriptor)
    made.settimeout(5.0)
    return made


class PlaneIn:
    """A media plane in a process inside a host, used as if it were here."""

    def __init__(self, host: Namespace, kind: str) -> None:
        self._process = host.popen(
            [sys.executable, SERVER, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.opened = self._answer()

    def attach(self, *devices: str) -> None:
        self.ask("attach", devices)

    def refresh_routes(self) -> None:
        self.ask("refresh_routes")

    def add(self, *flows: MediaFlow) -> None:
        self.ask("add", flows)

    def remove(self, *keys: FlowKey) -> None:
        self.ask("remove", keys)

    def set_path(self, group: int, source: str, device: str, also: tuple[str, str] | None = None) -> None:
        self.ask("set_path", MediaPath(group, source, device, also))

    def counters(self, *keys: FlowKey) -> dict[FlowKey, tuple[int, int]]:
        """Counters of these flows, or of all."""
        found = self.ask("counters", keys)
        return {FlowKey(*key): (packets, octets) for key, packets, octets in found}

    def learned(self) -> list[tuple[FlowKey, tuple[str, int]]]:
        """What `on_learned` has been called with so far."""
        return [(FlowKey(*key), (host, port)) for key, (host, port) in self.ask("learned")]

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("statistics")
        return found

    def census(self) -> dict[str, int]:
        """What the plane's process and network hold: nf_tables `tables` and `elements`, `sockets`."""
        found: dict[str, int] = self.ask("census")
        return found

    def close_plane(self) -> None:
        """Close the plane, not the process, so that a census can be taken afterwards."""
        self.ask("close")

    def kill(self) -> None:
        """End the process the hard way: nothing is cleaned up."""
        self._process.kill()
        self._process.wait()

    def ask(self, op: str, argument: Any = None) -> Any:
        """One request to the plane's process; raises OSError with its text when it failed there."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([op, argument]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the plane's process has ended; its own message is above"
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets a test has opened."""
    for sock in sockets:
        sock.close()

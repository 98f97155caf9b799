"""A gateway whose two uplinks are behind NAT routers: nftables masquerading in namespaces of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from phone_process import PhoneProcess
from sipnemo.lab import topology
from sipnemo.lab.line import Quality
from sipnemo.lab.processes import Admin, Server, secret, toml
from sipnemo.lab.topology import Port, Route, Segment, Topology, World

from .gateway import tail
from .hosts import Host, hosts_of, wait_until

HOME, FAR = "192.0.2.10", "192.0.2.20"
INSIDE, PHONE = "10.7.0.1", "10.7.0.11"
PRIVATE = {1: "192.168.1.7", 2: "192.168.2.7"}
PUBLIC = {1: "198.51.100.7", 2: "203.0.113.7"}
PORTS_KEPT, PORTS_CHANGED = "masquerade", "masquerade fully-random"
"What a NAT does with ports, in nft's words. The other one takes a new port for each far end: a symmetric NAT."

RULES = """
table ip nat {
    chain post {
        type nat hook postrouting priority 100
        oifname "out0" DO
    }
    chain in {
        type filter hook input priority 0
        iifname "out0" ct state new drop
    }
}
"""
"""A router drops what nobody has asked for. One that does not remembers such packets as a connection, and then gives
the gateway's own packets to that far end another port: whoever sends first decides."""
FORGET = """
import socket, struct
NETFILTER, DELETE, REQUEST_ACK = 12, 1 << 8 | 2, 5  # ctnetlink: every entry, when none is named
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as netlink:
    netlink.send(struct.pack("=IHHIIBBH", 20, DELETE, REQUEST_ACK, 1, 0, 0, 0, 0))
    assert struct.unpack_from("=i", netlink.recv(4096), 16) == (0,)
"""


OWN_RULES = """
table ip own {
    chain post {
        type nat hook postrouting priority 100
        oifname "wan*" masquerade
    }
}
"""
"What many a gateway has that is also the router of its phones: it must not matter for calls."


def behind_nats(quality: Quality | None) -> Topology:
    """Phone `mn`, gateway `nms`, a NAT router per uplink, `internet`, home server `hs` and correspondent `cn`."""
    tolerant: dict[str, int | str] = {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/default/rp_filter": 0}
    router: dict[str, int | str] = {**tolerant, "net/ipv4/ip_forward": 1}
    outside = (Route("192.0.2.1", "eth0"),)
    segments = [
        Segment("lan", (Port("nms", "lan0", (f"{INSIDE}/24",)), Port("mn", "eth0", (f"{PHONE}/24",)))),
        Segment(
            "outside",
            (
                Port("internet", "eth0", ("192.0.2.1/24",)),
                Port("hs", "eth0", (f"{HOME}/24",)),
                Port("cn", "eth0", (f"{FAR}/24",)),
            ),
        ),
    ]
    hosts = [
        topology.Host("mn", (Route(INSIDE, "eth0"),)),
        topology.Host(
            "nms", tuple(Route(f"192.168.{n}.1", f"wan{n}", metric=100 + n) for n in PRIVATE), sysctls=tolerant
        ),
        topology.Host("internet", sysctls=router),
        topology.Host("hs", outside),
        topology.Host("cn", outside),
    ]
    for n, public in PUBLIC.items():
        gateway = f"{public.rpartition('.')[0]}.1"
        hosts.append(topology.Host(f"nat{n}", (Route(gateway, "out0"),), router))
        inside = Port(f"nat{n}", "in0", (f"192.168.{n}.1/24",))
        segments += [
            Segment(f"uplink{n}", (Port("nms", f"wan{n}", (f"{PRIVATE[n]}/24",)), inside), quality),
            Segment(
                f"street{n}",
                (Port(f"nat{n}", "out0", (f"{public}/24",)), Port("internet", f"up{n}", (f"{gateway}/24",))),
            ),
        ]
    return Topology(tuple(hosts), tuple(segments))


class NatWorld:
    """It, with home server and gateway running, and both paths ON; a context manager."""

    def __init__(
        self,
        directory: Path,
        ports: str,
        timeout: int = 0,
        nms_tables: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        lines: bool = True,
    ) -> None:
        """`timeout`: seconds that the NATs remember a UDP flow; 0: as the kernel does.

        `lines`: the uplinks are long lines, which can fail silently; else Ethernets, whose cables can be pulled.
        """
        self._quality = Quality(delay=10.0) if lines else None
        self.directory = directory
        self._ports = ports
        self._timeout = timeout
        self._tables = nms_tables or {}

    def __enter__(self) -> NatWorld:
        self.world = World(behind_nats(self._quality))
        self.servers: list[Server] = []
        try:
            self.hosts = hosts_of(
                self.world, [host.name for host in self.world.topology.hosts if host.name != "internet"], self.directory
            )
            for n in PRIVATE:
                self._hide(self.hosts[f"nat{n}"])
            rules = self.hosts["nms"].directory / "own.nft"
            rules.write_text(OWN_RULES)
            self.hosts["nms"].run("nft", "-f", rules)
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("\n".join(f"--- {server.name}\n{tail(server.log)}" for server in self.servers))
        self._close()

    def forget(self, number: int) -> None:
        """The NAT of an uplink is restarted: what it knew of its flows is gone."""
        self.hosts[f"nat{number}"].run(sys.executable, "-I", "-S", "-c", FORGET)

    def phone(self, host: str, name: str, *flags: str) -> PhoneProcess:
        """`sipnemo phone`, registered at the home server; inside, by way of the gateway."""
        at = self.hosts[host]
        words: list[str | Path] = ["--account", name, "--password-file", secret(at.directory, name, f"pw-{name}")]
        words += ["--server", f"sip:{HOME}", "--bind", at.address, "--gap-over", "200", *flags]
        if host == "mn":
            words += ["--proxy", f"sip:{INSIDE}"]
        return PhoneProcess(*words, popen=at.namespace.popen, log=at.directory / f"{name}.log")

    def rows(self, view: str) -> list[dict[str, Any]]:
        """What the gateway's admin interface lists."""
        answer = self.admin.get(f"/api/{view}")
        rows = answer.get(view, []) if isinstance(answer, dict) else answer
        return list(rows or [])

    def paths_on(self) -> set[int]:
        """The E-face IDs whose paths are ON."""
        return {int(path["eface_id"]) for path in self.rows("paths") if path["status"] == "ON" and path["registered"]}

    def _hide(self, nat: Host) -> None:
        rules = nat.directory / "rules.nft"
        rules.write_text(RULES.replace("DO", self._ports))
        nat.run("nft", "-f", rules)
        if self._timeout:
            for name in ("udp_timeout", "udp_timeout_stream"):
                nat.namespace.set_sysctl(f"net/netfilter/nf_conntrack_{name}", self._timeout)

    def _start(self) -> None:
        hs, nms = self.hosts["hs"].directory, self.hosts["nms"].directory
        password = str(secret(hs, "fleet", "rolling home"))
        users = [("[[user]]", {"name": u, "password_file": str(secret(hs, u, f"pw-{u}"))}) for u in ("alice", "bob")]
        self._run(
            "hs",
            [
                ("[hs]", {"domain": HOME, "listen": [f"udp:{HOME}:5060", f"tcp:{HOME}:5060"], "store": "memory"}),
                ("[[account]]", {"name": "fleet", "password_file": password}),
                *users,
            ],
        )
        own = {"home": f"sip:{HOME}", "account": "fleet", "password_file": password, "state_dir": str(nms)}
        tables: dict[str, Mapping[str, Any]] = {
            "[nms]": own | {"manage_routes": True},
            "[iface]": {"address": INSIDE},
            "[probe]": {"probe_idle_every": 0.5, "hold_down": 0.5},
        }
        efaces = [("[[eface]]", {"id": n, "interface": f"wan{n}", "priority": n}) for n in PRIVATE]
        self._run("nms", [*(tables | dict(self._tables)).items(), *efaces])
        self.admin = Admin(self.hosts["nms"].namespace)
        wait_until(lambda: self.paths_on() == set(PRIVATE), 20, "both paths to be ON")

    def _run(self, name: str, tables: list[tuple[str, Mapping[str, Any]]]) -> None:
        directory = self.hosts[name].directory
        config = directory / f"{name}.toml"
        config.write_text(toml(tables))
        server = Server(self.hosts[name].namespace, name, config, directory, directory)
        self.servers.append(server)
        wait_until(server.ready, 20, f"sipnemo {name} to be ready")

    def _close(self) -> None:
        try:
            for server in reversed(self.servers):  # the gateway signs off at its home server
                server.stop()
                server.process.wait(10)
        finally:
            for server in self.servers:
                server.close()
            self.world.close()

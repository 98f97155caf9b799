"""The process that owns a lab's namespaces and does their plumbing: `python -m sipnemo.lab.agent`.

It enters an own user namespace first (unless it runs as root), holds every network and mount namespace by descriptor,
and carries out one JSON request per line on standard input: links, addresses, routes, sysctls. When its input ends it
ends, and with it everything it made. It must stay single-threaded: setns(2) on a user or mount namespace demands it.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sipnemo.lab.enter import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, die_with_parent, mount, setns, unshare

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
IFA_F_NODAD = 0x02
SIOCETHTOOL = 0x8946
# ETHTOOL_SRXCSUM, STXCSUM, SSG, STSO, SUFO, SGSO, SGRO: a packet socket must see finished, wire-sized packets.
OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x22, 0x24, 0x2C)


def enter_user_namespace() -> None:
    """Become root of an own user namespace, with the caller's own uid and gid behind it."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


class Agent:
    """The namespaces of one sandbox and the requests that change them."""

    def __init__(self, as_root: bool) -> None:
        self.user: int | None = None
        if not as_root:
            enter_user_namespace()
            self.user = os.open("/proc/self/ns/user", os.O_RDONLY)
        unshare(CLONE_NEWNS)
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        self.base = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.net: dict[str, int] = {}
        self.mnt: dict[str, int] = {}
        self.netlink: dict[str, IPRoute] = {}
        unshare(CLONE_NEWNET)  # asked for here so that a host that forbids it is found out at once

    def namespace(self, name: str, files: dict[str, str]) -> dict[str, int | None]:
        """Make one host: a network namespace with lo up, and a mount namespace with these files in place."""
        unshare(CLONE_NEWNET)
        self.net[name] = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.netlink[name] = IPRoute()
        setns(self.base, CLONE_NEWNS)
        unshare(CLONE_NEWNS)
        with contextlib.suppress(OSError):  # only programs that look into /sys/class/net miss it
            mount("sysfs", "/sys", "sysfs", 0)
        for target, source in files.items():
            mount(source, target, "none", MS_BIND)
        self.mnt[name] = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.link_set(name, "lo", up=True)
        return {"user": self.user, "net": self.net[name], "mnt": self.mnt[name]}

    def veth(self, host: str, device: str, peer_host: str, peer: str) -> None:
        """A cable between two hosts, both ends up."""
        self.enter(host)
        self.netlink[host].link(
            "add", ifname=device, kind="veth", peer={"ifname": peer, "net_ns_fd": self.net[peer_host]}
        )
        for name, end in ((host, device), (peer_host, peer)):
            self.without_offload(name, end)
            self.link_set(name, end, up=True)

    def bridge(self, host: str, device: str, ports: list[str]) -> None:
        """An Ethernet switch inside a host, with these devices as its ports."""
        self.netlink[host].link("add", ifname=device, kind="bridge")
        index = self.index(host, device)
        for port in ports:
            self.netlink[host].link("set", index=self.index(host, port), master=index)
        self.link_set(host, device, up=True)

    def link_set(self, host: str, device: str, up: bool) -> None:
        """Set a device administratively up or down."""
        self.netlink[host].link("set", index=self.index(host, device), state="up" if up else "down")

    def link_delete(self, host: str, device: str) -> None:
        """Remove a device (and the other end of its cable)."""
        self.netlink[host].link("del", index=self.index(host, device))

    def address(self, host: str, device: str, address: str, add: bool) -> None:
        """Add or remove an address with its prefix length; IPv6 is usable at once (no duplicate detection)."""
        plain, _, length = address.partition("/")
        six = ":" in plain
        extra = {"flags": IFA_F_NODAD} if six and add else {}
        self.netlink[host].addr(
            "add" if add else "del",
            index=self.index(host, device),
            address=plain,
            prefixlen=int(length),
            family=socket.AF_INET6 if six else socket.AF_INET,
            **extra,
        )

    def route(self, host: str, arguments: dict[str, Any], replace: bool = True) -> None:
        """Add (or replace) a route: dst, gateway, device, metric, table, type."""
        self.netlink[host].route("replace" if replace else "del", **self.route_arguments(host, arguments))

    def rule(self, host: str, arguments: dict[str, Any]) -> None:
        """Add a policy-routing rule, in rtnetlink's own words: src, table, priority."""
        self.netlink[host].rule("add", **arguments)

    def sysctl(self, host: str, name: str, value: str) -> None:
        """Set net.… in a host; `name` with slashes, as under /proc/sys."""
        self.enter(host)
        Path("/proc/sys", name).write_text(value)

    def carrier(self, host: str, device: str) -> bool:
        """Whether the device is up and sees its far end."""
        link = self.netlink[host].get_links(self.index(host, device))[0]
        return bool(link.get("operstate") == "UP")

    def tenants(self) -> list[int]:
        """The processes that run in any of this sandbox's hosts."""
        ours = {os.fstat(descriptor).st_ino for descriptor in self.net.values()}
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/net").st_ino in ours:
                        found.append(int(entry))
        return found

    def enter(self, host: str) -> None:
        """Make this process stand in the host's network."""
        setns(self.net[host], CLONE_NEWNET)

    def index(self, host: str, device: str) -> int:
        """The device's ifindex; raises when there is none."""
        found = self.netlink[host].link_lookup(ifname=device)
        if not found:
            raise OSError(errno.ENODEV, f"no device {device} in {host}")
        return int(found[0])

    def route_arguments(self, host: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """rtnetlink's words for ours: `device` becomes its index, `metric` its priority."""
        words = dict(arguments)
        if metric := words.pop("metric", None):
            words["priority"] = metric
        if device := words.pop("device", None):
            words["oif"] = self.index(host, device)
        if ":" in words.get("dst", "") + words.get("gateway", ""):
            words["family"] = socket.AF_INET6
        return words

    def without_offload(self, host: str, device: str) -> None:
        """Have the device finish checksums and segments itself: a packet socket forwards what it is handed."""
        self.enter(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anchor:
            for command in OFFLOADS:
                value = array.array("I", [command, 0])
                address, _ = value.buffer_info()
                with contextlib.suppress(OSError):  # not every device knows every one
                    fcntl.ioctl(anchor, SIOCETHTOOL, struct.pack("16sQ16x", device.encode(), address))


def main() -> None:
    """Answer requests until standard input ends."""
    die_with_parent()
    try:
        agent = Agent(as_root=os.geteuid() == 0)
    except OSError as error:
        print(json.dumps({"error": str(error), "forbidden": True}), flush=True)
        return
    print(json.dumps({"result": {"pid": os.getpid()}}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        method: Callable[..., Any] = getattr(agent, request.pop("op"))
        at = time.monotonic()  # before: others may notice the change while we are still at it
        try:
            answer = {"result": method(**request), "at": at}
        except (OSError, NetlinkError, LookupError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

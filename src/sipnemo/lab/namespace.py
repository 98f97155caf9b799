"""Hosts without hardware: network namespaces an ordinary user can make, wire up, cut and run programs in.

    with Sandbox() as sandbox:
        left, right = sandbox.host("left"), sandbox.host("right")
        sandbox.cable(left, "eth0", right, "eth0")
        left.add_address("eth0", "10.0.0.1/24")
        process = left.popen(["ping", "-c1", "10.0.0.2"])

Nothing outside the sandbox changes, no program but Python is needed, and closing it ends every process in its hosts
and removes them. As root no user namespace is used; otherwise the kernel must allow unprivileged ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ENTER = str(Path(__file__).with_name("enter.py"))

# What a host sets to forbid unprivileged namespaces: file under /proc/sys, forbidding value, how to allow.
SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


class NamespacesForbiddenError(RuntimeError):
    """This machine does not let this user make namespaces; the text says which setting does and what to do."""


class SandboxError(RuntimeError):
    """A link, address or route could not be changed as asked."""


def why_forbidden(error: str, proc_sys: Path = Path("/proc/sys")) -> str:
    """One message for a refused namespace: the setting that refuses it, the command that allows it, the way around."""
    blamed = []
    for name, bad, command in SWITCHES:
        with contextlib.suppress(OSError):
            if (proc_sys / name).read_text().strip() == bad:
                blamed.append(f"{name.replace('/', '.')} = {bad} forbids it; allow it with: sudo {command}")
    reason = "\n  ".join(blamed) or (
        "none of the usual settings is the cause: perhaps a container runtime's seccomp or AppArmor profile"
    )
    text = f"cannot make network namespaces as uid {os.geteuid()} ({error}).\n  {reason}"
    return text if os.geteuid() == 0 else text + "\n  or run the same command with sudo: root needs no such setting."


def available() -> str:
    """Empty when sandboxes work here, else the reason: for tests that skip."""
    try:
        Sandbox().close()
    except NamespacesForbiddenError as error:
        return str(error)
    return ""


class Namespace:
    """One host: a network of its own in which programs run."""

    def __init__(self, sandbox: Sandbox, name: str, held: dict[str, int | None]) -> None:
        self.sandbox = sandbox
        self.name = name
        self._held = held
        self.processes: list[subprocess.Popen[Any]] = []

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same command, to be run inside this host by any means that starts processes."""
        user, net, mnt = (self._held[kind] for kind in ("user", "net", "mnt"))
        place = [str(self.sandbox.pid), "-" if user is None else str(user), str(net), str(mnt)]
        return [sys.executable, "-I", "-S", ENTER, *place, "--", *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` inside this host; it is ended with the sandbox, or with the thread that started it."""
        options.setdefault("start_new_session", True)
        process = subprocess.Popen(self.command(argv), **options)
        self.processes.append(process)
        return process

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """`subprocess.run` inside this host."""
        return subprocess.run(self.command(argv), **options)

    def python(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        """This interpreter with these arguments inside this host, for example `"-m", "sipnemo", "hs", …`."""
        return self.popen([sys.executable, *arguments], **options)

    def add_address(self, device: str, address: str) -> float:
        """Add `10.0.0.1/24` to a device; returns when (monotonic)."""
        return self.sandbox.ask("address", host=self.name, device=device, address=address, add=True)[1]

    def remove_address(self, device: str, address: str) -> float:
        """Remove an address; the kernel removes its routes with it. Returns when (monotonic)."""
        return self.sandbox.ask("address", host=self.name, device=device, address=address, add=False)[1]

    def set_link(self, device: str, up: bool) -> float:
        """Administratively up or down; the other end of the cable sees carrier come or go. Returns when."""
        return self.sandbox.ask("link_set", host=self.name, device=device, up=up)[1]

    def delete_link(self, device: str) -> None:
        """Remove a device and the other end of its cable."""
        self.sandbox.ask("link_delete", host=self.name, device=device)

    def has_carrier(self, device: str) -> bool:
        """Whether the device is up and sees its far end."""
        return bool(self.sandbox.ask("carrier", host=self.name, device=device)[0])

    def add_route(self, **arguments: Any) -> None:
        """Add or replace a route: `dst` ("default" or a prefix), `gateway`, `device`, `metric`, `table`, `type`."""
        self.sandbox.ask("route", host=self.name, arguments=arguments)

    def remove_route(self, **arguments: Any) -> None:
        """Remove a route named as in `add_route`."""
        self.sandbox.ask("route", host=self.name, arguments=arguments, replace=False)

    def add_rule(self, **arguments: Any) -> None:
        """Add a policy-routing rule: `src`, `table`, `priority`."""
        self.sandbox.ask("rule", host=self.name, arguments=arguments)

    def set_sysctl(self, name: str, value: int | str) -> None:
        """Set `net/ipv4/ip_forward` and the like in this host."""
        self.sandbox.ask("sysctl", host=self.name, name=name, value=str(value))

    def bridge(self, device: str, ports: Sequence[str]) -> None:
        """An Ethernet switch inside this host, joining these devices."""
        self.sandbox.ask("bridge", host=self.name, device=device, ports=list(ports))


class Sandbox:
    """A set of hosts that live and die together. Not tied to a thread; programs in hosts are (see `popen`)."""

    def __init__(self) -> None:
        self.hosts: dict[str, Namespace] = {}
        self._lock = threading.Lock()
        self._agent = subprocess.Popen(
            [sys.executable, "-m", "sipnemo.lab.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the owner first, which then closes in order
        )
        try:
            self.pid: int = self._read()[0]["pid"]
        except BaseException:
            self.close()
            raise

    def host(self, name: str, files: dict[str, str] | None = None) -> Namespace:
        """A new host with only lo. `files` puts other files in the place of some: {"/etc/hosts": "/tmp/x"}."""
        held = self.ask("namespace", name=name, files=files or {})[0]
        self.hosts[name] = Namespace(self, name, held)
        return self.hosts[name]

    def cable(self, left: Namespace, left_device: str, right: Namespace, right_device: str) -> None:
        """Join two hosts by a veth pair, both ends up, without checksum or segmentation offload."""
        self.ask("veth", host=left.name, device=left_device, peer_host=right.name, peer=right_device)

    def ask(self, op: str, **arguments: Any) -> tuple[Any, float]:
        """One request to the agent: its result and the instant it was begun; raises SandboxError."""
        with self._lock:
            assert self._agent.stdin is not None
            try:
                self._agent.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
                self._agent.stdin.flush()
            except (BrokenPipeError, ValueError):
                raise SandboxError("the sandbox is closed") from None
            return self._read()

    def close(self) -> None:
        """End every process in the hosts, by process id, then the hosts. Closing twice is harmless."""
        with contextlib.suppress(SandboxError):
            for number in (signal.SIGTERM, signal.SIGKILL):
                deadline = time.monotonic() + 2.0
                for pid in self.ask("tenants")[0]:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
                while self._reap() and time.monotonic() < deadline:
                    time.sleep(0.01)
        self._close_pipes()
        self._agent.wait()

    def _reap(self) -> list[int]:
        """Collect what has ended; the processes still in a host."""
        for host in self.hosts.values():
            for process in host.processes:
                if process.poll() is not None:
                    for pipe in (process.stdin, process.stdout, process.stderr):
                        if pipe is not None:
                            with contextlib.suppress(OSError):
                                pipe.close()
        pids: list[int] = self.ask("tenants")[0]
        return pids

    def _close_pipes(self) -> None:
        for pipe in (self._agent.stdin, self._agent.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read(self) -> tuple[Any, float]:
        assert self._agent.stdout is not None
        line = self._agent.stdout.readline()
        if not line:
            raise SandboxError("the sandbox's agent has ended; its own message is above")
        answer = json.loads(line)
        if error := answer.get("error"):
            if answer.get("forbidden"):
                raise NamespacesForbiddenError(why_forbidden(error))
            raise SandboxError(error)
        return answer["result"], answer.get("at", 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

"""The servers under test: how each is started, and why one cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from place import CALLED, INSIDE, Gateway, Place, until

HERE = Path(__file__).parent
VENV = HERE / ".venv"
SIPPY = "sippy==2.5.0"


class Running:
    """A server that has been started."""

    def __init__(self, pid: int, close: Callable[[], None]) -> None:
        self.pid = pid
        self.close = close


class Peer(NamedTuple):
    """One server under test."""

    key: str
    what: str
    start: Callable[[Place, Path], Running]
    missing: Callable[[], str] = lambda: ""
    "Why it cannot run here; empty: it can."

    gentle: float = 400.0
    "Calls per second that are far from its limit, also on a slow machine."

    target: str = "[next_url]"
    "Request-URI of ACK and BYE, as SIPp writes it."


def peers() -> list[Peer]:
    """All of them, in the order they are measured and printed."""
    tuned = ["-x", "fm", "-X", "fm"]
    gateway = [*tuned, "-A", "WITH_DIALOG", "-A", "WITH_GATEWAY"]
    return [
        Peer("sipnemo", "sipnemo nms, kernel media plane told of every call", partial(_sipnemo, media=True)),
        Peer("sipnemo-signalling", "sipnemo nms, signalling alone", partial(_sipnemo, media=False)),
        Peer("kamailio", "Kamailio tuned: tm + rr, -x fm", partial(_kamailio, tuned), _no_kamailio),
        Peer("kamailio-gateway", "Kamailio as a gateway: dialog, topoh, headers, SDP", partial(_kamailio, gateway),
             _no_kamailio),
        Peer("kamailio-debian", "Kamailio tm + rr with Debian's own allocator", partial(_kamailio, []), _no_kamailio),
        Peer("sippy", "Sippy B2BUA 2.5.0", _sippy, _no_sippy, 60.0, "sip:[remote_ip]:[remote_port]"),
    ]  # fmt: skip


def version(peer: Peer) -> str:
    """What exactly was measured."""
    if peer.key.startswith("kamailio"):
        said = subprocess.run([_kamailio_program(), "-v"], capture_output=True, text=True, check=False).stdout
        return said.partition("\n")[0].removeprefix("version: ")
    return SIPPY.replace("==", " ") if peer.key == "sippy" else f"Python {sys.version.partition(' ')[0]}"


def _sipnemo(place: Place, directory: Path, media: bool) -> Running:
    gateway = Gateway(place, directory / "servers", media=media)
    return Running(gateway.pid, gateway.close)


def _kamailio_program() -> str:
    return shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin:/usr/local/sbin") or ""


def _no_kamailio() -> str:
    return "" if _kamailio_program() else "not installed (package kamailio)"


def _kamailio(extra: list[str], place: Place, directory: Path) -> Running:
    argv = [_kamailio_program(), "-DD", "-E", "-m", "4096", "-M", "32", "-w", str(directory), "-Y", str(directory)]
    argv += [*extra, "-f", str(HERE / "kamailio" / "proxy.cfg")]
    return _process(place, argv, directory)


def _no_sippy() -> str:
    if not (VENV / "bin" / "python").exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, check=False)
        if made.returncode:
            return "no virtual environment can be made for it (package python3-venv)"
    python = str(VENV / "bin" / "python")
    if subprocess.run([python, "-c", "import sippy"], capture_output=True, check=False).returncode:
        print(f"installing {SIPPY} into {VENV}", flush=True)
        argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SIPPY]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            return f"{SIPPY} cannot be installed into {VENV}"
    return ""


def _sippy(place: Place, directory: Path) -> Running:
    python = str(VENV / "bin" / "python")
    argv = [python, "-m", "sippy.b2bua_simple", "-f", "-l", INSIDE, "-p", "5060", "-n", f"{CALLED}:5070"]
    return _process(place, argv, directory, env={**os.environ, "SIPLOG_BEND": "none"})


def _process(place: Place, argv: list[str], directory: Path, **options: Any) -> Running:
    process = place.popen(argv, place.server_core, directory / "server.log", cwd=directory, **options)

    def close() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    listening = f"{bytes(reversed(bytes(map(int, INSIDE.split('.'))))).hex().upper()}:{5060:04X}"

    def ready() -> bool:
        if process.poll() is not None:
            raise SystemExit(f"{argv[0]} ended:\n{(directory / 'server.log').read_text(errors='replace')[-2000:]}")
        return listening in Path(f"/proc/{process.pid}/net/udp").read_text()

    until(ready, f"{argv[0]} listening")
    return Running(process.pid, close)

"""PJSIP as a phone: the agent of pjsip_agent.py in a host's namespace, with the verbs of `baresip.Baresip`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .baresip import AnswerMode
from .events import Event, TellsEvents
from .hosts import Host, wait_until
from .programs import Certificates, Transport

AGENT = Path(__file__).with_name("pjsip_agent.py")


@dataclass
class Pjsip(TellsEvents):
    """One phone with one account `sip:user@domain`."""

    host: Host
    user: str
    password: str
    domain: str
    transport: Transport = "udp"
    outbound: str = ""
    answer_mode: AnswerMode = "auto"
    certificates: Certificates | None = None
    options: str = ""
    "Words: srtp (mandatory), prack, prack-required."
    expires: int = 3600
    events: list[Event] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.domain}"

    def start(self, register: bool = True) -> Pjsip:
        """Start the program and, unless told otherwise, wait for its registration."""
        directory = self.host.directory / f"pjsip-{self.user}"
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        words = self.options.split()
        tls = self.certificates
        options = {
            "log": str(self.log),
            "transport": self.transport,
            "address": self.host.address,
            "user": self.user,
            "password": self.password,
            "domain": self.domain,
            "outbound": self.outbound,
            "answer": self.answer_mode,
            "expires": self.expires,
            "srtp": "srtp" in words,
            "prack": "required" if "prack-required" in words else "prack" in words,
            "authority": str(tls.authority) if tls else "",
            "certificate": str(tls.certificate) if tls else "",
            "key": str(tls.key) if tls else "",
        }
        complaints = (directory / "stderr").open("wb")
        with complaints:
            self._process: subprocess.Popen[bytes] = self.host.namespace.popen(
                [sys.executable, "-I", str(AGENT), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                bufsize=0,
            )
        self._buffer = b""
        self._token = 0
        self.wait_for("READY", 20)
        if register:
            self.wait_until_registered()
        return self

    def wait_until_registered(self, timeout: float = 15.0) -> None:
        """Wait for the 200 to a REGISTER."""
        self.wait_for("REGISTERED", timeout)

    def stop(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b'{"do": "quit"}\n')
            self._process.wait(5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def dial(self, uri: str) -> None:
        """Call; see `wait_for` for what comes of it."""
        self._command("dial", uri=uri)

    def answer(self, status: int = 200) -> None:
        """Take the call that rings, or tell its caller something else."""
        self._command("answer", status=status)

    def hang_up(self) -> None:
        self._command("hang_up")

    def hold(self) -> None:
        self._command("hold")

    def resume(self) -> None:
        self._as_soon_as_allowed("resume")

    def reinvite(self) -> None:
        """Offer the same anew."""
        self._as_soon_as_allowed("reinvite")

    def update(self) -> None:
        """The same by UPDATE (RFC 3311)."""
        self._as_soon_as_allowed("update")

    def _command(self, name: str, **facts: Any) -> None:
        error = self._tried(name, **facts)
        assert not error, f"PJSIP {self.user}: {name}: {error}"

    def _as_soon_as_allowed(self, name: str) -> None:
        """PJSIP refuses to offer anything while another INVITE of the call waits for its ACK."""
        wait_until(lambda: not self._tried(name), 5, f"PJSIP {self.user} to be able to {name}")

    def _tried(self, name: str, **facts: Any) -> str:
        """What PJSIP has against the command; empty when it does it."""
        self._token += 1
        token = self._token
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, "token": token, **facts}).encode() + b"\n")

        def answered() -> Event | None:
            self._read(0.02)
            return next((event for event in self.events if event.get("token") == token), None)

        return str(wait_until(answered, 10, f"PJSIP {self.user} to {name}").get("error", ""))

    def _read(self, patience: float) -> None:
        """Take in what the phone has told."""
        pipe = self._process.stdout
        assert pipe is not None
        while select.select([pipe], [], [], patience)[0]:
            data = os.read(pipe.fileno(), 65536)
            if not data:
                return
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self.events += [json.loads(line) for line in lines]
            patience = 0.0

    def _tail(self) -> str:
        said = (self.log, self.log.with_name("stderr"))
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in said if file.exists())

"""baresip as a phone: no sound hardware, driven through its JSON control connection (ctrl_tcp)."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from .events import Event, TellsEvents
from .hosts import Host, wait_until
from .programs import Certificates, Transport

AnswerMode = Literal["auto", "manual", "early"]

CONFIG = """\
poll_method epoll
sip_listen {address}:5060
{tls}
call_local_timeout 60
call_max_calls 8
audio_source aubridge,sink
audio_player aubridge,sink
audio_alert aubridge,sink
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
audio_txmode thread
rtp_ports 20000-20999
rtp_stats no
rtp_timeout 0
net_interface {interface}
module_path {modules}
module g711.so
module aubridge.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:4444
ringback_disabled yes
statmode_default off
"""


def module_path() -> Path:
    """Where baresip's modules are."""
    return next(path.parent for path in Path("/usr").glob("lib*/**/baresip/modules/menu.so"))


@dataclass
class Baresip(TellsEvents):
    """One phone with one account `sip:user@domain`."""

    host: Host
    user: str
    password: str
    domain: str
    transport: Transport = "udp"
    outbound: str = ""
    "Outbound proxy as a SIP URI without transport, for example sip:10.7.0.1; empty: straight to the domain."
    answer_mode: AnswerMode = "auto"
    certificates: Certificates | None = None
    options: str = ""
    "More account parameters, for example ;mediaenc=srtp-mand."
    interface: str = "eth0"
    expires: int = 3600
    events: list[Event] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.domain}"

    def start(self, register: bool = True) -> Baresip:
        """Start the program, connect to its control port and, unless told otherwise, wait for its registration."""
        directory = self.host.directory / f"baresip-{self.user}"
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        self.log.unlink(missing_ok=True)
        tls = ""
        if self.certificates:
            tls = f"sip_certificate {self.certificates.certificate}\nsip_cafile {self.certificates.authority}"
        config = CONFIG.format(address=self.host.address, interface=self.interface, modules=module_path(), tls=tls)
        (directory / "config").write_text(config)
        (directory / "contacts").write_text("")
        (directory / "accounts").write_text(self._account() + "\n")
        self._process = self.host.start("baresip", "-4", "-s", "-f", directory, log=self.log)
        self._buffer = b""
        self._token = 0
        self._control = wait_until(self._connected, 10, f"baresip at {self.host.name} to take commands")
        if register:
            self.wait_until_registered()
        return self

    def wait_until_registered(self, timeout: float = 15.0) -> None:
        """Wait for the 200 to a REGISTER."""
        try:
            wait_until(self.registered, timeout, f"baresip {self.user} to be registered")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log ends:\n{self.log.read_text(errors='replace')[-3000:]}") from None

    def registered(self) -> bool:
        """Whether a REGISTER has been answered with 200 (the first event may come before the control connection)."""
        return bool(re.search(r"200 OK \(.*\) \[[1-9]\d* binding", self.log.read_text(errors="replace")))

    def __enter__(self) -> Baresip:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the program; it signs off where it gets an answer at once."""
        self._control.close()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:  # it waits for transactions that nobody will answer
            self._process.kill()
            self._process.wait()

    def dial(self, uri: str) -> None:
        """Call; see `wait_for` for what comes of it."""
        self._command("dial", uri)

    def answer(self) -> None:
        """Take the call that rings."""
        self._command("accept")

    def hang_up(self) -> None:
        """End the current call."""
        self._command("hangup")

    def hold(self) -> None:
        self._command("hold")

    def resume(self) -> None:
        self._command("resume")

    def _account(self) -> str:
        scheme = f"<sip:{self.user}@{self.domain};transport={self.transport}>"
        parts = [scheme, f"auth_user={self.user}", f"auth_pass={self.password}", f"answermode={self.answer_mode}"]
        parts += [f"regint={self.expires}", "audio_codecs=pcma"]
        if self.outbound:
            parts.append(f'outbound="{self.outbound};transport={self.transport}"')
        return ";".join(parts) + self.options

    def _connected(self) -> socket.socket | None:
        assert self._process.poll() is None, f"baresip ended:\n{self.log.read_text()[-3000:]}"
        if not self.host.listens("127.0.0.1", 4444, "tcp"):
            return None
        return self.host.socket("tcp", "127.0.0.1", "4444")

    def _command(self, name: str, parameters: str = "") -> str:
        self._token += 1
        token = str(self._token)
        text = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        self._control.sendall(b"%d:%s," % (len(text), text))
        answer = wait_until(lambda: self._answer(token), 10, f"baresip {self.user} to answer {name}")
        assert answer["ok"], f"baresip {self.user}: {name} {parameters}: {answer}"
        return str(answer.get("data", ""))

    def _answer(self, token: str) -> Event | None:
        self._read(0.02)
        return self._answers.pop(token, None)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _read(self, patience: float) -> None:
        """Take in what the control connection has to say."""
        while select.select([self._control], [], [], patience)[0]:
            data = self._control.recv(65536)
            if not data:
                return
            self._buffer += data
            while (colon := self._buffer.find(b":")) > 0:
                length = int(self._buffer[:colon])
                if len(self._buffer) < colon + length + 2:
                    break
                item = json.loads(self._buffer[colon + 1 : colon + 1 + length])
                self._buffer = self._buffer[colon + length + 2 :]
                if item.get("response"):
                    self._answers[item.get("token", "")] = item
                else:
                    self.events.append(item)
            patience = 0.0

    _answers: dict[str, Event] = field(default_factory=dict)

"""Run a pair of SIPp scenarios (sipp/NAME.uac.xml and NAME.uas.xml) and compare what the two of them saw.

A scenario checks what belongs to its own subject (a header, a body, the order of things). What must hold in every
dialog through a gateway is checked here, on the messages SIPp traced: `is_one_dialog`, `cseq_is_consistent`, `hides`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from .hosts import Host, wait_until

SCENARIOS = Path(__file__).with_name("sipp")
PAIRS = tuple(sorted(p.name.removesuffix(".uac.xml") for p in SCENARIOS.glob("*.uac.xml") if "moved" not in p.name))
"Those that need nothing but a way from one side to the other."
Wire = Literal["udp", "tcp"]
BANNER = re.compile(r"^-{40,} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\n", re.MULTILINE)
TITLE = re.compile(r"\w+ message (sent|received) [\[(][^\n]*\n\s*", re.IGNORECASE)
PATIENCE = "12"
"Seconds after which SIPp gives up: more than any scenario takes, with retransmissions."


class Message(NamedTuple):
    """One SIP message as one of the two saw it."""

    sent: bool
    text: str

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0].strip()

    @property
    def method(self) -> str:
        """The method of a request; of a response, that of its CSeq."""
        return self.header("CSeq").split()[1]

    @property
    def is_request(self) -> bool:
        return not self.first_line.startswith("SIP/2.0 ")

    @property
    def status(self) -> int:
        return 0 if self.is_request else int(self.first_line.split()[1])

    @property
    def cseq(self) -> int:
        return int(self.header("CSeq").split()[0])

    @property
    def body(self) -> str:
        return re.split(r"\r?\n\r?\n", self.text, maxsplit=1)[-1].strip()

    def headers(self, name: str) -> list[str]:
        head = re.split(r"\r?\n\r?\n", self.text, maxsplit=1)[0]
        return [value.strip() for value in re.findall(rf"^{name}[ \t]*:(.*)$", head, re.MULTILINE | re.IGNORECASE)]

    def header(self, name: str) -> str:
        """The first header of this name; empty when there is none."""
        return next(iter(self.headers(name)), "")

    def tag(self, name: str) -> str:
        """The tag of From or To; empty when there is none."""
        found = re.search(r";tag=([^;>\s]+)", self.header(name))
        return found[1] if found else ""


@dataclass(frozen=True)
class Agent:
    """One SIPp: where it runs and who it is."""

    host: Host
    user: str
    domain: str
    port: int = 5070

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.domain}"

    @property
    def contact(self) -> str:
        return f"{self.host.address}:{self.port}"


@dataclass
class Outcome:
    """What both sides of one scenario saw, in the order they saw it."""

    name: str
    caller: list[Message] = field(default_factory=list)
    called: list[Message] = field(default_factory=list)

    def keep(self, call_id: str) -> None:
        """Drop what belongs to other calls: the end of an earlier one may still find its way to the same port."""
        self.caller = [message for message in self.caller if message.header("Call-ID") == call_id]
        self.called = [message for message in self.called if message.header("Call-ID") == call_id]

    def ladder(self) -> str:
        lines = [f"scenario {self.name}"]
        for title, messages in (("caller", self.caller), ("called", self.called)):
            lines += [f"  {title}:", *(f"    {'>' if m.sent else '<'} {m.first_line}" for m in messages)]
            lines += ["    last received:", *(f"      {line}" for line in last_received(messages).splitlines())]
        return "\n".join(lines)


def last_received(messages: list[Message]) -> str:
    return next((message.text for message in reversed(messages) if not message.sent), "nothing")


def read_trace(file: Path) -> list[Message]:
    """The messages of a `-trace_msg` file."""
    if not file.exists():
        return []
    found = []
    for block in BANNER.split(file.read_bytes().decode("latin-1")):
        if title := TITLE.match(block):
            found.append(Message(title[1].lower() == "sent", block[title.end() :].strip("\r\n") + "\n"))
    return found


def sipp(
    agent: Agent,
    scenario: str,
    directory: Path,
    remote: str = "",
    wire: Wire = "udp",
    keys: Mapping[str, str] = {},
    more: Sequence[str] = (),
    says: Mapping[str, str] = {},
) -> subprocess.Popen[bytes]:
    """Start SIPp for one call; `remote` is where a caller sends its first request (address:port)."""
    words: list[str | Path] = [*more]
    text = (SCENARIOS / f"{scenario}.xml").read_text()
    for written, said in says.items():
        assert written in text, f"{scenario}: {written}"
        text = text.replace(written, said)
    script = directory / f"{scenario}.xml"
    script.write_text(text)
    for key, value in keys.items():
        words += ["-key", key, value]
    files = [directory / f"{scenario}.{kind}" for kind in ("messages", "errors", "output")]
    trace: list[str | Path] = ["-trace_msg", "-message_file", files[0], "-trace_err", "-error_file", files[1]]
    limits = ["-m", "1", "-nostdin", "-timeout", PATIENCE, "-timeout_error"]
    place = ["-i", agent.host.address, "-p", str(agent.port), "-t", f"{wire[0]}1"]
    target = [remote] if remote else []
    return agent.host.start("sipp", "-sf", script, *place, *limits, *trace, *words, *target, log=files[2])


def register(agent: Agent, password: str, remote: str, directory: Path, wire: Wire = "udp") -> None:
    """Register the agent's contact at its domain by way of `remote`, with digest."""
    directory.mkdir(parents=True, exist_ok=True)
    keys = {"user": agent.user, "domain": agent.domain, "me": agent.uri}
    credentials = ["-au", agent.user, "-ap", password]
    status = sipp(agent, "register", directory, remote, wire, keys, credentials).wait()
    trace = read_trace(directory / "register.messages")
    assert status == 0, f"{agent.uri} could not register by way of {remote}; last received:\n{last_received(trace)}"


def run_pair(
    name: str,
    caller: Agent,
    called: Agent,
    remote: str,
    directory: Path,
    target: str = "",
    wire: Wire = "udp",
    keys: Mapping[str, str] = {},
    called_wire: Wire | None = None,
    called_says: Mapping[str, str] = {},
    meanwhile: Callable[[], None] | None = None,
) -> Outcome:
    """Run the scenario: the caller sends to `remote`, the Request-URI is `target` (default: the called side's URI).

    `called_says`: texts of the called side's scenario and what stands in their place (SIPp wants a status written out).
    `meanwhile` is called once the call is up.
    """
    listen = called_wire or wire
    directory.mkdir(parents=True, exist_ok=True)
    answering = sipp(called, f"{name}.uas", directory, wire=listen, says=called_says)
    wait_until(
        lambda: called.host.listens(called.host.address, called.port, listen), 5, f"SIPp to listen at {called.contact}"
    )
    everything = {"ruri": target or called.uri, "me": caller.uri, "them": called.uri, **keys}
    calling = sipp(caller, f"{name}.uac", directory, remote, wire, everything)
    if meanwhile:
        trace = directory / f"{name}.uas.messages"
        wait_until(lambda: any(m.method == "ACK" for m in read_trace(trace)), 10, f"the call of {name} to be up")
        meanwhile()
    status = {"caller": calling.wait()}
    if status["caller"]:
        answering.terminate()  # what the called side still waits for will not come
    status["called"] = answering.wait()
    outcome = Outcome(name, *(read_trace(directory / f"{name}.{side}.messages") for side in ("uac", "uas")))
    outcome.keep(next((message.header("Call-ID") for message in outcome.caller if message.sent), ""))
    errors = [(directory / f"{name}.{side}.errors") for side in ("uac", "uas")]
    said = "\n".join(file.read_text("latin-1")[:1500] for file in errors if file.exists())
    assert not any(status.values()), f"exit status {status}\n{said}\n{outcome.ladder()}"
    return outcome


def is_one_dialog(outcome: Outcome) -> None:
    """Call-ID, From and To tags, and the called URI are the same on both sides (the gateway is dialog-transparent)."""
    for header in ("Call-ID", "From", "To"):
        values = []
        for messages in (outcome.caller, outcome.called):
            # Each hop answers a CANCEL itself, with a To tag of its own (RFC 3261 section 9.2).
            counted = [message for message in messages if message.is_request or message.method != "CANCEL"]
            seen = {m.header(header) if header == "Call-ID" else m.tag(header) for m in counted}
            values.append(seen - {""})
        assert values[0] == values[1], f"{header} differs: caller {values[0]}, called {values[1]}\n{outcome.ladder()}"


def cseq_is_consistent(outcome: Outcome) -> None:
    """On each side every party's CSeq numbers rise, responses and RAck name the request they belong to."""
    for messages in (outcome.caller, outcome.called):
        for sent in (True, False):
            requests = [message for message in messages if message.is_request and message.sent is sent]
            numbers = [message.cseq for message in requests if message.method not in ("ACK", "CANCEL")]
            assert numbers == sorted(numbers), f"CSeq falls: {numbers}\n{outcome.ladder()}"
            asked = {(message.cseq, message.method) for message in requests}
            answers = [message for message in messages if not message.is_request and message.sent is not sent]
            strays = {(message.cseq, message.method) for message in answers} - asked
            assert not strays, f"responses without a request: {strays}\n{outcome.ladder()}"
            for message in requests:
                if message.method == "PRACK":
                    invite = int(message.header("RAck").split()[1])
                    assert (invite, "INVITE") in asked, f"RAck names no INVITE: {invite}\n{outcome.ladder()}"


ROUTING = ("Via", "Contact", "Record-Route", "Route")


def hides(outcome: Outcome, messages: list[Message], prefix: str, headers: tuple[str, ...] = ROUTING) -> None:
    """No address that begins with `prefix` reaches this side in these headers or in SDP."""
    for message in messages:
        if message.sent:
            continue
        # In a response the Via is the receiver's own, come back to it.
        shown = [v for name in headers for v in message.headers(name) if message.is_request or name != "Via"]
        shown += re.findall(r"^(?:[co]=|a=rtcp:|a=candidate:).*$", message.body, re.MULTILINE)
        leaks = [line for line in shown if prefix in line]
        assert not leaks, f"{message.first_line} shows {leaks}\n{outcome.ladder()}"


def leads_through(outcome: Outcome, messages: list[Message], address: str) -> None:
    """What this side received when the dialog was made lets its next requests go by `address`."""
    first = next((message for message in messages if message.method == "INVITE"), None)
    for message in messages:
        if first is None or message.method != "INVITE" or message.cseq != first.cseq:
            continue
        forms = message.is_request == (message.sent == first.sent) and message.status != 100
        if not message.sent and forms and message.status < 300:
            ways = message.headers("Record-Route")[:1] or message.headers("Contact")
            assert any(f"{address}:" in way or f"{address};" in way or f"{address}>" in way for way in ways), (
                f"{message.first_line} leads to {ways}\n{outcome.ladder()}"
            )


def media_goes_to(outcome: Outcome, messages: list[Message], addresses: set[str]) -> None:
    """Every session description this side received asks for media at one of these addresses."""
    for message in messages:
        if not message.sent and "m=audio" in message.body:
            asked = set(re.findall(r"^c=IN IP4 (\S+)", message.body, re.MULTILINE))
            assert asked, f"{message.first_line} without c= line\n{outcome.ladder()}"
            assert asked <= addresses, f"{message.first_line} asks for media at {asked}\n{outcome.ladder()}"


def copies(messages: list[Message], first_line: str, method: str) -> list[Message]:
    """The messages received whose first line begins so and whose CSeq has this method."""
    return [m for m in messages if not m.sent and m.first_line.startswith(first_line) and m.method == method]

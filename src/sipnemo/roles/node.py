"""The whole contract between core and shell: what goes into a node, what comes out, and when to call next.

Instants (`now`, `deadline`, `…_at`) are monotonic seconds, spans (`…_after`, `…_every`) are seconds. SIP text is
`str` with one character per octet (Latin-1), so that every octet survives; only `Received.data` and `Send.data` are
`bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from sipnemo.media.flow import FlowKey, MediaFlow, MediaPath
from sipnemo.sip.actions import Lookup as Lookup
from sipnemo.sip.actions import Send as Send
from sipnemo.sip.actions import send as send
from sipnemo.sip.flow import Flow, Local

# ---------------------------------------------------------------------------------------------------------- inputs


class Received(NamedTuple):
    """One datagram, or one whole message cut from a stream (RFC 3261 §18.3); STUN comes this way too."""

    data: bytes
    flow: Flow


received: Final[Callable[[tuple[bytes, Flow]], Received]] = partial(tuple.__new__, Received)
"Makes a Received from octets and flow. One of every message: calling the class takes three times as long."


class SendFailed(NamedTuple):
    """What was sent on this flow cannot arrive: ICMP error, refused or broken connection (RFC 3261 §18.4)."""

    flow: Flow
    reason: str


class Closed(NamedTuple):
    """The stream connection of this flow has ended; what is sent on it next opens a new one."""

    flow: Flow


class Answer(NamedTuple):
    """The resolver's answer to `Lookup(ticket, …)`.

    `records`, best first: ("NAPTR", (order, preference, flags, service, replacement)),
    ("SRV", (priority, weight, port, target)), ("A" or "AAAA", (address,)) as plain tuples of str and int. Empty when
    the name does not exist or no server answered; `ttl` is how long the answer may be kept, in seconds.
    """

    ticket: int
    records: tuple[tuple[Any, ...], ...]
    ttl: float


class Link(NamedTuple):
    """The present state of one network interface; sent at start and on every change (rtnetlink)."""

    name: str
    ifindex: int
    "0 when the interface does not exist (any more)."

    up: bool
    "Administratively up and with carrier."

    addresses: tuple[str, ...]
    "Usable addresses (global scope, not tentative, not deprecated), IPv4 first, without prefix length."


class Learned(NamedTuple):
    """Symmetric RTP: packets of this flow come from, and now go to, another address than was signalled."""

    key: FlowKey
    peer: tuple[str, int]


class Counted(NamedTuple):
    """Answer to `ReadCounters`: packets and bytes forwarded so far, per flow key. Unknown keys are absent."""

    ticket: int
    counters: Mapping[FlowKey, tuple[int, int]]


class Stored(NamedTuple):
    """The store has made `Store(ticket, …)` durable; `error` is empty, or says why it has not."""

    ticket: int
    error: str = ""


class Command(NamedTuple):
    """An operator asks (admin interface); answered by `Reply` with the same ticket."""

    ticket: int
    name: str
    "For example 'status', 'paths', 'path', 'bindings', 'sessions', 'moves'."

    arguments: Mapping[str, Any]


class Tick(NamedTuple):
    """The deadline has come, nothing else."""


class Stop(NamedTuple):
    """The process is asked to end: deregister, say goodbye. The shell waits for `Finished` (bounded)."""


Input = Received | SendFailed | Closed | Answer | Link | Learned | Counted | Stored | Command | Tick | Stop

# --------------------------------------------------------------------------------------------------------- actions


class Listen(NamedTuple):
    """Open a socket (UDP) or a listener (TCP, TLS). An address that is not there yet is retried by the shell."""

    local: Local


class Unlisten(NamedTuple):
    """Close the socket or listener and the connections that started from it."""

    local: Local


class AddFlows(NamedTuple):
    """Forward media for these keys from now on; a known key is replaced in place."""

    flows: tuple[MediaFlow, ...]


class RemoveFlows(NamedTuple):
    """Stop forwarding for these keys; unknown keys are ignored."""

    keys: tuple[FlowKey, ...]


class SetPath(NamedTuple):
    """Every flow of this path's group leaves by it from the next packet on. One write (RO-10)."""

    path: MediaPath


class Punch(NamedTuple):
    """Send these octets once from a media port: a NAT on the path opens or keeps a pinhole for what comes back.

    They are no media and are counted nowhere; when the path cannot send, nothing happens."""

    path: MediaPath
    port: int
    peer: tuple[str, int]
    data: bytes


class ReadCounters(NamedTuple):
    """Ask for the counters of these flows; answered by `Counted`."""

    ticket: int
    keys: tuple[FlowKey, ...]


class Store(NamedTuple):
    """Make these rows durable, in one transaction. A value of None deletes the key.

    `table` and `key` name the row; `value` is JSON-able. The shell loads all rows before it builds the node.
    """

    ticket: int
    table: str
    rows: tuple[tuple[str, Any], ...]


class Reply(NamedTuple):
    """The answer to a `Command`: JSON-able; {"error": text} when it cannot be carried out."""

    ticket: int
    result: Any


class Log(NamedTuple):
    """One line for people: `level` is debug, info, warning or error; fields are printed behind the text."""

    level: str
    text: str
    call_id: str = ""
    "Empty when the line is not about one call."

    fields: Mapping[str, Any] = {}


class Count(NamedTuple):
    """Add to a Prometheus counter `sipnemo_<name>_total` with these labels."""

    name: str
    labels: tuple[str, ...] = ()
    amount: float = 1.0


class Observe(NamedTuple):
    """Add an observation, in base units, to the Prometheus histogram `sipnemo_<name>`."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class Notice(NamedTuple):
    """A milestone others wait for: 'ready' (systemd READY=1), 'moved' (one move's story), 'registered', 'home' …"""

    name: str
    body: Mapping[str, Any] = {}


class Finished(NamedTuple):
    """Answer to `Stop`: nothing is left to send."""


Action = (
    Send
    | Listen
    | Unlisten
    | Lookup
    | AddFlows
    | RemoveFlows
    | SetPath
    | Punch
    | ReadCounters
    | Store
    | Reply
    | Log
    | Count
    | Observe
    | Notice
    | Finished
)


class Node(Protocol):
    """One entity, whole. The shell (or a simulated world) owns the loop; the node owns nothing outside itself."""

    @property
    def deadline(self) -> float | None:
        """When to call `handle(Tick(), now)` at the latest; None when nothing is pending."""
        ...

    def handle(self, input: Input, now: float) -> list[Action]:
        """Take one input in and return everything that follows from it, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Environment:
    """What a node cannot make itself, given once at construction so that a recorded run replays exactly."""

    seed: str
    "At least 128 bits of randomness as hex: branches, tags and nonces are derived from it (HMAC or counter)."

    wall_clock: float = 0.0
    "Seconds since 1970 at monotonic 0, for Date headers and stored expiry."

    stored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    "Rows the store held at start: table → key → value."

"""What an operator decides about one SIP-NMS; `app/schema.py` says how each is written in nms.toml.

Spans (`…_after`, `…_every`) are seconds, rates bits per second. Values are checked before they get here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sipnemo.sip.parser import LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class IfaceSettings:
    """The I-face: the side of the SIP-MNs. Exactly one of `address` and `interface` is set."""

    address: str = ""
    "Own address literal; empty: the addresses of `interface`."

    interface: str = ""
    "Name of the network interface; empty: the one that has `address`."

    port: int = 5060
    "SIP port for UDP and TCP."

    tls_port: int = 5061
    "SIP port for TLS."

    transports: tuple[str, ...] = ("UDP", "TCP")
    "UDP, TCP, TLS: what SIP-MNs may speak."


@dataclass(frozen=True, slots=True, kw_only=True)
class EfaceSettings:
    """One E-face: an uplink. Exactly one of `address` and `interface` is set (MH-5)."""

    id: int
    "E-face ID, 1 to 99; it is the `reg-id` of RFC 5626."

    priority: int
    "Unique; 1 is tried first (MH-7)."

    interface: str = ""
    "Name of the network interface, all of whose addresses become paths; empty: the one that has `address`."

    address: str = ""
    "The only address to use; empty: every usable address of `interface`."

    capacity: int | None = None
    "Bits per second that calls may use; load is measured against it (MH-4). None: unknown."

    gateway: str = ""
    "Next hop address; empty: the routing table's."

    port: int = 5060
    "SIP port for UDP and TCP."

    tls_port: int = 5061
    "SIP port for TLS."

    transports: tuple[str, ...] = ("UDP", "TCP")
    "UDP, TCP, TLS: what is listened on."

    families: tuple[str, ...] = ("ipv4", "ipv6")
    "Address families that become paths, the preferred one first."

    nat: Literal["auto", "mapped", "none"] = "auto"
    """What far ends are told when the SIP-HS sees another address than ours. auto: that one, for media only from a NAT
    that keeps ports; mapped: that one, for media too; none: our own."""

    external: str = ""
    "Address that the outside has for this uplink (1:1 NAT, forwarded ports); empty: as probes tell."


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """The media plane."""

    plane: Literal["auto", "kernel", "userspace"] = "auto"
    "Who forwards packets; auto: the kernel where it may, else the process itself."

    ports: tuple[int, int] = (16384, 32767)
    "First and last UDP port for media, both included."

    quarantine_after: float = 5.0
    "Seconds that a freed port rests before it is used again, so that late packets reach nobody."

    learn: bool = True
    "Symmetric RTP: send media to where it comes from, when the signalled address is behind a NAT."


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """How the path of a call is chosen (MH-6)."""

    name: str = "priority"
    "Entry point in the group sipnemo.policies."

    urgent: tuple[str, ...] = ()
    "Users, or user@host: their calls move before others."

    resource_priority: tuple[str, ...] = ("wps", "ets", "esnet", "drsn", "dsn", "q735")
    "Namespaces of Resource-Priority that count (RFC 4412), the most urgent first."

    returning: Literal["never", "idle", "by-class"] = "never"
    "Which calls go back to a path that the policy prefers: none, those without speech, or all (R15)."

    return_after: float = 60.0
    "Seconds that such a path must have been ON."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How a silent path is found out (MH-3)."""

    probe_every: float = 0.1
    "Seconds between probes of a path that carries calls."

    probe_idle_every: float = 2.0
    "Seconds between probes of a path that carries none."

    probe_lost: int = 3
    "Probes in a row without an answer, after which the path is OFF."

    hold_down: float = 5.0
    "Seconds of answered probes, after which the path is ON again."


@dataclass(frozen=True, slots=True, kw_only=True)
class DampingSettings:
    """How a path that comes and goes is kept for the last (after RFC 2439)."""

    half_life: float = 60.0
    "Seconds in which a path's penalty halves; each failure adds 1."

    suppress: float = 2.5
    "Penalty above which other paths come first."

    reuse: float = 1.0
    "Penalty below which they do no longer; less than `suppress`."

    longest: float = 600.0
    "Seconds of quiet after which they do no longer, however often the path has failed."


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSettings:
    """How live calls change their path (MH-12, RO-10)."""

    verify_after: float = 2.0
    "Seconds after the answer within which media must be seen on the new path, else the next one is tried."

    settle_after: float = 2.0
    "Seconds for which a path that a call has left goes on receiving for it, at the least."

    duplicate: bool = False
    "While a path may be going, and while calls move, what SIP-MNs send leaves by two paths."

    pace: float = 10_000.0
    "Most re-INVITEs per second over one path; one of known capacity gets fewer."

    share: float = 50.0
    "Percent of a path's capacity that re-INVITEs may take, and as much their answers."

    tries: int = 6
    "Re-INVITEs per call and path before the next path is tried."


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Bounds on calls."""

    calls: int = 10_000
    "Calls at a time; beyond: 503."

    suspend_for: float = 30.0
    "Seconds that live calls are kept while no path is ON (R18)."

    silent_after: float = 7200.0
    "Seconds without a packet or request after which a call without session timer ends; 0: never."


@dataclass(frozen=True, slots=True)
class TrunkCredentials:
    """What answers a 401 or 407 to a request of the SIP-NMS's own within a call (RFC 7616)."""

    realm: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NmsSettings:
    """One SIP-NMS."""

    home: str
    "URI of the SIP-HS: where to register (RFC 3263)."

    home_addresses: tuple[str, ...] = ()
    "Its addresses, instead of those that DNS has."

    account: str
    "Name at the SIP-HS."

    password: str = field(repr=False)
    "Secret of the account."

    instance: str
    "urn:uuid:…, the Host ID (MH-1) and `+sip.instance`; the same for the life of the gateway."

    iface: IfaceSettings
    efaces: tuple[EfaceSettings, ...]
    "At least one; ids and priorities are unique."

    state_dir: str = "/var/lib/sipnemo"
    "Directory of what must survive a restart; only the shell opens it."

    register: Literal["relay", "early"] = "relay"
    "relay: the SIP-MN gets its own server's answer; early: 200 first (RO-3)."

    record_route: Literal["home", "contact"] = "home"
    "What the Record-Route towards the SIP-CN names: the URI under the home domain, or the contact address (RO-7)."

    intercept: bool = False
    "Redirect SIP that leaves through the gateway to this process, so that phones need no setting."

    manage_routes: bool = False
    "Keep the policy-routing tables of the E-faces."

    media: MediaSettings = MediaSettings()
    policy: PolicySettings = PolicySettings()
    probe: ProbeSettings = ProbeSettings()
    damping: DampingSettings = DampingSettings()
    move: MoveSettings = MoveSettings()
    session: SessionSettings = SessionSettings()
    trunk: tuple[TrunkCredentials, ...] = ()
    limits: Limits = LIMITS

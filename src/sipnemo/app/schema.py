"""Every table and key of nms.toml and hs.toml: what may be written, what it means, and what holds when it is not.

`config.py` reads files by it and `reference.py` prints docs/configuration.md from it, so nothing is said twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sipnemo.app.values import (
    ADDRESS,
    ADDRESSES,
    ADMIN,
    DIRECTORY,
    DOMAIN,
    DOMAINS,
    FILE,
    FLAG,
    HOME,
    INTERFACE,
    LISTEN,
    PASSWORD_FILE,
    PORT,
    PORT_RANGE,
    RATE,
    STORE,
    TEXT,
    TRANSPORTS,
    USER,
    USERS,
    Kind,
    choice,
    choices,
    integer,
    number,
    seconds,
)
from sipnemo.nemo.urgency import NAMESPACES

REQUIRED: Final = object()
"Default of a key that must be written."

UNSET: Final = object()
"Default of a key whose absence means something of its own; `absent` says what."


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    name: str
    kind: Kind
    meaning: str
    default: Any = REQUIRED
    "As TOML would give it, REQUIRED or UNSET."

    absent: str = ""
    "What holds without the key, where `default` does not say it."


@dataclass(frozen=True, slots=True)
class Table:
    """One table, `[name]`, or `[[name]]` when there may be many."""

    name: str
    meaning: str
    keys: tuple[Key, ...] = ()
    many: bool = False
    required: bool = False
    available: bool = True
    "False: the name is kept for a later version."

    shown: str = ""
    "How messages name it, where not by its header."

    @property
    def header(self) -> str:
        """As an operator writes it."""
        return self.shown or f"[[{self.name}]]" if self.many else f"[{self.name}]"


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind of configuration file."""

    command: str
    "nms or hs; the table of that name tells the kinds of file apart."

    meaning: str
    tables: tuple[Table, ...]


_DEFAULT_TRANSPORTS: Final = ["udp", "tcp"]
_SIP_TRANSPORTS: Final = choices(TRANSPORTS, upper=True)
_OR: Final = "Write either `address` or `interface`."

_ADMIN: Final = Table(
    "admin",
    "What `sipnemo status` and its sisters read, the metrics, and the log.",
    (
        Key("listen", ADMIN, "Where JSON (`/api`) and Prometheus metrics (`/metrics`) are served.", "127.0.0.1:8470"),
        Key("log", choice("text", "json"), "Form of the log on stderr; `--log` overrides it.", "text"),
        Key(
            "log_level",
            choice("debug", "info", "warning", "error"),
            "Least level that is logged; `--log-level` overrides it.",
            "info",
        ),
    ),
)
_TLS: Final = Table(
    "tls",
    "Certificates for SIP over TLS.",
    (
        Key("cert", FILE, "PEM file with the own certificate and its chain.", UNSET, "TLS is spoken as client only"),
        Key("key", FILE, "PEM file with the private key, without a passphrase.", UNSET, "it is in `cert`"),
        Key("ca", FILE, "PEM file with the authorities to trust.", UNSET, "those of the system"),
        Key("verify", FLAG, "Whether a server must show a certificate that a trusted authority signed.", True),
    ),
)
_MESSAGE_LIMITS: Final = (
    Key("message", integer(1_500, 65_535), "Octets of one SIP message; a longer one gets 513.", 65_535),
    Key("headers", integer(32, 4_096), "Header lines of one SIP message; more get 513.", 256),
    Key("body", integer(1_000, 65_535), "Octets of a message's body; a longer one gets 413.", 60_000),
)

NMS: Final = Schema(
    "nms",
    "One gateway: phones inside, several uplinks outside.",
    (
        Table(
            "nms",
            "The gateway and its home server.",
            (
                Key("home", HOME, "The home server, found by RFC 3263: a domain, or an address with or without port."),
                Key(
                    "home_addresses",
                    ADDRESSES,
                    "The home server's addresses, the preferred one first, for each family that uplinks have: instead "
                    "of asking DNS, or where `home` is an address itself.",
                    [],
                ),
                Key("account", USER, "The gateway's account at the home server."),
                Key("password_file", PASSWORD_FILE, "File with the account's password, on one line."),
                Key("state_dir", DIRECTORY, "Directory of what must survive a restart.", "/var/lib/sipnemo"),
                Key(
                    "register",
                    choice("relay", "early"),
                    '"relay": a phone gets the answer of its own server; "early": it gets 200 first (RO-3), so that it '
                    'never sees a challenge: a server that asks for a password needs "relay".',
                    "relay",
                ),
                Key(
                    "record_route",
                    choice("home", "contact"),
                    'How far ends find back: "home": through the home domain, wherever the gateway is; "contact": by '
                    "the uplink's address, for providers that cannot resolve the home domain (RO-7).",
                    "home",
                ),
                Key(
                    "intercept",
                    FLAG,
                    "Take SIP (UDP and TCP, port 5060) that phones send to other hosts through this one, so that they "
                    "need no outbound proxy. Needs `interface` in [iface], and the program nft.",
                    False,
                ),
                Key("manage_routes", FLAG, "Keep the routing tables and rules of the uplinks.", False),
            ),
            required=True,
        ),
        Table(
            "iface",
            f"The side of the phones. {_OR}",
            (
                Key("address", ADDRESS, "Own address.", UNSET, "the addresses of `interface`"),
                Key("interface", INTERFACE, "Network interface.", UNSET, "the one that has `address`"),
                Key("port", PORT, "SIP port for UDP and TCP.", 5060),
                Key("tls_port", PORT, "SIP port for TLS.", 5061),
                Key("transports", _SIP_TRANSPORTS, "What phones may speak.", _DEFAULT_TRANSPORTS),
            ),
            required=True,
        ),
        Table(
            "eface",
            f"One uplink. {_OR}",
            (
                Key("id", integer(1, 99), "Number of the uplink, as in `sipnemo path 2 off`; keep it for ever."),
                Key(
                    "interface", INTERFACE, "Network interface; all its addresses become paths.", UNSET, "by `address`"
                ),
                Key("address", ADDRESS, "The only address to use.", UNSET, "all of `interface`"),
                Key("priority", integer(1, 99), "1 is tried first; no two uplinks share one.", UNSET, "the `id`"),
                Key(
                    "capacity",
                    RATE,
                    "What calls may use of the uplink; load is measured against it.",
                    UNSET,
                    "unknown, load stays 0",
                ),
                Key("gateway", ADDRESS, "Next hop.", UNSET, "as the routing table says"),
                Key("port", PORT, "SIP port for UDP and TCP.", 5060),
                Key("tls_port", PORT, "SIP port for TLS.", 5061),
                Key("transports", _SIP_TRANSPORTS, "What the home server and far ends may speak.", _DEFAULT_TRANSPORTS),
                Key(
                    "families",
                    choices(("ipv4", "ipv6")),
                    "Kinds of address that become paths, the preferred one first.",
                    ["ipv4", "ipv6"],
                ),
                Key(
                    "nat",
                    choice("auto", "mapped", "none"),
                    'What far ends are told when the home server sees another address than the uplink has. "auto": the '
                    'one it sees, for media only if the NAT keeps ports; "mapped": the one it sees, for media too; '
                    '"none": the uplink\'s own. See docs/operations.md.',
                    "auto",
                ),
                Key(
                    "external",
                    ADDRESS,
                    "Address that the outside has for this uplink, its ports being the same (1:1 NAT, or a router that "
                    "forwards `port` and the ports of [media]).",
                    UNSET,
                    "as the home server sees it",
                ),
            ),
            many=True,
            required=True,
        ),
        Table(
            "media",
            "Forwarding of RTP and RTCP.",
            (
                Key(
                    "plane",
                    choice("auto", "kernel", "userspace"),
                    'Who forwards: the kernel (nftables), the process itself, or ("auto") the kernel where it may.',
                    "auto",
                ),
                Key("ports", PORT_RANGE, "First and last UDP port for media, on every interface.", [16384, 32767]),
                Key("quarantine_after", seconds(0, 300), "Rest of a freed port before it is used again.", 5.0),
                Key(
                    "learn",
                    FLAG,
                    "Send media to where it comes from when the signalled address is behind a NAT; never to a foreign "
                    "address.",
                    True,
                ),
            ),
        ),
        Table(
            "policy",
            "Which path a call takes (MH-6).",
            (
                Key(
                    "name",
                    TEXT,
                    "`priority`, `least-load`, `weighted`, `lowest-rtt`, or an entry point of the group "
                    "`sipnemo.policies` of any installed package.",
                    "priority",
                ),
                Key("urgent", USERS, "Their calls move before others: a user, or user@host, at either end.", []),
                Key(
                    "resource_priority",
                    choices(tuple(NAMESPACES)),
                    "Namespaces of Resource-Priority (RFC 4412) whose calls move first, the most urgent first; others "
                    "are ignored.",
                    list(NAMESPACES),
                ),
                Key(
                    "return",
                    choice("never", "idle", "by-class"),
                    "Which calls go back to a preferred path when it is ON again: none; those on hold or without "
                    "media; or those first, then the others, then urgent ones. No packet is lost by it.",
                    "never",
                ),
                Key("return_after", seconds(0, 86_400), "Such a path must have been ON for this long.", 60.0),
            ),
        ),
        Table(
            "damping",
            "A path that comes and goes is used last. Each failure adds 1 to its penalty (RFC 2439).",
            (
                Key("half_life", seconds(1, 86_400), "The penalty halves in this span.", 60.0),
                Key("suppress", number(1, 1_000, "failures"), "Above this penalty, other paths come first.", 2.5),
                Key("reuse", number(0.1, 1_000, "failures"), "Below this one, it is as before.", 1.0),
                Key("longest", seconds(1, 604_800), "At the latest it is so after this much quiet.", 600.0),
            ),
        ),
        Table(
            "probe",
            "How a path that died silently is found out (MH-3). Carrier and address loss need no probe.",
            (
                Key("probe_every", seconds(0.02, 60), "Between probes while the path carries calls.", 0.1),
                Key("probe_idle_every", seconds(0.1, 3600), "Between probes otherwise (metered links).", 2.0),
                Key("probe_lost", integer(1, 100), "Lost probes in a row after which the path is OFF.", 3),
                Key("hold_down", seconds(0, 3600), "Span of answered probes after which it is ON again.", 5.0),
            ),
        ),
        Table(
            "move",
            "How live calls change to another path (MH-12, RO-10).",
            (
                Key("verify_after", seconds(0.1, 60), "Media must be seen on the new path within this span.", 2.0),
                Key(
                    "settle_after",
                    seconds(0.2, 60),
                    "A path that a call has left goes on receiving for it so long, and longer while anything comes "
                    "there.",
                    2.0,
                ),
                Key(
                    "duplicate",
                    FLAG,
                    "Send what phones say over two uplinks: from the first late probe of an uplink, and while a call "
                    "moves until it has settled. Costs twice the bandwidth for that time.",
                    False,
                ),
                Key("pace", number(1, 100_000, "re-INVITEs per second"), "Most re-INVITEs sent over one path.", 1e4),
                Key(
                    "share",
                    number(1, 100, "percent"),
                    "Share of an uplink's `capacity` that re-INVITEs may take, and as much their answers.",
                    50.0,
                ),
                Key("tries", integer(1, 100), "Re-INVITEs of one call over one path before the next is tried.", 6),
            ),
        ),
        Table("redirect", "Calls handed to another gateway.", available=False),
        Table("group", "Gateways that share their uplinks.", available=False),
        Table("advertise", "Gateways that find each other.", available=False),
        _ADMIN,
        Table(
            "trunk",
            "What answers a server that challenges the gateway's own re-INVITEs.",
            (
                Key("realm", TEXT, "As in the challenge."),
                Key("username", TEXT, "Account at that server."),
                Key("password_file", PASSWORD_FILE, "File with its password, on one line."),
            ),
            many=True,
        ),
        _TLS,
        Table(
            "limits",
            "What is too much.",
            (
                *_MESSAGE_LIMITS,
                Key("calls", integer(1, 1_000_000), "Calls at a time; one more gets 503.", 10_000),
                Key("suspend_for", seconds(0, 3600), "Live calls are kept this long while no path is ON.", 30.0),
                Key(
                    "silent_after",
                    seconds(0, 604_800),
                    "A call without session timer (RFC 4028) ends after this long without a packet or request of "
                    "either end; 0: never. With one it ends when that has run out.",
                    7200.0,
                ),
            ),
        ),
    ),
)

HS: Final = Schema(
    "hs",
    "One home server: gateways register there and are found there.",
    (
        Table(
            "hs",
            "The home server.",
            (
                Key("domain", DOMAIN, "The home domain, or the server's own address: the host of every assigned URI."),
                Key(
                    "listen",
                    LISTEN,
                    'Where SIP is answered, for example `"tls:[::]:5061"`.',
                    ["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060"],
                ),
                Key("store", STORE, "Where bindings live.", "sqlite:/var/lib/sipnemo/home.db"),
                Key(
                    "mode",
                    choice("proxy", "redirect"),
                    "How calls to a `[[user]]` are passed on: forwarded, or answered with 302.",
                    "proxy",
                ),
                Key("aliases", DOMAINS, "Further hosts that requests may name this server by.", []),
                Key("min_expires", integer(1, 3_600), "Shorter registrations are refused with 423 (seconds).", 5),
                Key("default_expires", integer(1, 86_400), "Of a registration that asks for no span (seconds).", 600),
                Key("max_expires", integer(1, 86_400), "Longer registrations are cut to this (seconds).", 3_600),
                Key("grace", seconds(0, 60), "An expired binding is still used for this long.", 5.0),
                Key(
                    "path_timeout",
                    seconds(0.1, 30),
                    "Silence after which a call to a gateway is tried on its next uplink as well (MH-11); "
                    "requests within a call wait 0.8 s at most.",
                    2.0,
                ),
                Key(
                    "digest",
                    choices(("sha-256", "sha-512-256", "md5"), upper=True),
                    "Hash functions that gateways and phones may prove their passwords with, the preferred one first. "
                    'Older phones know MD5 only, and some give up when others are offered as well: then `["md5"]`.',
                    ["sha-256", "sha-512-256", "md5"],
                ),
                Key("max_contacts", integer(1, 1_000), "Bindings per gateway or user; one more gets 403.", 16),
                Key("max_instances", integer(1, 10_000), "Gateways per account; one more gets 403.", 64),
            ),
            required=True,
        ),
        Table(
            "account",
            "One gateway that may register.",
            (
                Key("name", USER, "Account name; its URI is under the home domain."),
                Key("password_file", PASSWORD_FILE, "File with its password, on one line."),
            ),
            many=True,
        ),
        Table(
            "user",
            "One phone user whose own SIP server this is.",
            (
                Key("name", USER, "User part of its URI."),
                Key("password_file", PASSWORD_FILE, "File with its password, on one line."),
            ),
            many=True,
        ),
        _ADMIN,
        _TLS,
        Table("limits", "What is too much.", _MESSAGE_LIMITS),
    ),
)

SCHEMAS: Final = {schema.command: schema for schema in (NMS, HS)}

"""Where to send a request (RFC 3263), as questions and answers: no resolver here.

`Locator.locate` gives the targets at once when the host is an address or the answers are still known; otherwise a
`Search`, whose questions the caller puts to DNS and whose `feed` takes the answers until the targets are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sipnemo.sip.uri import Uri, is_address

Records = tuple[tuple[str, tuple[Any, ...]], ...]
"As in `roles.node.Answer`: ('SRV', (priority, weight, port, target)), ('A', (address,)), …"


class Target(NamedTuple):
    """One place to try."""

    transport: str
    "UDP, TCP or TLS."

    host: str
    "Address literal, an IPv6 address without brackets."

    port: int


class Question(NamedTuple):
    """What is to be asked of DNS."""

    name: str
    kind: str
    "NAPTR, SRV, A or AAAA."


class Located(NamedTuple):
    """Everything there is to try, best first (RFC 3263 §4.3); empty when the host cannot be reached."""

    targets: tuple[Target, ...]


class Wanted(NamedTuple):
    """What is sought; see `Locator.locate`."""

    host: str
    port: int | None
    transport: str
    scheme: str
    supported: tuple[str, ...]
    families: tuple[int, ...]


NOWHERE: Final = Located(())

_SERVICES: Final = {"SIP+D2U": "UDP", "SIP+D2T": "TCP", "SIPS+D2T": "TLS"}
_SRV_PREFIX: Final = {"UDP": "_sip._udp.", "TCP": "_sip._tcp.", "TLS": "_sips._tcp."}
_ADDRESS_KIND: Final = {4: "A", 6: "AAAA"}
_MAX_SERVICES: Final = 4
_MAX_HOSTS: Final = 16

# Bounds on how long an answer is kept, in seconds: short lives would ask anew for every request of a burst.
_KEEP_AT_LEAST: Final = 5.0
_KEEP_AT_MOST: Final = 3600.0
_KEEP_NOTHING_AT_MOST: Final = 300.0


class Locator:
    """Finds targets, with a memory of answers and of the last targets that were found."""

    def __init__(self, chance: Callable[[], float], *, memory: int = 1024, stale_for: float = 86400.0) -> None:
        """`chance` gives numbers from 0.0 up to 1.0, for SRV weights.

        `memory`: answers kept. `stale_for`: seconds for which old targets are used when DNS gives none, as a gateway
        may lose its resolver together with an uplink.
        """
        self._chance = chance
        self._memory = memory
        self._stale_for = stale_for
        self._answers: dict[Question, tuple[float, Records]] = {}
        self._found: dict[Wanted, tuple[float, Located]] = {}

    def locate(
        self,
        host: str,
        port: int | None,
        transport: str,
        scheme: str,
        supported: tuple[str, ...],
        families: tuple[int, ...],
        now: float,
    ) -> Located | Search:
        """The targets for a URI, or a search for them.

        `host`: the maddr or the host of the URI, without brackets. `port`, `transport` (upper case) and `scheme` as
        in the URI, with None and '' for what is not there. `supported`: our transports, preferred first. `families`:
        4 and 6 as usable now, preferred first.
        """
        default = _transport(transport, scheme, supported)
        if default == "":
            return NOWHERE
        if is_address(host):
            if (6 if ":" in host else 4) not in families:
                return NOWHERE
            return Located((Target(default, host, port if port is not None else _default_port(default)),))
        name = host.lower().rstrip(".")
        if not _is_name(name):
            return NOWHERE
        wanted = Wanted(name, port, transport, scheme, supported, families)
        search = Search(self, wanted, default)
        located = search._advance(now)
        return search if located is None else located

    def forget(self) -> None:
        """Drop all answers, because the network has changed; last good targets stay as a reserve."""
        self._answers.clear()

    def _known(self, question: Question, now: float) -> Records | None:
        kept = self._answers.get(question)
        return kept[1] if kept is not None and kept[0] > now else None

    def _learn(self, question: Question, records: Records, ttl: float, now: float) -> None:
        longest = _KEEP_AT_MOST if records else _KEEP_NOTHING_AT_MOST
        self._answers.pop(question, None)  # so that the oldest answer stays the first in the dict
        self._answers[question] = (now + min(max(ttl, _KEEP_AT_LEAST), longest), records)
        if len(self._answers) > self._memory:
            del self._answers[next(iter(self._answers))]

    def _conclude(self, wanted: Wanted, targets: Sequence[Target], refused: bool, now: float) -> Located:
        if targets:
            located = Located(tuple(dict.fromkeys(targets)))
            self._found.pop(wanted, None)
            self._found[wanted] = (now, located)
            if len(self._found) > self._memory:
                del self._found[next(iter(self._found))]
            return located
        found_at, located = self._found.get(wanted, (float("-inf"), NOWHERE))
        return located if not refused and now - found_at <= self._stale_for else NOWHERE


class Search:
    """One search under way. Ends by construction: NAPTR, then SRV, then addresses, each step once."""

    def __init__(self, locator: Locator, wanted: Wanted, default: str) -> None:
        self._locator = locator
        self._wanted = wanted
        self._default = default
        self._answers: dict[Question, Records] = {}
        self._asked: set[Question] = set()
        self._services: list[tuple[str, str, str]] | None = None
        self._hosts: list[tuple[str, str, int]] | None = None
        self._refused = False
        self._done = False
        self.questions: tuple[Question, ...] = ()
        "To be asked now, all at once."

    def feed(self, question: Question, records: Records, ttl: float, now: float) -> Located | tuple[Question, ...]:
        """Take an answer in (empty: no such name, or no answer).

        Gives the targets when they are found; else what is to be asked next, often nothing yet. What was not asked
        is ignored.
        """
        if self._done or question not in self._asked or question in self._answers:
            return ()
        self._answers[question] = records
        self._locator._learn(question, records, ttl, now)
        if len(self._answers) < len(self._asked):
            return ()
        located = self._advance(now)
        return self.questions if located is None else located

    def _advance(self, now: float) -> Located | None:
        """Go on as far as the answers reach; None when questions are open."""
        missing: list[Question] = []
        if self._services is None:
            self._services = self._find_services(missing, now)
        if self._services is not None and self._hosts is None:
            self._hosts = self._find_hosts(self._services, missing, now)
        if self._hosts is not None:
            targets = self._find_targets(self._hosts, missing, now)
            if not missing:
                self._done = True
                return self._locator._conclude(self._wanted, targets, self._refused, now)
        self.questions = tuple(dict.fromkeys(missing))
        self._asked.update(self.questions)
        return None

    def _ask(self, name: str, kind: str, missing: list[Question], now: float) -> Records:
        question = Question(name, kind)
        records = self._answers.get(question)
        if records is None:
            records = self._locator._known(question, now)
            if records is None:
                missing.append(question)
                return ()
            self._answers[question] = records  # known now, so known until the end of this search
            self._asked.add(question)
        return tuple(record for record in records if record[0] == kind)

    def _find_services(self, missing: list[Question], now: float) -> list[tuple[str, str, str]] | None:
        """Transport, name and kind (SRV or A) of what to look up next (RFC 3263 §4.1)."""
        wanted = self._wanted
        if wanted.port is not None:
            return []
        if wanted.transport:
            return [(self._default, _SRV_PREFIX[self._default] + wanted.host, "SRV")]
        records = self._ask(wanted.host, "NAPTR", missing, now)
        if missing:
            return None
        allowed = [t for t in wanted.supported if t in _SRV_PREFIX and (t == "TLS" or wanted.scheme != "sips")]
        services: list[tuple[str, str, str]] = []
        for _, (_, _, flags, service, replacement) in sorted(records, key=lambda record: record[1][:2]):
            transport = _SERVICES.get(service.upper(), "")
            name = replacement.lower().rstrip(".")
            if transport in allowed and flags.upper() in ("S", "A") and _is_name(name):
                services.append((transport, name, "SRV" if flags.upper() == "S" else "A"))
        if services:
            return services[:_MAX_SERVICES]
        return [(transport, _SRV_PREFIX[transport] + wanted.host, "SRV") for transport in allowed]

    def _find_hosts(
        self, services: list[tuple[str, str, str]], missing: list[Question], now: float
    ) -> list[tuple[str, str, int]] | None:
        """Transport, host and port in the order to try (RFC 3263 §4.2)."""
        answers = [
            (transport, name, kind, self._ask(name, "SRV", missing, now) if kind == "SRV" else ())
            for transport, name, kind in services
        ]
        if missing:
            return None
        hosts: list[tuple[str, str, int]] = []
        for transport, name, kind, records in answers:
            if kind == "A":
                hosts.append((transport, name, _default_port(transport)))
                continue
            for port, target in srv_order([record[1] for record in records], self._locator._chance):
                if target == "":
                    self._refused = True  # "." says: this service is not offered here (RFC 2782)
                elif 0 < port <= 65535:
                    hosts.append((transport, target, port))
        if hosts:
            return hosts[:_MAX_HOSTS]
        if self._refused:
            return []
        own_port = self._wanted.port
        if own_port is None:
            own_port = _default_port(self._default)
        return [(self._default, self._wanted.host, own_port)]

    def _find_targets(self, hosts: list[tuple[str, str, int]], missing: list[Question], now: float) -> list[Target]:
        targets: list[Target] = []
        for transport, host, port in hosts:
            if is_address(host):
                targets.append(Target(transport, host, port))
            elif _is_name(host):
                for family in self._wanted.families:
                    for _, (address,) in self._ask(host, _ADDRESS_KIND[family], missing, now):
                        targets.append(Target(transport, address, port))
        return targets


@lru_cache(maxsize=4096)
def literal_target(uri: Uri, supported: tuple[str, ...]) -> Target | None:
    """The one target of a URI that names an address of any family; None: ask the Locator.

    Cached: a far end's Contact or Route comes in request after request.
    """
    host = (uri.param("maddr") or uri.host).strip("[]")
    transport = _transport(uri.transport, uri.scheme, supported)
    if transport == "" or not is_address(host):
        return None
    return Target(transport, host, uri.port if uri.port is not None else _default_port(transport))


def srv_order(records: Sequence[tuple[int, int, int, str]], chance: Callable[[], float]) -> list[tuple[int, str]]:
    """Port and target ('' for '.') in the order to try: by priority, among equals by weight and chance (RFC 2782)."""
    ordered: list[tuple[int, str]] = []
    for priority in sorted({record[0] for record in records}):
        group = sorted((record for record in records if record[0] == priority), key=lambda record: record[1] > 0)
        while group:
            total = sum(record[1] for record in group)
            # A number from 0 to the total, both included, so that weight 0 has its small chance.
            mark = int(chance() * (total + 1))
            chosen = 0
            for index, record in enumerate(group):
                mark -= record[1]
                if mark <= 0:
                    chosen = index
                    break
            _, _, port, target = group.pop(chosen)
            ordered.append((port, target.lower().rstrip(".")))
    return ordered


def _transport(transport: str, scheme: str, supported: tuple[str, ...]) -> str:
    """The transport when DNS has no say (RFC 3263 §4.1); '' when there is none that we may use."""
    if scheme == "sips":
        return "TLS" if transport in ("", "TCP", "TLS") and "TLS" in supported else ""
    if transport:
        return transport if transport in supported and transport in _SRV_PREFIX else ""
    if "UDP" in supported:
        return "UDP"
    return supported[0] if supported else ""


def _default_port(transport: str) -> int:
    return 5061 if transport == "TLS" else 5060


def _is_name(name: str) -> bool:
    """Whether DNS can be asked for `name`."""
    return 0 < len(name) <= 253 and name.isascii() and all(0 < len(label) <= 63 for label in name.split("."))

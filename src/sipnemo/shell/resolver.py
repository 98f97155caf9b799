"""DNS for the node: `Lookup` in, `Answer` out, with a bounded cache and /etc/hosts."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from sipnemo.roles.node import Answer, Input, Lookup

logger = logging.getLogger("sipnemo.shell")

KINDS = ("NAPTR", "SRV", "A", "AAAA")
LONGEST = 86400.0
SHORTEST = 1.0
NEGATIVE_AT_MOST = 300.0
"Seconds that 'there is no such name' is kept, whatever the zone says (RFC 2308 §5 allows hours)."

NO_SERVER = 2.0
"Seconds that 'no server answered' is kept, so that every call does not wait anew."

HOSTS_TTL = 5.0


class _Found(NamedTuple):
    records: Callable[[], tuple[tuple[Any, ...], ...]]
    "Makes the records anew each time: SRV targets of one priority are shuffled by weight (RFC 2782)."

    until: float


Records = tuple[tuple[Any, ...], ...]
"As in `roles.node.Answer`."


class Resolver:
    """Asks the system's name servers, or those given."""

    def __init__(
        self,
        feed: Callable[[Input], None],
        *,
        servers: Iterable[str] = (),
        port: int = 53,
        within: float = 5.0,
        hosts: str | Path = "/etc/hosts",
        most_names: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        learn: Callable[[str, str, Records], None] | None = None,
    ) -> None:
        """`learn(name, kind, records)` hears every answer before the node does; see `tls.PeerNames`."""
        self._feed = feed
        self._learn = learn
        self._within = within
        self._hosts = _Hosts(Path(hosts))
        self._most_names = most_names
        self._clock = clock
        self._cache: dict[tuple[str, str], _Found] = {}
        self._asking: dict[tuple[str, str], list[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver: dns.asyncresolver.Resolver | None = None
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            logger.warning("/etc/resolv.conf names no server: only addresses and the names in /etc/hosts are known")
        if self._resolver is not None and servers:
            self._resolver.nameservers = list(servers)
            self._resolver.port = port

    def lookup(self, action: Lookup) -> None:
        """Answer a question, from what is known or from DNS; `Answer` never comes before this returns."""
        name = action.name.rstrip(".").lower()
        key = (name, action.kind)
        known = self._known(name, action.kind)
        if known is None and (found := self._cache.get(key)) is not None:
            left = found.until - self._clock()
            if left > 0:
                known = (found.records(), left)
            else:
                del self._cache[key]
        if known is not None:
            if self._learn is not None:
                self._learn(name, action.kind, known[0])
            asyncio.get_running_loop().call_soon(self._feed, Answer(action.ticket, *known))
        elif key in self._asking:
            self._asking[key].append(action.ticket)
        else:
            self._asking[key] = [action.ticket]
            task = asyncio.get_running_loop().create_task(self._ask(name, action.kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Answer nothing more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _known(self, name: str, kind: str) -> tuple[tuple[tuple[Any, ...], ...], float] | None:
        """What needs no question: literals, and the names in the hosts file."""
        with contextlib.suppress(ValueError):
            literal = ipaddress.ip_address(name.strip("[]"))
            same = kind == ("AAAA" if literal.version == 6 else "A")
            return (((kind, (str(literal),)),) if same else ()), LONGEST
        if kind not in ("A", "AAAA"):
            return None
        addresses = self._hosts.addresses(name)
        if not addresses:
            return None
        return tuple((kind, (address,)) for address in addresses if (":" in address) == (kind == "AAAA")), HOSTS_TTL

    async def _ask(self, name: str, kind: str) -> None:
        key = (name, kind)
        try:
            found, ttl = await self._query(name, kind)
        except Exception:
            logger.exception("Looking up %s %s failed", kind, name)
            found, ttl = _nothing, NO_SERVER
        if len(self._cache) >= self._most_names:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = _Found(found, self._clock() + ttl)
        if self._learn is not None:
            self._learn(name, kind, found())
        for ticket in self._asking.pop(key, []):
            self._feed(Answer(ticket, found(), ttl))

    async def _query(self, name: str, kind: str) -> tuple[Callable[[], tuple[tuple[Any, ...], ...]], float]:
        if self._resolver is None or kind not in KINDS:
            return _nothing, NO_SERVER
        try:
            answer = await self._resolver.resolve(name, kind, lifetime=self._within, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
            return _nothing, _negative_ttl(error)
        except dns.resolver.YXDOMAIN:
            return _nothing, NEGATIVE_AT_MOST
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            logger.info("No answer from DNS for %s %s: %s", kind, name, error)
            return _nothing, NO_SERVER
        rrset = answer.rrset
        if rrset is None:
            return _nothing, NO_SERVER
        ttl = float(answer.chaining_result.minimum_ttl)
        return lambda: _records(kind, rrset), min(max(ttl, SHORTEST), LONGEST)


class _Hosts:
    """The hosts file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str]:
        """The addresses the file gives for a name, in its order."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._names = self._read()
                self._stamp = stamp
        except OSError:
            self._names, self._stamp = {}, None
        return self._names.get(name, [])

    def _read(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for line in self._path.read_text(errors="replace").splitlines():
            address, *aliases = line.partition("#")[0].split() or [""]
            with contextlib.suppress(ValueError):
                literal = str(ipaddress.ip_address(address))
                for alias in aliases:
                    names.setdefault(alias.rstrip(".").lower(), []).append(literal)
        return names


def _nothing() -> tuple[tuple[Any, ...], ...]:
    return ()


def _negative_ttl(error: dns.resolver.NXDOMAIN | dns.resolver.NoAnswer) -> float:
    """How long the zone lets us remember that there is nothing (RFC 2308 §5): its SOA's TTL and minimum."""
    if isinstance(error, dns.resolver.NXDOMAIN):
        responses = list(error.responses().values())  # type: ignore[no-untyped-call]
    else:
        responses = [error.response()]  # type: ignore[no-untyped-call]
    for response in responses:
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                return float(min(max(min(rrset.ttl, rrset[0].minimum), SHORTEST), NEGATIVE_AT_MOST))
    return SHORTEST


def _records(kind: str, rrset: Any) -> tuple[tuple[Any, ...], ...]:
    match kind:
        case "NAPTR":
            return tuple(
                (
                    kind,
                    (r.order, r.preference, _text(r.flags), _text(r.service), r.replacement.to_text(True)),
                )
                for r in rrset.processing_order()
            )
        case "SRV":
            return tuple(
                (kind, (r.priority, r.weight, r.port, r.target.to_text(True))) for r in rrset.processing_order()
            )
        case _:
            return tuple((kind, (r.address,)) for r in rrset)


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")

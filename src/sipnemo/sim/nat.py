"""A NAT between an uplink of the simulated gateway and the internet (RFC 4787), from a home router to a CGNAT."""

from __future__ import annotations

from random import Random

from sipnemo.sim.clock import Clock
from sipnemo.sip.flow import Address


class _Mapping:
    """One inner address and port, as the outside sees it (or, of a symmetric NAT, one far end of the outside)."""

    def __init__(self, inner: Address, outer: Address) -> None:
        self.inner = inner
        self.outer = outer
        self.allowed: dict[Address, float] = {}
        "Far ends that it has sent to, and when last: only from there may packets come in (RFC 4787 §5)."


class Nat:
    """Translates UDP; filters by address and port, as nearly all do."""

    def __init__(
        self,
        clock: Clock,
        public: str,
        *,
        symmetric: bool = False,
        keeps_ports: bool = True,
        timeout: float = 30.0,
        seed: int = 1,
    ) -> None:
        """`symmetric`: another port for each far end; `timeout`: seconds without a packet from inside."""
        self.public = public
        self._clock = clock
        self._symmetric = symmetric
        self._keeps_ports = keeps_ports and not symmetric
        self._timeout = timeout
        self._chance = Random(f"nat {seed}")
        self._by_inner: dict[tuple[Address, Address | None], _Mapping] = {}
        self._by_outer: dict[Address, _Mapping] = {}
        self.refused = 0
        "Packets from outside that it did not let in."

    def out(self, source: Address, target: Address) -> Address:
        """Where a packet from inside seems to come from."""
        key = (source, target if self._symmetric else None)
        mapping = self._by_inner.get(key)
        if mapping is None or not self._live(mapping):
            if mapping is not None:
                del self._by_outer[mapping.outer]
            mapping = self._by_inner[key] = _Mapping(source, self._free(source[1]))
            self._by_outer[mapping.outer] = mapping
        mapping.allowed[target] = self._clock.now
        return mapping.outer

    def back(self, source: Address, target: Address) -> Address | None:
        """Whom a packet from outside is for; None: it is dropped."""
        mapping = self._by_outer.get(target)
        if mapping is not None:
            at = mapping.allowed.get(source)
            if at is not None and at > self._clock.now - self._timeout:
                return mapping.inner
        self.refused += 1
        return None

    def forget(self, public: str = "") -> None:
        """It has been restarted: all mappings are gone, and perhaps its address is another."""
        self._by_inner.clear()
        self._by_outer.clear()
        self.public = public or self.public
        self._keeps_ports = self._keeps_ports and bool(public)

    def _live(self, mapping: _Mapping) -> bool:
        return max(mapping.allowed.values()) > self._clock.now - self._timeout

    def _free(self, port: int) -> Address:
        while not self._keeps_ports or (self.public, port) in self._by_outer:
            port = self._chance.randrange(1024, 65536)
            if (self.public, port) not in self._by_outer:
                break
        return (self.public, port)

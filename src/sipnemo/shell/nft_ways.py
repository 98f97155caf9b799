"""Ways out of the kernel plane: by which chains packets leave, and whether these know a next hop. No netlink here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sipnemo.shell.routes import Hop, next_hop


class WayOut:
    """A path in the kernel: its source address, and the chain that knows its next hops."""

    def __init__(self, chain: str, source: str, hops: tuple[Hop, ...]) -> None:
        self.chain = chain
        self.source = source
        self.change(hops)

    def change(self, hops: tuple[Hop, ...]) -> None:
        """Other next hops than before."""
        self.hops = hops
        self.reaches_all = not hops or not hops[-1].prefix.prefixlen
        "Every destination has a next hop; or none has: a path that is down drops, nothing can help it."
        self._reached: dict[str, bool] = {}

    def reaches(self, host: str) -> bool:
        """Whether a next hop is known."""
        if self.reaches_all:
            return True
        known = self._reached.get(host)
        if known is None:
            known = self._reached[host] = next_hop(self.hops, host) is not None
        return known


class BothWays(NamedTuple):
    """Two paths at once: every packet leaves by the first, and a copy of it by the second."""

    number: int
    "Of its chain, and in the mark of its copies."

    first: WayOut
    second: WayOut

    @property
    def chain(self) -> str:
        """Its chain."""
        return f"both_{self.number}"

    @property
    def source(self) -> str:
        """The source address of the first."""
        return self.first.source

    @property
    def reaches_all(self) -> bool:
        """Every destination has a next hop on both; or neither has any."""
        return self.first.reaches_all and self.second.reaches_all

    def reaches(self, host: str) -> bool:
        """Whether both know a next hop."""
        return self.first.reaches(host) and self.second.reaches(host)


Verdicts = Mapping[tuple[int, int], WayOut | BothWays | None]
"(IP version, group) → the way out; None drops."


def ways_in(verdicts: Verdicts) -> list[WayOut]:
    """The single ways that groups leave by, each once."""
    found: dict[str, WayOut] = {}
    for target in verdicts.values():
        for way in (target.first, target.second) if isinstance(target, BothWays) else (target,):
            if way is not None:
                found[way.chain] = way
    return list(found.values())

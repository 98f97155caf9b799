"""Which path a session takes (MH-6): pure functions of Egress List entries and session, best path first.

Each policy leaves out paths that are OFF or of an address family that cannot reach the far end. Equal paths come in
the order of priority, E-face ID, contact, Host ID, so that the same list always gives the same ranking. An own policy
is any function of this signature, named by the entry-point group `sipnemo.policies`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from sipnemo.nemo.egress_list import EgressEntry, PathKey


@dataclass(frozen=True, slots=True)
class SessionView:
    """What a policy may know of the session that needs a path."""

    call_id: str
    from_uri: str = ""
    to_uri: str = ""

    families: tuple[int, ...] = (4, 6)
    "Address families with which the far end can be reached."

    urgent: bool = False
    "The session is to be served before others: an emergency call, or one with Priority: emergency."

    path: PathKey | None = None
    "The path it uses now; None while it is being set up."


Policy = Callable[[Sequence[EgressEntry], SessionView], list[EgressEntry]]


def priority(entries: Sequence[EgressEntry], session: SessionView) -> list[EgressEntry]:
    """The configured order."""
    return sorted(_usable(entries, session), key=_order)


def least_load(entries: Sequence[EgressEntry], session: SessionView) -> list[EgressEntry]:
    """The idlest E-face first (MH-4)."""
    return sorted(_usable(entries, session), key=lambda entry: (entry.load, _order(entry)))


def lowest_rtt(entries: Sequence[EgressEntry], session: SessionView) -> list[EgressEntry]:
    """The quickest path first; paths that were not measured yet come last."""
    never = float("inf")
    return sorted(
        _usable(entries, session), key=lambda entry: (never if entry.rtt is None else entry.rtt, _order(entry))
    )


def weighted(entries: Sequence[EgressEntry], session: SessionView) -> list[EgressEntry]:
    """Sessions spread over the E-faces in proportion to their capacity.

    Rendezvous hashing: a session keeps its ranking for life, and when an E-face fails, its sessions alone move,
    spread over the others. An E-face of unknown capacity counts as an average one.
    """
    usable = _usable(entries, session)
    known = [entry.capacity_bps for entry in usable if entry.capacity_bps]
    average = sum(known) / len(known) if known else 1.0
    scores = {}
    for entry in usable:
        face = (entry.host_id, entry.eface_id)
        if face not in scores:
            scores[face] = (entry.capacity_bps or average) / -log(_chance(session.call_id, *face))
    return sorted(usable, key=lambda entry: (-scores[entry.host_id, entry.eface_id], _order(entry)))


def _usable(entries: Sequence[EgressEntry], session: SessionView) -> list[EgressEntry]:
    return [entry for entry in entries if entry.is_on and entry.family in session.families]


def _order(entry: EgressEntry) -> tuple[int, int, tuple[str, int], str]:
    return entry.priority, entry.eface_id, entry.contact, entry.host_id


def _chance(call_id: str, host_id: str, eface_id: int) -> float:
    """A number above 0 and below 1 that only depends on session and E-face."""
    text = f"{call_id}\n{host_id}\n{eface_id}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")
    return (number + 0.5) / 2.0**48

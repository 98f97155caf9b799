"""The Egress List (MH-1): every path to the Internet, our own and those learnt from other SIP-NMSs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple


class Status(Enum):
    """Whether a path works."""

    ON = "ON"
    OFF = "OFF"


class PathKey(NamedTuple):
    """What names a path."""

    host_id: str
    eface_id: int
    contact: tuple[str, int]


@dataclass(frozen=True, slots=True)
class EgressEntry:
    """One path: one contact address of one E-face of one SIP-NMS (MH-1)."""

    host_id: str
    "Instance URN of the SIP-NMS that manages the path (RFC 5626 +sip.instance)."

    eface_id: int
    "The E-face, as its SIP-NMS numbers it (RFC 5626 reg-id)."

    contact: tuple[str, int]
    "Contact address and port; an IPv6 address without brackets."

    status: Status
    "OFF as soon as the path is known broken; ON again only after hold-down (MH-3)."

    load: float = 0.0
    "Share of the E-face's capacity in use, in percent, 0.0 to 100.0 (MH-4)."

    priority: int = 1000
    "1 is tried first. Learnt paths come without one, and therefore late."

    capacity_bps: float | None = None
    "Configured capacity of the E-face in bit/s; None when it is not known."

    rtt: float | None = None
    "Smoothed round-trip time of the probes, in seconds; None when none was answered yet."

    @property
    def key(self) -> PathKey:
        """What names this path."""
        return PathKey(self.host_id, self.eface_id, self.contact)

    @property
    def is_on(self) -> bool:
        """Whether the path works."""
        return self.status is Status.ON

    @property
    def family(self) -> int:
        """4 or 6: the address family of the contact (MH-5)."""
        return 6 if ":" in self.contact[0] else 4

    @property
    def contact_text(self) -> str:
        """The contact as in a URI: '192.0.2.1:5060' or '[2001:db8::1]:5060'."""
        host, port = self.contact
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def as_row(self) -> dict[str, Any]:
        """The entry as operators see it; JSON-able."""
        return {
            "host_id": self.host_id,
            "eface_id": self.eface_id,
            "contact": self.contact_text,
            "status": self.status.value,
            "load": round(self.load, 1),
            "priority": self.priority,
            "capacity_bps": self.capacity_bps,
            "rtt": self.rtt,
        }


class EgressList:
    """All paths a SIP-NMS may choose from. Iterates in a stable order: own first, each host's as it came."""

    def __init__(self, host_id: str) -> None:
        """`host_id` is our own: entries with it are own, all others are learnt."""
        self.host_id = host_id
        self.version = 0
        "Rises with every change of an own entry: the version of the state that neighbours are notified of (MH-14)."

        self._own: dict[PathKey, EgressEntry] = {}
        self._learnt: dict[str, dict[PathKey, EgressEntry]] = {}

    def __iter__(self) -> Iterator[EgressEntry]:
        yield from self._own.values()
        for entries in self._learnt.values():
            yield from entries.values()

    def __len__(self) -> int:
        return len(self._own) + sum(len(entries) for entries in self._learnt.values())

    @property
    def own(self) -> tuple[EgressEntry, ...]:
        """Our own paths."""
        return tuple(self._own.values())

    @property
    def learnt(self) -> tuple[EgressEntry, ...]:
        """The paths of all other SIP-NMSs."""
        return tuple(entry for entries in self._learnt.values() for entry in entries.values())

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host IDs of the SIP-NMSs whose paths were learnt."""
        return tuple(self._learnt)

    def get(self, key: PathKey) -> EgressEntry | None:
        """The entry of this path, own or learnt."""
        return self._table(key.host_id).get(key)

    def put(self, entry: EgressEntry) -> bool:
        """Create or update one entry; whether anything changed."""
        table = self._own if entry.host_id == self.host_id else self._learnt.setdefault(entry.host_id, {})
        if table.get(entry.key) == entry:
            return False
        table[entry.key] = entry
        self._changed(entry.host_id)
        return True

    def remove(self, key: PathKey) -> EgressEntry | None:
        """Drop one path, because its address is gone; the entry it had."""
        entry = self._table(key.host_id).pop(key, None)
        if entry is not None:
            self._changed(key.host_id)
        return entry

    def set_status(self, key: PathKey, status: Status) -> bool:
        """Turn a path ON or OFF; whether that is news. Unknown paths are ignored."""
        entry = self.get(key)
        return entry is not None and self.put(replace(entry, status=status))

    def set_rtt(self, key: PathKey, rtt: float | None) -> bool:
        """Note the round-trip time of a path; no news for neighbours, who do not hear of it."""
        entry = self.get(key)
        if entry is None or entry.rtt == rtt:
            return False
        self._table(key.host_id)[key] = replace(entry, rtt=rtt)
        return True

    def set_load(self, eface_id: int, load: float) -> bool:
        """Note the load of an own E-face in each of its entries: they share one budget (MH-4); whether it is news."""
        load = min(max(load, 0.0), 100.0)
        mine = [entry for entry in self._own.values() if entry.eface_id == eface_id and entry.load != load]
        for entry in mine:
            self._own[entry.key] = replace(entry, load=load)
        if mine:
            self._changed(self.host_id)
        return bool(mine)

    def replace_learnt(self, host_id: str, entries: Iterable[EgressEntry]) -> tuple[EgressEntry, ...]:
        """Take full state of another SIP-NMS; its entries that are gone or OFF now but were ON (MH-2).

        Entries of any other host are left out: a neighbour speaks for itself only.
        """
        if host_id == self.host_id:
            return ()
        before = self._learnt.get(host_id, {})
        after = {entry.key: entry for entry in entries if entry.host_id == host_id}
        self._learnt[host_id] = after
        lost = []
        for key, entry in before.items():
            now = after.get(key)
            if entry.is_on and (now is None or not now.is_on):
                lost.append(entry)
        return tuple(lost)

    def forget(self, host_id: str) -> tuple[EgressEntry, ...]:
        """Drop what was learnt from a SIP-NMS: learnt entries go with the subscription (MH-2)."""
        return tuple(self._learnt.pop(host_id, {}).values())

    def _table(self, host_id: str) -> dict[PathKey, EgressEntry]:
        return self._own if host_id == self.host_id else self._learnt.get(host_id, {})

    def _changed(self, host_id: str) -> None:
        if host_id == self.host_id:
            self.version += 1

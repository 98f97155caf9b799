"""The Binding List of the SIP-HS (RO-1, MH-7): URI → Contacts with their Priority, and its rows in the store.

One row per URI, so that a REGISTER is one write, whole or not at all. Nothing here is changed in place: a REGISTER
makes a new set of bindings, which can be put back when the store refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sipnemo.sip.flow import Flow, Local

TABLE: Final = "bindings"


class Binding(NamedTuple):
    """One Contact of a SIP-NMS or of a user."""

    contact: str
    "URI as registered."

    q: int
    "Priority in thousandths: 1000 is tried first (RFC 3261 §20.10)."

    expires_at: float
    "Seconds since 1970."

    call_id: str
    cseq: int
    "Call-ID and CSeq of the REGISTER that made it: an older one cannot change it (§10.3 item 7)."

    instance: str = ""
    "+sip.instance without quotes and brackets; empty for a phone that has none (RFC 5626 §4.1)."

    reg_id: int = 0
    "E-face ID; 0: not an outbound registration (RFC 5626 §4.2)."

    flow: Flow | None = None
    "Where requests for this Contact go (RFC 5626 §5.3); None: wherever its URI leads."

    features: str = ""
    "Other parameters of the Contact, as they came (RFC 3840)."

    @property
    def key(self) -> str:
        """What a later REGISTER replaces it by (RFC 5626 §6, RFC 3261 §10.3)."""
        return f"{self.instance}#{self.reg_id}" if self.reg_id else self.contact

    def row(self) -> dict[str, Any]:
        """The JSON-able form of it."""
        row: dict[str, Any] = {
            "contact": self.contact,
            "q": self.q,
            "expires_at": self.expires_at,
            "call_id": self.call_id,
            "cseq": self.cseq,
        }
        if self.instance:
            row["instance"], row["reg_id"] = self.instance, self.reg_id
        if self.flow is not None:
            row["flow"] = [list(self.flow.local), list(self.flow.remote)]
        if self.features:
            row["features"] = self.features
        return row


def from_row(row: Mapping[str, Any]) -> Binding:
    """The binding that `row` was made of."""
    flow = None
    if "flow" in row:
        (transport, host, port, device), (far_host, far_port) = row["flow"]
        flow = Flow(Local(transport, host, port, device), (far_host, far_port))
    return Binding(
        row["contact"],
        row["q"],
        row["expires_at"],
        row["call_id"],
        row["cseq"],
        row.get("instance", ""),
        row.get("reg_id", 0),
        flow,
        row.get("features", ""),
    )


class Record:
    """One URI under the home domain and where it is at present."""

    __slots__ = ("_ranked", "_ranked_of", "account", "bindings", "durable", "instance", "user", "watched")

    def __init__(self, user: str, account: str, instance: str, bindings: Mapping[str, Binding]) -> None:
        self.user: Final = user
        "User part of the URI, without escapes."
        self.account: Final = account
        "Whose password protects it."
        self.instance: Final = instance
        "Of the SIP-NMS that the URI is assigned to, for ever (RO-2); empty: a phone user."
        self.bindings = bindings
        self.watched = False
        "A timer waits for the first of them to expire."
        self.durable = False
        "The store has it, so that its URI may be told."
        self._ranked_of: Mapping[str, Binding] = {}
        self._ranked: list[Binding] = []

    @property
    def is_gateway(self) -> bool:
        """Whether this is a SIP-NMS, not a phone user."""
        return self.instance != ""

    def live(self, wall: float) -> list[Binding]:
        """Bindings that have not expired at this wall-clock instant, best Priority first."""
        if self._ranked_of is not self.bindings:
            self._ranked_of = self.bindings
            self._ranked = sorted(self.bindings.values(), key=lambda binding: -binding.q)
        return [binding for binding in self._ranked if binding.expires_at > wall]

    def row(self) -> dict[str, Any] | None:
        """The row to store; None: nothing is left to keep."""
        if not self.bindings and not self.is_gateway:
            return None
        bindings = [binding.row() for binding in self.bindings.values()]
        return {"account": self.account, "instance": self.instance, "bindings": bindings}


class BindingList:
    """Everybody who is, or ever was, registered here."""

    def __init__(self, accounts: Iterable[str], users: Iterable[str]) -> None:
        self._accounts: Final = frozenset(accounts)
        self._users: Final = frozenset(users)
        self._records: dict[str, Record] = {}
        self._assigned: dict[tuple[str, str], Record] = {}

    def restore(self, rows: Mapping[str, Any], listen: tuple[Local, ...]) -> list[str]:
        """Take in what the store held; returns the users whose rows could not be read.

        Rows of accounts that are no longer configured stay in the store, unused. A UDP flow goes on at the listening
        point it had, or at one like it; a connection did not survive, so its binding is reached by its Contact.
        """
        unreadable: list[str] = []
        for user, row in rows.items():
            try:
                record = Record(user, row["account"], row["instance"], {})
                bindings = [self._reached_by(from_row(item), listen) for item in row["bindings"]]
            except (KeyError, TypeError, ValueError):
                unreadable.append(user)
                continue
            record.bindings = {binding.key: binding for binding in bindings}
            record.durable = True
            if record.account in (self._accounts if record.is_gateway else self._users):
                self._add(record)
        return unreadable

    @staticmethod
    def _reached_by(binding: Binding, listen: tuple[Local, ...]) -> Binding:
        flow = binding.flow
        if flow is None or (flow.local in listen and not flow.reliable):
            return binding
        known = binding.row()
        del known["flow"]
        if not flow.reliable:
            for local in listen:
                if local.transport == "UDP" and (":" in local.host) == (":" in flow.remote[0]):
                    known["flow"] = [list(local), list(flow.remote)]
                    break
        return from_row(known)

    def find(self, user: str) -> Record | None:
        """Who has this user part under the home domain; a user of ours who never registered has no Contacts."""
        record = self._records.get(user)
        if record is None and user in self._users:
            record = Record(user, user, "", {})
            self._add(record)
        return record

    def instances(self, account: str) -> list[Record]:
        """The SIP-NMSs of an account."""
        return [record for (name, _), record in self._assigned.items() if name == account]

    def assigned(self, account: str, instance: str) -> Record | None:
        """The record of a SIP-NMS that has a URI already."""
        return self._assigned.get((account, instance))

    def assign(self, account: str, instance: str, token: str) -> Record:
        """Give a SIP-NMS its URI (RO-2); `token` is a hex text, of which no more than needed is used."""
        length = 6
        while (user := f"{account}-{token[:length]}") in self._records:
            length += 1
        record = Record(user, account, instance, {})
        self._add(record)
        return record

    def _add(self, record: Record) -> None:
        self._records[record.user] = record
        if record.is_gateway:
            self._assigned[record.account, record.instance] = record

    def __iter__(self) -> Iterator[Record]:
        """Every record, in the order of their first registration."""
        return iter(list(self._records.values()))

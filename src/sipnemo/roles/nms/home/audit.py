"""What the SIP-HS lists of us against what we believe (R11): each 2xx to a REGISTER names every Contact it holds.

A flow of ours that is missing registers again. A Contact under our instance that we do not have, left by an earlier
address or configuration, is taken out. A wrong Priority is put right. All of it with a bound: repairs that do not last
come ever more slowly, for then another gateway has the same instance, and two would undo each other's work for ever.

A 2xx that was overtaken by a later one tells nothing new: what was accepted after it is not missing (CSeq).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sipnemo.roles.node import Count
from sipnemo.sip.message import Response, parameter, uri_of
from sipnemo.sip.uri import UriError, equivalent
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.home.home import Home
    from sipnemo.roles.nms.home.registration import Registration
    from sipnemo.roles.nms.node import MobilityServer

REPAIR_FIRST: Final = 0.5
REPAIR_MOST: Final = 1800.0
"Seconds between repairs: they double while repairs do not last."
CALM: Final = 900.0
"Seconds without anything to repair after which the next repair comes at once again."
MOST_READ: Final = 64
"Contacts of one answer that are looked at."
MOST_KNOWN: Final = 256
TELL_EVERY: Final = 3600.0
"Seconds between two lines about the same trouble."


class Listed(NamedTuple):
    """One Contact of a 2xx."""

    uri: str
    instance: str
    "+sip.instance without quotes and brackets."

    reg_id: int
    "0: none."

    q: float | None
    expires: int | None

    def is_at(self, uri: str) -> bool:
        """Whether it names this URI."""
        return self.uri == uri or _same(self.uri, uri)

    @property
    def removal(self) -> str:
        """The Contact value that takes exactly this out."""
        reg_id = f";reg-id={self.reg_id}" if self.reg_id else ""
        instance = f';+sip.instance="<{self.instance}>"' if self.instance else ""
        return f"<{self.uri}>{reg_id}{instance};expires=0"


def listed_in(response: Response) -> list[Listed]:
    """The Contacts of a 2xx; what cannot be read is left out."""
    found = []
    default = response.value("expires")
    for value in response.values("contact")[:MOST_READ]:
        reg_id = parameter(value, "reg-id") or ""
        instance = (parameter(value, "+sip.instance") or "").strip('"<>')
        found.append(
            Listed(
                uri_of(value),
                instance,
                int(reg_id) if reg_id.isdecimal() and reg_id.isascii() and len(reg_id) < 11 else 0,
                _priority(parameter(value, "q")),
                _seconds(parameter(value, "expires") or default),
            )
        )
    return found


class Audit:
    """Compares, and has repaired."""

    def __init__(self, node: MobilityServer, home: Home) -> None:
        self._node = node
        self._home = home
        self._held: dict[str, None] = {}
        "URIs that we have registered in this life."
        self._removed: dict[tuple[str, int], int] = {}
        "Contacts taken out as not ours, and how often."
        self._wait = 0.0
        self._next_at = 0.0
        self._told_at = float("-inf")

    def held(self, uri: str) -> None:
        """A URI of ours has been accepted."""
        self._held[uri] = None
        if len(self._held) > MOST_KNOWN:
            del self._held[next(iter(self._held))]

    def read(self, by: Registration, cseq: int, listed: list[Listed], now: float) -> None:
        """Compare what the 2xx to a REGISTER with this CSeq, sent on flow `by`, lists."""
        if not listed:
            return  # a registrar that lists nothing tells nothing
        home = self._home
        flows = [flow for flow in home.flows.values() if flow.wanted]
        again: list[Registration] = []
        for flow in flows:
            found = next((one for one in listed if one.is_at(flow.uri)), None)
            settled = flow.registered and flow.confirmed <= cseq
            if found is None:
                if settled and flow is not by:
                    flow.registered = False
                    self._found("missing", now, path=flow.path.name)
                    again.append(flow)
            elif settled and found.q is not None and abs(found.q - flow.q) > 0.0005:
                self._found("priority", now, path=flow.path.name)
                again.append(flow)
        foreign = [one for one in listed if one.instance == self._node.settings.instance and self._is_foreign(one)]
        stale = [one for one in foreign if not any(flow.reg_id and flow.reg_id == one.reg_id for flow in flows)]
        for one in foreign:
            # A reg-id of ours is ours again with our next REGISTER: a removal might hit that (RFC 5626 §6).
            taken = next((flow for flow in again if flow.reg_id and flow.reg_id == one.reg_id), None)
            twin = taken is not None and one.uri not in self._held
            if twin or self._removed.get((one.uri, one.reg_id), 0) >= 2:
                self._twin(one, now)
        for one in stale:
            key = (one.uri, one.reg_id)
            self._removed[key] = self._removed.get(key, 0) + 1
            if len(self._removed) > MOST_KNOWN:
                del self._removed[next(iter(self._removed))]
            self._found("stale", now, contact=one.uri)
            home.leftovers[key] = one.removal
        if again or stale:
            self._repair(by, again, bool(stale), now)
        elif now > self._next_at + CALM:
            self._wait = 0.0

    def _is_foreign(self, one: Listed) -> bool:
        """Whether we do not have, or do not want, this address."""
        return not any(flow.wanted and one.is_at(flow.uri) for flow in self._home.flows.values())

    def _repair(self, by: Registration, again: list[Registration], stale: bool, now: float) -> None:
        due = max(now, self._next_at)
        self._wait = min(REPAIR_MOST, max(REPAIR_FIRST, 2 * self._wait))
        self._next_at = due + self._wait
        spread = self._node.ids.chance() * min(self._wait, 60.0) if due > now else 0.0
        for flow in again:
            flow.soon(now, due - now + spread)
        if stale and by not in again:
            by.soon(now, due - now + spread)

    def _found(self, what: str, now: float, **fields: str) -> None:
        self._node.act(Count("registration_repairs", (what,)))
        level = "info" if self._wait < CALM else "debug"
        self._node.log(level, f"home's list of our Contacts is put right: {what}", **fields)

    def _twin(self, one: Listed, now: float) -> None:
        if now < self._told_at + TELL_EVERY:
            return
        self._told_at = now
        self._node.act(Count("registration_repairs", ("twin",)))
        text = (
            "another gateway registers as this one, probably from a copy of its state_dir: stop one of them and remove "
            f"{self._node.settings.state_dir}/instance there, so that it becomes a gateway of its own"
        )
        self._node.log("error", text, contact=one.uri, instance=one.instance)


def _same(one: str, other: str) -> bool:
    try:
        return equivalent(parse_uri(one), parse_uri(other))
    except UriError:
        return False


def _priority(text: str | None) -> float | None:
    """A q value (RFC 3261 §25.1); absent: 1 (§20.10)."""
    if text is None:
        return None
    whole, _, rest = text.partition(".")
    digits = whole + rest
    return float(text) if whole in ("0", "1") and digits.isdecimal() and digits.isascii() and len(rest) < 6 else None


def _seconds(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 11 else None

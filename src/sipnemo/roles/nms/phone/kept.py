"""What a SIP-NMS finds again after a restart: its URI and its Binding List (R16).

Phones learn nothing of a restart and register again when their time has come, which may be an hour; until then calls
for them must find them. The rows go to the store of `state_dir`; nobody waits for them to be written, for all that a
lost one costs is a call that comes between a restart and the phone's next REGISTER.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sipnemo.roles.node import Store, Stored
from sipnemo.sip.flow import Flow, Local

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.phone.bindings import MobileNode

PHONES: Final = "phones"
"Token → one Contact of one SIP-MN."
HOME: Final = "home"
"Our address of record → the URI that the SIP-HS has assigned to us."


class Kept:
    """Writes rows, and reads them at the start."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node

    # ----------------------------------------------------------------------------------------------------- writing

    def phones(self, changed: dict[str, MobileNode | None], now: float) -> None:
        """Some phones have registered anew, or are gone (None)."""
        wall = self._node.environment.wall_clock
        rows = tuple((token, None if mn is None else _row(mn, wall, now)) for token, mn in changed.items())
        if rows:
            self._write(PHONES, rows)

    def uri(self) -> None:
        """The SIP-HS has assigned a URI."""
        home = self._node.home
        self._write(HOME, ((home.address_of_record, {"uri": home.uri, "instance": self._node.settings.instance}),))

    def _write(self, table: str, rows: tuple[tuple[str, Any], ...]) -> None:
        self._node.act(Store(self._node.ticket(_written), table, rows))

    # ----------------------------------------------------------------------------------------------------- reading

    def restore_uri(self) -> None:
        """Know our URI before the SIP-HS has been asked: a phone that registers meanwhile must get no other."""
        row = self._node.environment.stored.get(HOME, {}).get(self._node.home.address_of_record)
        if isinstance(row, dict) and row.get("instance") == self._node.settings.instance:
            self._node.home.uri = str(row.get("uri", ""))

    def restore_phones(self, now: float) -> None:
        """Take the Binding List in."""
        node = self._node
        found = unreadable = 0
        stale: dict[str, MobileNode | None] = {}
        for token, row in node.environment.stored.get(PHONES, {}).items():
            try:
                mn = _phone(token, row, node.environment.wall_clock, now)
            except (KeyError, TypeError, ValueError):
                unreadable += 1
                stale[token] = None
                continue
            if mn.expires_at <= now:
                stale[token] = None
                continue
            if mn.flow.reliable:
                mn.flow = node.at_contact(mn.contact, mn.flow)  # its connection has ended with our last run
            found += token not in node.bindings.by_token
            node.bindings.by_token.setdefault(token, mn)
        if unreadable:
            text = "stored bindings cannot be read and are dropped: their phones are reached when they register again"
            node.log("error", text, phones=unreadable, state_dir=node.settings.state_dir)
        if found:
            node.log("info", "bindings restored", phones=found)
        self.phones(stale, now)
        self.inside_changed()

    def inside_changed(self) -> None:
        """The I-face has another address: phones are reached from there."""
        for mn in self._node.bindings.by_token.values():
            flow = mn.flow
            if flow.local not in self._node.inside:
                same = (local for local in self._node.inside if local.transport == flow.local.transport)
                local = next(same, None)
                if local is not None:
                    mn.flow = Flow(local, flow.remote)


def _written(stored: Stored, now: float) -> None:
    """Nobody waits; the store itself has said what went wrong."""


def _row(mn: MobileNode, wall: float, now: float) -> dict[str, Any]:
    return {
        "uri": mn.uri,
        "contact": mn.contact,
        "flow": [list(mn.flow.local), list(mn.flow.remote)],
        "expires_at": round(wall + mn.expires_at, 3),
        "left": round(mn.expires_at - now, 3),
        "user_agent": mn.user_agent,
    }


def _phone(token: str, row: Any, wall: float, now: float) -> MobileNode:
    from sipnemo.roles.nms.phone.bindings import MobileNode

    (transport, host, port, device), (far_host, far_port) = row["flow"]
    flow = Flow(Local(str(transport), str(host), int(port), str(device)), (str(far_host), int(far_port)))
    # A gateway whose clock has no battery may believe that it is years earlier: none lasts longer than was left.
    left = min(float(row["expires_at"]) - wall - now, float(row["left"]))
    return MobileNode(str(row["uri"]), str(row["contact"]), token, flow, now + left, str(row["user_agent"]))

"""`sipnemo what-if`: which calls would go where if an uplink were taken out of use or put in, and is there room?

Nothing is done, and nothing asked of anybody: the same policy is given the Egress List as it would be. How much media
a call brings along is the average of its E-face, which is all that is measured.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sipnemo.nemo.egress_list import EgressEntry, PathKey, Status
from sipnemo.nemo.policy import Policy, SessionView
from sipnemo.roles.nms.path.reach import media_families, signalling_families
from sipnemo.sip.message import uri_of

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

BOTH = (4, 6)


@dataclass(frozen=True, slots=True)
class Uplink:
    """One path, now and then."""

    name: str
    entry: EgressEntry
    "As it would be."

    on: bool
    "Whether it is ON now."

    rate: float
    "Bits per second, both directions together, that its E-face carries now."


@dataclass(frozen=True, slots=True)
class Call:
    """One live call."""

    call_id: str
    from_uri: str
    to_uri: str
    path: str
    "Name of the path it uses."

    signalling: tuple[int, ...] = BOTH
    "Address families by which its far end can be told."

    media: tuple[int, ...] = BOTH
    "Those that its media have now: other paths are asked about only when none of these is ON."


def what_if(uplinks: Sequence[Uplink], calls: Sequence[Call], policy: Policy) -> dict[str, Any]:
    """Where each call would be, and what every path would carry; JSON-able."""
    names = {uplink.entry.key: uplink.name for uplink in uplinks}
    entries = [uplink.entry for uplink in uplinks]
    on = {uplink.name for uplink in uplinks if uplink.entry.is_on}
    placed = [(call, call.path if call.path in on else _target(call, entries, names, policy)) for call in calls]
    moved = [(call, to) for call, to in placed if to != call.path]
    rows = _rows(uplinks, placed)
    rooms = [row["room"] for row in rows if row["sessions_then"] > row["sessions"]]
    stranded = sum(not to for _, to in moved)
    first = policy(entries, SessionView(""))
    return {
        "calls": len(calls),
        "moved": len(moved) - stranded,
        "stranded": stranded,
        "room": False if stranded or False in rooms else None if None in rooms else True,
        "new_calls": names[first[0].key] if first else "",
        "paths": rows,
        "each": [
            {"call_id": c.call_id, "from_uri": c.from_uri, "to_uri": c.to_uri, "from_path": c.path, "to_path": to}
            for c, to in moved
        ],
    }


def _target(call: Call, entries: Sequence[EgressEntry], names: Mapping[PathKey, str], policy: Policy) -> str:
    """The path it would move to; empty when there is none."""
    ranked = policy(entries, SessionView(call.call_id))
    reached = [entry for entry in ranked if entry.family in call.signalling]
    reached.sort(key=lambda entry: entry.family not in call.media)
    return names[reached[0].key] if reached else ""


def _rows(uplinks: Sequence[Uplink], placed: Sequence[tuple[Call, str]]) -> list[dict[str, Any]]:
    """Every path, with its calls and the load of its E-face, now and then."""
    face_of = {uplink.name: uplink.entry.eface_id for uplink in uplinks}
    now = Counter(face_of.get(call.path) for call, _ in placed)
    average = {uplink.entry.eface_id: uplink.rate / max(1, now[uplink.entry.eface_id]) for uplink in uplinks}
    change: defaultdict[int | None, float] = defaultdict(float)
    for call, to in placed:
        brought = average.get(face_of.get(call.path, 0), 0.0)
        change[face_of.get(call.path)] -= brought
        change[face_of.get(to)] += brought
    rows = []
    for uplink in uplinks:
        capacity = uplink.entry.capacity_bps
        then = max(0.0, uplink.rate + change[uplink.entry.eface_id])
        rows.append(
            {
                "path": uplink.name,
                "eface_id": uplink.entry.eface_id,
                "status": _status(uplink.on),
                "status_then": _status(uplink.entry.is_on),
                "sessions": sum(call.path == uplink.name for call, _ in placed),
                "sessions_then": sum(to == uplink.name for _, to in placed),
                "rate_bps": round(uplink.rate),
                "rate_then_bps": round(then),
                "capacity_bps": capacity,
                "load": None if not capacity else round(uplink.rate / capacity * 100, 1),
                "load_then": None if not capacity else round(then / capacity * 100, 1),
                "room": None if not capacity else then <= capacity,
            }
        )
    return rows


def _status(on: bool) -> str:
    return "ON" if on else "OFF"


# -------------------------------------------------------------------------------------------------- asked of a node


def answer(node: MobilityServer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The command: `state` and either `eface_id` or `path`, its address or name; {"error": text} when it is unclear."""
    state, eface, wanted = (str(arguments.get(name, "")) for name in ("state", "eface_id", "path"))
    if state not in ("off", "on", "auto"):
        return {"error": "state must be off, on or auto"}
    if bool(eface) == bool(wanted):
        return {"error": "name either an E-face or a path"}
    named = [p for p in node.paths.all if (str(p.eface.id) == eface if eface else wanted in (p.name, p.address))]
    if not named:
        known = ", ".join(path.name for path in node.paths.all) or "none"
        return {"error": f"no path {'of E-face ' + eface if eface else wanted}; paths: {known}"}
    found = what_if(
        [_uplink(node, path, state if path in named else "") for path in node.paths.all], _calls(node), node.policy
    )
    return {"state": state, "changed": [path.name for path in named], **found}


def _uplink(node: MobilityServer, path: Path, state: str) -> Uplink:
    """A path as it would be after `sipnemo path … STATE`."""
    then = {
        "": path.on,
        "off": False,
        "on": path.present,
        "auto": path.present and path.proven,
    }[state]
    entry = replace(path.entry(node.settings.instance), status=Status.ON if then else Status.OFF)
    return Uplink(path.name, entry, path.on, 2 * path.rate)


def _calls(node: MobilityServer) -> list[Call]:
    calls = []
    for session in node.calls.open:
        if session.live:
            ends = session.mn_user, uri_of(session.remote_value or session.to_value)
            from_uri, to_uri = ends if session.outgoing else ends[::-1]
            media = tuple(6 if six else 4 for six in media_families(session))
            signalling = signalling_families(session.dialog)
            calls.append(Call(session.call_id, from_uri, to_uri, session.path.name, signalling, media or BOTH))
    return calls

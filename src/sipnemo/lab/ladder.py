"""One call's SIP messages, as recorded all over a world, in the order they were sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sipnemo.lab.charts import Arrow, Ladder
from sipnemo.lab.delay import Message
from sipnemo.lab.report import Event

CALL_ID = re.compile(rb"^(?:call-id|i)[ \t]*:[ \t]*(\S+)", re.I | re.M)
CSEQ = re.compile(rb"^cseq[ \t]*:[ \t]*(\d+)[ \t]+(\w+)", re.I | re.M)
MOST_ROWS = 30


def title(data: bytes) -> str:
    """A message in a word or two: `INVITE` or `200 OK (INVITE)`; `INVITE sdp` when it carries a description."""
    first = data.split(b"\r\n", 1)[0].decode("latin-1")
    body = " + SDP" if b"\r\nv=0\r\n" in data or b"\r\n\r\nv=0" in data else ""
    if not first.startswith("SIP/2.0 "):
        return first.split(" ", 1)[0] + body
    found = CSEQ.search(data)
    return f"{first[8:]} ({found[2].decode()}){body}" if found else first[8:]


def call_id(data: bytes) -> str:
    """The message's Call-ID, or empty."""
    found = CALL_ID.search(data)
    return found[1].decode("latin-1") if found else ""


def sent_once(seen: Mapping[str, Sequence[Message]]) -> list[Message]:
    """What was sent, in order: the same octets seen in several places are one message, seen twice in one are two."""
    sightings = sorted(((message, where) for where, messages in seen.items() for message in messages), key=first_seen)
    found: list[Message] = []
    latest: dict[tuple[object, ...], tuple[int, set[str]]] = {}
    for message, where in sightings:
        key = (message.source, message.destination, message.data)
        if key in latest and where not in latest[key][1]:
            number, places = latest[key]
            places.add(where)
            if message.dropped:
                found[number] = found[number]._replace(dropped=True)
        else:
            latest[key] = (len(found), {where})
            found.append(message)
    return found


def first_seen(sighting: tuple[Message, str]) -> float:
    """Sort key."""
    return sighting[0].at


def build(
    name: str,
    wanted: str,
    seen: Mapping[str, Sequence[Message]],
    columns: Mapping[str, tuple[str, str]],
    events: Sequence[Event],
    until: float,
) -> Ladder:
    """The ladder of the call with this Call-ID, and of registrations, from shortly before the first event.

    `columns` maps an address to a heading and a CSS class, in drawing order.
    """
    start = events[0].at - 0.02
    arrows = []
    for message in sent_once(seen):
        ends = message.source[0], message.destination[0]
        if not start <= message.at < until or not set(ends) <= columns.keys() or ends[0] == ends[1]:
            continue
        found = CSEQ.search(message.data)
        if call_id(message.data) == wanted or (found is not None and found[2] == b"REGISTER"):
            arrows.append(Arrow(message.at, *ends, title(message.data), message.dropped))
    shown = [(address, heading, kind) for address, (heading, kind) in columns.items()]
    return Ladder(name, shown, arrows[:MOST_ROWS], events)

"""What passed in a world, as drawings: the media on each path, and the messages of a call that moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sipnemo.lab import ladder
from sipnemo.lab.charts import Ladder, Track
from sipnemo.lab.delay import RTP, Message
from sipnemo.lab.report import Run
from sipnemo.lab.topology import WAYS, Topology, World

LADDER_SECONDS = 2.0


def tracks(world: World) -> list[Track]:
    """RTP on each path and direction."""
    found = []
    for number in path_numbers(world):
        line = world.line(f"uplink{number}")
        for way in WAYS:
            packets = [(packet.at, not packet.dropped) for packet in line.packets(way) if packet.kind == RTP]
            found.append(track(number, way, packets))
    return found


def track(number: int, way: str, packets: Iterable[tuple[float, bool]]) -> Track:
    """One path and direction: of each packet, when, and whether it got through."""
    known = list(packets)
    passed, lost = ([at for at, through in known if through is fate] for fate in (True, False))
    return Track(f"path {number} {way}", f"path{number}", passed, lost)


def path_numbers(world: World) -> list[int]:
    """The numbers of the gateway's uplinks."""
    return [int(name.removeprefix("uplink")) for name in world.lines]


def moved_call(
    run: Run, seen: Mapping[str, Sequence[Message]], topology: Topology, uplinks: Iterable[int]
) -> Ladder | None:
    """The messages of the first call that the first move moved."""
    moved = [move for move in run.moves if move.call_ids]
    if not moved:
        return None
    call_id = moved[0].call_ids[0]
    call = next((call for call in run.calls if call.call_id == call_id), None)
    if call is None:
        return None
    columns = {
        topology.address("mn"): (f"phone\n{call.caller if call.caller.startswith('in') else call.callee}", ""),
        topology.address("nms", "lan0"): ("SIP-NMS\ninside", ""),
        **{topology.address("nms", f"wan{n}"): (f"SIP-NMS\npath {n}", f"path{n}") for n in uplinks},
        topology.address("hs"): ("SIP-HS\nand phones' server", ""),
        topology.address("cn"): (f"far end\n{call.caller if call.caller.startswith('out') else call.callee}", ""),
    }
    event = moved[0].event
    title = f"{call.caller} → {call.callee}: {event.text}"
    return ladder.build(title, call_id, seen, columns, [event], event.at + LADDER_SECONDS)

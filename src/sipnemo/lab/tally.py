"""From what phones tell to how each call fared. Call N is between `inN` behind the gateway and the far end `outN`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sipnemo.lab.report import Call, Gap, Stream

GAP_OVER = 30.0
"Milliseconds: the phones list longer silences; shorter ones are the unrest of a busy machine."

Side = Literal["inside", "outside"]


@dataclass(slots=True)
class Placed:
    """A call that was made."""

    caller: Side
    hung_up_at: float | None = None
    "When we hung it up before the end."


def facts(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each account, when its call was answered and ended, and its Call-ID."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("event") in ("answered", "ended"):
            one = found.setdefault(event["account"], {})
            if event["event"] == "answered":
                one.pop("ended", None)  # a first attempt of the same call, over another path, was given up
            one.setdefault(event["event"], event["t"])
            one["call_id"] = event.get("call_id")
    return found


def calls(
    placed: Mapping[int, Placed],
    known: Mapping[str, Mapping[str, Any]],
    inside: Mapping[str, Stream],
    outside: Mapping[str, Stream],
    end: float,
    measure_every: int = 1,
) -> tuple[Call, ...]:
    """Every call that was made; `known` are the facts, `inside` and `outside` what each account received."""
    made = []
    for number, one in sorted(placed.items()):
        mine, theirs = f"in{number}", f"out{number}"
        caller, callee = (mine, theirs) if one.caller == "inside" else (theirs, mine)
        ends = known.get(mine, {}), known.get(theirs, {})
        limit = min(end, one.hung_up_at or end)
        made.append(
            Call(
                call_id=ends[0].get("call_id") or ends[1].get("call_id") or f"{caller}-{callee}",
                caller=caller,
                callee=callee,
                answered_at=max(e["answered"] for e in ends) if all("answered" in e for e in ends) else None,
                ended_at=min((e["ended"] for e in ends if e.get("ended", limit) < limit), default=None),
                hung_up_at=one.hung_up_at,
                up=outside.get(theirs, Stream()),
                down=inside.get(mine, Stream()),
                measured=number % measure_every == 1 % measure_every,
            )
        )
    return tuple(made)


def oldest_live(
    placed: Mapping[int, Placed], known: Mapping[str, Mapping[str, Any]], count: int
) -> list[tuple[Placed, str]]:
    """The oldest so many calls that live, each with its Call-ID at the phone behind the gateway."""
    live = []
    for number, one in sorted(placed.items()):
        fact = known.get(f"in{number}", {})
        if one.hung_up_at is None and "answered" in fact and "ended" not in fact:
            live.append((one, str(fact["call_id"])))
    return live[:count]


def stream_of(arrivals: Iterable[tuple[float, int, float]]) -> Stream:
    """What was received, of all arrivals: when, the packet's number, when it was sent. Judged as a phone does it."""
    gaps: list[Gap] = []
    missing: dict[int, int] = {}
    "Packet's number → index of the gap it is missing in."
    received, last_at, expected = 0, 0.0, 0
    for at, number, _ in arrivals:
        if number < expected:
            place = missing.pop(number, None)
            if place is None:
                continue  # a duplicate
            gaps[place] = gaps[place]._replace(lost=gaps[place].lost - 1)
        else:
            silence = (at - last_at) * 1e3
            lost = number - expected
            if received and (lost or silence > GAP_OVER):
                missing |= dict.fromkeys(range(expected, number), len(gaps))
                gaps.append(Gap(at, silence, lost))
            expected = number + 1
        received += 1
        last_at = at
    return Stream(received, last_at, tuple(gap for gap in gaps if gap.lost or gap.gap_ms > GAP_OVER))

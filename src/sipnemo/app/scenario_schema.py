"""Every table and key of a scenario file, and which of them go with which event. docs/lab.md tells people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sipnemo.app.schema import NMS, UNSET, Key, Schema, Table
from sipnemo.app.values import FLAG, RATE, TEXT, Context, Kind, choice, integer, number, seconds

MOST_CALLS: Final = 2_000
MOST_UPLINKS: Final = 4
MOST_SECONDS: Final = 3_600
GATEWAY_TABLES: Final = ("media", "policy", "probe", "move", "limits")
"Tables of nms.toml that a scenario may hold as well."

SERVERS: Final = ("hs", "nms")
CAUSES: Final = ("carrier", "address", "probe", "command")

DEEDS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "carrier-down": (("uplink",), ()),
    "address-gone": (("uplink",), ()),
    "silent": (("uplink",), ("way",)),
    "restore": (("uplink",), ()),
    "change": (("uplink",), ("way", "delay_ms", "jitter_ms", "loss_percent", "rate")),
    "renumber": (("uplink",), ()),
    "flap": (("uplink", "times", "period"), ("how",)),
    "stop": (("server",), ()),
    "kill": (("server",), ()),
    "start": (("server",), ()),
    "restart": (("server",), ()),
    "call": (("calls",), ("from",)),
    "hang-up": (("calls",), ()),
    "command": (("command",), ()),
}
"What can be done: the keys it must have, and those it may have besides."

_CALLS: Final = integer(0, MOST_CALLS)
_MILLISECONDS: Final = number(0, 600_000, "milliseconds")
_PACKETS: Final = integer(0, 1_000_000)
_LIMITS: Final = (
    Key("gap_up_ms", _MILLISECONDS, "Longest silence a far end may have.", UNSET),
    Key("gap_down_ms", _MILLISECONDS, "Longest silence a phone behind the gateway may have.", UNSET),
    Key("lost_up", _PACKETS, "Most packets that one far end may lose.", UNSET),
    Key("lost_down", _PACKETS, "Most packets that one phone behind the gateway may lose.", UNSET),
    Key("gap_up_p99_ms", _MILLISECONDS, "The same for 99 of 100 far ends; in real time only told.", UNSET),
    Key("gap_down_p99_ms", _MILLISECONDS, "The same for 99 of 100 phones; in real time only told.", UNSET),
    Key("lost_up_p99", _PACKETS, "The same for 99 of 100 far ends; in real time only told.", UNSET),
    Key("lost_down_p99", _PACKETS, "The same for 99 of 100 phones; in real time only told.", UNSET),
)


def _numbers(value: Any, _: Context) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError(f"{value} is not a list of uplinks' numbers, for example [1, 2]")
    return tuple(value)


UPLINK: Final = Table(
    "uplink",
    "One uplink of the gateway.",
    (
        Key("id", integer(1, MOST_UPLINKS), "Number of the uplink; 1 is tried first."),
        Key("name", TEXT, "What it stands for, for people.", UNSET),
        Key("delay_ms", number(0, 5_000, "milliseconds"), "One way.", 25.0),
        Key("jitter_ms", number(0, 1_000, "milliseconds"), "At most so much more or less; order is kept.", 0.0),
        Key("loss_percent", number(0, 100, "percent"), "Of packets, each by itself.", 0.0),
        Key("rate", RATE, "What the line carries; half a second's worth waits, the rest is lost.", UNSET),
        Key("priority", integer(1, 99), "As in [[eface]].", UNSET),
        Key("capacity", RATE, "As in [[eface]].", UNSET),
    ),
    many=True,
    required=True,
)
EVENT: Final = Table(
    "event",
    "One event.",
    (
        Key("at", seconds(0, MOST_SECONDS), "Seconds from when the first calls were up."),
        Key("do", choice(*(deed for deed in DEEDS if deed != "command")), "What is done.", UNSET),
        Key("uplink", integer(1, MOST_UPLINKS), "To which uplink.", UNSET),
        Key("server", choice(*SERVERS), "To which server.", UNSET),
        Key("command", TEXT, "What an operator types after `sipnemo`, on the gateway.", UNSET),
        Key("way", choice("up", "down"), "One direction only; up is away from the gateway.", UNSET),
        Key("delay_ms", number(0, 5_000, "milliseconds"), "As in [[uplink]].", UNSET),
        Key("jitter_ms", number(0, 1_000, "milliseconds"), "As in [[uplink]].", UNSET),
        Key("loss_percent", number(0, 100, "percent"), "As in [[uplink]].", UNSET),
        Key("rate", RATE, "As in [[uplink]].", UNSET),
        Key("times", integer(1, 1_000), "How often it flaps.", UNSET),
        Key("period", seconds(0.1, 600), "From one cut to the next; the first half is spent down.", UNSET),
        Key("how", choice("carrier-down", "address-gone", "silent"), "What a flap does.", UNSET),
        Key("calls", integer(1, MOST_CALLS), "How many.", UNSET),
        Key("from", choice("inside", "outside"), "Who calls.", UNSET),
        Key("expect.moved", _CALLS, "Exactly so many calls move because of it.", UNSET),
        Key("expect.cause", choice(*CAUSES), "Why they move, as the gateway tells.", UNSET),
        Key("expect.detected_ms", _MILLISECONDS, "The gateway knows within.", UNSET),
        *(Key(f"expect.{key.name}", key.kind, f"{key.meaning} Until the next event.", UNSET) for key in _LIMITS),
    ),
    many=True,
    shown="[timeline] event",
)
LAB: Final = Schema(
    "lab",
    "A scenario: uplinks, calls, what happens when, and what must come of it.",
    (
        Table(
            "scenario",
            "What it is.",
            (
                Key("title", TEXT, "Its name."),
                Key("shows", TEXT, "What it shows, in a sentence or two."),
                Key("lasts", seconds(1, MOST_SECONDS), "Seconds until all calls are hung up.", UNSET),
                Key("quick", FLAG, "It is one of the few that run with every test.", False),
            ),
            required=True,
        ),
        UPLINK,
        Table(
            "calls",
            "Calls that are up before the time line begins.",
            (
                Key("from_inside", _CALLS, "Phones behind the gateway call far ends.", 0),
                Key("from_outside", _CALLS, "Far ends call phones behind the gateway.", 0),
                Key("ring", seconds(0, 60), "Callees let it ring so long.", 0.0),
                Key("measure_every", integer(1, MOST_CALLS), "One of so many calls is measured.", 1),
                Key("sparse_ms", integer(20, 1000), "In the others, media come so seldom.", 20),
            ),
        ),
        EVENT,
        Table(
            "expect",
            "What must come of it all.",
            (
                Key("dropped", _CALLS, "Most calls that may be lost.", 0),
                Key("unanswered", _CALLS, "Most calls that may never be answered.", 0),
                Key("unverified", _CALLS, "Most moves that may end without media seen on the new path.", UNSET),
                Key("moves_per_call", integer(0, 100_000), "How often one call may move.", UNSET),
                Key("on", Kind("a list of uplinks' numbers", _numbers), "Uplinks that are ON at the end.", UNSET),
                *_LIMITS,
            ),
        ),
        *(table for table in NMS.tables if table.name in GATEWAY_TABLES),
    ),
)

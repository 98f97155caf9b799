"""A scenario file to a `Scenario`; every mistake in it is found in one go and says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sipnemo.app.checks import check
from sipnemo.app.config import Config, ConfigError, Problem, Row, load, read_tables
from sipnemo.app.scenario_schema import DEEDS, EVENT, GATEWAY_TABLES, LAB, MOST_CALLS
from sipnemo.app.toml_lines import Place, find_items, find_lines
from sipnemo.lab.line import Quality
from sipnemo.lab.scenario import AFTER, CUTS, Scenario, Step, Uplink, unfolded

COMMANDS: Final = ("path", "status", "paths", "bindings", "sessions", "moves", "what-if")
"Commands an operator may type while a scenario runs."

SHIPPED: Final = Path(__file__).parents[1] / "lab" / "scenarios"


def shipped() -> dict[str, Path]:
    """The scenarios that come with this program, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read_scenario(path: str | Path) -> Scenario:
    """The scenario in a file; raises ConfigError with every problem found."""
    text, document = load(Path(path))
    lines = find_lines(text)
    problems = _lift_events(str(path), text, document, lines)
    config = read_tables(LAB, path, document, lines)
    config.problems += problems
    check(config)
    _check_uplinks(config)
    _check_events(config)
    steps = tuple(_step(number, row) for number, row in enumerate(config.tables["event"], 1) if _whole(row))
    _check_order(config, steps)
    _check_calls(config)
    if config.errors:
        raise ConfigError(sorted(config.problems, key=lambda problem: problem.line))
    return _scenario(config, document, steps)


def _lift_events(path: str, text: str, document: dict[str, Any], lines: dict[Place, int]) -> list[Problem]:
    """Make the time line's list a table of its own, `expect` part of its keys."""
    timeline = document.pop("timeline", {})
    begins = lines.get(("timeline", 0, "events"), lines.get(("timeline", 0, ""), 0))
    known = isinstance(timeline, dict) and set(timeline) <= {"events"} and "event" not in document
    events = timeline.get("events", []) if known else None
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        what = 'holds one key, `events`, a list of tables: events = [ { at = 3.0, uplink = 1, do = "silent" }, … ]'
        return [Problem(path, begins, "[timeline]", what)]
    document["event"] = [_flat(event) for event in events]
    lines.update({("event", index, ""): line for index, line in enumerate(find_items(text, begins))})
    return []


def _flat(event: Row) -> Row:
    """`expect = { moved = 8 }` as `expect.moved = 8`."""
    expect = event.get("expect")
    if not isinstance(expect, dict):
        return event
    return {key: value for key, value in event.items() if key != "expect"} | {
        f"expect.{key}": value for key, value in expect.items()
    }


# ------------------------------------------------------------------------------------------------- what fits together


def _check_uplinks(config: Config) -> None:
    ids = {row.get("id") for row in config.tables["uplink"]}
    for index, row in enumerate(config.tables["event"]):
        if "uplink" in row and row["uplink"] not in ids:
            config.report("event", index, "uplink", f"there is no [[uplink]] with id = {row['uplink']}")
    for number in config.table("expect").get("on", ()):
        if number not in ids:
            config.report("expect", 0, "on", f"there is no [[uplink]] with id = {number}")


def _check_events(config: Config) -> None:
    """Every event has the keys that its deed needs, and no other."""
    for index, row in enumerate(config.tables["event"]):
        written = {key for table, number, key in config.written if (table, number) == ("event", index)}
        if {"do", "command"} <= written:
            config.report("event", index, "command", "write either `do` or `command`, not both")
            continue
        if not {"do", "command"} & written:
            config.report("event", index, "", 'says not what happens; write do = "silent" or command = "path 1 off"')
            continue
        deed = row.get("do") if "do" in written else "command"
        if deed is None:
            continue
        needed, allowed = DEEDS[deed]
        for key in needed:
            if key not in written:
                config.report("event", index, key, f"missing; {_purpose(key)}")
        general = {"at", "do"} | {key for key in written if key.startswith("expect.")}
        for key in sorted(written - general - set(needed) - set(allowed)):
            fitting = " or ".join(f'"{name}"' for name, keys in DEEDS.items() if key in keys[0] + keys[1])
            config.report("event", index, key, f'does not go with "{deed}" but with {fitting}; remove it')
        if deed == "change" and not written & {"delay_ms", "jitter_ms", "loss_percent", "rate"}:
            config.report("event", index, "", "changes nothing; write delay_ms, jitter_ms, loss_percent or rate")
        if "command" in row and row["command"].split()[0] not in COMMANDS:
            config.report("event", index, "command", f"is none of these: {', '.join(COMMANDS)} (without `sipnemo`)")


def _purpose(key: str) -> str:
    meaning = next(known.meaning for known in EVENT.keys if known.name == key)
    return f"write {key} ({meaning.rstrip('.')})"


def _check_order(config: Config, steps: tuple[Step, ...]) -> None:
    """No uplink is cut that is cut already, no server stopped that is stopped."""
    cut: dict[int, int] = {}
    stopped: set[str] = set()
    deeds = sorted((deed for step in steps for deed in unfolded(step)), key=lambda deed: deed.at)
    told: set[int] = set()
    for deed in deeds:
        what = ""
        if deed.do in CUTS or deed.do == "renumber":
            if deed.uplink in cut:
                what = f"uplink {deed.uplink} is down already since event {cut[deed.uplink]}; restore it first"
            elif deed.do != "renumber":
                cut[deed.uplink] = deed.number
        elif deed.do == "restore":
            cut.pop(deed.uplink, None)
        elif deed.do == "start":
            if deed.server not in stopped:
                what = f"{deed.server} is running; stop it first, or write restart"
            stopped.discard(deed.server)
        elif deed.do in ("stop", "kill", "restart"):
            if deed.server in stopped:
                what = f"{deed.server} is stopped already; start it first"
            elif deed.do != "restart":
                stopped.add(deed.server)
        if what and deed.number not in told:
            told.add(deed.number)
            config.report("event", deed.number - 1, "do", what)
    lasts = config.table("scenario").get("lasts")
    if lasts is not None and deeds and deeds[-1].at >= lasts:
        what = f"is over before the last event ({deeds[-1].at:g} s); write more, or leave it out"
        config.report("scenario", 0, "lasts", what)


def _check_calls(config: Config) -> None:
    calls = config.table("calls")
    if calls.get("sparse_ms", 20) % 20:
        config.report("calls", 0, "sparse_ms", "is no multiple of 20, the milliseconds between packets; write 200")
    if calls.get("sparse_ms", 20) == 20 and calls.get("measure_every", 1) > 1:
        config.report("calls", 0, "measure_every", "saves nothing without sparse_ms; write both, or neither")
    first = sum(config.table("calls").get(key, 0) for key in ("from_inside", "from_outside"))
    later = sum(row.get("calls", 0) for row in config.tables["event"] if row.get("do") == "call")
    if not first:
        config.report("calls", 0, "", "makes no call; write from_inside or from_outside, or both")
    if first + later > MOST_CALLS:
        config.report("calls", 0, "", f"{first + later} calls in all are more than {MOST_CALLS}")


# ------------------------------------------------------------------------------------------------- what it says


def _whole(row: Row) -> bool:
    """Whether enough of an event could be read to place it on the time line."""
    deed = row.get("do", "command" if "command" in row else "")
    return "at" in row and bool(deed) and all(key in row for key in DEEDS[deed][0])


def _step(number: int, row: Row) -> Step:
    change = {ours: row[key] for key, ours in _QUALITY.items() if key in row}
    if "rate" in row:
        change["rate"] = row["rate"] / 1e6
    return Step(
        at=row["at"],
        do=row.get("do", "command"),
        uplink=row.get("uplink", 0),
        way=row.get("way"),
        change=change,
        times=row.get("times", 1),
        period=row.get("period", 0.0),
        how=row.get("how", "carrier-down"),
        server=row.get("server", ""),
        command=row.get("command", ""),
        calls=row.get("calls", 0),
        caller=row.get("from", "inside"),
        expect={key.removeprefix("expect."): value for key, value in row.items() if key.startswith("expect.")},
        number=number,
    )


_QUALITY: Final = {"delay_ms": "delay", "jitter_ms": "jitter", "loss_percent": "loss"}


def _scenario(config: Config, document: Mapping[str, Any], steps: tuple[Step, ...]) -> Scenario:
    about, calls = config.table("scenario"), config.table("calls")
    last = max([0.0, *(deed.at for step in steps for deed in unfolded(step))])
    uplinks = [_uplink(row, written) for row, written in zip(config.tables["uplink"], document["uplink"], strict=True)]
    return Scenario(
        title=about["title"],
        shows=about["shows"],
        uplinks=tuple(sorted(uplinks, key=lambda uplink: uplink.id)),
        from_inside=calls["from_inside"],
        from_outside=calls["from_outside"],
        steps=steps,
        lasts=about.get("lasts", last + AFTER),
        ring=calls["ring"],
        measure_every=calls["measure_every"],
        sparse_ms=calls["sparse_ms"],
        gateway=tuple((f"[{name}]", document[name]) for name in GATEWAY_TABLES if name in document),
        expect=config.table("expect"),
        quick=about["quick"],
    )


def _uplink(row: Row, written: Row) -> Uplink:
    quality = {ours: row[key] for key, ours in _QUALITY.items()} | {"rate": row.get("rate", 0) / 1e6}
    eface = {"priority": row["id"]} | {key: written[key] for key in ("priority", "capacity") if key in written}
    return Uplink(row["id"], Quality(**quality), row.get("name", ""), eface)

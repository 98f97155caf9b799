"""The report as one page that needs nothing but itself: light and dark, on a wall and on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from sipnemo.lab import charts
from sipnemo.lab.charts import Ladder, Track
from sipnemo.lab.live import many, spread_of
from sipnemo.lab.report import PACKET_INTERVAL_MS, Run, run_report
from sipnemo.lab.spread_chart import drawing

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #16202c; --soft: #5b6878; --rule: #dde3ea;
  --accent: #0b6bcb; --good: #12805c; --bad: #c4314b; --path1: #0b6bcb; --path2: #c2620a; --path3: #7a4fc9;
  --path4: #2f7d4f; --lost: #c4314b; }
@media (prefers-color-scheme: dark) { :root { --page: #0f141a; --card: #171e27; --ink: #e7edf4; --soft: #93a1b2;
  --rule: #2a3441; --accent: #5aa9f5; --good: #43c59e; --bad: #ff6b81; --path1: #5aa9f5; --path2: #f0a04b;
  --path3: #b493f5; --path4: #6fcf97; --lost: #ff6b81; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 16px 60px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 0 0 4px; }
p { margin: 4px 0 12px; color: var(--soft); max-width: 70ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin: 20px 0; }
.card, section { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; }
.card { padding: 14px 16px; }
.card b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
.good b, .good { color: var(--good); } .bad b, .bad { color: var(--bad); }
section { padding: 18px 18px 14px; margin: 16px 0; }
.wide { overflow-x: auto; }
.wide > svg, .wide > table { min-width: 640px; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
svg text { fill: var(--ink); font-size: 13px; } svg .small { fill: var(--soft); font-size: 12px; }
svg .strong { font-weight: 600; } svg .gone { text-decoration: line-through; }
svg path { fill: none; stroke: var(--soft); stroke-width: 1.5; }
svg .box { fill: var(--page); stroke: var(--rule); stroke-width: 1.5; } svg .box.accent { stroke: var(--accent); }
svg .line { stroke-width: 4; stroke-linecap: round; } svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--rule); } svg .mark { stroke: var(--bad); stroke-dasharray: 3 4; stroke-width: 1.2; }
svg .life { stroke: var(--rule); stroke-width: 2; } svg .life[class*=path] { opacity: .55; }
svg .path1 { stroke: var(--path1); } svg .path2 { stroke: var(--path2); }
svg .path3 { stroke: var(--path3); } svg .path4 { stroke: var(--path4); }
svg .area { stroke: none; fill-opacity: .75; } svg .area.path1 { fill: var(--path1); }
svg .area.path2 { fill: var(--path2); }
svg .area.path3 { fill: var(--path3); } svg .area.path4 { fill: var(--path4); }
svg .area.lost { fill: var(--lost); fill-opacity: .55; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; } details summary { cursor: pointer; color: var(--soft); padding: 8px 0; }
footer { color: var(--soft); font-size: .85rem; margin-top: 24px; }
"""


def tag(name: str, content: str, kind: str = "") -> str:
    """An element; the content is already HTML."""
    return f'<{name} class="{kind}">{content}</{name}>' if kind else f"<{name}>{content}</{name}>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of plain values."""
    lines = [tag("tr", "".join(tag("th", escape(cell)) for cell in head))]
    lines += [tag("tr", "".join(tag("td", escape(str(cell))) for cell in row)) for row in rows]
    return tag("div", tag("table", "\n".join(lines)), "wide")


def card(value: str, words: str, kind: str = "") -> str:
    """One figure one can read across the room."""
    return tag("div", f"<b>{escape(value)}</b><span>{escape(words)}</span>", f"card {kind}".strip())


def section(title: str, words: str, content: str) -> str:
    """A framed part of the page."""
    return tag("section", tag("h2", escape(title)) + tag("p", escape(words)) + content)


def short(path: str) -> str:
    """Of a path's name, its number."""
    return path.partition("/")[0]


def moves_table(report: Mapping[str, Any]) -> str:
    """Every move: how soon it was noticed, and what it cost."""
    head = ("what happened", "path", "noticed after", "calls", "gap up, ms", "gap down, ms", "lost up", "lost down")
    rows = [
        (
            f"{move['event']} ({move['cause']})",
            f"{short(move['from_path'])} → {short(move['to_path'])}",
            "–" if move["detected_ms"] is None else f"{move['detected_ms']:g} ms",
            move["calls_moved"],
            *(spread_of(move, name) for name in ("gap_up_ms", "gap_down_ms", "lost_up", "lost_down")),
        )
        for move in report["moves"]
    ]
    return table(head, rows)


def calls_tables(run: Run, report: Mapping[str, Any]) -> str:
    """Per move, every call's gaps, folded away."""
    names = {call.call_id: f"{call.caller} → {call.callee}" for call in run.calls}
    head = ("call", "gap up, ms", "gap down, ms", "lost up", "lost down")
    parts = []
    for move in report["moves"]:
        rows = [
            (names[row["call_id"]], row["gap_up_ms"], row["gap_down_ms"], row["lost_up"], row["lost_down"])
            for row in move["per_call"]
        ]
        if many(move):
            parts.append(tag("p", escape(move["event"])) + tag("div", drawing(move), "wide"))
        parts.append(tag("details", tag("summary", f"Each call: {escape(move['event'])}") + table(head, rows)))
    return "".join(parts)


def worst(report: Mapping[str, Any], name: str) -> float:
    """The worst figure of that name over all moves."""
    return max([0.0, *(float(move[name]["worst"]) for move in report["moves"])])


class Cover(NamedTuple):
    """What a page says of its run."""

    title: str
    words: str
    drawing: str
    "The world, as SVG."

    verdicts: str = ""
    "Expectations met and not, as HTML."


def demo_cover(run: Run) -> Cover:
    """Of the demo."""
    words = (
        f"{len(run.calls)} calls through one gateway with two uplinks of {run.rtt_ms:g} ms round trip each, "
        f"for {run_report(run)['duration_s']:g} s. Real processes, real packets, one machine."
    )
    each_way = f"{run.rtt_ms / 2:g} ms each way"
    lines = [("uplink 1", each_way), ("uplink 2", each_way)]
    return Cover("Live calls that change uplink", words, charts.topology(len(run.calls), lines))


def verdicts(judged: Sequence[Any]) -> str:
    """What was expected and what came, each a `Verdict`."""
    rows = []
    for one in judged:
        cells = (one.what, one.expected, one.found)
        words = "as expected" if one.met else "not as expected" if one.binding else "not on this machine"
        mark = tag("td", words, "good" if one.met else "bad" if one.binding else "")
        rows.append(tag("tr", "".join(tag("td", escape(cell)) for cell in cells) + mark))
    head = tag("tr", "".join(tag("th", escape(cell)) for cell in ("what", "expected", "found", "")))
    return tag("div", tag("table", head + "\n".join(rows)), "wide")


def page(run: Run, tracks: Sequence[Track], ladder: Ladder | None, version: str, cover: Cover | None = None) -> str:
    """The whole page; without a cover, the demo's."""
    report = run_report(run)
    cover = cover or demo_cover(run)
    dropped = report["dropped"]
    cards = "".join(
        [
            card(str(report["calls"]), "calls"),
            card(str(dropped), "dropped", "bad" if dropped else "good"),
            card(str(sum(move["calls_moved"] for move in report["moves"])), "moves of a call"),
            card(f"{worst(report, 'gap_up_ms'):g} ms", "longest gap up"),
            card(f"{worst(report, 'gap_down_ms'):g} ms", "longest gap down"),
        ]
    )
    parts = [
        tag("h1", escape(cover.title)),
        tag("p", escape(cover.words)),
        tag("div", cards, "cards"),
        *([section("As expected?", "", cover.verdicts)] if cover.verdicts else []),
        section(
            "What each move cost",
            "Longest silence and packets lost per call: median, of many calls the 99th percentile, worst in "
            "brackets. Up is from the phones behind the "
            "gateway to the far ends, down the other way. Packets come every 20 ms, and 20 also stands for silences "
            f"of at most 30 ms. An unmodified far end cannot be told in less than a round trip: after a link is cut, "
            f"{run.rtt_ms + PACKET_INTERVAL_MS:g} ms down is about the limit.",
            moves_table(report) + calls_tables(run, report),
        ),
        section("Who talks to whom", "", tag("div", cover.drawing, "wide")),
        section(
            "Media on each path",
            "RTP packets as they enter each uplink. Red: sent into a link that had gone dead in silence.",
            tag("div", charts.timeline(tracks, run.events, run.started_at, run.hangup_at), "wide"),
        ),
    ]
    if ladder is not None:
        parts.append(
            section(
                "One call on the move",
                f"{ladder.title}. Every SIP message of this call around the move; times count from the event.",
                tag("div", charts.ladder(ladder), "wide"),
            )
        )
    for call_id, reason in report["dropped_calls"].items():
        parts.append(tag("p", escape(f"Dropped: {call_id}: {reason}"), "bad"))
    parts.append(tag("footer", f"sipnemo {escape(version)} · figures in report.json beside this page"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(cover.title)}: {report['calls']} calls, {dropped} dropped</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )

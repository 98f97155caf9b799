"""Drawings for a report: inline SVG whose colours come from the page's style sheet, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from sipnemo.lab.report import Event
from sipnemo.lab.spread import nice_step

WIDTH = 960


class Track(NamedTuple):
    """Packets of one path in one direction."""

    name: str
    colour: str
    "CSS class of its path, for example 'path1'."

    arrivals: Sequence[float]
    "Packets that passed, monotonic seconds."

    dropped: Sequence[float] = ()
    "Packets that fell into a black hole."


class Arrow(NamedTuple):
    """One message of a ladder."""

    at: float
    source: str
    "Column, as in `Ladder.columns`."

    target: str
    text: str
    dropped: bool = False


class Ladder(NamedTuple):
    """Who told whom what, and what happened meanwhile."""

    title: str
    columns: Sequence[tuple[str, str, str]]
    "Key, heading, CSS class."

    arrows: Sequence[Arrow]
    marks: Sequence[Event] = ()


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of writing."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(height: float, label: str, parts: Sequence[str], width: float = WIDTH) -> str:
    """A drawing that fills its container, with a name for those who cannot see it."""
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">\n'
        f"{body}\n</svg>"
    )


def topology(calls: int, uplinks: Sequence[tuple[str, str]]) -> str:
    """Phones behind a gateway: `uplinks` are the names of its uplinks and what is said of each."""
    gap = 90.0
    height = max(250.0, gap * len(uplinks) + 70)
    middle = height / 2
    boxes = [
        (20, middle - 30, 150, "phones", f"{calls} × SIP-MN", ""),
        (290, middle - 30, 160, "sipnemo nms", "SIP-NMS, the gateway", "accent"),
        (610, middle - 30, 110, "internet", "router", ""),
        (800, middle - 95, 140, "sipnemo hs", "SIP-HS, registrar", "accent"),
        (800, middle + 35, 140, "far ends", f"{calls} × SIP-CN", ""),
    ]
    parts = [f'<path class="wire" d="M170 {middle}H290"/>', text(230, middle - 9, "LAN", "small", "middle")]
    for number, (name, words) in enumerate(uplinks):
        side = number - (len(uplinks) - 1) / 2
        near, far = middle + 30 * side / max(1, len(uplinks) - 1), middle + gap * side
        curve = f"M450 {near:.0f}C500 {far:.0f} 560 {far:.0f} 610 {near:.0f}"
        parts.append(f'<path class="line path{number + 1}" d="{curve}"/>')
        label = near + (far - near) * 0.75  # where a curve with these handles is in its middle
        parts.append(text(530, label - 8 if side < 0 else label + 17, name, "small strong", "middle"))
        parts.append(text(530, label - 23 if side < 0 else label + 32, words, "small", "middle"))
    parts.append(f'<path class="wire" d="M720 {middle - 10}L800 {middle - 60}M720 {middle + 10}L800 {middle + 60}"/>')
    for x, y, width, name, what, kind in boxes:
        parts.append(f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="60" rx="10"/>')
        parts.append(text(x + width / 2, y + 27, name, "strong", "middle"))
        parts.append(text(x + width / 2, y + 45, what, "small", "middle"))
    return svg(height, "Phones behind a gateway with its uplinks to the internet, home server and far ends", parts)


def timeline(tracks: Sequence[Track], events: Sequence[Event], start: float, end: float) -> str:
    """Packets per second of every track over the run, with what was done to the world."""
    events = [event for event in events if not event.minor]
    left, right, row, gap, top = 112.0, WIDTH - 24.0, 58.0, 16.0, 26.0 + 15.0 * len(events)
    span = max(end - start, 0.1)
    bins = 320
    peak = max([1, *(max(histogram(track.arrivals, start, span, bins)) for track in tracks)])

    def x(at: float) -> float:
        return left + (right - left) * (at - start) / span

    bottom = top + len(tracks) * (row + gap)
    parts = []
    step = nice_step(span)
    for tick in range(int(span / step) + 1):
        at = start + tick * step
        parts.append(f'<path class="grid" d="M{x(at):.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(text(x(at), bottom + 16, f"{tick * step:g} s", "small", "middle"))
    for number, track in enumerate(tracks):
        base = top + number * (row + gap) + row
        parts.append(text(left - 10, base - row / 2 + 4, track.name, "strong", "end"))
        parts.append(f'<path class="axis" d="M{left:.1f} {base:.1f}H{right:.1f}"/>')
        parts.append(area(histogram(track.arrivals, start, span, bins), left, right, base, row, peak, track.colour))
        if track.dropped:
            lost = histogram(track.dropped, start, span, bins)
            parts.append(area(lost, left, right, base, row, peak, "lost"))
    for number, event in enumerate(events):
        y = 16 + 15.0 * number
        at = x(event.at)
        parts.append(f'<path class="mark" d="M{at:.1f} {y + 3:.1f}V{bottom:.1f}"/>')
        words = f"{event.at - start:.1f} s  {event.text}"
        late = at > left + 0.7 * (right - left)
        parts.append(text(at - 5 if late else at + 5, y + 4, words, "small", "end" if late else "start"))
    return svg(bottom + 28, "Packets per path and direction over time", parts)


def histogram(arrivals: Sequence[float], start: float, span: float, bins: int) -> list[int]:
    """Packets per bin."""
    counts = [0] * bins
    for at in arrivals:
        if start <= at < start + span:
            counts[min(int((at - start) / span * bins), bins - 1)] += 1
    return counts


def area(counts: Sequence[int], left: float, right: float, base: float, height: float, peak: float, colour: str) -> str:
    """Bins as a filled outline, unchanged stretches drawn as one."""
    width = (right - left) / len(counts)
    path, before = [f"M{left:.1f} {base:.1f}"], 0
    for number, count in enumerate(counts):
        if count != before:
            path.append(f"H{left + number * width:.1f}V{base - height * count / peak:.1f}")
            before = count
    return f'<path class="area {colour}" d="{"".join(path)}H{right:.1f}V{base:.1f}Z"/>'


def ladder(chart: Ladder) -> str:
    """The messages as arrows between lifelines, top to bottom, equally spaced, with their times."""
    left, top, row = 78.0, 56.0, 27.0
    width = (WIDTH - left) / len(chart.columns)
    place = {key: left + (number + 0.5) * width for number, (key, _name, _kind) in enumerate(chart.columns)}
    rows: list[tuple[float, Arrow | Event]] = sorted(
        [(arrow.at, arrow) for arrow in chart.arrows] + [(mark.at, mark) for mark in chart.marks],
        key=lambda entry: entry[0],
    )
    zero = chart.marks[0].at if chart.marks else (rows[0][0] if rows else 0.0)
    bottom = top + row * (len(rows) + 0.6)
    parts = []
    for key, name, kind in chart.columns:
        parts.append(f'<path class="life {kind}" d="M{place[key]:.1f} {top - 12:.1f}V{bottom:.1f}"/>')
        for number, words in enumerate(name.split("\n")):
            parts.append(text(place[key], top - 34 + 15 * number, words, "small" if number else "strong", "middle"))
    for number, (at, entry) in enumerate(rows):
        y = top + row * (number + 1)
        parts.append(text(left - 14, y + 4, f"{(at - zero) * 1e3:+.0f} ms", "small", "end"))
        if isinstance(entry, Event):
            parts.append(f'<path class="mark" d="M{left:.1f} {y:.1f}H{WIDTH:.1f}"/>')
            parts.append(text((left + WIDTH) / 2, y - 5, entry.text, "strong", "middle"))
        else:
            parts.append(arrow_svg(entry, place[entry.source], place[entry.target], y, chart))
    return svg(bottom + 10, chart.title, parts)


def arrow_svg(arrow: Arrow, start: float, end: float, y: float, chart: Ladder) -> str:
    """One arrow, in the colour of the path it took; a cross where it was swallowed."""
    kinds = {key: kind for key, _name, kind in chart.columns}
    colour = kinds[arrow.source] or kinds[arrow.target]
    way = 1 if end > start else -1
    stop = (start + end) / 2 if arrow.dropped else end - 2 * way
    head = (
        f"M{stop - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
        if arrow.dropped
        else f"M{stop - 8 * way:.1f} {y - 4:.1f}L{stop:.1f} {y:.1f}L{stop - 8 * way:.1f} {y + 4:.1f}"
    )
    words = text((start + end) / 2, y - 5, arrow.text, "small" + (" gone" if arrow.dropped else ""), "middle")
    return f'<path class="arrow {colour}" d="M{start:.1f} {y:.1f}H{stop:.1f}{head}"/>{words}'

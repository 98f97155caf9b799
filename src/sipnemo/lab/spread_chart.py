"""The spread of the gaps of many calls, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sipnemo.lab.charts import WIDTH, svg, text
from sipnemo.lab.spread import SHOWN


def drawing(move: Mapping[str, Any]) -> str:
    """Of one move of report.json: how many calls had which gap, up and down beside each other."""
    height, base, room = 150.0, 112.0, 80.0
    half = WIDTH / len(SHOWN)
    parts = []
    for number, (name, words) in enumerate(SHOWN.items()):
        found = move["histogram"][name]
        calls, start, step = found["calls"], found["start"], found["step"]
        left, right = number * half + 30, (number + 1) * half - 30
        width = (right - left) / max(1, len(calls))
        figure = move[name]
        said = f"{words}: p50 {figure['median']:g}, p99 {figure['p99']:g}, worst {figure['worst']:g}"
        parts.append(text(left, 18, said, "strong"))
        parts.append(f'<path class="axis" d="M{left:.1f} {base:.1f}H{right:.1f}"/>')
        most = max([1, *calls])
        for place, one in enumerate(calls):
            x, tall = left + place * width, room * one / most
            if one:
                shape = f"M{x + 1:.1f} {base:.1f}V{base - tall:.1f}H{x + width - 1:.1f}V{base:.1f}Z"
                parts.append(f'<path class="area path1" d="{shape}"/>')
                parts.append(text(x + width / 2, base - tall - 4, str(one), "small", "middle"))
            if place % max(1, len(calls) // 6) == 0:
                parts.append(text(x, base + 16, f"{start + place * step:g}", "small", "middle"))
        parts.append(text(right, base + 16, f"{start + len(calls) * step:g}", "small", "middle"))
    return svg(height, f"Calls by their gap: {move['event']}", parts)

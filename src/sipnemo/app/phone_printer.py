"""What `sipnemo phone` prints: JSON lines for programs, short lines and a table of gaps for people."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from sipnemo.shell.rtp_reception import StreamReport

_SHOWN_FIRST = ("account", "peer", "call_id")


class Printer:
    """Writes to standard output, one whole line at a time, at once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something happened now."""
        at = round(time.monotonic(), 6)
        if self._as_json:
            self._write(json.dumps({"event": name, "t": at, **fields}))
            return
        first = [str(fields[key]) for key in _SHOWN_FIRST[:2] if fields.get(key)]
        rest = [f"{key}={value}" for key, value in fields.items() if key not in _SHOWN_FIRST and value != ""]
        if fields.get("call_id"):
            rest.append(f"call_id={str(fields['call_id'])[:12]}")
        self._write("  ".join((time.strftime("%H:%M:%S"), f"{name:<15}", *first, " ".join(rest))).rstrip())

    def stream(self, report: StreamReport) -> None:
        """How the media of one call went."""
        if self._as_json:
            self._write(json.dumps({"event": "stream", "t": round(time.monotonic(), 6), **report.as_json()}))
            return
        lines = [
            f"          media of {report.account}: {report.sent} packets sent, {report.packets} received, "
            f"{report.lost} lost, {report.duplicates} twice, {report.reordered} out of order"
        ]
        if report.gaps:
            lines.append("          gap at (s)      silence (ms)   lost  from then on")
            began = report.first_at or 0.0
            for gap in report.gaps:
                lines.append(f"          {gap.at - began:10.3f}  {gap.gap_ms:16.1f} {gap.lost:6d}  {gap.source}")
        self._write("\n".join(lines))

    @staticmethod
    def _write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

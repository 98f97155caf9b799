"""Instants as SIP writes them (RFC 3261 §20.17)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_last: list[tuple[int, str]] = [(-1, "")]


def http_date(wall: float) -> str:
    """The Date header's value for this instant, whatever the locale."""
    second = int(wall)
    if _last[0][0] != second:
        at = datetime.fromtimestamp(second, UTC)
        text = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} GMT"
        _last[0] = (second, text)
    return _last[0][1]

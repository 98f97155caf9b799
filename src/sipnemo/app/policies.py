"""Policies by name: entry points of the group `sipnemo.policies`, ours and those of other installed packages (MH-6)."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sipnemo.app.config import SettingError

GROUP = "sipnemo.policies"


@cache
def known() -> dict[str, EntryPoint]:
    """Every installed policy, by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def unknown(name: str) -> str:
    """What to tell an operator who named a policy that is not installed."""
    close = get_close_matches(name, known(), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f'"{name}" is not an installed policy{hint} (installed: {", ".join(known())})'


def load(name: str) -> Any:
    """The policy of that name; raises SettingError with what to do when it cannot be loaded."""
    if name not in known():
        raise SettingError(unknown(name))
    point = known()[name]
    try:
        policy = point.load()
    except (ImportError, AttributeError) as error:
        raise SettingError(f'policy "{name}" ({point.value}) cannot be loaded: {error}') from error
    if not callable(policy):
        raise SettingError(f'policy "{name}" ({point.value}) is not a function')
    return policy

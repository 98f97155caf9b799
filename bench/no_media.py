"""`sipnemo nms` that drives no media plane: its signalling alone, beside peers that forward no media either.

Descriptions are still rewritten and ports allocated; only nothing is told to the kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from sipnemo.app.cli import main
from sipnemo.media.flow import FlowKey, MediaFlow, MediaPath
from sipnemo.shell import server
from sipnemo.shell.media_plane import Opened, PlaneStatistics


class NoPlane:
    """A media plane that forwards nothing."""

    kind = "userspace"

    def attach(self, devices: Iterable[str]) -> None:
        """Nothing."""

    def refresh_routes(self) -> None:
        """Nothing."""

    def add(self, flows: Sequence[MediaFlow]) -> None:
        """Nothing."""

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Nothing."""

    def set_path(self, path: MediaPath) -> None:
        """Nothing."""

    def counters(self, keys: Iterable[FlowKey] | None = None) -> dict[FlowKey, tuple[int, int]]:
        """Nothing."""
        return {}

    def statistics(self) -> PlaneStatistics:
        """Nothing."""
        return PlaneStatistics(0, 0, 0, 0, 0, "")

    def close(self) -> None:
        """Nothing."""


server.open_plane = lambda *_: Opened(NoPlane(), "bench")
sys.exit(main(sys.argv[1:]))

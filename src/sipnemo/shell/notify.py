"""Tell the service manager how we are (systemd's NOTIFY_SOCKET protocol), without a library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """Sends READY=1, STOPPING=1 and, when asked for, WATCHDOG=1; silent when nobody listens."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_every = _watchdog_interval(environment)
        self._watchdog: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """The service does its work from now on."""
        self._tell("READY=1\nSTATUS=serving")
        self._feed_watchdog()

    def stopping(self) -> None:
        """The service is saying its goodbyes."""
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Send nothing more."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _feed_watchdog(self) -> None:
        # From the loop itself: when the loop hangs, the watchdog bites.
        if self._watchdog_every > 0:
            self._tell("WATCHDOG=1")
            self._watchdog = asyncio.get_running_loop().call_later(self._watchdog_every, self._feed_watchdog)

    def _tell(self, state: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)


def _watchdog_interval(environment: Mapping[str, str]) -> float:
    """Half of the time the service manager allows between signs of life; 0 when it wants none from this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 2_000_000
    except ValueError:
        return 0.0

"""Notice lost carriers that the kernel is slow to tell of.

The kernel tells of carrier changes at most once a second, for all interfaces of all namespaces together: when any of
them (a container's, say) has changed a moment ago, news of a dead uplink comes up to a second late. The state itself
is right at once, so it is read a few times a packet interval, in a thread, because reading may wait for the kernel's
configuration lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self

from sipnemo.shell.netlink import NETLINK_ROUTE, NLM_F_REQUEST, attribute

logger = logging.getLogger("sipnemo.shell")

LOOK_EVERY = 0.015

RTM_NEWLINK, RTM_GETLINK = 16, 18
IFLA_EXT_MASK = 29
RTEXT_FILTER_SKIP_STATS = 8
IFF_LOWER_UP = 0x10000
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")  # struct ifinfomsg
_MASK = attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))


class CarrierWatch:
    """Looks at some interfaces; `lost` is called, in the event loop, with the index of one that has no carrier."""

    def __init__(self, lost: Callable[[int], object], every: float = LOOK_EVERY) -> None:
        self._lost = lost
        self._every = every
        self._watched: tuple[int, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._look, name="carrier", daemon=True)
        self._thread.start()

    def watch(self, indexes: Iterable[int]) -> None:
        """Look at these from now on, and at no others."""
        self._watched = tuple(indexes)
        if self._watched:
            self._wanted.set()
        else:
            self._wanted.clear()

    def close(self) -> None:
        """Look no more."""
        self._ended = True
        self._wanted.set()
        self._thread.join(2.0)

    def _look(self) -> None:
        seen: tuple[int, ...] = ()
        told: set[int] = set()
        try:
            with Carriers() as carriers:
                while self._wanted.wait() and not self._ended:
                    watched = self._watched
                    if watched is not seen:  # every `watch` is a new order, also for what was told before
                        seen = watched
                        told.clear()
                    for index in watched:
                        if index not in told and not carriers.present(index):
                            told.add(index)
                            with contextlib.suppress(RuntimeError):  # the loop has ended
                                self._loop.call_soon_threadsafe(self._lost, index)
                    time.sleep(self._every)  # waiting for an Event instead costs several times as much
        except OSError as error:
            logger.warning("Carriers are not looked at any more: %s", error.strerror)


class Carriers:
    """Reads the carrier of one interface after the other, with as little ado as possible."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._answer = bytearray(1 << 14)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def present(self, index: int) -> bool:
        """Whether the interface has a carrier; True also when it does not exist (which the kernel tells at once)."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = _LINK.pack(0, 0, 0, index, 0, 0) + _MASK
        header = _HEADER.pack(_HEADER.size + len(body), RTM_GETLINK, NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            self._socket.recv_into(self._answer)
            _length, kind, _flags, sequence, _port = _HEADER.unpack_from(self._answer)
            if sequence == self._sequence:
                break
        return kind != RTM_NEWLINK or bool(_LINK.unpack_from(self._answer, _HEADER.size)[4] & IFF_LOWER_UP)

"""One TCP or TLS connection: framing, keep-alives, bounded output, idle end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol

from sipnemo.roles.node import Input, Received
from sipnemo.sip.flow import Flow
from sipnemo.sip.framer import FramingError, StreamFramer


class Owner(Protocol):
    """What a connection needs from the table it is in."""

    max_message: int
    idle_after: float
    stall_after: float
    max_output: int

    def feed(self, input: Input) -> None:
        """Bring an input to the node."""

    def opened(self, connection: Connection) -> None:
        """The connection can be used."""

    def released(self, connection: Connection) -> None:
        """Its socket is closed, whoever wanted that."""

    def ended(self, connection: Connection, reason: str) -> None:
        """The connection is gone; `reason` is empty when the far end closed it in good order."""


class Connection(asyncio.Protocol):
    """Speaks on one flow; made for every connection, whoever opened it."""

    def __init__(self, owner: Owner, flow: Flow, accepted: bool) -> None:
        self.flow = flow
        self.was_open = False
        "Whether it ever could be used."

        self._owner = owner
        self._accepted = accepted
        self._framer = StreamFramer(owner.max_message)
        self._pongs = 0
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._waiting_octets = 0
        self._idle: asyncio.TimerHandle | None = None
        self._last_used = 0.0
        self._ended = False
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._ended:
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Data that is not acknowledged for this long means that the path is dead, minutes before TCP thinks so.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._owner.stall_after * 1000))
        self.was_open = True
        loop = asyncio.get_running_loop()
        self._last_used = loop.time()
        self._idle = loop.call_later(self._owner.idle_after, self._check_idle)
        self._owner.opened(self)
        if self._waiting:
            transport.writelines(self._waiting)
            self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._last_used = asyncio.get_running_loop().time()
        try:
            messages = self._framer.feed(data)
        except FramingError as error:
            if self._transport is not None and not self._ended:
                if error.response:
                    self._transport.write(error.response)
                self._why = error.reason
                self._transport.close()
            return
        for message in messages:
            if self._ended:
                return
            self._owner.feed(Received(message, self.flow))
        # Whoever opened the connection pings and the other side answers; to answer everybody would let two
        # programs of this kind answer each other's answers.
        if self._accepted and self._framer.pings > self._pongs and self._transport is not None and not self._ended:
            self._transport.write(b"\r\n" * (self._framer.pings - self._pongs))
        self._pongs = self._framer.pings

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._owner.released(self)
        self._end(self._why or (_words(error) if error is not None else ""))

    def send(self, data: bytes) -> bool:
        """Send a message, at the latest when the connection is open; False when too much is waiting already."""
        if self._transport is None:
            if self._waiting_octets + len(data) > self._owner.max_output:
                return False
            self._waiting_octets += len(data)
            self._waiting.append(data)
            return True
        if self._transport.get_write_buffer_size() + len(data) > self._owner.max_output:
            return False
        self._last_used = asyncio.get_running_loop().time()
        self._transport.write(data)
        return True

    def failed(self, reason: str) -> None:
        """The connection could not be opened."""
        self._end(reason)

    def close(self) -> None:
        """End at once and say nothing about it."""
        self._ended = True
        self._cancel_idle()
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Send what is waiting, then end, and say nothing about it."""
        self._ended = True
        self._cancel_idle()
        if self._transport is not None:
            self._transport.close()

    @property
    def unsent(self) -> bool:
        """Whether something is still waiting to be sent."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _check_idle(self) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        left = self._last_used + self._owner.idle_after - loop.time()
        if left > 0:
            self._idle = loop.call_later(left, self._check_idle)
        else:
            self._idle = None
            self._transport.close()

    def _end(self, reason: str) -> None:
        self._cancel_idle()
        if not self._ended:
            self._ended = True
            self._owner.ended(self, reason)

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

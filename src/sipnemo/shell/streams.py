"""SIP over TCP and TLS: listeners, and a table of connections by flow so that sends reuse what is open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from sipnemo.roles.node import Closed, Count, Input, Link, Send, SendFailed
from sipnemo.shell import sockets
from sipnemo.shell.connection import Connection
from sipnemo.shell.tls import Tls
from sipnemo.sip.flow import Flow, Local

logger = logging.getLogger("sipnemo.shell")

RETRY_EVERY = 1.0
BACKLOG = 256
SAY_EVERY = 60.0
"Seconds between two lines about refused connections."


class Streams:
    """All listeners and connections of the process."""

    def __init__(
        self,
        feed: Callable[[Input], None],
        *,
        tls: Tls | None = None,
        count: Callable[[Count], object] = lambda _count: None,
        max_message: int = 65536,
        max_output: int = 1 << 20,
        max_connections: int = 10_000,
        max_per_source: int = 256,
        connect_within: float = 5.0,
        idle_after: float = 900.0,
        stall_after: float = 20.0,
    ) -> None:
        self.feed = feed
        self.max_message = max_message
        self.max_output = max_output
        self.idle_after = idle_after
        self.stall_after = stall_after
        self._tls = tls
        self._count = count
        self._max_connections = max_connections
        self._max_per_source = max_per_source
        self._accepted: dict[str, set[Connection]] = {}
        "Accepted connections by where they come from."
        self._refused = 0
        "Since that was last said."
        self._said_at = float("-inf")
        self._connect_within = connect_within
        self._listeners: dict[Local, _Listener] = {}
        self._wanted: dict[Local, str] = {}
        "Asked for but not open, with the last reason why not."

        self._connections: dict[Flow, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ifindex: dict[str, int] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open(self) -> frozenset[Local]:
        """The listening points that have a listener now."""
        return frozenset(self._listeners)

    @property
    def flows(self) -> frozenset[Flow]:
        """The flows that have a connection, open or being opened."""
        return frozenset(self._connections)

    def listen(self, local: Local) -> None:
        """Open a listener now, or as soon as its address is there."""
        if local.transport == "TLS" and (self._tls is None or self._tls.server is None):
            where = sockets.endpoint(*local)
            logger.error("%s cannot be listened on: set cert and key in [tls]", where)
        elif local not in self._listeners and local not in self._wanted:
            self._wanted[local] = ""
            self._try(local)
            self._schedule()

    def unlisten(self, local: Local) -> None:
        """Close the listener, the connections it accepted and those opened from this address."""
        self._wanted.pop(local, None)
        if (listener := self._listeners.pop(local, None)) is not None:
            listener.close()
        for flow in [flow for flow in self._connections if flow.local == local]:
            self._connections.pop(flow).close()

    def send(self, action: Send) -> None:
        """Send a message on the flow's connection; opens one when there is none."""
        flow = action.flow
        connection = self._connections.get(flow)
        if connection is None:
            if len(self._connections) >= self._max_connections:
                self._failed(flow, f"{self._max_connections} connections are open already")
                return
            connection = self._connections[flow] = Connection(self, flow, accepted=False)
            task = asyncio.get_running_loop().create_task(self._connect(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not connection.send(action.data):
            # The far end does not read: what waits is lost with the connection, and the node hears it once.
            self._count(Count("stream_overflows"))
            self._connections.pop(flow).close()
            self._failed(flow, "the far end does not take what is sent")

    def link_changed(self, link: Link) -> None:
        """Try again what waits for an address; drop what was bound to an interface that has been re-created."""
        before = self._ifindex.get(link.name)
        self._ifindex[link.name] = link.ifindex
        if before is not None and before != link.ifindex:
            for local in [local for local in self._listeners if local.device == link.name]:
                self._listeners.pop(local).close()
                self._wanted[local] = ""
            for flow in [flow for flow in self._connections if flow.local.device == link.name]:
                self._connections.pop(flow).close()
                self._failed(flow, f"{link.name} is gone")
        for local in list(self._wanted):
            self._try(local)
        self._schedule()

    async def close(self, within: float = 1.0) -> None:
        """Close every listener, and every connection once what is waiting to be sent has left (bounded)."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._wanted.clear()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for task in list(self._tasks):
            task.cancel()
        for connection in self._connections.values():
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while any(connection.unsent for connection in self._connections.values()):
                    await asyncio.sleep(0.01)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets asyncio close what was aborted

    # ------------------------------------------------------------------------- what connections tell (see Owner)

    def opened(self, connection: Connection) -> None:
        """An accepted connection enters the table; of the flow's earlier one nothing more is expected."""
        before = self._connections.get(connection.flow)
        if before is not connection:
            if before is not None:
                before.close()
            self._connections[connection.flow] = connection

    def ended(self, connection: Connection, reason: str) -> None:
        """A connection leaves the table, and the node hears why."""
        if self._connections.get(connection.flow) is connection:
            del self._connections[connection.flow]
        if not self._closed:
            if reason:
                self.feed(SendFailed(connection.flow, reason))
            if connection.was_open:
                self.feed(Closed(connection.flow))

    def released(self, connection: Connection) -> None:
        """A connection's socket is closed: its source may open another."""
        source = _source(connection.flow.remote[0])
        held = self._accepted.get(source)
        if held is not None:
            held.discard(connection)
            if not held:
                del self._accepted[source]

    # ------------------------------------------------------------------------------------------------- listening

    def _try(self, local: Local) -> None:
        try:
            self._listeners[local] = _Listener(self, local)
        except OSError as error:
            why = sockets.why_not_bound(error, sockets.endpoint(*local), local.port)
            if why != self._wanted[local]:
                self._wanted[local] = why
                waits = error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV)
                logger.log(logging.INFO if waits else logging.ERROR, "%s (retried until it works)", why)
        else:
            del self._wanted[local]

    def _schedule(self) -> None:
        if self._wanted and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_EVERY, self._try_all)

    def _try_all(self) -> None:
        self._retry = None
        for local in list(self._wanted):
            self._try(local)
        self._schedule()

    def accept(self, local: Local, sock: socket.socket, address: Any) -> None:
        """A listener has a new connection."""
        remote = (address[0].partition("%")[0], address[1])
        source = _source(remote[0])
        if len(self._connections) + len(self._tasks) >= self._max_connections:
            self._refuse(sock, f"{self._max_connections} are open already")
            return
        if len(self._accepted.get(source, ())) >= self._max_per_source:
            self._refuse(sock, f"{self._max_per_source} from {source} are open already")
            return
        connection = Connection(self, Flow(local, remote), accepted=True)
        self._accepted.setdefault(source, set()).add(connection)
        task = asyncio.get_running_loop().create_task(self._adopt(connection, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, connection: Connection, sock: socket.socket) -> None:
        context = self._tls.server if connection.flow.local.transport == "TLS" and self._tls is not None else None
        try:
            async with asyncio.timeout(self._connect_within):
                await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock, ssl=context)
        except (OSError, TimeoutError) as error:
            sock.close()
            self.released(connection)
            self._count(Count("stream_refused"))
            logger.debug("No TLS with %s: %s", connection.flow.remote, error)
        except asyncio.CancelledError:
            sock.close()
            self.released(connection)
            raise

    def _refuse(self, sock: socket.socket, why: str) -> None:
        sock.close()
        self._count(Count("stream_refused"))
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._said_at + SAY_EVERY:
            logger.warning("Connections refused: %d, the last because %s", self._refused, why)
            self._said_at, self._refused = now, 0

    # ------------------------------------------------------------------------------------------------ connecting

    async def _connect(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._connect_within):
                await self._open(connection)
        except TimeoutError:
            connection.failed(f"no connection within {self._connect_within:g} s")
        except ssl.SSLCertVerificationError as error:
            logger.warning(
                "%s shows a certificate that is not trusted: %s", connection.flow.remote, error.verify_message
            )
            connection.failed(f"certificate not trusted: {error.verify_message}")
        except ssl.SSLError as error:
            connection.failed(f"TLS failed: {error.reason or error}")
        except OSError as error:
            connection.failed(sockets.reason(error))

    async def _open(self, connection: Connection) -> None:
        local, remote = connection.flow
        if not sockets.is_literal(remote[0]):
            raise OSError(None, f"{remote[0]!r} is not an IP address")
        context: ssl.SSLContext | None = None
        name: str | None = None
        if local.transport == "TLS":
            if self._tls is None:
                raise OSError(None, "TLS is not configured")
            context, name = self._tls.client(remote[0])
        loop = asyncio.get_running_loop()
        sock = sockets.open_socket(socket.SOCK_STREAM, local.host, local.device)
        try:
            sock.bind((local.host, 0))
            await loop.sock_connect(sock, remote)
            await loop.create_connection(
                lambda: connection, sock=sock, ssl=context, server_hostname=(name or "") if context else None
            )
        except BaseException:
            sock.close()
            raise

    def _failed(self, flow: Flow, reason: str) -> None:
        self.feed(SendFailed(flow, reason))


def _source(host: str) -> str:
    """Who counts as one at a door: an IPv4 address, or an IPv6 site's network, which has addresses without end."""
    return str(ipaddress.ip_network((host, 64), strict=False)) if ":" in host else host


class _Listener:
    """One listening socket."""

    def __init__(self, owner: Streams, local: Local) -> None:
        self._owner = owner
        self._local = local
        self._sock = sock = sockets.open_socket(socket.SOCK_STREAM, local.host, local.device)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((local.host, local.port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Accept nothing more."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        for _turn in range(BACKLOG):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.error("A connection cannot be accepted: %s; raise LimitNOFILE", sockets.reason(error))
                    self._pause()
                    return
                if error.errno == errno.EBADF:
                    return
                continue  # that connection was reset while it waited
            sock.setblocking(False)
            self._owner.accept(self._local, sock, address)

    def _pause(self) -> None:
        # Level-triggered: without a pause the loop would spin until descriptors are free again.
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.call_later(1.0, self._resume)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._sock.fileno(), self._readable)

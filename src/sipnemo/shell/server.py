"""One process around one node: everything outside is opened, joined to the node, and closed again here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sipnemo.roles.node import (
    AddFlows,
    Count,
    Counted,
    Environment,
    Learned,
    Link,
    Listen,
    Log,
    Lookup,
    Node,
    Notice,
    Observe,
    Punch,
    ReadCounters,
    RemoveFlows,
    Reply,
    Send,
    SetPath,
    Store,
    Unlisten,
)
from sipnemo.shell import logs
from sipnemo.shell.admin import Admin, AdminError
from sipnemo.shell.check_routes import check_routes
from sipnemo.shell.links import Links
from sipnemo.shell.media_plane import MediaPlane, PlaneError, open_plane
from sipnemo.shell.metrics import Metrics
from sipnemo.shell.notify import ServiceManager
from sipnemo.shell.recording import Recorder
from sipnemo.shell.resolver import Resolver
from sipnemo.shell.runtime import STOP_WITHIN, Runtime
from sipnemo.shell.store import RowStore, StoreError, open_store
from sipnemo.shell.streams import Streams
from sipnemo.shell.tls import PeerNames, Tls, TlsError, TlsSettings
from sipnemo.shell.udp import Udp
from sipnemo.shell.uplink_routes import UplinkRoutes, paths_of

logger = logging.getLogger("sipnemo.shell")

CHECK_ROUTES_AFTER = 1.0
"Seconds after the last change of a link: by then the host's own tools have set their routes."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellSettings:
    """What the shell of a role must know; everything has a default that touches nothing but sockets."""

    role: str = "node"
    "nms, hs, fs or phone; for the log."

    interfaces: tuple[str, ...] = ()
    "Interfaces to watch; empty: all but loopback."

    uplinks: tuple[str, ...] = ()
    "Interface names or own addresses of the E-faces, for `manage_routes` and the check of routes."

    gateways: Mapping[str, Sequence[str]] = field(default_factory=dict)
    "Next hops per interface name or own address, where the main table has no default route through it."

    manage_routes: bool = False
    "Keep rules and tables for the uplinks (see uplink_routes.py)."

    media_plane: str = ""
    "auto, kernel or userspace; empty: this role forwards no media."

    store: str = "memory"
    "sqlite:PATH or memory."

    admin: str = ""
    "host:port or unix:/path; empty: no admin interface."

    tls: TlsSettings | None = None
    dns_servers: tuple[str, ...] = ()
    "Empty: the system's."

    dns_port: int = 53
    log_format: str = "text"
    "text or json; empty: the caller has set logging up."

    log_level: str = "info"
    record: str = ""
    "File for a recording of every input; empty: none."

    max_message: int = 65535
    max_connections: int = 10_000
    connect_within: float = 5.0
    idle_after: float = 900.0
    stop_within: float = STOP_WITHIN
    seed: str = ""
    "Randomness of the node, as hex; empty: fresh. To be set in tests only."


class ShellError(Exception):
    """The process cannot do its work; the text says why and what to do."""


async def serve(
    node_factory: Callable[[Environment], Node],
    settings: ShellSettings,
    *,
    on_notice: Callable[[Notice], object] = lambda _notice: None,
    attach: Callable[[Runtime], object] = lambda _runtime: None,
    stop: asyncio.Event | None = None,
) -> int:
    """Run a node until SIGTERM, SIGINT or `stop`; the process's exit status.

    `on_notice` hears every `Notice`; `attach` is called before the node is woken and may register performers of a
    role's own actions. Trouble that keeps the process from starting is one line in the log and status 1.
    """
    if settings.log_format:
        logs.configure(settings.log_format, settings.log_level)
    stop = asyncio.Event() if stop is None else stop
    try:
        async with contextlib.AsyncExitStack() as closing:
            closing.enter_context(_signals(stop))
            server = _Server(settings, on_notice)
            await server.open(node_factory, closing, attach)
            with _quiet_collector():
                await stop.wait()
            server.manager.stopping()
            logger.info("%s is stopping", settings.role)
            assert server.runtime is not None
            await server.runtime.stop(settings.stop_within)
    except (ShellError, StoreError, TlsError, PlaneError, AdminError) as error:
        logger.error("%s", error)
        return 1
    return 0


class _Server:
    """The parts, in the order they depend on each other; `closing` undoes each in reverse order."""

    def __init__(self, settings: ShellSettings, on_notice: Callable[[Notice], object]) -> None:
        self.settings = settings
        self.on_notice = on_notice
        self.manager = ServiceManager()
        self.metrics = Metrics()
        self.runtime: Runtime | None = None
        self.links: dict[str, Link] = {}
        self.peer_names = PeerNames()
        self.plane: MediaPlane | None = None
        self.routes: UplinkRoutes | None = None
        self.check: asyncio.TimerHandle | None = None
        self.destinations: tuple[str, ...] = ()
        "Addresses of the home server, as the node has located them: every uplink must reach them by itself."

    async def open(
        self,
        node_factory: Callable[[Environment], Node],
        closing: contextlib.AsyncExitStack,
        attach: Callable[[Runtime], object],
    ) -> None:
        """Open everything and wake the node."""
        settings, metrics = self.settings, self.metrics
        store = open_store(settings.store)
        closing.push_async_callback(store.close)
        environment = Environment(
            seed=settings.seed or secrets.token_hex(32),
            wall_clock=time.time() - time.monotonic(),
            stored=store.load(),
        )
        runtime = self.runtime = Runtime(node_factory(environment), recorder=self._recorder(environment))
        closing.callback(runtime.close)
        runtime.on_bug = lambda: metrics.count(Count("bugs"))
        # Last opened, first closed: the node is cut off before what it uses is closed.
        self._open_store(store, runtime)
        resolver = Resolver(
            runtime.feed, servers=settings.dns_servers, port=settings.dns_port, learn=self.peer_names.learn
        )
        closing.push_async_callback(resolver.close)
        self._open_transports(runtime, closing)
        self._open_plane(runtime, closing)
        closing.callback(self.manager.close)
        runtime.perform(Lookup, resolver.lookup)
        runtime.perform(Log, logs.write)
        runtime.perform(Count, metrics.count)
        runtime.perform(Observe, metrics.observe)
        runtime.perform(Notice, self._notice)
        await self._open_admin(runtime, closing)
        attach(runtime)
        closing.callback(runtime.close)
        runtime.start()
        self._watch_links(runtime, closing)

    def _recorder(self, environment: Environment) -> Recorder | None:
        path = self.settings.record
        if not path:
            return None
        try:
            return Recorder(path, environment)
        except OSError as error:
            raise ShellError(f"recording {path} cannot be written: {error.strerror}") from error

    @staticmethod
    def _open_store(store: RowStore, runtime: Runtime) -> None:
        store.start(runtime.feed)
        runtime.perform(Store, store.store)

    def _open_transports(self, runtime: Runtime, closing: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        udp = self.udp = Udp(runtime.feed, self.metrics.count)
        closing.callback(udp.close)
        streams = self.streams = Streams(
            runtime.feed,
            tls=Tls(replace(settings.tls, names=settings.tls.names or self.peer_names)) if settings.tls else None,
            count=self.metrics.count,
            max_message=settings.max_message,
            max_connections=settings.max_connections,
            connect_within=settings.connect_within,
            idle_after=settings.idle_after,
        )
        closing.push_async_callback(streams.close)
        udp.streams = streams.send
        runtime.perform(Send, udp.send)
        runtime.perform(Listen, lambda a: (udp if a.local.transport == "UDP" else streams).listen(a.local))
        runtime.perform(Unlisten, lambda a: (udp if a.local.transport == "UDP" else streams).unlisten(a.local))

    def _open_plane(self, runtime: Runtime, closing: contextlib.AsyncExitStack) -> None:
        if not self.settings.media_plane:
            return
        feed = runtime.feed
        plane, why = open_plane(self.settings.media_plane, lambda key, peer: feed(Learned(key, peer)))
        closing.callback(plane.close)
        logger.info("Media is forwarded by the %s plane: %s", plane.kind, why)
        self.plane = plane
        self.metrics.sources.append(lambda: _gauges(plane))
        loop = asyncio.get_running_loop()
        runtime.perform(AddFlows, lambda action: self._add_flows(plane, action))
        runtime.perform(RemoveFlows, lambda action: plane.remove(action.keys))
        runtime.perform(SetPath, lambda action: plane.set_path(action.path))
        runtime.perform(Punch, lambda action: plane.punch(*action))
        runtime.perform(
            ReadCounters,
            lambda action: loop.call_soon(feed, Counted(action.ticket, plane.counters(action.keys))),
        )

    def _add_flows(self, plane: MediaPlane, action: AddFlows) -> None:
        try:
            plane.add(action.flows)
        except OSError as error:
            # None of them is forwarded; the call hears it as silence, the operator here.
            self.metrics.count(Count("media_refused"))
            where = ", ".join(f"{flow.key.host}:{flow.key.port}" for flow in action.flows)
            logger.error("Media to %s cannot be forwarded: %s", where, error.strerror or error)

    async def _open_admin(self, runtime: Runtime, closing: contextlib.AsyncExitStack) -> None:
        admin = Admin(runtime.feed, self.metrics, listen=self.settings.admin)
        runtime.perform(Reply, admin.reply)
        if self.settings.admin:
            closing.push_async_callback(admin.close)
            await admin.start()

    def _watch_links(self, runtime: Runtime, closing: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        if settings.manage_routes:
            self.routes = UplinkRoutes(settings.uplinks, settings.gateways)
            closing.callback(self.routes.close)
        links = Links(lambda link: self._link_changed(runtime, link), settings.interfaces, self._routes_changed)
        closing.callback(links.close)
        closing.callback(self._cancel_check)
        try:
            links.start()
        except OSError as error:
            raise ShellError(f"interfaces cannot be watched: {error.strerror}") from error

    def _link_changed(self, runtime: Runtime, link: Link) -> None:
        self.links[link.name] = link
        if link.up:
            # Sockets, routes and next hops first, so that what the node sends on the new path leaves by it.
            self._prepare(link)
            runtime.feed(link)
        else:
            # A loss must not wait for housekeeping: every moment is a gap in somebody's call.
            runtime.feed(link)
            self._prepare(link)

    def _prepare(self, link: Link) -> None:
        self.udp.link_changed(link)
        self.streams.link_changed(link)
        if self.routes is not None:
            self.routes.link_changed(link)
        if self.plane is not None:
            try:
                self.plane.attach([name for name, known in self.links.items() if known.ifindex])
                self.plane.refresh_routes()
            except OSError as error:
                logger.error("Media cannot be forwarded on %s: %s", link.name, error.strerror or error)
        self._schedule_check()

    def _routes_changed(self) -> None:
        if self.routes is not None:
            self.routes.apply()
        if self.plane is not None:
            self.plane.refresh_routes()
        self._schedule_check()

    def _schedule_check(self) -> None:
        if self.destinations and not self.settings.manage_routes:
            self._cancel_check()
            self.check = asyncio.get_running_loop().call_later(CHECK_ROUTES_AFTER, self._check_routes)

    def _check_routes(self) -> None:
        self.check = None
        up = [link for link in self.links.values() if link.up]
        try:
            paths = list(paths_of(up, self.settings.uplinks, self.settings.gateways))
            messages = [message for address in self.destinations for message in check_routes(paths, address)]
            for message in dict.fromkeys(messages):
                logger.warning("%s", message)
        except OSError as error:
            logger.info("Routes cannot be checked: %s", error.strerror)

    def _cancel_check(self) -> None:
        if self.check is not None:
            self.check.cancel()
            self.check = None

    def _notice(self, notice: Notice) -> None:
        if notice.name == "ready":
            self.manager.ready()
            logger.info("%s is ready", self.settings.role)
        elif notice.name == "home":
            self.destinations = tuple(notice.body["addresses"])
            self._schedule_check()
        self.on_notice(notice)


def _gauges(plane: MediaPlane) -> dict[str, float]:
    held = plane.statistics()
    return {
        "media_kernel_flows": held.kernel_flows,
        "media_relayed_flows": held.relayed_flows,
        "media_unsent_packets": held.unsent,
        "media_plane_refusals": held.refused,
    }


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event."""
    loop = asyncio.get_running_loop()
    caught = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: the caller stops us
            loop.add_signal_handler(number, stop.set)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Let the garbage collector look at new objects only, and rarely: a full run takes as long as a packet gap."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

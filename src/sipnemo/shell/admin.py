"""The operator's door: JSON under /api, Prometheus under /metrics, /healthz.

Meant for the machine itself: by default it listens on loopback, and what a web page could make a browser ask
(cross-origin POSTs, names that suddenly point to 127.0.0.1) is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from sipnemo.roles.node import Command, Input, Reply
from sipnemo.shell.metrics import Metrics

logger = logging.getLogger("sipnemo.shell")

QUESTIONS = ("status", "paths", "bindings", "sessions", "moves", "what-if")
STATES = ("off", "on", "auto")
MOST_WAITING = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminError(Exception):
    """The admin interface cannot be opened; the text says why and what to do."""


class Admin:
    """Turns requests into `Command` inputs, and `Reply` actions into responses."""

    def __init__(
        self,
        feed: Callable[[Input], None],
        metrics: Metrics,
        *,
        listen: str = "127.0.0.1:8470",
        answer_within: float = 5.0,
    ) -> None:
        self._feed = feed
        self._metrics = metrics
        self._listen = listen
        self._answer_within = answer_within
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ticket = 0
        self._runner: web.AppRunner | None = None
        self.address = ""
        "Where it listens: host:port or unix:/path."

    def reply(self, action: Reply) -> None:
        """The node has answered a command."""
        future = self._waiting.pop(action.ticket, None)
        if future is not None and not future.done():
            future.set_result(action.result)

    async def start(self) -> None:
        """Open the door; raises AdminError."""
        app = web.Application(middlewares=[self._guard], client_max_size=65536)
        for name in QUESTIONS:
            app.router.add_get(f"/api/{name}", self._question)
        app.router.add_post("/api/path/{eface_id}", self._path)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await self._open()
        except OSError as error:
            await self.close()
            raise AdminError(
                f"[admin] listen = {self._listen!r} cannot be used: {error.strerror or error}; "
                "choose another, or listen = '' for none"
            ) from error

    async def close(self) -> None:
        """Close the door."""
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self.address.startswith("unix:"):
            Path(self.address[5:]).unlink(missing_ok=True)
        self.address = ""

    async def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The node's answer to a command; raises TimeoutError."""
        if len(self._waiting) >= MOST_WAITING:
            raise TimeoutError
        self._ticket += 1
        ticket = self._ticket
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            self._feed(Command(ticket, name, arguments))
            return await asyncio.wait_for(future, self._answer_within)
        finally:
            self._waiting.pop(ticket, None)

    async def _open(self) -> None:
        assert self._runner is not None
        site: web.BaseSite
        if self._listen.startswith("unix:"):
            path = Path(self._listen[5:])
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(path.stat().st_mode):
                    path.unlink()  # left behind by a process that was killed
            site = web.UnixSite(self._runner, str(path))
            await site.start()
            os.chmod(path, 0o660)
            self.address = self._listen
            return
        host, _, port = self._listen.rpartition(":")
        if not host or not port.isdigit():
            raise OSError(None, "write it as host:port or unix:/path")
        site = web.TCPSite(self._runner, host.strip("[]"), int(port))
        await site.start()
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.address = f"{shown}:{bound[1]}"
        with contextlib.suppress(ValueError):
            if not ipaddress.ip_address(bound[0]).is_loopback:
                logger.warning(
                    "[admin] listen = %r lets everybody who reaches this address see and move calls; "
                    "put a firewall or an authenticating proxy in front",
                    self._listen,
                )

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not self.address.startswith("unix:") and not _is_own_name(request.host):
                return _error(403, f"{request.host!r} is not an address of this server")
            origin = request.headers.get("Origin")
            if origin is not None and origin.partition("://")[2] != request.host:
                return _error(403, "requests from web pages of other sites are refused")
            if request.method == "POST" and request.content_type != "application/json":
                return _error(415, "send JSON, with Content-Type: application/json")
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _error(error.status, error.reason)
        except TimeoutError:
            return _error(504, "no answer in time")

    async def _question(self, request: web.Request) -> web.Response:
        return _answer(await self.ask(request.path.rpartition("/")[2], dict(request.query)))

    async def _path(self, request: web.Request) -> web.Response:
        eface_id = request.match_info["eface_id"]
        if not (eface_id.isascii() and eface_id.isdigit()) or len(eface_id) > 9:
            return _error(400, f"{eface_id!r} is not an E-face ID (a number)")
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "the body is not JSON")
        state = body.get("state") if isinstance(body, dict) else None
        if state not in STATES:
            return _error(400, 'say {"state": "off"}, {"state": "on"} or {"state": "auto"}')
        return _answer(await self.ask("path", {"eface_id": int(eface_id), "state": state}))

    async def _scrape(self, _request: web.Request) -> web.Response:
        try:
            status = await self.ask("status", {})
        except TimeoutError:
            status = {}
        return web.Response(
            body=self._metrics.text(status if isinstance(status, dict) else {}),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _healthz(self, _request: web.Request) -> web.Response:
        await self.ask("status", {})
        return web.Response(text="ok\n")


def _answer(result: Any) -> web.Response:
    failed = isinstance(result, dict) and "error" in result
    return web.Response(
        text=json.dumps(result, default=str) + "\n", status=400 if failed else 200, content_type="application/json"
    )


def _error(status: int, text: str) -> web.Response:
    return web.Response(text=json.dumps({"error": text}) + "\n", status=status, content_type="application/json")


def _is_own_name(host: str) -> bool:
    """Whether a browser cannot have been led here by a name: addresses and localhost only."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.strip("[]")
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

"""`sipnemo nms` and `sipnemo hs`: from the configuration file to a running node."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from sipnemo.app import policies
from sipnemo.app.config import Config, ConfigError, Row, SettingError, read
from sipnemo.app.instance import instance_in
from sipnemo.app.settings import hs_settings, nms_settings
from sipnemo.roles.node import Environment, Node
from sipnemo.shell import logs, server
from sipnemo.shell.intercept import InterceptError, intercepting
from sipnemo.shell.server import ShellSettings
from sipnemo.shell.tls import TlsSettings

FAILED = 1
BAD_CONFIG = 78
"EX_CONFIG of sysexits.h: the service manager need not try again before the file is mended."

logger = logging.getLogger("sipnemo.app")

Factory = Callable[[Environment], Node]


def serve(command: str, arguments: argparse.Namespace) -> int:
    """Run a server until it is told to stop; the exit status."""
    try:
        config = read(arguments.config, command)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    admin = config.table("admin")
    logs.configure(arguments.log or admin["log"], arguments.log_level or admin["log_level"])
    for warning in config.warnings:
        logger.warning("%s", warning)
    try:
        factory, settings = _gateway(config) if command == "nms" else _home_server(config)
        with _interception(config):
            return asyncio.run(server.serve(factory, dataclasses.replace(settings, record=arguments.record or "")))
    except (InterceptError, SettingError) as error:
        logger.error("%s", error)
        return FAILED


def _interception(config: Config) -> AbstractContextManager[None]:
    """What `intercept = true` asks for, while the server runs."""
    if config.schema.command != "nms" or not config.table("nms")["intercept"]:
        return nullcontext()
    iface = config.table("iface")
    return intercepting(iface["interface"], {t: iface["port"] for t in iface["transports"] if t in ("UDP", "TCP")})


def _gateway(config: Config) -> tuple[Factory, ShellSettings]:
    from sipnemo.roles.nms.node import MobilityServer

    settings = nms_settings(config, instance_in(config.table("nms")["state_dir"]))
    policy = policies.load(settings.policy.name)
    return lambda environment: MobilityServer(settings, environment, policy), gateway_shell(config)


def _home_server(config: Config) -> tuple[Factory, ShellSettings]:
    from sipnemo.roles.hs.node import HomeServer

    settings = hs_settings(config)
    return lambda environment: HomeServer(settings, environment), _shell(config, config.table("hs")["store"])


def gateway_shell(config: Config) -> ShellSettings:
    """What the shell of a SIP-NMS must know."""
    nms, efaces = config.table("nms"), config.tables["eface"]
    uplinks = tuple(_where(row) for row in efaces)
    return dataclasses.replace(
        _shell(config, "state:" + str(Path(nms["state_dir"], "nms.db"))),
        interfaces=_interfaces([config.table("iface"), *efaces]),
        uplinks=uplinks,
        gateways={_where(row): (row["gateway"],) for row in efaces if "gateway" in row},
        manage_routes=nms["manage_routes"],
        media_plane=config.table("media")["plane"],
    )


def _shell(config: Config, store: str) -> ShellSettings:
    """What the shell of either server must know."""
    return ShellSettings(
        role=config.schema.command,
        store=store,
        admin=config.table("admin")["listen"],
        tls=TlsSettings(**config.table("tls")),
        max_message=config.table("limits")["message"],
        log_format="",  # set up before, for what is said before the shell starts
    )


def _where(row: Row) -> str:
    return str(row.get("address") or row["interface"])


def _interfaces(rows: list[Row]) -> tuple[str, ...]:
    """The interfaces to watch; none, meaning all but loopback, where an address may be on any of them."""
    addresses = [row["address"] for row in rows if "address" in row]
    if any(ipaddress.ip_address(address).is_loopback for address in addresses):
        return tuple(name for _, name in socket.if_nameindex())
    return () if addresses else tuple(row["interface"] for row in rows)

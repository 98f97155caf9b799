"""`sipnemo check`: every mistake of a configuration file, or what the file means."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sipnemo.app.config import Config, ConfigError, examine
from sipnemo.sip.flow import Address


def check_file(path: str) -> int:
    """Print the verdict; 0 when the file can be used."""
    try:
        config = examine(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in config.problems:
        print(f"{problem} (warning)" if problem.warning else problem, file=sys.stderr)
    if config.errors:
        count = len(config.errors)
        print(f"{path}: {count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        return 1
    print(f"{path}: ok")
    for line in meaning(config):
        print(f"  {line}")
    return 0


def meaning(config: Config) -> Iterator[str]:
    """What a configuration without mistakes means, line by line."""
    yield from _gateway(config) if config.schema.command == "nms" else _home_server(config)
    admin = config.table("admin")["listen"]
    yield "admin: " + (admin if admin.startswith("unix:") else f"http://{admin}" if admin else "off")


def _gateway(config: Config) -> Iterator[str]:
    nms, iface, media, limits = (config.table(name) for name in ("nms", "iface", "media", "limits"))
    yield f'gateway "{nms["account"]}" of {nms["home"]}, state in {nms["state_dir"]}'
    if nms["home_addresses"]:
        yield f"home server at {', '.join(nms['home_addresses'])}"
    yield f"phones: {_where(iface)}, {_ports(iface)}"
    for eface in sorted(config.tables["eface"], key=lambda row: int(row["priority"])):
        extra = f", capacity {eface['capacity'] / 1e6:g} Mbit/s" if "capacity" in eface else ""
        extra += f", next hop {eface['gateway']}" if "gateway" in eface else ""
        extra += f", known outside as {eface['external']}" if "external" in eface else ""
        extra += {"mapped": ", media by the address that a NAT has for it", "none": ", no NAT"}.get(eface["nat"], "")
        yield f"uplink {eface['id']}: {_where(eface)}, priority {eface['priority']}, {_ports(eface)}{extra}"
    yield f"path of a call: policy {config.table('policy')['name']}"
    first, last = media["ports"]
    who = {"auto": "by the kernel where it may", "kernel": "by the kernel", "userspace": "in user space"}
    yield f"media: ports {first} to {last}, forwarded {who[media['plane']]}; at most {limits['calls']} calls"


def _home_server(config: Config) -> Iterator[str]:
    hs = config.table("hs")
    yield f"home server of {hs['domain']}, store {hs['store']}"
    yield "listens on " + ", ".join(f"{point.transport} {_shown((point.host, point.port))}" for point in hs["listen"])
    yield "gateways: " + (", ".join(row["name"] for row in config.tables["account"]) or "none")
    if config.tables["user"]:
        yield f"phone users ({hs['mode']}): " + ", ".join(row["name"] for row in config.tables["user"])


def _where(row: dict[str, str]) -> str:
    return f"address {row['address']}" if "address" in row else f"interface {row['interface']}"


def _ports(row: dict[str, str]) -> str:
    return " ".join(f"{name}:{row['tls_port' if name == 'TLS' else 'port']}" for name in row["transports"])


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

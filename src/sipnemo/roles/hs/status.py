"""What an operator sees of a SIP-HS: answers to commands, JSON-able."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sipnemo.roles.hs.contacts import priority

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer


def report(hs: HomeServer, name: str, arguments: Mapping[str, Any], now: float) -> Any:
    """The answer to one command."""
    match name:
        case "status":
            return _status(hs, now)
        case "bindings":
            return _bindings(hs, str(arguments.get("user", "")), now)
        case _:
            return {"error": f"a home server has no '{name}': ask for status or bindings"}


def _status(hs: HomeServer, now: float) -> dict[str, Any]:
    wall = hs.wall(now)
    records = list(hs.bindings)
    gauges = {
        "bindings": sum(len(record.live(wall)) for record in records),
        "gateways_reachable": sum(record.is_gateway and bool(record.live(wall)) for record in records),
        "users_reachable": sum(not record.is_gateway and bool(record.live(wall)) for record in records),
        "transactions": len(hs.layer.clients) + len(hs.layer.servers),
    }
    return {
        "role": "hs",
        "domain": hs.domain.text,
        "mode": hs.settings.mode,
        "gateways": sum(record.is_gateway for record in records),
        "users": len(hs.settings.users),
        **gauges,
        "gauges": gauges,
    }


def _bindings(hs: HomeServer, user: str, now: float) -> dict[str, Any]:
    wall = hs.wall(now)
    return {
        "bindings": [
            {
                "uri": hs.domain.uri(record.user),
                "account": record.account,
                "instance": record.instance,
                "contact": binding.contact,
                "priority": float(priority(binding.q)),
                "reg_id": binding.reg_id,
                "expires": round(binding.expires_at - wall),
                "flow": _flow_text(binding.flow),
                "answers": binding.flow not in hs.suspects,
            }
            for record in hs.bindings
            if user in ("", record.user, record.account)
            for binding in record.live(wall)
        ]
    }


def _flow_text(flow: Any) -> str:
    if flow is None:
        return ""
    host, port = flow.remote
    return f"{flow.local.transport} {f'[{host}]' if ':' in host else host}:{port}"

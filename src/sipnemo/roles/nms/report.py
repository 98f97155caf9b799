"""What operators ask a running SIP-NMS, and what they tell it: the commands behind `sipnemo status` and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipnemo.nemo.session_list import SessionEntry
from sipnemo.roles.endpoint import host_text
from sipnemo.roles.nms import what_if
from sipnemo.roles.node import Command
from sipnemo.sip.message import uri_of

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer


class Report:
    """Rows of the lists, JSON-able."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node

    def answer(self, command: Command, now: float) -> Any:
        """Carry one command out; {"error": text} when it cannot be."""
        match command.name:
            case "status":
                return self._status(now)
            case "paths":
                return [self._path(path, now) for path in self._node.paths.all]
            case "bindings":
                return [row.as_row(now) for row in self._node.bindings.rows()]
            case "sessions":
                return [self._session(session).as_row(now) for session in self._node.calls.open]
            case "moves":
                return [wave.row() for wave in self._node.handover.waves]
            case "path":
                return self._command_path(command, now)
            case "what-if":
                return what_if.answer(self._node, command.arguments)
            case _:
                return {"error": f"unknown command {command.name!r}"}

    def _status(self, now: float) -> dict[str, Any]:
        node = self._node
        live = sum(session.live for session in node.calls.open)
        return {
            "role": "nms",
            "uri": node.home.uri,
            "instance": node.settings.instance,
            "registered_paths": sum(flow.registered for flow in node.home.flows.values()),
            "paths_on": len(node.paths.on()),
            "paths": len(node.paths.all),
            "sessions": len(node.calls.open),
            "live_sessions": live,
            "phones": len(node.bindings.by_token),
            "moves": sum(len(wave.records) for wave in node.handover.waves),
            "media_ports_used": node.ports.used,
            "media_ports_resting": node.ports.resting,
            "transactions": len(node.layer.clients) + len(node.layer.servers),
            "subscriptions": len(node.relay.usages),
            "gauges": self._gauges(),
        }

    def _gauges(self) -> dict[str, Any]:
        """For Prometheus: a number, or [labels, number] per path."""
        node = self._node
        paths = [((path.eface.id, path.address), path) for path in node.paths.all]
        return {
            "sessions": len(node.calls.open),
            "live_sessions": sum(session.live for session in node.calls.open),
            "phones": len(node.bindings.by_token),
            "media_ports_used": node.ports.used,
            "transactions": len(node.layer.clients) + len(node.layer.servers),
            "path_on": [(labels, int(path.on)) for labels, path in paths],
            "path_sessions": [(labels, len(path.sessions)) for labels, path in paths],
            "path_load_ratio": [(labels, path.load / 100) for labels, path in paths],
            "path_rtt_seconds": [(labels, path.rtt) for labels, path in paths if path.rtt is not None],
        }

    def _path(self, path: Any, now: float) -> dict[str, Any]:
        node = self._node
        flow = node.home.flows.get(path)
        return {
            **path.entry(node.settings.instance).as_row(),
            "path": path.name,
            "device": path.device,
            "reg_id": path.reg_id,
            "sessions": len(path.sessions),
            "settling": node.settling.receiving(path.address),
            "reason": path.reason,
            "command": "off" if not path.wanted else "on" if path.forced else "auto",
            "since": round(now - path.changed_at, 3),
            **node.damping.row(path, now),
            "registered": flow.registered if flow is not None else False,
            "registration_error": flow.refused if flow is not None else "",
            "mapped": f"{host_text(path.mapped[0])}:{path.mapped[1]}" if path.natted and path.mapped else "",
            "nat": path.natted,
        }

    def _session(self, session: Session) -> SessionEntry:
        mn = (session.mn_user, session.mn_target)
        cn = (uri_of(session.remote_value or session.to_value), session.dialog.target if session.dialog else "")
        (from_uri, from_contact), (to_uri, to_contact) = (mn, cn) if session.outgoing else (cn, mn)
        return SessionEntry(
            from_uri,
            from_contact,
            to_uri,
            to_contact,
            session.status,
            session.path.eface.id if session.path.on else None,
            call_id=session.call_id,
            path=session.path.address,
            started_at=session.answered_at,
            moves=session.moves,
        )

    def _command_path(self, command: Command, now: float) -> dict[str, Any]:
        node = self._node
        state = command.arguments.get("state")
        eface = command.arguments.get("eface_id")
        paths = [path for path in node.paths.all if str(path.eface.id) == str(eface)]
        if state not in ("off", "on", "auto"):
            return {"error": "state must be off, on or auto"}
        if not paths:
            known = ", ".join(sorted({str(path.eface.id) for path in node.paths.all})) or "none"
            return {"error": f"no path of E-face {eface}; E-faces with paths: {known}"}
        for path in paths:
            node.paths.command(path, str(state), now)
        return {"paths": [self._path(path, now) for path in paths]}

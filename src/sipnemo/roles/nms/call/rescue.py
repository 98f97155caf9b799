"""What was under way on a path when it died goes on over another: requests, and answers to requests (R2, R3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import Attempts, split_host_port
from sipnemo.roles.nms.call.early_invite import EarlyInvite
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.sip.flow import Flow
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

UNANSWERED = (Status.INVITING, Status.RINGING)


def rescue(node: MobilityServer, now: float, renewed: Path | None = None) -> None:
    """Take all that is stuck on dead paths to one that is ON: when a path has died, and when one has come back.

    `renewed`: a NAT maps this path anew, so that answers to what has left by it are lost as well.
    """
    if not node.paths.on():
        return
    working = {path.address for path in node.paths.all if path.on or (path.present and path.proven)}
    working.update(local.host for local in node.inside)
    if renewed is not None:
        working.discard(renewed.address)
    else:
        _answer_elsewhere(node, working, now)
    for client in list(node.layer.clients.values()):
        attempts = client.user
        if isinstance(attempts, EarlyInvite) and not client.finished and client.flow.local.host not in working:
            attempts.path_died(now, renewed is not None)
        if not isinstance(attempts, Attempts) or client.finished or client.flow.local.host in working:
            continue
        forward = attempts.user
        if isinstance(forward, Forward):
            forward.client = client
            if forward.initial:
                early = forward.session.early
                if not isinstance(early, EarlyInvite):
                    early = forward.session.early = EarlyInvite(node, forward, attempts)
                early.path_died(now, renewed is not None)
                continue
            if forward.session.status is Status.TERMINATED:
                client.give_up(481, now)
                continue
        attempts.restart(now)


def _answer_elsewhere(node: MobilityServer, working: set[str], now: float) -> None:
    """What a dead path would swallow is answered over another: a branch, not a source, tells (RFC 3261 §17.1.3)."""
    for server in list(node.layer.servers.values()):
        if server.flow.local.host in working:
            continue
        forward = server.user
        if isinstance(forward, Forward) and forward.initial and forward.session.status in UNANSWERED:
            node.calls.rehome(forward.session, now)
        flow = _way_back(node, server)
        if flow is not None:
            server.flow = flow
            if server.request.method == "INVITE":
                server.repeated(now)  # the last answer may have been lost with the path


def _way_back(node: MobilityServer, server: ServerTransaction) -> Flow | None:
    """Where answers go over a path that works: of a connection, to where its other end listens (§18.2.2)."""
    transport, (host, port) = server.flow.local.transport, server.flow.remote
    if server.flow.reliable:
        port = split_host_port(server.request.sent_by)[1] or (5061 if transport == "TLS" else 5060)
    return node.way_out(Target(transport, host, port))


def fail_the_rest(node: MobilityServer, flow: Flow, now: float) -> None:
    """End the requests on a dead flow that `rescue` does not take elsewhere."""
    for client in list(node.layer.clients.values()):
        if client.flow == flow and not client.finished and not isinstance(client.user, Attempts | EarlyInvite):
            client.give_up(503, now)

"""What was under way on a path when it died: requests are sent over another, responses too (R2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import Attempts
from sipnemo.roles.nms.forward import Forward, Unheard
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import InviteClient

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.paths import Path


def restart_requests(node: MobilityServer, now: float, renewed: Path | None = None) -> None:
    """Requests that wait for an answer over a dead path are sent over another, as soon as there is one.

    `renewed`: a NAT maps this path anew, so that answers to what has left by it are lost as well.
    """
    if not node.paths.on():
        return
    working = {path.address for path in node.paths.all if path.on or (path.present and path.proven)}
    working.update(local.host for local in node.inside)
    if renewed is not None:
        working.discard(renewed.address)
    for client in list(node.layer.clients.values()):
        attempts = client.user
        if not isinstance(attempts, Attempts) or client.finished or client.flow.local.host in working:
            continue
        if isinstance(attempts.user, Forward):
            attempts.user.client = client
            if not node.calls.path_died(attempts.user, now) and not _may_be_sent_anew(attempts.user, renewed):
                continue
            if isinstance(client, InviteClient) and attempts.user.initial and attempts.target is not None:
                # Should it have arrived after all, nobody shall ring for it; its successor has the next CSeq.
                flow = node.way_out(attempts.target)
                if flow is not None:
                    node.layer.request(Unheard(), client.branch, "CANCEL", client.cancel(), flow, now)
        attempts.restart(now)


def _may_be_sent_anew(forward: Forward, renewed: Path | None) -> bool:
    """A first INVITE that nobody has answered may leave by the same path again, if it is as good as a new one."""
    session = forward.session
    return session.path is renewed and not session.dialogs and session.status is not Status.TERMINATED


def answer_elsewhere(node: MobilityServer, path: Path) -> None:
    """What a dead path would swallow is answered over another: a branch, not a source, tells (RFC 3261 §17.1.3)."""
    if path.present and path.proven:
        return
    for server in node.layer.servers.values():
        flow = server.flow
        if flow.local.host == path.address and not flow.reliable:
            server.flow = node.way_out(Target(flow.local.transport, *flow.remote)) or flow

"""Who else than the SIP-HS can tell that a path lives: the far ends of its calls (R13, R17).

When the SIP-HS is away, no probe is answered on any path, and calls without media, on hold for example, prove nothing
either. Then some far ends of the path's calls are asked by OPTIONS within their dialogs. Whatever they answer, and even
if they do not know the method, the answer has come over the path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

ASKED: Final = 3
"Far ends that are asked at a time."


class Witnesses:
    """Asks far ends over one path; OPTIONS is repeated by its transaction for 32 s."""

    def __init__(self, node: MobilityServer, path: Path, answered: Callable[[float], None]) -> None:
        self._node = node
        self._path = path
        self._answered = answered
        self._under_way: list[ClientTransaction] = []

    def ask(self, now: float) -> None:
        """Ask, unless somebody has been asked who may still answer."""
        self._under_way = [client for client in self._under_way if not client.finished]
        if self._under_way:
            return
        live = (session for session in self._path.sessions if session.live and not session.ending)
        for session in list(islice(live, ASKED)):
            if session.dialog is not None:
                self._node.calls.locate_dialog(session.dialog, partial(self._ask, session), now)

    def stop(self) -> None:
        """Nobody wants to know any more."""
        for client in self._under_way:
            if not client.finished:
                client.abandon()
        self._under_way.clear()

    def _ask(self, session: Session, targets: list[Target], now: float) -> None:
        dialog, node = session.dialog, self._node
        flow = next((flow for flow in map(self._path.flow_to, targets) if flow is not None), None)
        if dialog is None or flow is None or node.home.trusts(flow):
            return  # the SIP-HS itself is silent
        session.e.sent += 1
        branch = node.ids.branch()
        data = node.own_requests.request(session, dialog, "OPTIONS", str(session.e.sent), flow, branch=branch)
        self._under_way.append(node.layer.request(self, branch, "OPTIONS", data, flow, now))

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The path brings answers."""
        self.stop()
        self._answered(now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """It does not."""

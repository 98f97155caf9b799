"""The two ends' own requests and the move of their call: one consistent session, never two offers at once (R5).

An offer of the SIP-MN that was under way on the dying path is sent again over the new one, with the new addresses.
Then it is the move: its answer tells that the SIP-CN knows the new path, and no re-INVITE of ours follows. The same
holds for an answer of the SIP-MN's to an offer of the SIP-CN's. What comes while a re-INVITE of ours is at hand waits
(`in_dialog.py`), and what the SIP-CN sends then gets 491.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import forwards
from sipnemo.roles.nms.call.media import body_sdp
from sipnemo.roles.nms.move.lane import retry_after
from sipnemo.roles.node import Send
from sipnemo.sip.message import Response
from sipnemo.sip.timers import T1, T2

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.forward import Forward
    from sipnemo.roles.nms.call.session import Dialog, Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path
    from sipnemo.sip.flow import Flow

MAY_BE_LOST = T1 + T2
"Seconds after which the SIP-CN would have repeated a 2xx whose ACK it has not got."
MOST_AGAIN = 5
"Times a request that we have sent twice is tried again in the SIP-MN's place."
AGAIN_AFTER = 1.0
"Seconds before that, where the SIP-CN does not say how long (Retry-After)."


class Merging:
    """Joins what the ends do and what the move does."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node

    # ------------------------------------------------------------------------------- requests that were sent twice

    def again(self, forward: Forward, response: Response, now: float) -> bool:
        """Whether a refusal is the fault of our own requests, and the refused one is sent once more for it."""
        session, request, status = forward.session, forward.request, response.status
        if not forward.outward or forward.initial or forward.client is None or forward.cancelled:
            return False
        if status == 500 and not forward.overtaken and session.e.map.get(request.cseq, session.e.sent) < session.e.sent:
            forward.overtaken = True  # out of order for the SIP-CN (§12.2.2)
            self._send(forward, now)
            return True
        if status in (491, 500) and 0 < forward.sent_again <= MOST_AGAIN:
            # The first copy was not lost: the SIP-CN is still busy with it.
            forward.sent_again += 1
            after = retry_after(response) or AGAIN_AFTER
            self._node.timers.set(now + after, lambda at: self._send_if_wanted(forward, at))
            return True
        return False

    def _send_if_wanted(self, forward: Forward, now: float) -> None:
        if forward.cancelled:
            self._node.answers.failed(forward, 487, now)
        elif forward.session.live and not forward.server.finished:
            self._send(forward, now)

    def _send(self, forward: Forward, now: float) -> None:
        session, request = forward.session, forward.request
        body = self._node.calls.body_out(session, request, False, now)[0] if forward.offered else request.body
        self._node.in_dialog.send_within(forward, session.e.again(request.cseq), forwards(request), body, now)

    def settle(self, session: Session, dialog: Dialog, flow: Flow, now: float) -> None:
        """Acknowledge what the SIP-CN may have answered into a dead path.

        Until its 2xx is acknowledged it may take no other INVITE, and gives up the call after 32 s (§13.3.1.4). An ACK
        for what it has not answered means nothing to it.
        """
        owed = dict.fromkeys(session.unheard, "")
        number, at, body = session.acked
        if now - at < MAY_BE_LOST:
            owed[number] = body
        session.unheard = ()
        for cseq, text in owed.items():
            self._node.act(Send(self._node.own_requests.ack(session, dialog, cseq, flow, text), flow))

    # ------------------------------------------------------------------------------------ moves that are not ours

    def took_answer(self, forward: Forward, response: Response) -> None:
        """The SIP-CN has answered the offer of ours that went with a request of the SIP-MN."""
        span, media = body_sdp(response), forward.session.media
        if span is not None and media is not None and 200 <= response.status < 300:
            media.answered_again(response.body[span[0] : span[1]])
            self._node.calls.apply_media(forward.session)

    def answered(self, forward: Forward, status: int, now: float) -> None:
        """A final response to an INVITE or UPDATE has passed while the session moves."""
        session = forward.session
        move = session.move
        if move is None or not 200 <= status < 300:
            return
        if forward.outward:
            if forward.offered or forward.carries:
                move.carried(forward.path, now)
        elif forward.request.method == "INVITE":
            move.named = session.path  # until its ACK
        elif forward.offered:
            move.carried(session.path, now)

    def acknowledge_inside(self, session: Session, response: Response, now: float) -> None:
        """The SIP-CN has answered a later INVITE, so its ACK to the SIP-MN's 2xx was lost: here is one."""
        body = ""
        if session.media is not None and session.media.answers(False):  # the 2xx made an offer
            body = self._node.calls.body_in(session, response, True, session.path.nowhere, now)[0]
        session.ack_awaited_until = 0.0
        session.acknowledged = True
        self._node.calls.unacknowledged.pop(session, None)
        self._node.own_requests.ack_inside(session, body, now)

    def acknowledged(self, session: Session, outward: bool, described: bool, path: Path, now: float) -> None:
        """The ACK of a 2xx has passed while the session moves."""
        move = session.move
        if move is None:
            return
        if outward:
            if described:  # it answers the SIP-CN's offer in the 2xx (§13.2.1)
                move.carried(path, now)
        elif move.named is not None:
            named, move.named = move.named, None
            move.carried(named, now)


def without_body(response: Response) -> Response:
    """A response as whoever has offered nothing gets it."""
    kept = [(name, line) for name, line in zip(response.names, response.lines, strict=True) if name != "content-type"]
    names = tuple(name for name, _ in kept)
    return Response(response.status, response.reason, names, [line for _, line in kept], "")

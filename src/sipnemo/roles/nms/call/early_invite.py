"""The INVITE of a SIP-MN whose path died before its answer (R3, R2): it is completed over another, and rings once.

Answers to an INVITE go to where it came from (RFC 3261 §18.2.2, RFC 3581), so those that the far end sends from now on
are lost, and whether it rings may not be known. What can be done depends on who is next, and on what it has said:

*The SIP-HS.* The same transaction is sent again from the new path: branch, sent-by and CSeq stay. The SIP-HS knows it
for a retransmission (§17.2.3), and the path for one of ours; it repeats what it had answered, and answers there.

*Somebody else who has said nothing.* The INVITE itself is probably lost, and the same is done. If it is not, the far
end absorbs the second copy without ringing anew. Contact and description of the copy are already those of the new
path, since nobody compares bodies: if it is the first to arrive, early media flow at once. A new branch with the old
CSeq would ring a second time at all who do not look for merged requests (§8.2.2.2), and bring nothing but 482 from
those who do.

*Somebody else who rings.* The 180 has made a dialog, which any path can reach. The far end is asked by a re-INVITE,
again and again: while it rings it refuses that with 500 (§14.2); once it has answered, the 200 to the re-INVITE stands
for the 200 that was lost, and carries the new address at once.

*Somebody else who has only said 100*, or from whom nothing comes back after all. Nothing can be asked in a dialog that
is not known. The INVITE is cancelled over the new path, and when that is done sent anew, with the next CSeq: the one
case in which a phone may ring a second time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import Attempts
from sipnemo.roles.nms.call.cancelling import CANCELLED_WITHIN, Cancelled, Ended
from sipnemo.roles.nms.call.early import Early
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.roles.nms.call.readdress import readdressed
from sipnemo.roles.nms.call.session import Dialog
from sipnemo.roles.nms.call.signed import SignedRequest, hop_of
from sipnemo.roles.node import Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response
from sipnemo.sip.parser import parse
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMEOUT, Timer
from sipnemo.sip.transaction import ClientTransaction, InviteClient, State

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

ANSWER_WITHIN = 2.0
"Seconds without any answer, after which the next means is tried."
ASK_EVERY = 1.0
"Seconds between questions: as long as that may an answer go unnoticed."
CANCEL_ANSWERED_WITHIN = 4.0
"Seconds for an answer to the CANCEL; a proxy that knows of no such INVITE may give none (§16.10)."
STILL_RINGING = frozenset((408, 491, 500, 503, 504))


class EarlyInvite(Early):
    """Sees one INVITE of a SIP-MN through."""

    __slots__ = ("_anew", "_asked", "_attempts", "_forward", "_gone", "_moves", "_old", "_timer")

    def __init__(self, node: MobilityServer, forward: Forward, attempts: Attempts) -> None:
        super().__init__(node, forward.session)
        self._forward = forward
        self._attempts = attempts
        self._asked: dict[SignedRequest, tuple[Dialog, Path, Flow]] = {}
        "Questions that are under way."
        self._gone: set[str] = set()
        "Tags of forks that have ended."
        self._old: ClientTransaction | None = None
        "The INVITE that is being cancelled."
        self._anew = False
        "The next one waits for that."
        self._timer: Timer | None = None
        self._moves = 0
        "How often the same INVITE was sent again by another path."

    def path_died(self, now: float, renewed: bool) -> None:
        """The path that carries the INVITE is dead, or its NAT has a new address for it: the best way to go on."""
        node, session, client = self._node, self._session, self._forward.client
        target = self._attempts.target
        if target is None or client is None or client.finished:
            return
        ranked = node.ranked(session)
        path, flow = next(((path, flow) for path in ranked if (flow := path.flow_to(target))), (None, None))
        if path is None or flow is None:
            return  # asked again when one comes back
        if self._forward.cancelled:
            self._cancel_over(flow, now)
            return
        if session.status is Status.TERMINATED or (session.path is path and self._asking and not renewed):
            return
        if self._anew:
            self._cancel_there(path, flow, now)
            return
        self._pause()
        if renewed:
            self._known = None
            self._told.clear()
        if session.path is not path:
            node.calls.put_on(session, path)
        if client.state is State.CALLING or node.home.trusts(client.flow):
            self._known = None  # this copy or one before may be the first to arrive
            self._moves += 1
            client.move(flow, now, readdressed(session, client.data, path, flow, self._moves))
            self._timer = node.timers.set(now + ANSWER_WITHIN, self._silent)
        else:
            client.flow = flow
            self._find_out(now)

    def heard(self, response: Response, now: float) -> None:
        """There is an answer: no other means is needed, unless it went to the path that is OFF."""
        client, heard_on = self._forward.client, self._node.layer.heard_on
        if client is None or heard_on is None or heard_on.local != client.flow.local:
            return
        if self._timer is not None and not self._asking:
            self._timer.cancel()
            self._timer = None
        if response.status < 200 and response.to_tag:
            self.tell(now)

    def cancel(self, now: float) -> bool:
        """The caller gives up: the far end hears it over the living path, the SIP-MN at once from us."""
        target = self._attempts.target
        flow = self._node.way_out(target) if target is not None else None
        if flow is not None:
            self._cancel_over(flow, now)
        else:
            self._give_up(now)
        return True

    def stop(self, now: float) -> None:
        """The call is answered, or over."""
        self._pause()
        super().stop(now)

    @property
    def _asking(self) -> bool:
        return self._anew or (self._timer is not None and bool(self._asked))

    def _pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for request in self._asked:
            request.abandon()
        self._asked.clear()

    def _silent(self, now: float) -> None:
        """Nothing has come back: its answers go to the path that is dead."""
        self._timer = None
        self._find_out(now)

    # ------------------------------------------------------------------------------------------------ questions

    def _find_out(self, now: float) -> None:
        if not self._session.dialogs or not self._askable:
            self._begin_anew(now)
            return
        self.tell(now)
        if self.offering:  # no second offer until that one is answered
            self._timer = self._node.timers.set(now + CANCELLED_WITHIN, self._ask_all)
        else:
            self._ask_all(now)

    @property
    def _askable(self) -> bool:
        """Whether a lost 200 can be acknowledged: not where the ACK must answer an offer that was lost with it."""
        media = self._session.media
        return self._forward.offered or (media is not None and bool(media.mn_sdp) and not media.offering)

    def _ask_all(self, now: float) -> None:
        """Ask every fork, over the best path, whether it has answered."""
        self._pause()
        session = self._session
        if session.live or session.status is Status.TERMINATED or self._forward.server.finished:
            return
        self._timer = self._node.timers.set(now + ANSWER_WITHIN, self.send_anew if self._anew else self._ask_all)
        best = self._node.calls.way(session)
        if best is not session.path:
            self._node.calls.put_on(session, best)
        if not best.on:
            return
        for dialog in list(session.dialogs.values()):
            if dialog.remote_tag not in self._gone:
                self._node.calls.locate_dialog(dialog, partial(self._ask, dialog), now)

    def _ask(self, dialog: Dialog, targets: list[Target], now: float) -> None:
        path = self._session.path
        flow = next((flow for flow in map(path.flow_to, targets) if flow is not None), None)
        if flow is None:
            return
        # If the INVITE has been answered, its ACK opens the far end to the next request; otherwise it means nothing.
        number = self._session.e.map.get(self._forward.request.cseq, 0)
        ends = (self._session.local_value, f"{self._session.to_value};tag={dialog.remote_tag}")
        ack = self._node.own_requests.request(self._session, dialog, "ACK", str(number), flow, ends)
        self._node.act(Send(ack, flow))
        question = self._offer("INVITE", dialog, path, flow)
        self._asked[question] = (dialog, path, flow)
        question.send(flow, now)

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """Still ringing, answered, or over; or the answer to an UPDATE."""
        status = response.status
        if request.method == "BYE":
            if status >= 200:
                self.send_anew(now)
            return
        if request.method != "INVITE":
            super().on_answer(request, response, now)
            if status >= 200 and self._timer is not None and not self._asked and not self._anew:
                self._ask_all(now)
            return
        if status < 200 or request not in self._asked:
            return
        dialog, path, flow = self._asked.pop(request)
        if status < 300:
            self._answered(dialog, path, flow, response, now)
        elif self._anew:
            self.send_anew(now)
        elif status in STILL_RINGING:
            self._again(now)
        elif status == 481:
            self._ended(dialog, now)
        else:  # it may not be asked
            self._pause()
            self._begin_anew(now)

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """Asked anew by the timer."""
        if self._asked.pop(request, None) is None:
            super().on_silence(request, status, now)

    def _answered(self, dialog: Dialog, path: Path, flow: Flow, response: Response, now: float) -> None:
        """The lost 200 is found: the SIP-MN gets this one in its place."""
        session, forward = self._session, self._forward
        if session.live or session.status is Status.TERMINATED:
            return
        self._anew = False
        self._told[dialog.remote_tag] = path
        if forward.client is not None:
            forward.client.abandon()
            forward.client.flow = flow
        self._node.log("info", "a call was answered while its path was dead", session.call_id, path=path.name)
        self._node.answers.answered(forward, response, now)

    def _ended(self, dialog: Dialog, now: float) -> None:
        """This fork has gone; when it was the last, the call has failed, with an answer that was lost."""
        self._gone.add(dialog.remote_tag)
        if all(tag in self._gone for tag in self._session.dialogs):
            self._pause()
            if self._forward.client is not None:
                self._forward.client.abandon()
            self._node.answers.failed(self._forward, 480, now)

    def _again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._node.timers.set(now + ASK_EVERY, self._ask_all)

    # -------------------------------------------------------------------------------------------- cancel, and anew

    def _begin_anew(self, now: float) -> None:
        """Cancel the INVITE over the new path; the next one waits for that, so that it meets no busy phone."""
        client, session = self._forward.client, self._session
        flow = session.path.flow_to(hop_of(client.flow)) if client is not None else None
        if not isinstance(client, InviteClient) or client.finished or flow is None or self._anew:
            return
        self._anew = True
        self._old = client
        client.hush()  # repeated after its end, it would ring again
        client.user = self
        client.flow = flow
        self._node.layer.request(Cancelled(self), client.branch, "CANCEL", client.cancel(), flow, now)
        self._timer = self._node.timers.set(now + CANCEL_ANSWERED_WITHIN, self.send_anew)
        self._node.timers.set(now + TIMEOUT, lambda _now: client.abandon())

    def _cancel_there(self, path: Path, flow: Flow, now: float) -> None:
        """The path of the CANCEL has died as well."""
        client = self._forward.client
        cancel = self._node.layer.clients.get(client.branch + "CANCEL") if client is not None else None
        if client is None or self._session.path is path:
            return
        self._node.calls.put_on(self._session, path)
        client.flow = flow
        if cancel is not None and not cancel.finished:
            cancel.move(flow, now)
            self._pause()
            self._timer = self._node.timers.set(now + CANCEL_ANSWERED_WITHIN, self.send_anew)

    def cancelled(self, tag: str, now: float) -> None:
        """200 to the CANCEL, which cancels nothing that has been answered. Of a callee who is the next hop itself the
        tag is the dialog's (§9.2): in it can be asked which of the two it is."""
        session, invite = self._session, self._old
        if not self._anew or invite is None:
            return
        sent = parse(invite.data)
        if not session.dialogs and tag and isinstance(sent, Request):
            session.dialogs[tag] = Dialog(tag, sent.uri, sent.values("route"))
            session.dialogs[tag].next_hop = hop_of(invite.flow)
            if self._askable:
                self._ask_all(now)
                return
        if not session.dialogs:
            self.send_anew(now)
            return
        self._pause()
        self._timer = self._node.timers.set(now + CANCELLED_WITHIN, self.send_anew)
        self.end_dialogs(invite, invite.flow, now)  # what was answered, and cannot be taken over, must not stay

    def send_anew(self, now: float) -> None:
        """The far end has forgotten the INVITE, or had long enough for it."""
        if not self._anew:
            return
        self._anew = False
        self._pause()
        session = self._session
        if self._forward.cancelled or session.status is Status.TERMINATED or self._forward.server.finished:
            return
        session.dialogs.clear()
        session.dialog = None
        self._told.clear()
        self._gone.clear()
        self._known = session.path
        self._attempts.again(now)

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The INVITE that was cancelled has ended, or was answered all the same."""
        if client is not self._old or response.status < 200:
            return
        if response.status >= 300:
            self.send_anew(now)
        elif self._anew:  # CANCEL and 200 have crossed (RFC 5407 §3.1.2): so be it
            self._anew = False
            self._pause()
            client.user = self._attempts
            self._attempts.on_response(client, response, now)
        else:
            self._node.own_requests.refuse_answer(self._session, response, client.flow, False, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Absorb it."""

    def _cancel_over(self, flow: Flow, now: float) -> None:
        """CANCEL goes over a living path; the answer that may have crossed it is ended by BYE."""
        client = self._forward.client
        if isinstance(client, InviteClient) and not client.finished:
            client.hush()
            client.flow = flow
            earlier = self._node.layer.clients.get(client.branch + "CANCEL")
            user = Ended(self, client, flow)
            if earlier is None:
                self._node.layer.request(user, client.branch, "CANCEL", client.cancel(), flow, now)
            elif earlier.finished:
                user.wait(now)
            else:
                earlier.user = user
                earlier.move(flow, now)
        self._give_up(now)

    def _give_up(self, now: float) -> None:
        """The SIP-MN has its end now; the far end's is waited for, so that a 2xx that comes is ended by BYE."""
        if self._session.status is Status.TERMINATED:
            return
        self._node.answers.failed(self._forward, 487, now)
        self._forward.wait(now + TIMEOUT)

    def end_dialogs(self, client: ClientTransaction, flow: Flow, now: float) -> None:
        """The end of a cancelled INVITE was not heard: should it have been answered, its dialogs end by BYE (§15)."""
        if client.finished:
            return
        session, path = self._session, self._node.paths.of(flow.local)

        def end(dialog: Dialog, targets: list[Target], at: float) -> None:
            way = next((way for way in map(path.flow_to, targets) if way is not None), None) if path else None
            if way is not None:
                remote = f"{session.to_value};tag={dialog.remote_tag}"
                SignedRequest(self._node, self, session, dialog, "BYE", (), "", remote=remote).send(way, at)

        for dialog in list(session.dialogs.values()):
            self._node.calls.locate_dialog(dialog, partial(end, dialog), now)

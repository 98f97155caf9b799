"""The Session List (RO-6, MH-9), and what every story of a call needs of it.

Calls begin in `inviting.py`; what is sent within them is in `in_dialog.py`, what comes back in `answers.py`, and their
moves are in `handover.py` and `reinvite.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.nms.call.early import Early
from sipnemo.roles.nms.call.lost import LostCalls
from sipnemo.roles.nms.call.media import SessionMedia, body_sdp
from sipnemo.roles.nms.call.session import Dialog, Session
from sipnemo.roles.nms.path.reach import fitting, other_hop
from sipnemo.roles.node import Learned, Observe
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Message, Request, parameter, uri_of
from sipnemo.sip.server_location import Target

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

from sipnemo.roles.nms.call.targets import Located, address_in, sip_uri


class Calls:
    """The Session List."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node
        self.sessions: dict[tuple[str, str], Session] = {}
        "By Call-ID and the SIP-MN's tag."
        self.open: dict[Session, None] = {}
        "All sessions, those without a tag of the SIP-MN yet included."
        self.invitations: dict[tuple[str, str, int, str], Session] = {}
        "Calls to SIP-MNs by Call-ID, caller's tag, CSeq and token: what makes two INVITEs the same one (§8.2.2.2)."
        self.unacknowledged: dict[Session, float] = {}
        "Calls answered whose ACK has not come yet, in order, and until when it must."
        self.lost = LostCalls(node)

    def replaces(self, request: Request) -> bool:
        """Whether an INVITE from outside names a live dialog of ours (RFC 3891): it may come from anywhere."""
        value = request.value("replaces")
        if not value:
            return False
        call_id, _, tags = value.partition(";")
        ours, theirs = (parameter(f"<>;{tags}", name) or "" for name in ("to-tag", "from-tag"))
        session = self.sessions.get((call_id.strip(), ours))
        return session is not None and session.live and theirs in session.dialogs

    def connection_closed(self, flow: Flow) -> None:
        """A SIP-MN's connection is gone: its calls reach it at its Contact's address, by a new one."""
        for session in self.open:
            if session.inside == flow:
                session.inside = self.node.at_contact(session.mn_target, flow)

    def learned(self, input: Learned) -> None:
        """Symmetric RTP has been learnt: keep it when flows are written anew."""
        for session in self.open:
            if session.media is not None and input.key in session.media.flows:
                session.media.learnt[input.key] = input.peer
                session.media.flows[input.key] = session.media.flows[input.key]._replace(peer=input.peer)
                return

    def enter(self, session: Session) -> None:
        self.open[session] = None
        if session.phone_tag:
            self.sessions[session.key] = session
        session.path.sessions[session] = None
        self.node.prober_hurry(session.path)

    def end(self, session: Session, now: float) -> None:
        """The session is over: its entry, ports and flows go (RO-6: TERMINATED entries are deleted)."""
        if session.status is Status.TERMINATED:
            return
        node = self.node
        if session.live and session.answered_at is not None:
            node.act(Observe("call_duration_seconds", now - session.answered_at))
        session.status = Status.TERMINATED
        for server, _ in session.held:
            if not server.finished:
                node.respond(server, 487, now)
        session.held = []
        self.open.pop(session, None)
        if session.early is not None:
            session.early.stop(now)
        if session.invitation is not None:
            self.invitations.pop(session.invitation, None)
        session.path.sessions.pop(session, None)
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
        if session.media is not None:
            node.doubling.forget(session)
            for action in session.media.release(node.ports, now):
                node.act(action)
        first = session.first
        if first is not None and first.server.finished:
            first.request.strip()  # its transactions linger for half a minute, and nothing is answered from it any more
        node.handover.session_ended(session, now)

    def keep_nothing(self, session: Session, now: float) -> None:
        """The description of a first INVITE is refused: the ports it got already are given back."""
        if session.media is not None:
            session.media.release(self.node.ports, now)

    def body_out(
        self, session: Session, message: Message, answer: bool, now: float, path: Path | None = None
    ) -> tuple[str, bool]:
        """The body towards the SIP-CN, and whether it holds a description."""
        span = body_sdp(message)
        if span is None:
            return message.body, False
        media = session.media
        if media is None:
            media = session.media = SessionMedia(session.inside.local.host, session.path.media_host)
        host = (path or session.path).media_host
        text = media.from_mn(message.body[span[0] : span[1]], host, answer, self.node.ports, now)
        if answer:
            self.apply_media(session)
        return message.body[: span[0]] + text + message.body[span[1] :], True

    def body_in(self, session: Session, message: Message, answer: bool, flow: Flow, now: float) -> tuple[str, bool]:
        """The body towards the SIP-MN, and whether it holds a description."""
        span = body_sdp(message)
        if span is None:
            return message.body, False
        media = session.media
        if media is None:
            media = session.media = SessionMedia(session.inside.local.host, session.path.media_host)
        if flow.remote[1] and self.node.settings.media.learn:
            media.cn_host = flow.remote[0]
        text = media.from_cn(message.body[span[0] : span[1]], answer, self.node.ports, now)
        if media.cn_host and media.hidden():
            # What stands between us may be a proxy; a gateway behind a NAT writes the NAT's address into its Contact.
            media.cn_contact = address_in(message.contact)
        if answer:
            self.apply_media(session)
        return message.body[: span[0]] + text + message.body[span[1] :], True

    def way(self, session: Session) -> Path:
        """The path for a request of this session now: its own, or the best one while its move is still to come."""
        if session.path.on or (session.live and session.path.works):
            return session.path
        ranked = fitting(self.node, session)
        return ranked[0] if ranked else session.path

    def rehome(self, session: Session, now: float) -> None:
        """A call that rings at a SIP-MN is answered from a path that is ON.

        Where its caller has got a description, with the address that is gone, it must be told (`early.py`).
        """
        best = self.way(session)
        media = session.media
        if best is session.path:
            return
        if session.early is None and media is not None and media.described:
            session.early = Early(self.node, session)
        self.put_on(session, best)
        if session.early is not None:
            session.early.tell(now)

    def fits(self, session: Session, target: Target) -> bool:
        """Whether a call that begins can reach this target, over another path where its own is of another family."""
        if session.path.flow_to(target) is None:
            fitting = next((path for path in self.node.ranked(session) if path.flow_to(target) is not None), None)
            if fitting is None:
                return False
            self.put_on(session, fitting)
        return True

    def put_on(self, session: Session, best: Path) -> None:
        session.path.sessions.pop(session, None)
        session.path = best
        best.sessions[session] = None
        self.node.prober_hurry(best)
        self.apply_media(session)

    def apply_media(self, session: Session, left: str = "") -> None:
        """Bring the media plane in step with the session; it has `left` this address of ours."""
        media = session.media
        if media is not None and session.status is not Status.TERMINATED:
            path = session.path
            if path.natted:
                self.node.nat.find_at_home(session)
            if self.node.doubling.suspects:
                self.node.doubling.starts(session)
            changes = media.changes(media.plan(path, self.node.paths.all, left))
            for action in changes:
                self.node.act(action)
            if path.natted and changes:
                self.node.pinholes.open(session, path)

    def dialog_of(self, request: Request, outward: bool) -> tuple[Session | None, Dialog | None]:
        mn_tag, cn_tag = (request.from_tag, request.to_tag) if outward else (request.to_tag, request.from_tag)
        session = self.sessions.get((request.call_id, mn_tag))
        return session, session.dialogs.get(cn_tag) if session is not None else None

    def prepare(self, dialog: Dialog, now: float) -> None:
        """Find the far end's next hop ahead of need, so that a re-INVITE need not wait for DNS."""
        dialog.next_hop = None
        self.locate_dialog(dialog, lambda targets, at: None, now)

    def locate_dialog(self, dialog: Dialog, then: Located, now: float) -> None:
        """Where in-dialog requests to this far end go."""
        if dialog.next_hop is not None:
            then([dialog.next_hop] if dialog.other_hop is None else [dialog.next_hop, dialog.other_hop], now)
            return

        def located(targets: list[Target], at: float) -> None:
            if targets:
                dialog.next_hop = targets[0]
                dialog.other_hop = other_hop(self.node, targets) if self.node.paths.mixed else None
            then(targets, at)

        try:
            uri = sip_uri(uri_of(dialog.routes[0]) if dialog.routes else dialog.target)
        except SipError:
            then([], now)
            return
        self.node.locate(uri, located, now)

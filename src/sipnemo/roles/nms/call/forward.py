"""One request on its way through the SIP-NMS, and its responses on their way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.sip.message import Request, Response
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction, InviteClient, ServerTransaction, State

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.answers import Answers
    from sipnemo.roles.nms.call.session import Dialog, Session
    from sipnemo.roles.nms.path.paths import Path


class Forward:
    """Ties the server transaction of one side to the client transaction of the other."""

    __slots__ = (
        "answers",
        "cancelled",
        "carries",
        "client",
        "dialog",
        "initial",
        "late",
        "offered",
        "outward",
        "overtaken",
        "path",
        "patience",
        "request",
        "sent_again",
        "server",
        "session",
        "until",
    )

    def __init__(
        self,
        answers: Answers,
        server: ServerTransaction,
        session: Session,
        dialog: Dialog | None,
        outward: bool,
        path: Path,
    ) -> None:
        self.answers = answers
        self.server = server
        self.request: Request = server.request
        self.session = session
        self.dialog = dialog
        "None for the INVITE that begins the session."
        self.initial = dialog is None
        self.outward = outward
        "From the SIP-MN to the SIP-CN."
        self.path = path
        "The path it used, or came by."
        self.offered = False
        "It carried an offer, so descriptions in its responses are answers (RFC 3264)."
        self.client: ClientTransaction | None = None
        self.cancelled = False
        self.carries = False
        "It had no description, and we have put an offer of our own into it."
        self.sent_again = 0
        "How often it was sent anew over another path."
        self.overtaken = False
        "It has been sent anew because a request of ours with a higher CSeq was faster."
        self.late = False
        "It was answered with a 2xx after its session had ended."
        self.patience: Timer | None = None
        "Timer C (§16.6 item 11), and the wait for the final response to a cancelled INVITE (§9.1)."
        self.until = 0.0
        "When it is over; later than what is set where the wait has been renewed."
        server.user = self

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The other side has answered."""
        self.client = client
        if self.cancelled and response.status < 200:
            self.send_cancel(now)
        if self.initial and self.session.early is not None:
            self.session.early.heard(response, now)
        self.answers.answered(self, response, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """The other side has not."""
        self.client = client
        self.answers.failed(self, status, now)

    def cancel(self, now: float) -> None:
        """The caller gives up: CANCEL as soon as a provisional response has come (§9.1)."""
        self.cancelled = True
        if self.initial and self.session.early is not None and self.session.early.cancel(now):
            return
        if self.client is not None and self.client.state is State.PROCEEDING:
            self.send_cancel(now)

    def send_cancel(self, now: float) -> None:
        """Send the CANCEL of a forwarded INVITE, once."""
        client = self.client
        if isinstance(client, InviteClient) and client.state <= State.PROCEEDING:
            layer = client.layer
            if client.branch + "CANCEL" not in layer.clients:
                layer.request(Unheard(), client.branch, "CANCEL", client.cancel(), client.flow, now)

    def wait(self, at: float) -> None:
        """Give up at `at` unless a final response comes or the wait is renewed."""
        self.until = at
        if self.patience is not None:
            if self.patience.at <= at + 1.0:
                return  # it will see that it was set too early
            self.patience.cancel()
        self.patience = self.answers.node.timers.set_roughly(at, self._out_of_patience)

    def finish(self) -> None:
        """A final response has passed."""
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _out_of_patience(self, now: float) -> None:
        self.patience = None
        if now < self.until:
            self.wait(self.until)
        else:
            self.answers.overdue(self, now)


class Unheard:
    """The user of a request whose answer changes nothing: a CANCEL, a BYE of ours."""

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Absorb the answer."""

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Absorb the silence."""

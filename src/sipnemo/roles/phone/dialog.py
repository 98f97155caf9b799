"""One dialog as its user agent sees it (RFC 3261 §12): tags, route set, remote target, CSeq both ways."""

from __future__ import annotations

from sipnemo.sip.message import Message, Request, Response, parameter, printed, tag_of, uri_of

SDP = "application/sdp"


def make_request(
    method: str, uri: str, headers: list[tuple[str, str]], body: str = "", content_type: str = ""
) -> Request:
    """A request without Via and Contact; `headers` are canonical names and values, From, To, Call-ID, CSeq first."""
    if content_type:
        headers = [*headers, ("content-type", content_type)]
    names = tuple([name for name, _ in headers])
    lines = [f"{printed(name)}: {value}" for name, value in headers]
    request = Request(method, uri, names, lines, body)
    request.call_id = request.value("call-id")
    request.from_tag = tag_of(request.value("from"))
    request.to_tag = tag_of(request.value("to"))
    request.cseq = int(request.value("cseq").partition(" ")[0])
    request.cseq_method = method
    return request


def raw_values(message: Message, name: str) -> list[str]:
    """The header values of that name as they came: commas in them (challenges have many) are left alone."""
    found = []
    for known, line in zip(message.names, message.lines, strict=True):
        if known == name:
            found.append(line[line.index(":") + 1 :].strip())
    return found


class Dialog:
    """What later requests of a call are made from and held against."""

    def __init__(self, call_id: str, local: str, remote: str, remote_tag: str, cseq: int) -> None:
        self.call_id = call_id
        self.local = local
        "Our From or To value with its tag."
        self.remote = remote
        "The far end's, with its tag when it has one."
        self.local_tag = tag_of(local)
        self.remote_tag = remote_tag
        self.target = ""
        "Remote target: where requests go (§12.1.1)."
        self.routes: list[str] = []
        "Route set, first hop first."
        self.cseq = cseq
        "The number of our last request."
        self.remote_cseq: int | None = None
        self.allows: frozenset[str] = frozenset()
        "Methods the far end said it takes."

    @classmethod
    def of_caller(cls, invite: Request, response: Response) -> Dialog:
        """The dialog that a response to our INVITE makes (§12.1.2)."""
        remote = response.value("to")
        dialog = cls(invite.call_id, invite.value("from"), remote, response.to_tag, invite.cseq)
        dialog.routes = list(reversed(response.values("record-route")))
        dialog.refresh(response)
        return dialog

    @classmethod
    def of_callee(cls, invite: Request, local_tag: str, cseq: int) -> Dialog:
        """The dialog that our answer to an INVITE makes (§12.1.1)."""
        dialog = cls(
            invite.call_id, f"{invite.value('to')};tag={local_tag}", invite.value("from"), invite.from_tag, cseq
        )
        dialog.routes = invite.values("record-route")
        dialog.remote_cseq = invite.cseq
        dialog.target = uri_of(invite.value("from"))  # as RFC 2543 had it, for an INVITE without Contact
        dialog.refresh(invite)
        return dialog

    @property
    def peer(self) -> str:
        """The far end's URI, for people."""
        return uri_of(self.remote)

    def refresh(self, message: Message) -> None:
        """Take the remote target, and what the far end can do, from a message that says it (§12.2.1.2)."""
        contacts = message.values("contact")
        if contacts:
            self.target = uri_of(contacts[0])
        allows = message.values("allow")
        if allows:
            self.allows = frozenset(allow.upper() for allow in allows)

    def next_cseq(self) -> int:
        """A number for a new request."""
        self.cseq += 1
        return self.cseq

    def in_order(self, request: Request) -> bool:
        """Whether the far end's request is newer than all before; takes its number (§12.2.2)."""
        if self.remote_cseq is not None and request.cseq <= self.remote_cseq:
            return False
        self.remote_cseq = request.cseq
        return True

    def request(self, method: str, cseq: int, body: str = "", content_type: str = "") -> Request:
        """A request in this dialog (§12.2.1.1)."""
        uri, routes = self.target, self.routes
        if routes and parameter_of_uri(routes[0], "lr") is None:  # a strict router
            uri, routes = uri_of(routes[0]), [*routes[1:], f"<{self.target}>"]
        headers = [
            ("from", self.local),
            ("to", self.remote),
            ("call-id", self.call_id),
            ("cseq", f"{cseq} {method}"),
            ("max-forwards", "70"),
        ]
        headers += [("route", route) for route in routes]
        return make_request(method, uri, headers, body, content_type)


def parameter_of_uri(value: str, name: str) -> str | None:
    """A parameter inside the angle brackets of a name-addr; "" when it has no value, None when it is absent."""
    for part in uri_of(value).partition("?")[0].split(";")[1:]:
        key, _, text = part.partition("=")
        if key.strip().lower() == name:
            return text.strip()
    return None


def q_value(contact: str) -> float:
    """The preference of a Contact; 1.0 when none is said or it cannot be read (§20.10)."""
    text = parameter(contact, "q")
    try:
        return min(1.0, max(0.0, float(text))) if text else 1.0
    except ValueError:
        return 1.0

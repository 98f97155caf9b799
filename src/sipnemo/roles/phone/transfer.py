"""REFER: the far end sends us elsewhere, or we send it; the outcome comes as NOTIFY (RFC 3515, RFC 3891, RFC 4488)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipnemo.roles.phone.dialog import Dialog
from sipnemo.sip.errors import REASONS, SipError
from sipnemo.sip.message import Request, Response, uri_of
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.uri import UriError
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.phone.call import Call

_SIPFRAG: Final = re.compile(r"SIP/2\.0 (\d{3}) ?([^\r\n]*)")
_TAKEN_OVER: Final = frozenset(("replaces", "referred-by", "require", "subject", "call-info"))
"Headers of a Refer-To URI that go into the INVITE; it names no others for us (RFC 3261 §19.1.5)."


def receive_refer(call: Call, server: ServerTransaction, request: Request, now: float) -> None:
    """The far end asks us to call somebody: accept, call, and tell how it goes."""
    phone = call.phone
    targets = request.values("refer-to")
    if len(targets) != 1 or call.dialog is None:
        raise SipError(400, "One Refer-To Wanted")
    try:
        target = parse_uri(uri_of(targets[0]))
    except UriError as error:
        raise SipError(400, "Malformed Refer-To header") from error
    if not target.is_sip:
        raise SipError(416)
    headers = [(name.lower(), value) for name, value in target.headers if name.lower() in _TAKEN_OVER]
    if not any(name == "referred-by" for name, _ in headers):
        headers.append(("referred-by", request.value("referred-by") or f"<{call.dialog.peer}>"))
    silent = request.value("refer-sub").partition(";")[0].strip().lower() == "false"
    if silent:
        phone.respond(server, 200, now, headers=("Refer-Sub: false", *phone.dialog_headers(call.user, server)))
    else:
        phone.respond(server, 202, now, headers=phone.dialog_headers(call.user, server))
    uri = str(target._replace(header_text="").without_params("method"))
    call.notify("referred", to=uri)
    subscription = Subscription(call, call.dialog, "" if silent else str(request.cseq))
    subscription.tell(100, "Trying", now)
    phone.place(call.user, uri, now, tuple(headers), subscription.tell)


class Subscription:
    """The implicit subscription of a REFER, seen by who was referred."""

    def __init__(self, call: Call, dialog: Dialog, identity: str) -> None:
        self._call = call
        self._dialog = dialog
        self._identity = identity
        self._last = 0
        self._over = not identity

    def tell(self, status: int, reason: str, now: float) -> None:
        """Report a response to the INVITE; a final one ends the subscription."""
        if self._over or status == self._last:
            return
        self._last = status
        self._over = status >= 200
        state = "terminated;reason=noresource" if self._over else "active;expires=120"
        body = f"SIP/2.0 {status} {reason or REASONS.get(status, 'Unknown')}\r\n"
        request = self._dialog.request("NOTIFY", self._dialog.next_cseq(), body, "message/sipfrag;version=2.0")
        request.set("event", f"refer;id={self._identity}")
        request.set("subscription-state", state)
        self._call.send("NOTIFY", now, lambda _response, _at: None, request)


def refer(call: Call, uri: str, now: float) -> None:
    """Ask the far end to call this URI; when it reports success, our own call ends."""
    dialog = call.dialog
    assert dialog is not None

    def answered(response: Response, _at: float) -> None:
        if response.status >= 300:
            call.notify("transfer", reason=f"{response.status} {response.reason}", to=uri)

    request = dialog.request("REFER", dialog.next_cseq())
    request.set("refer-to", f"<{uri}>")
    request.set("referred-by", f"<{call.user.account.uri}>")
    call.send("REFER", now, answered, request)


def receive_notify(call: Call, server: ServerTransaction, request: Request, now: float) -> None:
    """How a transfer of ours goes."""
    event = request.value("event").partition(";")[0].strip().lower()
    if event != "refer":
        raise SipError(489, headers=("Allow-Events: refer",))
    call.phone.respond(server, 200, now)
    status = _SIPFRAG.match(request.body)
    if status is None:
        return
    code = int(status[1])
    if code >= 180:
        call.notify("transfer", reason=f"{code} {status[2]}")
    if 200 <= code < 300:
        call.hang_up(now)

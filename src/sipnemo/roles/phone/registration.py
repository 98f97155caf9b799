"""One account's registration: kept alive, retried with back-off, taken back at the end (RFC 3261 §10.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.phone.outgoing import Outgoing, opening_request
from sipnemo.sip.message import Response, parameter, uri_of
from sipnemo.sip.timers import Timer
from sipnemo.sip.uri import UriError, equivalent
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.phone.node import Phone, User


class Registration:
    """The binding of one account's address-of-record to this phone."""

    def __init__(self, phone: Phone, user: User) -> None:
        self._phone = phone
        self._user = user
        self._call_id = phone.ids.tag()
        self._from_tag = phone.ids.tag()
        self._cseq = 0
        self._expires = phone.settings.expires
        self._pause = phone.settings.retry_after
        self._timer: Timer | None = None
        self._under_way: Outgoing | None = None
        self._leaving = False
        self.registered = False
        "Whether the last REGISTER was answered with 200."

    def start(self, now: float) -> None:
        """Send a REGISTER now."""
        self._stop_timer()
        expires = 0 if self._leaving else self._expires
        request = opening_request(
            self._phone,
            self._user,
            "REGISTER",
            self._phone.settings.server,
            self._next(),
            self._from_tag,
            self._call_id,
        )
        request.set("expires", str(expires))
        request.set("supported", "path, outbound")
        self._under_way = Outgoing(
            self._phone, self._user, request, self._next, self._answered, contact_params=f";expires={expires}"
        )
        self._under_way.send(now)

    def end(self, now: float) -> None:
        """Take the binding back, if there is one."""
        self._stop_timer()
        if self._under_way is not None:
            self._under_way.abandon()
            self._under_way = None
        self._leaving = True
        if self.registered:
            self.start(now)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do after `end`."""
        return self._under_way is None

    def _next(self) -> int:
        self._cseq += 1
        return self._cseq

    def _answered(self, response: Response, now: float) -> None:
        self._under_way = None
        if self._leaving:
            self.registered = False
            self._phone.left(now)
            return
        status = response.status
        if status < 300:
            self._confirmed(response, now)
            return
        if status == 423 and (wanted := _seconds(response.value("min-expires"))) > self._expires:
            self._expires = wanted
            self.start(now)
            return
        self.registered = False
        reason = f"{status} {response.reason}"
        # Half of the pause is chance: many phones behind one failed server must not come back at once (RFC 5626 §4.5).
        pause = max(
            self._pause * (0.5 + 0.5 * self._phone.ids.chance()), float(_seconds(response.value("retry-after")))
        )
        self._pause = min(self._pause * 2, self._phone.settings.retry_at_most)
        self._phone.notify("register-failed", self._user, reason=reason, retry_after=round(pause, 3))
        self._timer = self._phone.timers.set(now + pause, self.start)

    def _confirmed(self, response: Response, now: float) -> None:
        granted = self._granted(response)
        self._pause = self._phone.settings.retry_after
        if not self.registered:
            self.registered = True
            self._phone.notify("registered", self._user, expires=granted, peer=self._phone.settings.server)
            self._phone.registered(self._user, now)
        # In time for a second and third try before the binding runs out.
        self._timer = self._phone.timers.set(now + max(granted * 0.5, granted - 60.0), self.start)

    def _granted(self, response: Response) -> int:
        """Seconds that our Contact was given; other Contacts in the 200 are other phones' (§10.2.4)."""
        ours = uri_of(self._phone.contact(self._user, self._phone.settings.locals[0]))
        for contact in response.values("contact"):
            try:
                known = parse_uri(uri_of(contact))
                same = equivalent(known, parse_uri(ours)) or known.user == self._user.account.name
            except UriError:
                continue
            if same and (seconds := _seconds(parameter(contact, "expires") or "")):
                return seconds
        return _seconds(response.value("expires")) or self._expires

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _seconds(text: str) -> int:
    """The delta-seconds a value begins with; 0 when there are none."""
    digits = text.partition(";")[0].partition(" ")[0].strip()
    return min(int(digits), 1 << 31) if digits.isdecimal() and len(digits) < 11 else 0

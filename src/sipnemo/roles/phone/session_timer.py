"""Session timers of one call (RFC 4028): who refreshes, when, and when silence means that the far end is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, Response, parameter
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.phone.call import Call

MIN_SE: Final = 90
"The shortest interval that may be asked of anybody, in seconds (RFC 4028 §4)."


class SessionTimer:
    """The negotiated interval; none is running until both sides have spoken."""

    def __init__(self, call: Call, wanted: int) -> None:
        self._call = call
        self._wanted = wanted
        self._min_se = MIN_SE
        self._timer: Timer | None = None
        self._we_refresh = False
        self.interval = 0
        "Seconds; 0: no session timer in force."

    def ask(self, request: Request) -> None:
        """Put our wish into an INVITE or UPDATE (§7.1)."""
        interval = self.interval or self._wanted
        if not interval:
            return
        value = str(interval)
        if self.interval:
            value += ";refresher=uac" if self._we_refresh else ";refresher=uas"
        request.set("session-expires", value)
        if self._min_se > MIN_SE:
            request.set("min-se", str(self._min_se))

    def too_small(self, response: Response) -> bool:
        """Take in a 422; whether to ask again (§7.3)."""
        least = _seconds(response.value("min-se"))
        if least <= self._wanted or least > 86_400:
            return False
        self._wanted = self._min_se = least
        return True

    def answer(self, request: Request, now: float) -> tuple[str, ...]:
        """Header lines for our 2xx to an INVITE or UPDATE; the interval runs from here (§9)."""
        asked = request.value("session-expires")
        if not asked:
            self.stop()
            return ()
        interval = _seconds(asked)
        if interval < MIN_SE:
            raise SipError(422, "Session Interval Too Small", (f"Min-SE: {MIN_SE}",))
        refresher = parameter(asked, "refresher") or ("uac" if request.has_token("supported", "timer") else "uas")
        self._run(interval, refresher == "uas", now)
        lines = (f"Session-Expires: {interval};refresher={refresher}",)
        return ("Require: timer", *lines) if refresher == "uac" else lines

    def agreed(self, response: Response, now: float) -> None:
        """Take in the 2xx to our INVITE or UPDATE (§7.2)."""
        said = response.value("session-expires")
        if _seconds(said) >= MIN_SE:
            self._run(_seconds(said), (parameter(said, "refresher") or "uac") == "uac", now)
        elif self._wanted:
            self._run(self._wanted, True, now)  # the far end cannot: we refresh alone
        else:
            self.stop()

    def stop(self) -> None:
        """No session timer any more."""
        self.interval = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self, interval: int, we_refresh: bool, now: float) -> None:
        self.stop()
        self.interval = interval
        self._we_refresh = we_refresh
        timers = self._call.phone.timers
        if we_refresh:
            self._timer = timers.set(now + interval / 2, self._call.refresh)
        else:
            self._timer = timers.set(now + interval - min(32.0, interval / 3), self._expired)

    def _expired(self, now: float) -> None:
        self._call.lose("session timer expired", now)


def _seconds(text: str) -> int:
    digits = text.partition(";")[0].strip()
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0

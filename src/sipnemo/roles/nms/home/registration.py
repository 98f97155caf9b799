"""One flow to the SIP-HS (RFC 5626): one path, one reg-id, one Contact, kept registered for ever (R11, R12).

All flows of a gateway share one Call-ID and one count of CSeq (RFC 3261 §10.2), so that of any two REGISTERs the
SIP-HS knows the later one, whatever way each of them took: a removal that was overtaken by the same Contact's return
is out of order there and removes nothing (§10.3 item 7).

What goes wrong is tried again after a pause with jitter (RFC 5626 §4.5, `patience.py`). Nobody waits it out in vain:
`home.py` registers at once when the SIP-HS is heard again, and a path that comes up begins afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import via_line
from sipnemo.roles.nms.home.audit import listed_in
from sipnemo.roles.nms.home.patience import NOT_LOCATED, Failure, pause, why_refused
from sipnemo.roles.nms.path.reach import home_targets
from sipnemo.roles.node import Count
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.home.home import Home
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

EXPIRES = 600
"Seconds asked for; the SIP-HS may grant another span."
LONGEST = 86_400
"Seconds: a SIP-HS that wants longer registrations than a day is not given them."
MOST_ADJUSTMENTS = 6
"Times that one registration is sent anew, changed as its answers want it: challenges, 423, 439, 400."
MAX_ADDRESSES = 32
"Of the SIP-HS, per path."
LAST_TRY = 30.0
"Seconds that a binding must still last for another try before its end."
SHORT_LIVED = 120.0
"Seconds: a connection that ends sooner after its registration counts as a failure (RFC 5626 §4.5)."


class Registration:
    """The registration of one path."""

    def __init__(self, node: MobilityServer, home: Home, path: Path) -> None:
        self._node = node
        self._home = home
        self.path = path
        self._timer: Timer | None = None
        self._failures = 0
        self._adjustments = 0
        self._expires = EXPIRES
        self._outbound = True
        "False: a proxy on the way knows nothing of RFC 5626 (439)."
        self._running: ClientTransaction | None = None
        self._attempt = 0
        "Of the attempts to send, the one at hand: what an earlier one still learns of DNS is not for it."
        self._with: list[str] = []
        "Contact values beside our own in the REGISTER at hand."
        self._queried = False
        self._tried: set[tuple[str, int]] = set()
        "Addresses of the SIP-HS that have refused this registration as busy."
        self._sent_auth: list[str] = []
        self._cseq = 0
        "Of the REGISTER at hand."
        self.registered = False
        self.confirmed = 0
        "CSeq of the REGISTER that was last accepted."
        self.taken_out = False
        "The path was lost, and nothing has been sent over it since."
        self.leaving = False
        "The gateway ends."
        self.expires_at = 0.0
        self.refused = ""
        "Why the last attempt failed; empty after a success."
        self.stun: tuple[str, int] | None = None
        self._located: tuple[str, ...] = ()
        self._registered_at = ""
        self.carrier: Flow | None = None
        "What the last accepted REGISTER went over."
        self._accepted_at = 0.0

    # ---------------------------------------------------------------------------------------------------- as it is

    @property
    def hosts(self) -> tuple[str, ...]:
        """Addresses of the SIP-HS: as last located, and where this flow was last registered."""
        return (*self._located, self._registered_at) if self._registered_at else self._located

    @property
    def uri(self) -> str:
        """The URI of our Contact for this flow: our own address, whatever a NAT makes of it."""
        return self.path.own_contact(self._transport())

    @property
    def reg_id(self) -> int:
        """As registered; 0 without outbound."""
        return self.path.reg_id if self._outbound else 0

    @property
    def q(self) -> float:
        """Its Priority, unique as long as the E-faces' are (MH-7)."""
        path = self.path
        return max(0.001, 1.0 - path.eface.priority / 100 - path.rank / 1000)

    @property
    def contact(self) -> str:
        """Our Contact value for this flow."""
        return f"{self.bare()};q={self.q:.3f};expires={self._expires}"

    @property
    def wanted(self) -> bool:
        """Whether the SIP-HS shall list it."""
        return self.path.present and not self.taken_out and not self.leaving

    @property
    def may_be_listed(self) -> bool:
        """Whether the SIP-HS may have it, for all we know."""
        return self._cseq > 0 and not self.taken_out

    def bare(self) -> str:
        """Our Contact value without Priority and expiry: what a removal names."""
        reg_id = f";reg-id={self.path.reg_id}" if self._outbound else ""
        return f'<{self.uri}>{reg_id};+sip.instance="<{self._node.settings.instance}>"'

    def _transport(self) -> str:
        server = self._home.server
        return server.transport or ("TLS" if server.scheme == "sips" else "UDP")

    # ---------------------------------------------------------------------------------------------------- to be done

    def register(self, now: float) -> None:
        """Register or refresh now."""
        self.taken_out = False
        self._outbound = self._outbound or bool(self.refused)
        self._adjustments = 0
        self._queried = False
        self._tried.clear()
        self._with = self._home.removals()
        self._send(now)

    def soon(self, now: float, after: float) -> None:
        """Register within `after` seconds, unless it happens sooner anyway."""
        if self.leaving or not self.path.present:
            return
        if self._running is not None:
            return  # it will be answered, or fail by itself
        if self._timer is None or self._timer.at > now + after:
            self._wake(now + after)

    def unregister(self, removals: list[str], now: float) -> None:
        """Take Contacts out of the SIP-HS for good: the gateway ends."""
        self.suspend()
        self._adjustments = 0
        self._with = removals
        self._send(now)

    def suspend(self) -> None:
        """Wait for nothing more: the path is gone."""
        self._attempt += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.abandon()
            self._running = None

    def carrier_closed(self, flow: Flow, now: float) -> None:
        """A connection has ended: where it was ours, requests from the SIP-HS find no way until we open another."""
        if flow != self.carrier or not self.registered or not self.wanted:
            return
        self.carrier = None
        if now < self._accepted_at + SHORT_LIVED:
            self._failed(Failure("connection closed"), now)
        else:
            self.soon(now, 2.0 * self._node.ids.chance())

    # ------------------------------------------------------------------------------------------------------ sending

    def _send(self, now: float, query: bool = False) -> None:
        self.suspend()
        attempt = self._attempt

        def located(targets: list[Target], at: float) -> None:
            if attempt == self._attempt:
                self._send_to(targets, query, at)

        if self._node.settings.home_addresses:
            located(home_targets(self._home.server, self._node.settings.home_addresses), now)
        else:
            self._node.locate(self._home.server, located, now, tuple(self.path.locals))

    def _send_to(self, targets: list[Target], query: bool, now: float) -> None:
        node, home, path = self._node, self._home, self.path
        usable = [target for target in targets if path.flow_to(target) is not None]
        if not usable:
            self._failed(Failure("home has no address of our family" if targets else NOT_LOCATED), now)
            return
        self._located = tuple(target.host for target in usable[:MAX_ADDRESSES])
        home.moved()
        fresh = [target for target in usable if (target.host, target.port) not in self._tried]
        target = (fresh or usable)[self._failures % len(fresh or usable)]
        udp = next((t for t in usable if t.transport == "UDP"), target)
        located_before, self.stun = self.stun, (udp.host, udp.port)
        prober = node.probers.get(path)
        if located_before is None and prober is not None:
            prober.start(now)  # the first probe had nowhere to go
        flow = path.flow_to(target)
        assert flow is not None
        self._cseq = home.next_cseq()
        branch = node.ids.branch()
        request_uri = home.request_uri
        headers = home.auth.authorization("REGISTER", request_uri, "", node.ids.tag()[:16])
        self._sent_auth = [value for _, value in headers]
        contacts = [] if query else self._with if self.leaving else [self.contact, *self._with]
        lines = [
            f"REGISTER {request_uri} SIP/2.0",
            via_line(flow, branch),
            "Max-Forwards: 70",
            f"From: <{home.address_of_record}>;tag={home.tag}",
            f"To: <{home.address_of_record}>",
            f"Call-ID: {home.call_id}",
            f"CSeq: {self._cseq} REGISTER",
            *(f"Contact: {contact}" for contact in contacts),
            *(f"{name}: {value}" for name, value in headers),
            "Supported: path, outbound" if self._outbound else "Supported: path",
            "User-Agent: sipnemo",
            "Content-Length: 0\r\n\r\n",
        ]
        self._running = node.layer.request(
            Asked(self, query), branch, "REGISTER", "\r\n".join(lines).encode("latin-1"), flow, now
        )

    # ------------------------------------------------------------------------------------------------------ answers

    def answered(self, client: ClientTransaction, response: Response, query: bool, now: float) -> None:
        """The SIP-HS has answered."""
        status = response.status
        if status < 200 or client is not self._running:
            return
        self._running = None
        self._registered_at = client.flow.remote[0] if status < 300 else self._registered_at
        if status < 300 and query:
            self._home.moved()
            self._with = self._home.around(self, listed_in(response))
            self._send(now)
        elif status < 300:
            self._accepted(client, response, now)
        elif not self._adjusted(client, response, query, now):
            self._failed(why_refused(response, self._home.address_of_record), now)

    def unanswered(self, client: ClientTransaction, status: int, now: float) -> None:
        """The SIP-HS is silent or unreachable."""
        if client is self._running:
            self._running = None
            self._failed(Failure("no answer" if status == 408 else "unreachable"), now)

    def _adjusted(self, client: ClientTransaction, response: Response, query: bool, now: float) -> bool:
        """Whether the REGISTER has been sent anew, as this refusal wants it."""
        self._adjustments += 1
        if self._adjustments > MOST_ADJUSTMENTS:
            return False
        status = response.status
        if status in (401, 407):
            name = "www-authenticate" if status == 401 else "proxy-authenticate"
            if self._adjustments > 3 or not self._home.auth.challenged(
                status, response.values_raw(name), self._sent_auth
            ):
                return False
            self._send(now, query)
        elif status == 423 and self._expires < (least := _seconds(response.value("min-expires"))) <= LONGEST:
            self._expires = least
            self._send(now)
        elif status == 439 and self._outbound:
            self._node.log(
                "warning", "home is behind a proxy without RFC 5626: one Contact a path", path=self.path.name
            )
            self._outbound = False
            self._send(now)
        elif status in (400, 500) and self._with and not self.leaving:
            # Something beside our own Contact was out of order: that must not cost us the registration.
            self._home.refused_removals()
            self._with = []
            self._send(now)
        elif status == 400 and not self._queried and not self.leaving:
            # An earlier configuration gave our Priority to another flow (MH-7): see which, and put both right at once.
            self._queried = True
            self._send(now, True)
        elif status == 503 and not self._tried_all(client):
            self._send(now)
        else:
            return False
        return True

    def _tried_all(self, client: ClientTransaction) -> bool:
        """Whether every address of the SIP-HS is busy: 503 means one server, not the service (RFC 3263 §4.3)."""
        self._tried.add(client.flow.remote)
        return len(self._tried) >= len(set(self._located))

    def _accepted(self, client: ClientTransaction, response: Response, now: float) -> None:
        home = self._home
        for info in response.values_raw("authentication-info"):
            home.auth.authenticated(info, self._sent_auth)
        home.moved()
        if self.leaving:
            self.registered = False
            return
        listed = listed_in(response)
        ours = next((one for one in listed if one.is_at(self.uri)), None)
        if ours is None and listed:
            self._failed(Failure("the answer does not list our Contact"), now)
            home.audit.read(self, self._cseq, listed, now)
            return
        granted = self._expires if ours is None or ours.expires is None else ours.expires
        if not granted:
            self._failed(Failure("the answer grants our Contact no time"), now)
            return
        if not self.registered:
            self._node.log("info", "registered at home", path=self.path.name, expires=granted)
        self._node.act(Count("registrations", ("ok",)))
        self.registered = True
        self.refused = ""
        self._failures = 0
        self.confirmed = self._cseq
        self.expires_at = now + granted
        self.carrier, self._accepted_at = client.flow, now
        home.accepted(self, self._with)
        home.assigned(uri_of(response.value("p-associated-uri")), now)
        self._wake(now + max(1.0, granted * (0.75 + 0.1 * self._node.ids.chance())))
        home.audit.read(self, self._cseq, listed, now)

    def _failed(self, failure: Failure, now: float) -> None:
        if self.leaving:
            return
        self._node.act(Count("registrations", ("failed",)))
        self._failures += 1
        if self.registered and now >= self.expires_at:
            self.registered = False
        chance = self._node.ids.chance
        wait = pause(failure, self._failures, self._home.others_work(self), chance(), chance())
        left = self.expires_at - now
        if self.registered and LAST_TRY <= left <= wait and not (failure.retry_after or failure.for_people):
            wait = 0.75 * left  # what still holds is worth another try before it ends
        if failure.why != self.refused:
            self._node.log(
                "warning", "not registered at home", path=self.path.name, why=failure.why, again_in=round(wait)
            )
        self.refused = failure.why
        self._wake(now + wait)

    def _wake(self, at: float) -> None:
        """Register at this instant, not at another."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._node.timers.set(at, self.register)


class Asked:
    """One REGISTER on its way."""

    __slots__ = ("_flow", "_query")

    def __init__(self, flow: Registration, query: bool) -> None:
        self._flow = flow
        self._query = query
        "It asks for the list of Contacts, and changes none (RFC 3261 §10.2.3)."

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The SIP-HS has answered."""
        self._flow.answered(client, response, self._query, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """It has not."""
        self._flow.unanswered(client, status, now)


def _seconds(text: str) -> int:
    """A span as a header says it; 0 when it is malformed."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0

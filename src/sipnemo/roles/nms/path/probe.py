"""Liveness of a path: STUN binding requests on its SIP flow to the SIP-HS (MH-3, RFC 5626 §4.4.2, R13).

A probe is late after the path's own round-trip time plus four times its variation. The first late probe makes the
next two leave at once, so that a black hole is known well before `probe_lost` full intervals have passed.

Silence has two causes: the path is dead, or the SIP-HS is. The other paths are asked at the same moment: where one of
them is answered, the SIP-HS lives. Where none is, a path on which media still arrive stays ON, and so do the idle paths
beside it, to which its calls can move (R12, R17). A path whose calls have no media is OFF then, and ON again as soon as
one of their far ends has answered over it (`witness.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from sipnemo.media.flow import INSIDE
from sipnemo.roles.nms.path.witness import Witnesses
from sipnemo.roles.node import Counted, ReadCounters, Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.stun import encode_request
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

FIRST_PATIENCE = 0.5
"Seconds for an answer while the round-trip time is not known."
MARGIN = 0.03
"Least tolerance above the round-trip time, seconds: scheduling on a busy gateway."
STALL = 0.01
"A late-check that itself comes this much too late proves that we were busy, not that the path is silent."
BURST = 0.01
"Seconds between the confirming probes."
CALLS_ASKED = 50
"Calls of a doubtful path whose media are looked at."
ARRIVAL_WITHIN = 0.06
"Seconds within which a call's next packet is due: three packets of 20 ms, one of the longest usual 60."
FIRST_WITHIN = 2.0
"The same for a path that calls have just moved to: their far ends must be told first."
VOUCHED_FOR = 8.0
"Seconds for which an answer of a far end, or media that arrive, stand for a path while the SIP-HS is silent."
JUDGED_WITHIN = 0.5
"Seconds that an idle path waits for what is found out about the paths with calls."
JUDGE_AGAIN = 0.05
ASK_EVERY = 2.0
"Seconds between looks whether far ends must be asked; a question lasts longer."
TELL_EVERY = 60.0
RECOVERY_EVERY = 0.5
"Seconds between probes while hold-down is running."


class Prober:
    """The probes of one path."""

    def __init__(self, node: MobilityServer, path: Path) -> None:
        self._node = node
        self._path = path
        self._sent: dict[bytes, float] = {}
        "Transaction ID → when it left; unanswered ones."
        self._given_up: dict[bytes, float] = {}
        "Late ones: an answer that comes all the same says that the round trip has grown."
        self._lost = 0
        self._timer: Timer | None = None
        self.at_ease = True
        "It probes more slowly than it does for calls."
        self._variation = 0.0
        self._answered_since: float | None = None
        self._ever_off = False
        self._first_lost: float | None = None
        "When the first of the lost probes in a row was sent."
        self._last_lost = 0.0
        self._told_at = float("-inf")
        "When people were last told that the path is kept ON for its media's sake."
        self._arrived: int | None = None
        "Media packets that had arrived over this path when it was first doubted."
        self._arrived_at = 0.0
        "When these were counted."
        self._vouched_at = self._witnessed_at = float("-inf")
        "When media or a far end, and when a far end, last proved the path alive while the SIP-HS was silent."
        self._witnesses = Witnesses(node, path, self.vouched)
        self.heard_at: float | None = None
        "When the last answer came."
        self.proof_sent_at: float | None = None
        "When the probe was sent that was answered last."

    def start(self, now: float) -> None:
        """Probe at once, whatever was known before."""
        self._lost = 0
        self._sent.clear()
        self._given_up.clear()
        self._answered_since = None
        self._again(now)

    def stop(self) -> None:
        """Probe no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._witnesses.stop()
        self._sent.clear()
        self._given_up.clear()
        self._answered_since = None
        self._ever_off = True

    def hurry(self, now: float) -> None:
        """The path has calls now: do not wait for the idle interval to end."""
        if self._timer is not None and self._timer.at > now + self._interval():
            self._again(now)

    def doubt(self, now: float) -> None:
        """The media of all its calls has fallen silent: ask at once whether the path is to blame."""
        if self._timer is not None:
            self._again(now)

    def answered(self, transaction: bytes, mapped: tuple[str, int] | None, now: float) -> bool:
        """An answer has come; False when it is not to a probe of ours."""
        sent_at = self._sent.pop(transaction, None)
        if sent_at is None:
            sent_at = self._given_up.pop(transaction, None)
        if sent_at is None:
            return False
        self.proof_sent_at = sent_at
        if mapped is not None and mapped != self._path.mapped:
            self._node.nat.seen(self._path, mapped, now)  # before the path is ON by this answer
        self._measure(now - sent_at)
        for other in [other for other, at in self._sent.items() if at <= sent_at]:
            del self._sent[other]  # later ones have been answered: a lost packet, not a dead path
        self._heard(now)
        return True

    def refused(self, now: float) -> None:
        """The SIP-HS's host says that nobody listens there (ICMP): the path carries packets both ways."""
        self._sent.clear()
        self._heard(now)

    def spoken(self, now: float) -> None:
        """An answer to a re-INVITE has come: the path lives, though our own crowd may delay or drop its probes."""
        if self._path.proven:
            self._lost = 0
            self._first_lost = self._arrived = None

    def vouched(self, now: float) -> None:
        """A far end has answered over this path, whatever the SIP-HS does."""
        self._vouched_at = self._witnessed_at = now
        self.spoken(now)
        if not self._path.proven and self._path.present:
            self._node.log("warning", "home is silent, far ends answer: the path is ON", path=self._path.name)
            self._node.paths.proved(self._path, now)

    def _heard(self, now: float) -> None:
        self._lost = 0
        self._first_lost = self._arrived = None
        self.heard_at = now
        self._vouched_at = self._witnessed_at = float("-inf")
        if self._answered_since is None:
            self._answered_since = now
        path = self._path
        if not path.proven:
            waited = now - self._answered_since >= self._node.settings.probe.hold_down
            if not self._ever_off or waited or not self._node.paths.on():
                self._node.paths.proved(path, now)

    def failed(self, now: float) -> None:
        """The network itself says that a probe did not arrive (ICMP)."""
        if self._sent:
            self._late(self._sent.pop(next(iter(self._sent))), now)

    def _measure(self, rtt: float) -> None:
        """RFC 6298 §2."""
        path = self._path
        if path.rtt is None:
            path.rtt, self._variation = rtt, rtt / 2
        else:
            self._variation = 0.75 * self._variation + 0.25 * abs(path.rtt - rtt)
            path.rtt = 0.875 * path.rtt + 0.125 * rtt

    @property
    def patience(self) -> float:
        """How long an answer may take, seconds."""
        rtt = self._path.rtt
        return FIRST_PATIENCE if rtt is None else rtt + max(4 * self._variation, MARGIN)

    def _interval(self) -> float:
        settings, path = self._node.settings.probe, self._path
        if path.sessions and path.proven:
            return settings.probe_every
        if not path.proven and self._answered_since is not None:
            return min(RECOVERY_EVERY, settings.probe_idle_every)
        return settings.probe_idle_every if path.proven else min(1.0, settings.probe_idle_every)

    def _again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._probe(now)
        interval = self._interval()
        self.at_ease = interval > self._node.settings.probe.probe_every
        self._timer = self._node.timers.set(now + interval, self._again)

    def _probe(self, now: float) -> None:
        target = self._node.home.probe_target(self._path)
        local = self._path.locals.get("UDP")
        if target is None or local is None or not self._path.present:
            return
        transaction = bytes.fromhex(self._node.ids.tag()[:24])
        self._sent[transaction] = now
        if len(self._sent) > 16:
            del self._sent[next(iter(self._sent))]
        self._node.act(Send(encode_request(transaction), Flow(local, target)))
        due = now + self.patience

        def check(at: float) -> None:
            if transaction not in self._sent:
                return
            if at > due + STALL:  # the answer may be waiting in the socket behind us
                self._node.timers.set(at + STALL, lambda later: self._expired(transaction, later))
            else:
                self._expired(transaction, at)

        self._node.timers.set(due, check)

    def _expired(self, transaction: bytes, now: float) -> None:
        sent_at = self._sent.pop(transaction, None)
        if sent_at is not None:
            self._given_up[transaction] = sent_at
            if len(self._given_up) > 16:
                del self._given_up[next(iter(self._given_up))]
            self._late(sent_at, now)

    def _late(self, sent_at: float, now: float) -> None:
        self._lost += 1
        self._answered_since = None
        self._last_lost = sent_at
        if self._first_lost is None:
            self._first_lost = sent_at
        limit = self._node.settings.probe.probe_lost
        path = self._path
        if self._lost == 1 and path.proven:
            self._node.doubling.suspect(path, now)
            self._node.preparing.doubt(path, now)
            for ahead in range(1, limit):
                self._node.timers.set(now + BURST * (ahead - 1), self._probe)
            for other in self._others():
                other.doubt(now)
            self._count_arrivals(self._first_arrivals)
        if self._lost >= limit and path.proven:
            self._judge(now)

    def _judge(self, now: float) -> None:
        """Is the path dead, or the SIP-HS?"""
        if self._lost < self._node.settings.probe.probe_lost or not self._path.proven:
            return
        if self._home_lives():
            self._silent(now)
        elif not self._path.sessions:
            self._judge_idle(now)
        elif self._arrived is None:  # its calls have come while nobody was answered
            self._count_arrivals(self._first_arrivals)
            self._node.timers.set(now + FIRST_WITHIN, self._judge)
        elif now < self._arrived_at + ARRIVAL_WITHIN:
            self._node.timers.set(self._arrived_at + ARRIVAL_WITHIN, self._judge)
        else:
            self._count_arrivals(self._weighed)

    def _judge_idle(self, now: float) -> None:
        """Nothing tells of a path without calls but what becomes of those with calls."""
        used = [prober for prober in self._others() if prober._path.proven and prober._path.sessions]
        if any(now < prober._vouched_at + VOUCHED_FOR for prober in used):
            self._lost -= 1
            self._arrived = None
        elif used and self._first_lost is not None and now < self._last_lost + self.patience + JUDGED_WITHIN:
            self._node.timers.set(now + JUDGE_AGAIN, self._judge)
        else:
            self._silent(now)

    def _others(self) -> list[Prober]:
        return [prober for path, prober in self._node.probers.items() if prober is not self and path.present]

    def _home_lives(self) -> bool:
        """Whether another path was answered to a probe sent while those of this one were lost."""
        first, last = self._first_lost, self._last_lost
        sent = [prober.proof_sent_at for prober in self._others()]
        return first is not None and any(at is not None and first <= at <= last for at in sent)

    def _count_arrivals(self, then: Callable[[Counted, float], None]) -> None:
        """Read how many media packets have come in over this path."""
        path = self._path
        keys = [
            key
            for session in islice(path.sessions, CALLS_ASKED)
            if session.media is not None
            for key, flow in session.media.flows.items()
            if key.host == path.address and flow.group == INSIDE
        ]
        self._node.act(ReadCounters(self._node.ticket(then), tuple(keys)))

    def _first_arrivals(self, counted: Counted, now: float) -> None:
        self._arrived = sum(packets for packets, _ in counted.counters.values())
        self._arrived_at = now

    def _weighed(self, counted: Counted, now: float) -> None:
        """Neither this path nor another was answered: do media arrive?"""
        if self._lost < self._node.settings.probe.probe_lost or not self._path.proven:
            return
        if now < self._arrived_at + ARRIVAL_WITHIN:
            return  # two lost probes have asked at once, and the first reading has told already
        arrived = sum(packets for packets, _ in counted.counters.values())
        if self._arrived is None or arrived <= self._arrived:
            if now < self._witnessed_at + VOUCHED_FOR:
                self._lost -= 1
                if now > self._witnessed_at + VOUCHED_FOR / 2:
                    self._witnesses.ask(now)
            else:
                self._silent(now)
            return
        if now > self._told_at + TELL_EVERY:
            self._told_at = now
            self._node.log("warning", "home is silent, media arrive: the path stays ON", path=self._path.name)
        self._arrived, self._arrived_at = arrived, now
        self._vouched_at = now
        self._lost -= 1

    def _silent(self, now: float) -> None:
        self._ever_off = True
        self._vouched_at = self._witnessed_at = float("-inf")
        lives = self._home_lives()
        self._node.paths.silent(self._path, "probe", now)
        if not lives:
            self._ask_witnesses(now)

    def _ask_witnesses(self, now: float) -> None:
        """While neither the SIP-HS nor another path helps its calls, their far ends may."""
        path = self._path
        if path.proven or not path.present or self._timer is None:
            self._witnesses.stop()
        elif path.sessions:
            self._witnesses.ask(now)
            self._node.timers.set(now + ASK_EVERY, self._ask_witnesses)

"""One random run: calls in both directions, a lossy network, uplinks that fail in every way; and what must hold.

`python -m sim.chaos SEED …` (in tests/) runs single seeds and tells what happened.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from sim.collide import TRUNK, Collisions
from sim.fleet import Fleet
from sipnemo.roles.nms.settings import DampingSettings, MoveSettings, PolicySettings, ProbeSettings
from sipnemo.roles.phone.call import State
from sipnemo.roles.phone.node import Phone

TROUBLE = 45.0
"Seconds of calls and failures."
REST = 15.0
"Seconds after the last failure has been mended within which everything flows again."
HEARD = 4.0
"Seconds at the end in which media are counted."
SETTLED = 1.0
"More seconds for a call that is moving when it is looked at: its re-INVITE has been lost, and is sent again."
FORGOTTEN_AFTER = 260.0
"Seconds in which every timer of every half-made call has run out: Timer C, CANCEL, and what follows."
GOODBYES = 40.0
"Seconds within which the far end has learnt of a hang-up, whatever was lost."


@dataclass
class Placed:
    """One call of the run."""

    call_id: str
    caller: str
    callee: str
    placed_at: float
    up: bool = False
    "Answered and acknowledged at both ends, at some time."
    held_by: str = ""
    stays_held: bool = False
    hung_up_at: float | None = None
    troubled: bool = False
    "A path failed, or was down, while it was being set up."

    def other(self, name: str) -> str:
        return self.callee if name == self.caller else self.caller


@dataclass
class Outcome:
    """What one run showed."""

    seed: int
    broken: list[str] = field(default_factory=list)
    "Invariants that did not hold; empty when all is well."
    told: list[str] = field(default_factory=list)
    "What was done, for people."
    calls: int = 0
    established: int = 0
    not_established: int = 0
    moves: int = 0
    events: int = 0


class Run:
    """A fleet and what happens to it."""

    def __init__(self, seed: int, verbose: bool = False) -> None:
        self.seed = seed
        self.verbose = verbose
        self.chance = chance = Random(seed)
        self.outcome = Outcome(seed)
        self.calls: list[Placed] = []
        self._collisions = Collisions(self)
        own = Random(f"settings {seed}")
        returns: tuple[Literal["never", "idle", "by-class"], ...] = ("never", "idle", "by-class")
        returning = own.choice(returns)
        self.fleet = Fleet(
            seed,
            uplinks=chance.choice((2, 2, 3)),
            rtp_every=0.1,
            nms={
                "probe": ProbeSettings(probe_every=0.2),
                "trunk": TRUNK,
                "policy": PolicySettings(returning=returning, return_after=own.choice((0.0, 3.0))),
                "damping": DampingSettings(half_life=own.choice((5.0, 60.0))),
                "move": MoveSettings(pace=own.choice((2.0, 10_000.0)), duplicate=seed % 3 == 0),
            },
            phone={"answer_after": chance.choice((0.0, 0.0, 2.0))},
        )
        self.world = self.fleet.world
        network = self.world.network
        network.errors = chance.random() < 0.5
        self.downs: dict[int, str] = {}
        "Uplinks in trouble, and which."
        self._next_address = 10
        for uplink in self.fleet.uplinks:
            uplink.delay = chance.uniform(0.005, 0.08)
            uplink.jitter = chance.choice((0.0, 0.01, 0.04))
            uplink.duplicates = chance.choice((0.0, 0.02, 0.05))
            uplink.loss = chance.choice((0.0, 0.01, 0.03, 0.10))

    def tell(self, text: str) -> None:
        self.outcome.told.append(f"{self.world.now - 1000:7.3f} {text}")

    # ------------------------------------------------------------------------------------------------- the story

    def play(self) -> Outcome:
        """The whole run."""
        chance, clock = self.chance, self.world.clock
        begin = self.world.now
        for _ in range(chance.randint(3, 6)):
            clock.at(begin + chance.uniform(0.0, TROUBLE * 0.8), self._place)
        for _ in range(chance.randint(2, 7)):
            clock.at(begin + chance.uniform(1.0, TROUBLE), self._fail)
        for _ in range(chance.randint(0, 3)):
            clock.at(begin + chance.uniform(5.0, TROUBLE), self._hang_up)
        for _ in range(chance.randint(0, 2)):
            clock.at(begin + chance.uniform(3.0, TROUBLE), self._hold)
        end = begin + TROUBLE
        while self.world.now < end:
            self.world.run(0.25)
            self._look()
        for number in list(self.downs):
            self._mend(number)
        self.tell("everything mended")
        while self.world.now < end + REST:
            self.world.run(0.5)
            self._look()
        self.world.run(HEARD)
        self._check_media()
        self._check_agreement()
        self._check_goodbyes()
        for call in self.calls:
            if call.hung_up_at is None:
                self._end(call)
        self.world.run(GOODBYES)
        self._look()
        self._check_goodbyes(0.0)
        self.fleet.hang_up_everything()
        self.outcome.broken += self.fleet.leaks(FORGOTTEN_AFTER)
        self.outcome.broken += self.fleet.offers_broken()
        outcome = self.outcome
        outcome.calls = len(self.calls)
        outcome.established = sum(call.up for call in self.calls)
        outcome.not_established = outcome.calls - outcome.established
        outcome.moves = sum(len(wave.records) for wave in self.fleet.nms_node.handover.waves)
        outcome.events = clock.events
        return outcome

    # ------------------------------------------------------------------------------------------------ what is done

    def _place(self) -> None:
        inside, outside = self.chance.choice(self.fleet.inside_names), self.chance.choice(self.fleet.outside_names)
        caller, callee = (inside, outside) if self.chance.random() < 0.5 else (outside, inside)
        if self.chance.random() < 0.1:
            caller, callee = self.fleet.inside_names[:2]
        call = Placed(self.fleet.dial(caller, callee), caller, callee, self.world.now, troubled=bool(self.downs))
        self.calls.append(call)
        self.tell(f"{caller} calls {callee} ({call.call_id[:8]})")

    def _hang_up(self) -> None:
        ready = [call for call in self.calls if call.up and call.hung_up_at is None]
        if ready:
            self._end(self.chance.choice(ready))

    def do(self, name: str, command: str, call: Placed) -> None:
        """A phone does something with a call, if it has it still."""
        phone = self.fleet.phone_call(name, call.call_id)
        if phone is not None and phone.state is State.ACTIVE and call.hung_up_at is None:
            self.tell(f"{name} {command} {call.call_id[:8]}")
            self.fleet.phones[name].command(command, call_id=call.call_id)

    def _end(self, call: Placed) -> None:
        self.end(call, self.chance.choice((call.caller, call.callee)))

    def end(self, call: Placed, name: str) -> None:
        """One of its phones hangs up."""
        if not self._has(name, call):
            name = call.other(name)
        call.hung_up_at = self.world.now
        if self._has(name, call):
            self.tell(f"{name} hangs up {call.call_id[:8]}")
            self.fleet.hang_up(name, call.call_id)

    def _hold(self) -> None:
        ready = [call for call in self.calls if call.up and call.hung_up_at is None and not call.held_by]
        if not ready:
            return
        call = self.chance.choice(ready)
        name = self.chance.choice((call.caller, call.callee))
        call.held_by = name
        self.tell(f"{name} holds {call.call_id[:8]}")
        self.fleet.phones[name].command("hold", call_id=call.call_id)
        self.world.clock.after(self.chance.uniform(0.5, 8.0), self._resume, call, name)

    def _resume(self, call: Placed, name: str) -> None:
        if self._has(name, call) and call.hung_up_at is None:
            self.tell(f"{name} resumes {call.call_id[:8]}")
            self.fleet.phones[name].command("resume", call_id=call.call_id)

    def _fail(self) -> None:
        working = [n for n in range(len(self.fleet.uplinks)) if n not in self.downs]
        on = {path.eface.id - 1 for path in self.fleet.nms_node.paths.on()}
        number = self.chance.choice(range(len(self.fleet.uplinks)))
        if number in self.downs:
            self._mend(number)
            return
        others = [n for n in working if n != number and n in on]
        if not others and self.chance.random() < 0.9:
            return  # the last one stays, nearly always
        self._collisions.around_a_failure()
        kind = self.chance.choice(("carrier", "silence", "address", "roam", "drain", "flap"))
        self.tell(f"uplink {number}: {kind}")
        for call in self.calls:
            if not call.up:
                call.troubled = True
        fleet = self.fleet
        if kind == "roam":
            self._next_address += 1
            fleet.readdress(number, f"198.18.{number}.{self._next_address}")
            return
        self.downs[number] = kind
        match kind:
            case "carrier" | "flap":
                fleet.cut(number)
            case "silence":
                fleet.silence(number)
            case "address":
                fleet.readdress(number)
            case "drain":
                fleet.operator(number + 1, "off")
        span = self.chance.uniform(0.3, 3.0) if kind == "flap" or not others else self.chance.uniform(0.5, 20.0)
        self.world.clock.after(span, self._mend, number)

    def _mend(self, number: int) -> None:
        kind = self.downs.pop(number, "")
        if not kind:
            return
        self.tell(f"uplink {number}: {kind} is over")
        if kind == "address":
            self._next_address += 1
            self.fleet.readdress(number, f"198.18.{number}.{self._next_address}")
        elif kind == "drain":
            self.fleet.operator(number + 1, "auto")
        else:
            self.fleet.mend(number)

    # ------------------------------------------------------------------------------------------------ what must hold

    def _has(self, name: str, call: Placed) -> bool:
        phone = self.fleet.phones[name].node
        assert isinstance(phone, Phone)
        return any(known == call.call_id for known, _ in phone.calls)

    def _failed_since(self, instant: float) -> bool:
        """Whether the gateway has found a path OFF since, be it that loss looked like silence."""
        return any(
            at >= instant and name == "path" and body["status"] == "OFF" for at, name, body in self.fleet.nms.events
        )

    def _look(self) -> None:
        """A call ends only by a hang-up of its parties."""
        for call in self.calls:
            if not call.up and call.hung_up_at is None:
                call.up = self.fleet.up(call.caller, call.call_id) and self.fleet.up(call.callee, call.call_id)
                if not call.up and (self.downs or self._failed_since(call.placed_at)):
                    call.troubled = True
            if call.hung_up_at is not None:
                continue
            for name in (call.caller, call.callee):
                ended = self.fleet.ended(name, call.call_id)
                if ended is not None:
                    call.hung_up_at = self.world.now
                    text = f"{call.call_id[:8]} ended at {name}: {ended['reason']} (by {ended['by']})"
                    self.tell(text)
                    if call.up or not call.troubled:
                        self.outcome.broken.append(text if call.up else f"not set up: {text}")
                    if self._has(call.other(name), call) and not call.up:
                        self.fleet.hang_up(call.other(name), call.call_id)
                    break

    def _check_media(self) -> None:
        now = self.world.now
        for call in self.calls:
            if call.hung_up_at is not None:
                continue
            if not call.up:
                if not call.troubled:
                    self.outcome.broken.append(
                        f"{call.call_id[:8]} is not up {now - call.placed_at:.0f} s after its INVITE"
                    )
                continue
            if call.held_by and self.fleet.held(call.call_id, call.caller, call.callee):
                continue  # or its resuming has been refused; that both know it, `_check_agreement` sees to
            for name in (call.caller, call.callee):
                heard = self.fleet.stream(name, call.call_id).received_between(now - HEARD, now)
                if heard < HEARD / 0.1 * 0.5:
                    self.outcome.broken.append(f"{call.call_id[:8]}: {name} hears {heard} packets in {HEARD:.0f} s")

    def _check_agreement(self) -> None:
        """Both ends have the same idea of who speaks to whom (R5).

        Loss may look like a dead path at any time, so a call may be moving just now: it is looked at again, once.
        """
        moving = [call for call in self._going_on() if self.fleet.moving(call.call_id) and self._disagreements(call)]
        if moving:
            self.tell(f"moving just now: {', '.join(call.call_id[:8] for call in moving)}")
            self.world.run(SETTLED)
            self._look()
        for call in self._going_on():
            self.outcome.broken += self._disagreements(call)

    def _going_on(self) -> list[Placed]:
        return [call for call in self.calls if call.up and call.hung_up_at is None]

    def _disagreements(self, call: Placed) -> list[str]:
        return self.fleet.disagreements(call.call_id, call.caller, call.callee)

    def _check_goodbyes(self, since: float = GOODBYES) -> None:
        for call in self.calls:
            if call.hung_up_at is None or not call.up or call.hung_up_at > self.world.now - since:
                continue
            for name in (call.caller, call.callee):
                if self._has(name, call):
                    self.outcome.broken.append(f"{call.call_id[:8]} was hung up, and {name} does not know")


def run(seed: int) -> Outcome:
    """Play one seed."""
    return Run(seed).play()


def main() -> None:
    """Play the seeds of the command line and tell."""
    for word in sys.argv[1:]:
        first, _, last = word.partition("-")
        bad, total, began = 0, 0, time.perf_counter()
        for seed in range(int(first), int(last or first) + 1):
            played = Run(seed)
            try:
                outcome = played.play()
            except Exception as error:
                outcome = replace(played.outcome, broken=[f"raised {error!r}"])
                if not last:
                    raise
            total += 1
            if not last:
                print("\n".join(outcome.told))
                for call in played.calls:
                    print(f"-- {call}")
                    print("\n".join(played.fleet.story(call.call_id)))
                print(outcome.calls, outcome.established, outcome.moves, outcome.events)
            if outcome.broken:
                bad += 1
                print(seed, *outcome.broken, sep="\n   ")
        span = time.perf_counter() - began
        print(f"{total} seeds, {bad} broken, {span:.1f} s, {total / span:.1f} seeds/s")


if __name__ == "__main__":
    main()

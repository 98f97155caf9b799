"""Calls whose paths die at random instants while they are set up (R3, R2): none is lost, and the callee rings once.

`SEED=148 pytest tests/sim/test_early_seeds.py` plays one again, and tells what happened.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from sim.fleet import Fleet
from sim.test_early_calls import WAYS, WIRES, dial, told

SEEDS = int(os.environ.get("SIPNEMO_SEEDS", "150"))
ONE = os.environ.get("SEED", "")
WITHIN = 16.0
"Seconds until both ends have the call: with every means tried, one after the other, and messages lost on the way."
FORGOTTEN_AFTER = 260.0


class Setup:
    """One call, and what befalls it before it is answered."""

    def __init__(self, seed: int) -> None:
        chance = self.chance = Random(f"early {seed}")
        self.way = chance.choice(tuple(WAYS))
        self.wire = chance.choice(WIRES)
        uplinks = chance.choice((2, 3))
        after = chance.choice((0.0, 0.2, 1.0, 3.0))
        phone = {"answer_after": after, "reliable": chance.random() < 0.4, "late_offer": chance.random() < 0.15}
        nms = {} if self.wire == "UDP" else {"home": "sip:home.example;transport=tcp"}
        self.fleet = fleet = Fleet(seed, inside=1, outside=1, uplinks=uplinks, nms=nms, phone=phone)
        for uplink in fleet.uplinks:
            uplink.delay = chance.uniform(0.005, 0.15)
            uplink.jitter = chance.choice((0.0, 0.005))
            uplink.loss = chance.choice((0.0, 0.0, 0.01))
        self.told = [f"{self.way} {self.wire} {phone} over {uplinks} uplinks"]
        if chance.random() < 0.5:
            fleet.world.run(5.0)  # else the round trips have just grown, and paths may be OFF for a moment
        self.kills = 0
        clock, now = fleet.world.clock, fleet.world.now
        at = now + chance.uniform(0.0, after + 1.0)
        clock.at(at, self._kill, 0)
        if uplinks == 3 and chance.random() < 0.5:
            clock.at(at + chance.choice((0.02, 0.1, 0.5, 1.5)) * chance.random(), self._kill, 1)
        elif chance.random() < 0.3:  # all are gone for a while
            clock.at(at + chance.uniform(0.0, 1.0), self._kill, 1)
            clock.at(at + chance.uniform(1.5, 5.0), self._mend, chance.choice((0, 1)))
        self.gives_up_at = now + chance.uniform(0.05, after + 1.0) if chance.random() < 0.2 else 0.0

    def _kill(self, number: int) -> None:
        self.kills += 1
        fleet, kind = self.fleet, self.chance.choice(("carrier", "silence", "drain", "roam"))
        self.told.append(f"{fleet.world.now:.3f} uplink {number}: {kind}")
        match kind:
            case "carrier":
                fleet.cut(number)
            case "silence":
                fleet.silence(number)
            case "drain":
                fleet.operator(number + 1, "off")
            case "roam":
                fleet.readdress(number, f"198.18.{number + 1}.9")

    def _mend(self, number: int) -> None:
        self.fleet.operator(number + 1, "auto")
        self.fleet.mend(number)

    def play(self) -> list[str]:
        """What is not as it should be."""
        fleet, (caller, callee) = self.fleet, WAYS[self.way]
        world = fleet.world
        call_id = dial(fleet, self.way, self.wire)
        wrong: list[str] = []
        if self.gives_up_at:
            world.run(self.gives_up_at - world.now)
            self.told.append(f"{world.now:.3f} {caller} gives up")
            fleet.hang_up(caller, call_id)
            world.run_until(lambda: not self._has(caller, call_id) and not self._has(callee, call_id), 45.0)
            wrong += [f"{name} has the call still" for name in (caller, callee) if self._has(name, call_id)]
        else:

            def up() -> bool:
                return fleet.up(caller, call_id) and fleet.up(callee, call_id)

            if not world.run_until(up, WITHIN):
                if not self._found_no_uplink(caller, call_id):
                    wrong.append("the call did not come about")
            else:
                world.run(6.0)
                if not fleet.talking(call_id, caller, callee, span=2.0):
                    wrong.append("the ends do not hear each other")
                if not up():
                    wrong.append("the call was lost")
                fleet.hang_up(callee, call_id)
                world.run(6.0)
                wrong += [f"{name} has the call still" for name in (caller, callee) if self._has(name, call_id)]
        rings = len(fleet.phones[callee].notices("incoming"))
        if rings > (1 + self.kills if self.way == "direct" else 1):
            wrong.append(f"{callee} rang {rings} times")
        fleet.hang_up_everything()
        wrong += fleet.leaks(FORGOTTEN_AFTER)
        self.told.append(told(fleet, call_id))
        return wrong

    def _found_no_uplink(self, caller: str, call_id: str) -> bool:
        """Whether an INVITE, perhaps the second one after a challenge, came while no path was ON."""
        ended = self.fleet.ended(caller, call_id)
        return ended is not None and ended["reason"] == "503 No uplink"

    def _has(self, name: str, call_id: str) -> bool:
        return any(known == call_id for known, _ in self.fleet.phones[name].node.calls)  # type: ignore[attr-defined]


@pytest.mark.req("R3", "R2", "R18")
def test_no_call_is_lost_while_it_is_set_up() -> None:
    broken = []
    for seed in range(int(ONE), int(ONE) + 1) if ONE else range(1, SEEDS + 1):
        setup = Setup(seed)
        wrong = setup.play()
        if ONE:
            print("\n".join(setup.told))
        if wrong:
            broken.append(f"SEED={seed}: {'; '.join(wrong)} ({setup.told[0]})")
    assert not broken, "\n".join(broken)

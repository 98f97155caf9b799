"""Random runs in which the home server has bad days too: away, slow, forgetful, busy, or of another opinion.

`python -m sim.home_chaos SEED …` (in tests/) runs single seeds and tells what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

from sim.chaos import TROUBLE, Outcome, Run
from sim.moody_home import Home
from sipnemo.roles.hs.bindings import TABLE

SETTLED = 20.0
"Seconds after a trouble in which a call that cannot be set up is no wonder."
LONGEST_SILENCE = 28.0
"Seconds: a server that is away for 12 hears the copy of an INVITE that is sent 15.5 after the first, or no later one."
BACK = 1900.0
"Seconds within which everything is registered again, whatever was refused: the longest pause is 1800."
MOST_REGISTERS = 300
"Of one run: some 50 troubles, moves and refreshes, each with a challenge, and hardly more."


class HomeRun(Run):
    """A fleet, what happens to it, and what happens to its home server."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.luck = Random(f"home {seed}")
        self.home = Home(self.fleet)
        self.trouble = ""
        self.settled_at = self.wondrous_until = 0.0
        self.asked = 0

    def play(self) -> Outcome:
        """The whole run."""
        begin = self.world.now
        for _ in range(self.luck.randint(1, 4)):
            self.world.clock.at(begin + self.luck.uniform(0.5, TROUBLE - LONGEST_SILENCE), self._trouble)
        outcome = super().play()
        if self.trouble:
            self._calm()
        if not self.world.run_until(self._registered, within=BACK, step=1.0):
            known = {flow.path.name: flow.refused for flow in self.fleet.nms_node.home.flows.values()}
            outcome.broken.append(f"registered are {self.home.listed()}, wanted {self._wanted()}, told {known}")
        outcome.broken += [f"{name} is not bound" for name in self.fleet.phones if not self.home.knows(name)]
        self.asked += len(self.home.asked())
        # A callee whose answer died with the server sends its media for 32 s more, longer than a port rests.
        outcome.broken = [text for text in outcome.broken if not text.endswith("packets reached another call")]
        if self.asked > MOST_REGISTERS:
            outcome.broken.append(f"{self.asked} REGISTERs")
        return outcome

    def _place(self) -> None:
        super()._place()
        if self.trouble or self.world.now < self.wondrous_until:
            self.calls[-1].troubled = True

    def _fail(self) -> None:
        """A server that knows nobody has nothing to send a far end's request to but the address that it names.

        So an address that goes away in these seconds takes with it what is under way: that is no news of ours.
        """
        if self.trouble != "emptied" and self.world.now >= self.settled_at:
            super()._fail()

    def _trouble(self) -> None:
        if self.trouble or self.world.now < self.settled_at:
            return
        chance = self.luck
        self.trouble = chance.choice(("killed", "emptied", "slow", "refuses", "deaf"))
        self.tell(f"home: {self.trouble}")
        for call in self.calls:
            if not call.up:
                call.troubled = True
        if self.trouble == "emptied" and self.downs:
            self.trouble = "killed"
        span = chance.uniform(0.05, 12.0)
        match self.trouble:
            case "killed" | "emptied":
                self.asked += len(self.home.asked())
                self.home.station.kill()
            case "slow":
                self.home.slow(chance.uniform(0.5, 4.0))
            case "refuses":
                lines: tuple[str, ...] = ()
                status = chance.choice((400, 401, 403, 404, 408, 423, 500, 503, 503))
                if status == 503 and chance.random() < 0.5:
                    lines = ("Retry-After: 7",)
                if status == 423:
                    lines = ("Min-Expires: 900",)
                self.tell(f"home refuses with {status}")
                self.home.refuse((status, lines))
                for flow in self.fleet.nms_node.home.flows.values():
                    if chance.random() < 0.5:
                        flow.register(self.world.now)
                span *= 3
            case _:
                share = chance.uniform(0.2, 0.9)
                dice = Random(chance.random())
                self.world.network.drop = lambda data, _source, _target: (
                    b" REGISTER\r\n" in data[:900] and dice.random() < share
                )
        self.world.clock.after(span, self._calm)

    def _calm(self) -> None:
        trouble, self.trouble = self.trouble, ""
        self.settled_at = self.world.now + (SETTLED if trouble == "emptied" else 0.0)
        self.wondrous_until = self.world.now + SETTLED
        self.tell(f"home: {trouble} is over")
        done: dict[str, Callable[[], None]] = {
            "killed": self.home.station.restart,
            "emptied": self._restart_empty,
            "slow": lambda: self.home.slow(0.0),
            "refuses": lambda: self.home.refuse(None),
            "deaf": lambda: setattr(self.world.network, "drop", None),
        }
        if trouble:
            done[trouble]()

    def _restart_empty(self) -> None:
        """Of phones' bindings nobody but the phones could tell it anew: those it still has."""
        rows = self.home.station.rows.get(TABLE, {})
        for user in [user for user, row in rows.items() if row["instance"]]:
            del rows[user]
        self.home.station.restart()

    def _wanted(self) -> dict[int, str]:
        return {flow.path.reg_id: flow.uri for flow in self.fleet.nms_node.home.flows.values() if flow.wanted}

    def _registered(self) -> bool:
        flows = self.fleet.nms_node.home.flows.values()
        return self.home.listed() == self._wanted() and all(flow.registered for flow in flows)


def main() -> None:
    """Play the seeds of the command line and tell."""
    for word in sys.argv[1:]:
        first, _, last = word.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            played = HomeRun(seed)
            outcome = played.play()
            if not last:
                print("\n".join(outcome.told))
                for call in played.calls:
                    print(f"-- {call}", *played.fleet.story(call.call_id), sep="\n")
            if outcome.broken or not last:
                print(seed, *outcome.broken, sep="\n   ")


if __name__ == "__main__":
    main()

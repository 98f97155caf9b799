"""What the two ends of a call do at the worst moment: while it moves (R4, R5)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sim.moody import SILENCE
from sipnemo.roles.nms.settings import TrunkCredentials

if TYPE_CHECKING:
    from sim.chaos import Placed, Run

TRUNK = (TrunkCredentials("trunk", "fleet", "secret"),)
_CHALLENGES = (
    (401, 'WWW-Authenticate: Digest realm="trunk", nonce="a", algorithm=SHA-256, qop="auth"'),
    (407, 'Proxy-Authenticate: Digest realm="trunk", nonce="b", algorithm=MD5'),
    (407, 'Proxy-Authenticate: Digest realm="trunk", nonce="c", stale=true, qop="auth"'),
)
_REFUSALS: tuple[int | tuple[int, str], ...] = (
    491,
    491,
    (500, "Retry-After: 1"),
    (503, "Retry-After: 1"),
    504,
    SILENCE,
)


class Collisions:
    """Chosen by a seed of their own, so that the rest of a run stays what it was."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._chance = Random(f"collisions of {run.seed}")

    def around_a_failure(self) -> None:
        """A path has just failed: some of the calls are busy with something else."""
        for _ in range(self._chance.choice((0, 0, 1, 2, 3))):
            after = self._chance.choice((0.0, self._chance.uniform(0.0, 0.3), self._chance.uniform(0.0, 5.0)))
            self._run.world.clock.after(after, self._collide)

    def _collide(self) -> None:
        run, chance = self._run, self._chance
        ready = [call for call in run.calls if call.up and call.hung_up_at is None]
        if not ready:
            return
        call = chance.choice(ready)
        name = chance.choice((call.caller, call.callee))
        kind = chance.choice(("reinvite", "reinvite", "refresh", "info", "hold", "both", "refuse", "refuse", "bye"))
        run.tell(f"{name} collides in {call.call_id[:8]}: {kind}")
        match kind:
            case "hold":
                if not call.held_by:
                    self._hold(call, name)
            case "both":
                for end in (call.caller, call.callee):
                    run.do(end, "reinvite", call)
            case "refuse":
                answers = [chance.choice(_REFUSALS) for _ in range(chance.choice((0, 1, 1, 2)))]
                # One at most: who asks again after a right answer says that it was wrong.
                answers += [chance.choice(_CHALLENGES)] if chance.random() < 0.4 or not answers else []
                run.tell(f"   with {answers}")
                run.fleet.refuse_moves(name, *answers)
            case "bye":
                if chance.random() < 0.3:
                    run.end(call, name)
            case _:
                run.do(name, kind, call)

    def _hold(self, call: Placed, name: str) -> None:
        """For a moment, or until the end: then both ends must know."""
        run, chance = self._run, self._chance
        call.held_by = name
        run.do(name, "hold", call)
        if chance.random() < 0.4:
            call.stays_held = True
        else:
            run.world.clock.after(chance.uniform(0.0, 3.0), run.do, name, "resume", call)

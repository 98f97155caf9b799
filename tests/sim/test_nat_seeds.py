"""Random runs as in `chaos.py`, with every uplink behind a NAT, which may be restarted or renumbered at any time."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sim.chaos import Run
from sipnemo.sim.nat import Nat

SEEDS = int(os.environ.get("SIPNEMO_NAT_SEEDS", "30"))
KINDS: tuple[dict[str, Any], ...] = ({}, {"keeps_ports": False}, {"symmetric": True, "timeout": 20.0})


class NatRun(Run):
    """One of them."""

    def __init__(self, seed: int, verbose: bool = False) -> None:
        super().__init__(seed, verbose)
        fleet = self.fleet
        fleet.world.phones.comedia.update(fleet.outside_names)
        for number, uplink in enumerate(fleet.uplinks):
            kind = self.chance.choice(KINDS)
            self.tell(f"uplink {number} is behind a NAT {kind or 'that keeps ports'}")
            uplink.nat = Nat(self.world.clock, f"100.64.{number}.1", **kind, seed=seed + number)
            fleet.readdress(number, f"192.168.{number}.7")
        self.world.run(8.0)

    def _fail(self) -> None:
        """Sometimes it is the NAT that fails."""
        number = self.chance.randrange(len(self.fleet.uplinks))
        nat = self.fleet.uplinks[number].nat
        assert nat is not None
        match self.chance.choice(("path", "path", "half", "restart", "renumber")):
            case "half" if number not in self.downs and len(self.downs) < len(self.fleet.uplinks) - 1:
                uplink = self.fleet.uplinks[number]
                up = self.chance.random() < 0.5
                self.tell(f"uplink {number}: silent {'upwards' if up else 'downwards'}")
                self.downs[number] = "half"
                (uplink.up if up else uplink.down).silent = True
                self.world.clock.after(self.chance.uniform(0.5, 20.0), self._mend, number)
            case "path":
                super()._fail()
            case "restart":
                self.tell(f"the NAT {nat.public} is restarted")
                nat.forget(nat.public)
            case _:
                self._next_address += 1
                self.tell(f"the NAT {nat.public} has another address")
                nat.forget(f"{nat.public.rpartition('.')[0]}.{self._next_address}")
        for call in self.calls:
            call.troubled = call.troubled or not call.up


@pytest.mark.req("R10", "R2", "R6", "R14")
def test_no_call_is_lost_behind_nats() -> None:
    broken = [
        f"seed {seed}: {outcome.broken}" for seed in range(1, SEEDS + 1) if (outcome := NatRun(seed).play()).broken
    ]
    assert broken == []

"""Twenty cuts of each uplink in random order, during calls of a minute between real phones: none is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from .calls import Make, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import UPLINKS, GatewayWorld
from .hosts import wait_until
from .tap import Tap

pytestmark = [pytest.mark.programs("baresip", "pjsip", "kamailio", "kamailio-tls", "openssl"), pytest.mark.long]

CUTS = 20
LASTS = 60.0
"Seconds that each call lasts; the next two follow."


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        start_servers(world)
        yield world


@pytest.mark.req("R2", "R14", "R15", "MH-12")
@pytest.mark.parametrize("make", ["baresip", "pjsip"])
def test_no_call_is_lost_in_twenty_cuts_of_each_uplink(
    world: GatewayWorld, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20)
    cuts = [line for line in UPLINKS for _ in range(CUTS)]
    chance.shuffle(cuts)
    waves = len(world.moves())
    calls = 0
    with world.calm(), phones(world, inside=make, outside=make) as people, Tap(world.hosts["hs"]) as home:
        alice, bob, carol, dave = people.values()
        for number in count(1):
            if not cuts:
                break
            connect(alice, carol, number)
            connect(dave, bob, number)
            calls += 2
            end_at = time.monotonic() + LASTS
            while cuts and time.monotonic() < end_at:
                line = cuts.pop()
                other = next(each for each in UPLINKS if each != line)
                world.cut(line, chance.choice(("carrier", "address", "silent")))
                leaves_by(other, carol, dave)
                hear(alice, bob)
                world.mend()
            wait_until(lambda until=end_at: time.monotonic() > until, LASTS, "the minute to be over")  # type: ignore[misc]
            hear(*people.values())
            hang_up(alice, carol, number)
            hang_up(bob, dave, number)
    moves = world.moves()[waves:]
    asked = Counter(packet.text.split(" ", 1)[0] for packet in home.sip if packet.direction == "in")
    ended = Counter[str]()
    for wave in moves:
        ended.update(wave["ended"])
    with capsys.disabled():
        print(
            f"\n{make}: {CUTS} cuts of each of {len(UPLINKS)} uplinks, {calls} calls of {LASTS:g} s, none lost; "
            f"{sum(wave['invites'] for wave in moves)} re-INVITEs, {asked['REGISTER']} REGISTERs at home; "
            f"moves of calls: {dict(ended)}"
        )
    assert set(ended) == {"verified"}

"""Rounds of broken messages through a fleet with live calls; whatever raises or stays behind is a defect.

`python -m fuzz.rounds COUNT [SEED]` (in tests/) runs many.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz.mutate import mutated
from sim.fleet import Fleet
from sipnemo.roles.nms.settings import ProbeSettings
from sipnemo.roles.node import Received
from sipnemo.sdp.description import SdpError
from sipnemo.sdp.description import parse as parse_sdp
from sipnemo.sim.world import Station
from sipnemo.sip import parser, stun
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Address, Flow
from sipnemo.sip.message import Message, Request, uri_of
from sipnemo.sip.parser import LIMITS, parse
from sipnemo.sip.uri import UriError
from sipnemo.sip.uri import parse as parse_uri

TORTURE = [path.read_bytes() for path in sorted((Path(__file__).parent.parent / "torture" / "rfc4475").glob("*.dat"))]
IN_A_ROUND = 400
FORGOTTEN_AFTER = 420.0
"Seconds in which every timer of every half-made call has run out: Timer C, CANCEL, and what follows."


@dataclass
class Tally:
    """What a round did."""

    messages: int = 0
    parsed: int = 0
    leaks: list[str] = field(default_factory=list)


def check_short_way(data: bytes) -> None:
    """What the parser reads the short way is what it reads the long way."""
    text = data.decode("latin-1")
    head, end, body = text.partition("\r\n\r\n")
    try:
        short = parser._usual(head, body, LIMITS) if end else None
    except SipError:
        return
    if short is None:
        return
    long = parser._unusual(text, len(data), LIMITS)
    fields = [*Message.__slots__, *type(short).__slots__]
    assert [getattr(short, name) for name in fields] == [getattr(long, name) for name in fields]


def read_all(data: bytes) -> bool:
    """The parser and every reader behind it; whether this is still a message. Raises nothing."""
    check_short_way(data)
    try:
        message = parse(data)
    except SipError:
        return False
    for name in set(message.names):
        for value in message.values(name):
            with contextlib.suppress(UriError):
                str(parse_uri(uri_of(value)))
        message.values_raw(name)
    with contextlib.suppress(SdpError):
        parse_sdp(message.body)
    if isinstance(message, Request):
        message.copy().encode()
    message.encode()
    return True


class Round:
    """One fleet, its traffic, and broken copies of it thrown at everybody."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.fleet = Fleet(
            seed,
            inside=2,
            outside=2,
            rtp_every=5.0,
            nms={"probe": ProbeSettings(probe_every=1.0, probe_idle_every=5.0)},
        )
        self.traffic: list[tuple[Address, Address, bytes]] = []
        self._record()

    def _record(self) -> None:
        fleet = self.fleet
        network = fleet.world.network
        network.keep = True
        first = fleet.call("in1", "out1")
        fleet.call("out2", "in2")
        fleet.phones["in1"].command("hold", call_id=first)
        fleet.world.run(0.5)
        fleet.phones["in1"].command("resume", call_id=first)
        fleet.world.run(0.5)
        fleet.operator(1, "off")
        fleet.world.run(1.0)
        fleet.operator(1, "auto")
        third = fleet.call("out1", "in2")
        fleet.hang_up("in2", third)
        fleet.dial("in2", "out2")
        fleet.world.run(0.2)
        fleet.phones["out1"].command("refer", call_id=first, uri="sip:out2@home.example")
        fleet.world.run(1.0)
        network.keep = False
        self.traffic = [(source, target, data) for _, source, target, data in network.sent]
        network.sent.clear()

    def play(self, count: int) -> Tally:
        """Throw that many, then let everything end."""
        tally, chance, world = Tally(), self.chance, self.fleet.world
        corpus = [data for _, _, data in self.traffic] + TORTURE
        for _ in range(count):
            source, target, good = chance.choice(self.traffic)
            if chance.random() < 0.1:
                good = chance.choice(TORTURE)
            data = mutated(chance, good, corpus)
            tally.messages += 1
            tally.parsed += read_all(data)
            with contextlib.suppress(stun.StunError):
                stun.decode(data)
            if not data:
                continue
            station, flow = self._receiver(source, target)
            try:
                station.handle(Received(data, flow))
                world.run(chance.choice((0.0, 0.0, 0.03, 0.3)))
            except Exception as error:
                error.add_note(f"message {tally.messages}, to {station.name} over {flow}: {data!r}")
                raise
        self.fleet.hang_up_everything()
        tally.leaks = self.fleet.leaks(FORGOTTEN_AFTER, crosstalk=False)  # a broken description may name any port
        return tally

    def _receiver(self, source: Address, target: Address) -> tuple[Station, Flow]:
        """Mostly as the good message went; sometimes elsewhere, or from nobody known."""
        chance, network = self.chance, self.fleet.world.network
        if chance.random() < 0.15:
            _, target, _ = chance.choice(self.traffic)
        if chance.random() < 0.15:
            source = chance.choice((("192.0.2.66", 5060), ("10.7.0.66", 5060), source))
        host = network.hosts[target[0]]
        local = host.sockets.get(("UDP", *target)) or next(iter(host.sockets.values()))
        return self.fleet.world.stations[host.name], Flow(local, source)


def play(seed: int, count: int = IN_A_ROUND) -> Tally:
    """One round."""
    return Round(seed).play(count)


def resident() -> int:
    """Most memory this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Many rounds."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    began, done, parsed = time.perf_counter(), 0, 0
    while done < count:
        try:
            tally = play(seed)
        except Exception as error:
            raise RuntimeError(f"seed {seed}") from error
        done, parsed = done + tally.messages, parsed + tally.parsed
        if tally.leaks:
            print(f"seed {seed}: {tally.leaks}")
        seed += 1
    span = time.perf_counter() - began
    print(f"{done} messages, {parsed} still parsed, {done / span:.0f}/s, {resident() // 1024} MiB")


if __name__ == "__main__":
    main()

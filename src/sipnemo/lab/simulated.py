"""A scenario, played in virtual time: the same nodes, in this process, on networks that a seed decides about.

What takes real programs a minute takes a second here, and the same seed gives the same run. Only the kernel is not
there: sockets, interfaces and the media plane are `sipnemo.sim`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from sipnemo.lab import tally
from sipnemo.lab.charts import Track
from sipnemo.lab.chronicle import Chronicle
from sipnemo.lab.delay import Message
from sipnemo.lab.line import Direction, Quality
from sipnemo.lab.live import Screen
from sipnemo.lab.processes import ProgramError
from sipnemo.lab.recorded import track
from sipnemo.lab.report import Run
from sipnemo.lab.scenario import Scenario, Step
from sipnemo.lab.setup import GATEWAY, HOME, PHONES_PASSWORD
from sipnemo.lab.tally import Placed, Side
from sipnemo.lab.topology import WAYS, Topology, uplink_addresses
from sipnemo.roles.node import Environment, Node, Stop
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import Account, Settings
from sipnemo.sim.network import Uplink
from sipnemo.sim.world import Builder, Station, World
from sipnemo.sip.flow import Local

PATIENCE = 30.0
"Virtual seconds for what takes a fraction of one."
GOODBYES = 45.0
"Virtual seconds after the last hang-up in which every transaction of a call has ended, and its ports have rested."
STOPPING = 3.0


class Builders(NamedTuple):
    """How the two servers are made; the app knows, it reads their configuration."""

    hs: Callable[[Environment], Node]
    nms: Callable[[Environment], Node]


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, builders: Builders, plan: Topology, seed: int) -> None:
        self.scenario = scenario
        self.plan = plan
        self.seed = seed
        self.chronicle = Chronicle(scenario, virtual=True)
        self.world = World(seed)
        self.world.network.keep = self.world.network.refuses = True
        self.builders = builders
        self.placed: dict[int, Placed] = {}
        self.hosts = {uplink.id: 7 for uplink in scenario.uplinks}
        "The host part of each uplink's address."
        self.qualities: dict[tuple[int, str], Quality] = {}
        "Of each uplink and direction, as they are now."
        self.packets: dict[tuple[int, str], list[tuple[float, bool]]] = defaultdict(list)
        "Media by uplink and direction: when, and whether they got through."

    def run(self, screen: Screen) -> Run:
        """From the first node to the last figure."""
        scenario, world = self.scenario, self.world
        self.build()
        for _ in range(scenario.from_inside):
            self.call("inside")
        for _ in range(scenario.from_outside):
            self.call("outside")
        self.until(self.all_heard, "media to flow in every call")
        screen.say(f"{len(self.placed)} calls are up, media flows both ways")
        started_at = world.now
        for step in scenario.timeline():
            world.run(started_at + step.at - world.now)
            self.ask()
            at = world.now
            self.act(step)
            event = self.chronicle.note(step, at)
            if not step.minor:
                screen.say(event.text)
        world.run(started_at + scenario.lasts - world.now)
        self.ask()
        self.chronicle.on = [row["eface_id"] for row in self.paths() if row["status"] == "ON"]
        end = world.now
        inside, outside = (self.heard(side) for side in self.phones.values())
        calls = tally.calls(self.placed, self.facts(), inside, outside, end)
        self.phones["inside"].command("hangup", call_id="all")
        world.run(GOODBYES)
        self.look_back()
        moves = tuple(self.chronicle.moves())
        return Run(scenario.rtt_ms, calls, tuple(self.chronicle.events), moves, started_at, end)

    # ------------------------------------------------------------------------------------------------- the set

    def build(self) -> None:
        """Servers, uplinks and phones, until all is registered."""
        world, scenario = self.world, self.scenario
        self.hs = world.add("hs", self.builders.hs, HOME)
        self.nms = world.add("nms", self.builders.nms)
        world.inside_link(self.nms, "lan0", GATEWAY)
        self.uplinks = {uplink.id: Uplink(f"wan{uplink.id}", self.address(uplink.id)) for uplink in scenario.uplinks}
        for number, uplink in self.uplinks.items():
            self.restore_quality(number)
            world.add_uplink(self.nms, uplink)
        self.until(self.all_paths_ready, "every path to be ON and registered")
        self.phones: dict[Side, Station] = {
            "inside": self.add_phones("in", self.plan.address("mn"), f"sip:{GATEWAY}:5060"),
            "outside": self.add_phones("out", self.plan.address("cn"), ""),
        }
        for station in self.phones.values():
            self.until(lambda s=station: len(s.notices("registered")) >= scenario.calls, "all phones to register")  # type: ignore[misc]
        world.phones.seen = self.saw

    def add_phones(self, side: str, address: str, proxy: str) -> Station:
        """All accounts of one side in one node."""
        locals_ = (Local("UDP", address, 5060), Local("TCP", address, 5060))
        names = [f"{side}{number}" for number in range(1, self.scenario.calls + 1)]
        settings = Settings(
            accounts=tuple(Account(name=name, domain=HOME, password=PHONES_PASSWORD) for name in names),
            locals=locals_,
            listens=locals_,
            server=f"sip:{HOME}",
            proxy=proxy,
            answer_after=self.scenario.ring,
        )
        build: Builder = lambda environment: Phone(settings, environment)  # noqa: E731
        return self.world.add(f"phones-{side}", build, address)

    def address(self, number: int) -> str:
        """An uplink's address now."""
        return uplink_addresses(number, self.hosts[number])[0].partition("/")[0]

    def call(self, caller: Side) -> None:
        """Make the next call; nobody waits for the answer."""
        number = len(self.placed) + 1
        self.placed[number] = Placed(caller)
        ours, theirs = ("in", "out") if caller == "inside" else ("out", "in")
        self.phones[caller].command("call", account=f"{ours}{number}", uri=f"sip:{theirs}{number}@{HOME}")

    # ------------------------------------------------------------------------------------------------- deeds

    def act(self, step: Step) -> None:
        """One deed of the time line."""
        uplink = self.uplinks.get(step.uplink)
        match step.do:
            case "call":
                for _ in range(step.calls):
                    self.call(step.caller)
            case "hang-up":
                for placed, call_id in tally.oldest_live(self.placed, self.facts(), step.calls):
                    placed.hung_up_at = self.world.now
                    self.phones["inside"].command("hangup", call_id=call_id)
            case "command":
                self.command(step.command.split())
            case "stop" | "kill" | "start" | "restart":
                self.serve(step)
            case _ if uplink is not None:
                self.harm(uplink, step)

    def harm(self, uplink: Uplink, step: Step) -> None:
        """Break, change or mend an uplink."""
        number = step.uplink
        match step.do:
            case "silent":
                uplink.up.silent |= step.way != "down"
                uplink.down.silent |= step.way != "up"
                return
            case "change":
                for way in WAYS:
                    if step.way in (None, way):
                        self.set_quality(number, way, step.change)
                return
            case "carrier-down":
                uplink.carrier = False
            case "address-gone":
                uplink.addresses = []
            case "renumber":
                self.hosts[number] += 1
                uplink.addresses = []
                self.world.tell(self.nms, uplink)
                uplink.addresses = [self.address(number)]
            case "restore":
                self.restore_quality(number)
                uplink.silent = False
                if uplink.carrier and uplink.addresses:
                    return
                uplink.carrier, uplink.addresses = True, [self.address(number)]
        self.world.tell(self.nms, uplink)

    def restore_quality(self, number: int) -> None:
        """As it was at first."""
        for way in WAYS:
            self.qualities[number, way] = self.scenario.uplink(number).quality
            self.set_quality(number, way, {})

    def set_quality(self, number: int, name: Direction, change: Mapping[str, float]) -> None:
        """As a delay line does it: jitter is more or less, and order is kept."""
        quality = self.qualities[number, name] = replace(self.qualities[number, name], **change)
        way = self.uplinks[number].up if name == "up" else self.uplinks[number].down
        way.delay = max(0.0, quality.delay - quality.jitter) / 1e3
        way.jitter = 2 * quality.jitter / 1e3
        way.loss = quality.loss / 100
        way.rate = quality.rate * 1e6
        way.in_order = True

    def serve(self, step: Step) -> None:
        """End or start a server."""
        server = self.hs if step.server == "hs" else self.nms
        if step.do in ("stop", "restart"):
            server.handle(Stop())
            self.world.run_until(lambda: server.finished, STOPPING)
        if step.do != "start":
            server.kill()
        if step.do in ("start", "restart"):
            self.world.restart(server)

    def command(self, words: list[str]) -> None:
        """What an operator types."""
        arguments: dict[str, Any] = {}
        if words[0] == "path" and len(words) == 3:
            arguments = {"eface_id": words[1], "state": words[2]}
        elif words[0] == "what-if" and len(words) == 4:
            arguments = {"eface_id" if words[1] == "--eface" else "path": words[2], "state": words[3]}
        reply = self.nms.command(words[0], **arguments)
        if isinstance(reply, dict) and reply.get("error"):
            self.chronicle.failed_commands.append(f"sipnemo {' '.join(words)}: {reply['error']}")

    # --------------------------------------------------------------------------------------------- what is known

    def ask(self) -> None:
        """Hear the gateway about its moves and calls."""
        if self.nms.alive:
            self.chronicle.hear(self.nms.command("moves"), self.nms.command("sessions"))

    def all_paths_ready(self) -> bool:
        """Whether the gateway and the home server both use every uplink."""
        return all(row["status"] == "ON" and row["registered"] for row in self.paths())

    def paths(self) -> list[dict[str, Any]]:
        """The gateway's Egress List."""
        return list(self.nms.command("paths")) if self.nms.alive else []

    def facts(self) -> dict[str, dict[str, Any]]:
        """Of each account, when its call was answered and ended, and its Call-ID."""
        told = ({"event": name, "t": at, **body} for s in self.phones.values() for at, name, body in s.events)
        return tally.facts(told)

    def heard(self, station: Station) -> dict[str, Any]:
        """Every account's latest stream."""
        return {s.account: tally.stream_of(s.arrivals) for s in self.world.phones.all if s.station is station}

    def all_heard(self) -> bool:
        """Whether every call made is answered and media flows both ways."""
        hearing = {stream.account for stream in self.world.phones.all if len(stream.arrivals) > 5}
        answered = {account for account, fact in self.facts().items() if "answered" in fact}
        return {f"{side}{number}" for number in self.placed for side in ("in", "out")} <= hearing & answered

    def look_back(self) -> None:
        """What is left when all calls are over; where no uplink is ON the far ends could not be told."""
        status = self.nms.command("status") if self.nms.alive else {}
        if self.chronicle.on and (status["sessions"] or status["media_ports_used"]):
            self.chronicle.left = f"{status['sessions']} calls, {status['media_ports_used']} media ports"

    def saw(self, source: str, target: str, through: bool) -> None:
        """One packet of media."""
        known = self.world.network.uplink_of
        way, uplink = ("up", known[source]) if source in known else ("down", known.get(target))
        if uplink is not None:
            self.packets[int(uplink.device.removeprefix("wan")), way].append((self.world.now, through))

    def tracks(self) -> list[Track]:
        """Media on each path and direction, to be drawn."""
        return [track(number, way, self.packets[number, way]) for number in self.uplinks for way in WAYS]

    def messages(self) -> dict[str, list[Message]]:
        """Every SIP message, as `World.messages` of the topology has them."""
        network = self.world.network
        sent = enumerate(network.sent)
        return {"sent": [Message(at, n in network.vanished, a, b, data) for n, (at, a, b, data) in sent if data[0] > 3]}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until something holds."""
        if not self.world.run_until(condition, PATIENCE):
            raise ProgramError(f"waited {PATIENCE:g} virtual seconds in vain for {what} (seed {self.seed})")

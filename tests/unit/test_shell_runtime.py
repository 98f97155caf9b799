"""The loop around a node: order, deadlines, bugs, stop, recording."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sipnemo.media.flow import FlowKey
from sipnemo.roles.node import (
    Action,
    Answer,
    Closed,
    Command,
    Counted,
    Environment,
    Finished,
    Input,
    Learned,
    Link,
    Notice,
    Received,
    Send,
    SendFailed,
    Stop,
    Stored,
    Tick,
)
from sipnemo.shell.recording import Recorder, replay
from sipnemo.shell.runtime import Runtime
from sipnemo.sip.flow import Flow, Local

FLOW = Flow(Local("UDP", "127.0.0.1", 5060), ("127.0.0.1", 5061))


class Echo:
    """Answers every datagram with itself, says goodbye when asked, and keeps what it saw."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.seen: list[Input] = []

    def handle(self, input: Input, now: float) -> list[Action]:
        self.seen.append(input)
        match input:
            case Received(b"bug", _):
                raise RuntimeError("found one")
            case Received(b"again", flow):
                self.deadline = now + 0.02
                return []
            case Received(data, flow):
                return [Send(data, flow)]
            case Tick():
                self.deadline = None
                return [Notice("ticked")]
            case Stop():
                return [Finished()]
            case _:
                return []


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_actions_are_performed_in_order_and_what_they_cause_waits_its_turn() -> None:
    async def story() -> None:
        node = Echo()
        runtime = Runtime(node)
        order: list[str] = []

        def send(action: Send) -> None:
            order.append(action.data.decode())
            if action.data == b"first":
                runtime.feed(Received(b"second", FLOW))
                order.append("end of first")

        runtime.perform(Send, send)
        runtime.feed(Received(b"first", FLOW))
        assert order == ["first", "end of first", "second"]
        runtime.close()

    run(story)


def test_the_node_is_called_when_its_deadline_comes() -> None:
    async def story() -> None:
        runtime = Runtime(Echo())
        ticked = asyncio.Event()
        runtime.perform(Notice, lambda _notice: ticked.set())
        runtime.feed(Received(b"again", FLOW))
        await asyncio.wait_for(ticked.wait(), 5)
        runtime.close()

    run(story)


def test_a_deadline_that_moves_away_is_kept_by_the_timer_that_is_there() -> None:
    class Moving(Echo):
        def handle(self, input: Input, now: float) -> list[Action]:
            actions = super().handle(input, now)
            if isinstance(input, Received):
                self.deadline = now + float(input.data)
            elif isinstance(input, Tick):
                return [Notice("ticked", {"at": now})]
            return actions if isinstance(input, Stop) else []

    async def story() -> None:
        runtime = Runtime(Moving())
        ticks: asyncio.Queue[float] = asyncio.Queue()
        runtime.perform(Notice, lambda notice: ticks.put_nowait(notice.body["at"]))
        runtime.feed(Received(b"0.01", FLOW))
        runtime.feed(Received(b"0.08", FLOW))
        until = time.monotonic() + 0.05
        assert await asyncio.wait_for(ticks.get(), 5) > until
        runtime.feed(Received(b"30", FLOW))
        runtime.feed(Received(b"0.01", FLOW))
        await asyncio.wait_for(ticks.get(), 5)
        runtime.close()

    run(story)


def test_a_bug_in_the_node_is_logged_and_the_process_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        recorder = Recorder(tmp_path / "run.jsonl", Environment("00"))
        runtime = Runtime(Echo(), recorder=recorder)
        sent: list[bytes] = []
        runtime.perform(Send, lambda action: sent.append(action.data))
        runtime.feed(Received(b"bug", FLOW))
        runtime.feed(Received(b"fine", FLOW))
        assert sent == [b"fine"]
        assert runtime.bugs == 1
        runtime.close()

    run(story)
    assert "RuntimeError: found one" in caplog.text
    assert str(tmp_path / "run.jsonl") in caplog.text


def test_a_node_that_fails_on_every_tick_does_not_spin() -> None:
    class Stuck:
        deadline: float | None = 0.0
        calls = 0

        def handle(self, input: Input, now: float) -> list[Action]:
            self.calls += 1
            raise RuntimeError

    async def story() -> None:
        node = Stuck()
        runtime = Runtime(node)
        runtime.start()
        for _turn in range(1000):
            await asyncio.sleep(0)
        runtime.close()
        assert node.calls < 500

    run(story)


def test_an_action_nobody_performs_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Two(Echo):
        def handle(self, input: Input, now: float) -> list[Action]:
            return [Notice("nobody"), Send(b"x", FLOW)]

    async def story() -> None:
        runtime = Runtime(Two())
        sent: list[Send] = []
        runtime.perform(Send, sent.append)
        runtime.feed(Tick())
        assert sent == [Send(b"x", FLOW)]
        runtime.close()

    run(story)
    assert "Notice: nothing here performs it" in caplog.text


def test_stop_waits_for_the_goodbye_but_not_for_ever() -> None:
    class Deaf(Echo):
        def handle(self, input: Input, now: float) -> list[Action]:
            return []

    async def story() -> None:
        polite, deaf = Runtime(Echo()), Runtime(Deaf())
        assert await polite.stop()
        assert not await deaf.stop(within=0.01)
        polite.close()
        deaf.close()

    run(story)


INPUTS: list[Input] = [
    Received(bytes(range(256)), FLOW),
    SendFailed(FLOW, "Connection refused"),
    Closed(FLOW),
    Answer(7, (("SRV", (1, 2, 5060, "sip.example")), ("A", ("192.0.2.1",))), 30.0),
    Link("lan0", 3, True, ("192.0.2.1", "2001:db8::1")),
    Learned(FlowKey("192.0.2.1", 4000), ("192.0.2.9", 9)),
    Counted(3, {FlowKey("192.0.2.1", 4000): (1, 172)}),
    Stored(4, "disk full"),
    Command(5, "path", {"eface_id": 1, "state": "off"}),
    Tick(),
    Stop(),
]


def test_a_recording_replays_every_kind_of_input_exactly(tmp_path: Path) -> None:
    environment = Environment("ab" * 16, 1.5, {"bindings": {"sip:a@b": {"q": 1}}})

    async def story() -> None:
        runtime = Runtime(Echo(), recorder=Recorder(tmp_path / "run.jsonl", environment))
        runtime.perform(Send, lambda _action: None)
        runtime.perform(Notice, lambda _notice: None)
        for input in INPUTS:
            runtime.feed(input)
        runtime.close()

    run(story)
    given: list[Environment] = []

    def factory(environment: Environment) -> Echo:
        given.append(environment)
        return Echo()

    replayed = list(replay(tmp_path / "run.jsonl", factory))
    assert given == [environment]
    assert [input for _now, input, _actions in replayed] == INPUTS
    assert [type(input) for _now, input, _actions in replayed] == [type(input) for input in INPUTS]
    assert replayed[0][2] == [Send(bytes(range(256)), FLOW)]


def test_a_recording_is_private_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, Environment("00"), limit=200)
    for _turn in range(100):
        recorder.record(1.0, Tick())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size <= 200
    assert all(json.loads(line) for line in path.read_text().splitlines())

"""Broken messages raise nothing and leave nothing behind; `make fuzz COUNT=1000000` tries a million."""

from __future__ import annotations

import gc
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

import pytest

from fuzz.mutate import mutated
from fuzz.rounds import IN_A_ROUND, TORTURE, Tally, play, read_all, resident

COUNT = int(os.environ.get("SIPNEMO_FUZZ", "4000"))
ONE = os.environ.get("SEED", "")
PARALLEL_FROM = 20_000
ROUNDS_IN_A_TASK = 25
GROWTH = 64 * 1024
"KiB that a process may grow by after its first rounds: what the interpreter and its caches keep."


def task(first: int, rounds: int) -> tuple[Tally, int]:
    """Several rounds in one process; how much it has grown since the first two of them."""
    total, before = Tally(), 0
    for seed in range(first, first + rounds):
        tally = play(seed)
        gc.collect()  # a fleet is full of cycles
        total.messages += tally.messages
        total.parsed += tally.parsed
        total.leaks += [f"SEED={seed}: {leak}" for leak in tally.leaks]
        if seed == first + 1:
            before = resident()
    return total, resident() - before if before else 0


def test_broken_messages_to_every_node_raise_nothing_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    if ONE:
        tally, _ = task(int(ONE), 1)
        assert tally.leaks == []
        return
    rounds = max(1, COUNT // IN_A_ROUND)
    firsts = range(1, rounds + 1, ROUNDS_IN_A_TASK)
    sizes = [min(ROUNDS_IN_A_TASK, rounds + 1 - first) for first in firsts]
    began = time.perf_counter()
    if COUNT < PARALLEL_FROM:
        results = list(map(task, firsts, sizes))
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            results = list(pool.map(task, firsts, sizes))
    span = time.perf_counter() - began
    messages, parsed = sum(tally.messages for tally, _ in results), sum(tally.parsed for tally, _ in results)
    growth = max(grown for _, grown in results)
    with capsys.disabled():
        print(
            f"\n{messages} broken messages, {parsed} of them still messages, {messages / span:.0f}/s,"
            f" memory +{growth // 1024} MiB"
        )
    assert [leak for tally, _ in results for leak in tally.leaks] == []
    assert growth < GROWTH
    assert parsed > messages / 10  # else everything would stop at the parser


def test_the_parser_takes_anything() -> None:
    chance = Random(1)
    parsed = sum(read_all(mutated(chance, chance.choice(TORTURE), TORTURE)) for _ in range(COUNT))
    assert 0 < parsed < COUNT

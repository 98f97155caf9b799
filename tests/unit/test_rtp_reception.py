"""What the RTP engine makes of packets that are lost, late, doubled, moved, foreign, or numbered round the corner."""

from __future__ import annotations

import struct

import pytest

from sipnemo.shell.rtp_reception import MARK, Reception, StreamReport

PEER = ("10.0.0.9", 4000)


def packet(number: int, *, ssrc: int = 1, sent: float | None = None, kind: int = 0) -> bytes:
    head = struct.pack(">BBHII", 0x80, kind, number & 0xFFFF, number * 160 & 0xFFFFFFFF, ssrc)
    mark = b"" if sent is None else struct.pack(">Q", int(sent * 1e9)) + MARK
    return (head + mark).ljust(172, b"\xff")


def received(*numbers: int, first: int = 0) -> StreamReport:
    """The report on packets that arrive every 20 ms, with these numbers."""
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    reception.peer = PEER
    for position, number in enumerate(numbers):
        reception.take(packet(first + number), 100.0 + position * 0.02, PEER)
    return report


@pytest.mark.parametrize(
    ("numbers", "packets", "lost", "gaps", "duplicates", "reordered"),
    [
        pytest.param([0, 1, 2, 3], 4, 0, [], 0, 0, id="all is well"),
        pytest.param([0, 1, 4, 5], 4, 2, [2], 0, 0, id="two are lost"),
        pytest.param([0, 2, 1, 3], 4, 0, [], 0, 1, id="two swap places"),
        pytest.param([0, 3, 1, 4], 4, 1, [1], 0, 1, id="one of two comes late"),
        pytest.param([0, 1, 1, 2], 3, 0, [], 1, 0, id="one comes twice"),
        pytest.param([0, 2, 1, 1, 3], 4, 0, [], 1, 1, id="late and twice"),
        pytest.param([0, 2, 5], 3, 3, [1, 2], 0, 0, id="two gaps"),
    ],
)
@pytest.mark.parametrize("first", [0, 1000, 65534, 65535])
def test_the_sequence(
    first: int, numbers: list[int], packets: int, lost: int, gaps: list[int], duplicates: int, reordered: int
) -> None:
    report = received(*numbers, first=first)
    assert (report.packets, report.lost, report.duplicates, report.reordered) == (packets, lost, duplicates, reordered)
    assert [gap.lost for gap in report.gaps] == gaps


def test_many_packets_wrap_around_without_a_gap() -> None:
    report = received(*range(200_000))
    assert (report.packets, report.lost, report.gaps) == (200_000, 0, [])


def test_a_silence_is_a_gap_even_if_nothing_is_lost() -> None:
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    for number, at in enumerate((1.0, 1.05, 1.1, 1.2, 1.22)):
        reception.take(packet(number), at, PEER)
    (gap,) = report.gaps
    assert (gap.at, round(gap.gap_ms), gap.lost, gap.source) == (1.2, 100, 0, "10.0.0.9:4000")
    assert (report.first_at, report.last_at) == (1.0, 1.22)


def test_a_silence_that_was_agreed_upon_is_none() -> None:
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    reception.take(packet(0), 1.0, PEER)
    reception.pause()
    reception.take(packet(1), 9.0, PEER)
    assert report.gaps == []


def test_a_sender_that_was_slow_is_told_from_a_network_that_was() -> None:
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    reception.take(packet(0, sent=5.0), 1.0, PEER)
    reception.take(packet(1, sent=5.52), 1.52, PEER)  # the sender was stopped
    reception.take(packet(2, sent=5.54), 1.92, PEER)  # the network was slow
    assert [round(gap.gap_ms) for gap in report.gaps] == [520, 400]
    assert [round(gap.stalled_ms) for gap in report.gaps] == [500, 0]


def test_packets_of_the_stream_from_elsewhere_end_the_gap_and_are_told() -> None:
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    reception.peer = PEER
    elsewhere = ("10.0.9.9", 5000)
    reception.take(packet(0), 1.0, PEER)
    reception.take(packet(5), 1.1, elsewhere)  # before the signalling says so
    reception.peer = elsewhere
    reception.take(packet(6), 1.12, elsewhere)
    assert (report.packets, report.lost, report.unexpected) == (3, 4, 1)
    assert report.gaps[0].source == "10.0.9.9:5000"
    assert [source for _, source in report.sources] == ["10.0.0.9:4000", "10.0.9.9:5000"]


def test_a_strangers_packets_are_not_ours() -> None:
    report = received(0, 1)
    reception = Reception(report)
    reception.peer = PEER
    reception.take(packet(0), 1.0, PEER)
    reception.take(packet(500, ssrc=2), 1.01, ("10.6.6.6", 666))
    reception.take(b"hello", 1.01, ("10.6.6.6", 666))
    reception.take(packet(0, kind=200), 1.01, PEER)
    assert (report.foreign, report.junk, report.rtcp_received, report.lost) == (1, 1, 1, 0)


def test_a_far_end_may_begin_anew() -> None:
    report = StreamReport("alice", "call", 20_000)
    reception = Reception(report)
    reception.peer = PEER
    reception.take(packet(0), 1.0, PEER)
    reception.take(packet(30_000, ssrc=2), 1.02, PEER)
    assert (report.packets, report.lost, report.restarts) == (2, 0, 1)

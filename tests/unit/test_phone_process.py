"""`sipnemo phone` as processes on the loopback address: RTP both ways, gaps as they are, and how it ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from phone_process import PhoneProcess, loopback


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_phones_call_each_other_and_hear_each_other(transport: str) -> None:
    to_bob, uri = loopback("bob", "22000-22099")
    to_alice, _ = loopback("alice", "22100-22199", "--call", f"{uri};transport={transport}")
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            answered = alice.wait_for("answered")
            at_alice, at_bob = alice.wait_for_packets(50), bob.wait_for_packets(50)
            assert at_alice["lost"] == at_bob["lost"] == 0
            assert at_alice["sources"][0]["source"] == answered["media"]
            alice.command("hangup")
            assert alice.end() == 0
            assert alice.all("ended")[0]["by"] == "us"
            assert alice.all("stream")[-1]["sent"] >= 50
        assert bob.wait_for("ended")["failed"] is False


def test_a_stopped_phone_is_seen_as_a_gap_at_the_other_and_sees_none_itself() -> None:
    to_bob, uri = loopback("bob", "22200-22299")
    to_alice, _ = loopback("alice", "22300-22399", "--call", uri, "--answer", "auto")
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            alice.wait_for("answered")
            bob.wait_for_packets(20)
            before = bob.wait_for_packets(20)
            alice.pause()
            stopped = time.monotonic()
            while time.monotonic() < stopped + 0.5:
                following = len(bob.all("stream")) + 1
                bob.command("report")
                bob.wait_for("stream", number=following)
            alice.go_on()
            after = bob.wait_for_packets(before["packets"] + 20)
            gap = max(after["gaps"], key=lambda gap: gap["gap_ms"])
            assert gap["gap_ms"] >= 480
            assert gap["stalled_ms"] >= 440
            assert gap["lost"] == 0
            assert gap["at"] > stopped
            # The kernel noted when bob's packets came, so alice's own sleep is no gap in what she received.
            at_alice = alice.wait_for_packets(before["packets"])
            assert all(gap["gap_ms"] < 400 for gap in at_alice["gaps"])
            assert at_alice["lost"] == 0


@pytest.mark.parametrize(
    ("answer", "reason"), [("busy", "486 Busy Here"), ("manual", "603 Decline")], ids=["busy", "declined"]
)
def test_a_call_that_is_not_set_up_makes_the_exit_status_say_so(answer: str, reason: str) -> None:
    to_bob, uri = loopback("bob", "22400-22499", "--answer", answer)
    to_alice, _ = loopback("alice", "22500-22599", "--call", uri)
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            if answer == "manual":
                bob.wait_for("incoming")
                bob.command("hangup")
            assert alice.end() == 1
            assert alice.all("ended")[0]["reason"] == reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_hangs_up_first(number: int) -> None:
    to_bob, uri = loopback("bob", "22600-22699")
    to_alice, _ = loopback("alice", "22700-22799", "--call", uri)
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            alice.wait_for("answered")
            alice.process.send_signal(number)
            assert alice.end() == 0
        assert bob.wait_for("ended")["by"] == "them"


def test_many_accounts_call_at_once_by_number() -> None:
    to_bob, uri = loopback("bob{n}", "22800-22899", "--count", "5")
    to_alice, _ = loopback("alice", "22900-22999", "--count", "5", "--call", uri, "--duration", "0.5")
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            assert alice.end() == 0
            assert {event["account"] for event in alice.all("ended")} == {f"alice{n}" for n in range(1, 6)}
            assert {event["account"] for event in bob.all("answered")} == {f"bob{n}" for n in range(1, 6)}
            assert len(alice.all("stream")) == 5


def test_media_may_be_sparse_but_for_every_so_manyth_account() -> None:
    to_bob, uri = loopback("bob{n}", "23100-23199", "--count", "3", "--packet-every", "200", "--full-every", "2")
    to_alice, _ = loopback("alice", "23200-23299", "--count", "3", "--call", uri, "--duration", "1")
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess(*to_alice) as alice:
            assert alice.end() == 0
        sent = {stream["account"]: stream["sent"] for stream in bob.all("stream")}
    assert sent["bob2"] * 2 < min(sent["bob1"], sent["bob3"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--answer", "soon"), "--answer 'soon'"),
        (("--rtp-ports", "9"), "--rtp-ports '9'"),
        (("--server", "http://example.com"), "--server"),
        (("--password-file", "/no/such/file"), "/no/such/file"),
        (("--config", "/no/such/file.toml"), "/no/such/file.toml"),
        (("--bind", "203.0.113.254:5060"), "--bind 203.0.113.254:5060"),
        (("--session-expires", "10"), "--session-expires"),
        (("--packet-every", "30"), "--packet-every must be a multiple of 20"),
        (("--full-every", "-1"), "--full-every"),
    ],
)
def test_a_mistake_in_the_options_is_one_clear_line(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with PhoneProcess(*flags, log=tmp_path / "log") as phone:
        assert phone.end() == 2
    complaint = (tmp_path / "log").read_text()
    assert complaint.count("\n") == 1
    assert words in complaint


def test_options_may_stand_in_a_file(tmp_path: Path) -> None:
    to_bob, uri = loopback("bob", "23000-23099")
    file = tmp_path / "phone.toml"
    file.write_text(f'[phone]\naccount = "carol"\ncall = "{uri}"\nduration = 0.2\nbind = "127.0.0.1"\nmedia = false\n')
    with PhoneProcess(*to_bob) as bob:
        bob.wait_for("listening")
        with PhoneProcess("--config", file, "--account", "dave") as dave:
            assert dave.end() == 0
        assert bob.wait_for("incoming")["peer"].startswith("sip:dave@")

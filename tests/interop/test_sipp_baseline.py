"""Every pair of SIPp scenarios through Kamailio as a record-routing proxy, without sipnemo: the pairs are sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .hosts import Host, Lan
from .programs import Kamailio
from .sippkit import PAIRS, Agent, copies, cseq_is_consistent, is_one_dialog, register, run_pair

pytestmark = pytest.mark.programs("kamailio", "sipp")


@pytest.fixture(scope="module")
def hosts(directory: Path) -> Iterator[dict[str, Host]]:
    lan = Lan(["caller", "called", "server"], directory)
    with lan.world:
        Kamailio(lan.hosts["server"], "proxy", {"bob": "builder"}).start()
        yield lan.hosts


@pytest.fixture(scope="module")
def called(hosts: dict[str, Host], directory: Path) -> Agent:
    agent = Agent(hosts["called"], "bob", hosts["server"].address)
    register(agent, "builder", f"{agent.domain}:5060", directory / "register")
    return agent


@pytest.mark.parametrize("name", PAIRS)
def test_pair(hosts: dict[str, Host], called: Agent, directory: Path, name: str) -> None:
    caller = Agent(hosts["caller"], "caller", "caller.example")
    keys = {"padding": "x" * 3500} if name == "large" else {}
    outcome = run_pair(name, caller, called, f"{called.domain}:5060", directory / name, keys=keys)
    is_one_dialog(outcome)
    cseq_is_consistent(outcome)
    if name == "retransmissions":
        assert len(copies(outcome.called, "INVITE", "INVITE")) >= 2
        assert len(copies(outcome.caller, "SIP/2.0 200", "INVITE")) >= 2

"""More requests at a time than a node has room for."""

from __future__ import annotations

import pytest
from nms_world import FAR, INSIDE, PHONE, Gateway

from sipnemo.roles.node import Action, Count


class Counting(Gateway):
    """Keeps the counts."""

    def __init__(self) -> None:
        self.counts: list[str] = []
        super().__init__()

    def _perform(self, action: Action) -> list[Action]:
        if isinstance(action, Count):
            self.counts.append(action.name)
        return super()._perform(action)


def test_what_there_is_no_room_for_is_refused_and_not_kept() -> None:
    gateway = Counting()
    gateway.node.layer.most_servers = 10
    for number in range(50):
        gateway.request(PHONE, INSIDE, "OPTIONS", "sip:cn@192.0.2.9", call_id=f"o{number}")
    layer = gateway.node.layer
    assert len(layer.servers) == len(gateway.got(FAR, "OPTIONS")) == 10
    refused = gateway.got(PHONE, "503")
    assert len(refused) == gateway.counts.count("requests_overload") == 40
    assert all(answer.value("retry-after") == "10" and answer.to_tag for answer in refused)
    gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch="z9hG4bKnothing")
    assert len(layer.servers) == 10
    gateway.run(5.0)
    assert len(gateway.got(PHONE, "503")) == 41


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_being_served_goes_on(times: int) -> None:
    gateway = Counting()
    invite = gateway.call()
    branch = next(iter(gateway.node.layer.servers)).partition("|")[0]
    gateway.answer(FAR, invite, 180)
    gateway.node.layer.most_servers = 1
    for _ in range(times):
        gateway.request(PHONE, INSIDE, "CANCEL", "sip:cn@192.0.2.9", branch=branch)
    gateway.answer(FAR, invite, 487)
    assert gateway.got(FAR, "CANCEL")
    assert gateway.got(PHONE, "487")
    assert not gateway.got(PHONE, "503")
    assert not gateway.node.calls.open

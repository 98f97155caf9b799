"""Keep-alives of connections behind a NAT: what the simulated NATs, which know UDP only, do not show."""

from __future__ import annotations

import pytest
from nms_world import UPLINKS, Gateway

from sipnemo.roles.nms.path.pinholes import KEEP_ALIVE, STREAM_EVERY
from sipnemo.roles.node import Action, Send

UP1, UP2 = UPLINKS.values()


class Listening(Gateway):
    """Remembers the keep-alives."""

    def _perform(self, action: Action) -> list[Action]:
        if isinstance(action, Send) and action.data == KEEP_ALIVE:
            self.kept.append((action.flow.local.transport, action.flow.local.host))
        return super()._perform(action)

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Transport and own address of each."""
        kept: list[tuple[str, str]] = self.__dict__.setdefault("_kept", [])
        return kept


@pytest.mark.req("R10")
def test_a_registration_by_tcp_is_kept_alive_behind_a_nat_only() -> None:
    gateway = Listening(home="sip:192.0.2.1;transport=tcp")
    gateway.run(STREAM_EVERY)
    assert gateway.kept == []
    next(path for path in gateway.node.paths.all if path.address == UP1).natted = True
    gateway.run(2 * STREAM_EVERY)
    assert set(gateway.kept) == {("TCP", UP1)}
    assert 2 <= len(gateway.kept) <= 3


@pytest.mark.req("R10")
def test_a_registration_by_udp_is_kept_alive_by_its_probes() -> None:
    gateway = Listening()
    next(path for path in gateway.node.paths.all if path.address == UP1).natted = True
    gateway.run(2 * STREAM_EVERY)
    assert gateway.kept == []

"""After a move: what the old path still has to do, and when it is let go (`[move] settle_after`).

Until the SIP-CN obeys, and as long as its packets are under way, the old path goes on receiving for the call. It is let
go when the move is over and nothing has come by it for a while: its flows go, so that nobody reaches the SIP-MN by an
address the call has left (R10), and copies of the uplink direction end (`doubling.py`). A path that is ON receives for
every call, always, since the next move may lead there (RO-10); one that is OFF only for those that have not left it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.node import Counted, ReadCounters

if TYPE_CHECKING:
    from sipnemo.media.flow import FlowKey
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path
    from sipnemo.sip.timers import Timer


class Settling:
    """Calls that still receive by paths they have left."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._calls: dict[Session, dict[str, int | None]] = {}
        "Call → address of ours that it may leave → packets counted there at the last look."
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def receiving(self, address: str) -> int:
        """How many calls have left the path of this address, and may still be sent something there."""
        return sum(
            address in hosts and session.path.address != address and session.status is not Status.TERMINATED
            for session, hosts in self._calls.items()
        )

    def leave(self, session: Session, address: str, now: float) -> None:
        """The call has moved, or shall not come back here: let this address go when nothing comes there any more."""
        self._calls.setdefault(session, {}).setdefault(address, None)
        if self._timer is None:
            self._timer = self._node.timers.set(now + self._node.settings.move.settle_after / 2, self._look)

    def path_off(self, path: Path, now: float) -> None:
        """No call shall be reached by this path any more."""
        for session in self._node.calls.open:
            if session.media is not None and session.media.receives(path.address):
                self.leave(session, path.address, now)

    def _look(self, now: float) -> None:
        """Twice in `settle_after`: what has come since the last look?"""
        self._timer = None
        keys: list[FlowKey] = []
        for session in [session for session in self._calls if session.status is Status.TERMINATED]:
            del self._calls[session]
        for session, hosts in self._calls.items():
            if session.media is not None:
                keys += [key for key in session.media.flows if key.host in hosts]
        if self._calls:
            self._node.act(ReadCounters(self._node.ticket(self._counted), tuple(keys)))

    def _counted(self, counted: Counted, now: float) -> None:
        counts: dict[Session, dict[str, int]] = {}
        for session, hosts in self._calls.items():
            sums = counts[session] = dict.fromkeys(hosts, 0)
            for key in session.media.flows if session.media is not None else ():
                if key.host in sums:
                    sums[key.host] += counted.counters.get(key, (0, 0))[0]
        for session, sums in counts.items():
            for address, packets in sums.items():
                self._judge(session, address, packets)
        if self._calls:
            self._timer = self._node.timers.set(now + self._node.settings.move.settle_after / 2, self._look)

    def _judge(self, session: Session, address: str, packets: int) -> None:
        """Let an address go, if it is time."""
        hosts = self._calls[session]
        moving = session.move is not None
        if session.path.address == address and not moving:
            self._forget(session, address)  # the call has come back, or its SIP-CN has not followed
        elif moving or hosts[address] != packets:
            hosts[address] = packets
        else:
            self._forget(session, address)
            self._node.calls.apply_media(session, address)

    def _forget(self, session: Session, address: str) -> None:
        hosts = self._calls[session]
        del hosts[address]
        if not hosts:
            del self._calls[session]
            self._node.doubling.end(session)

"""The uplink direction over two paths at once, while one of them may be going (`[move] duplicate = true`).

From the first late probe of a path its calls' packets leave by the next best path as well: one write for all of them.
While a call moves, and until it has settled, they leave by the old path and the new one: whichever works, the SIP-CN
hears. It drops the second copy by its sequence number, with SRTP by its replay list (RFC 3711 §3.3.2).

A pair of paths has a media group of its own, made when the first call needs it. Each write names what works now: when
one of the two dies, the pair leaves by what is left. Calls whose two paths differ in address family are not doubled,
since a peer has one address.

A call whose media begin on a path under suspicion leaves by that path alone until the suspicion is over, in a group
like a pair's: a far end that sends to where the first packet comes from (RFC 4961, NATs) would choose the copy's path
for good, and nobody would notice when that one dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.media.flow import MediaPath
from sipnemo.roles.node import SetPath

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path
    from sipnemo.sip.timers import Timer

FIRST_GROUP: Final = 256
"Groups of pairs begin here, behind those of paths."


class Pair:
    """Two paths, and the calls whose packets leave by both; twice the same path: by that one alone."""

    __slots__ = ("group", "new", "old", "sessions", "written")

    def __init__(self, new: Path, old: Path, group: int) -> None:
        self.new = new
        self.old = old
        self.group = group
        self.sessions: dict[Session, None] = {}
        self.written: MediaPath | None = None


class Doubling:
    """The pairs in use, and the paths under suspicion."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._pairs: dict[int, Pair] = {}
        "By group."
        self._suspected: dict[Path, Timer] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def groups(self) -> dict[int, str]:
        """Group of a pair → address of its new path, for measuring load."""
        return {pair.group: pair.new.address for pair in self._pairs.values()}

    @property
    def suspects(self) -> bool:
        """Whether any path is under suspicion."""
        return bool(self._suspected)

    # ------------------------------------------------------------------------------------------------- one call

    def begin(self, session: Session, new: Path, now: float) -> None:
        """A call is about to move from the path it is on: both carry what it sends, if the old one may."""
        old, media = session.path, session.media
        if media is None or new is old:
            return
        if not self._node.settings.move.duplicate or not old.present or old.ipv6 != new.ipv6:
            self.end(session)
            return
        if self._join(session, new, old):
            self._node.calls.apply_media(session)

    def starts(self, session: Session) -> None:
        """Media of the call are about to be forwarded for the first time."""
        path, media = session.path, session.media
        if media is not None and path in self._suspected and not media.both and not media.flows:
            self._join(session, path, path)

    def end(self, session: Session) -> None:
        """The call's packets leave by its own path alone."""
        if self._drop(session):
            self._node.calls.apply_media(session)

    def forget(self, session: Session) -> None:
        """The call is over."""
        self._drop(session)

    def _join(self, session: Session, new: Path, old: Path) -> bool:
        media = session.media
        assert media is not None
        pair = next((pair for pair in self._pairs.values() if pair.new is new and pair.old is old), None)
        if pair is None:
            group = next(n for n in range(FIRST_GROUP, FIRST_GROUP + len(self._pairs) + 1) if n not in self._pairs)
            pair = self._pairs[group] = Pair(new, old, group)
            self._write(pair)
        if media.both == pair.group:
            return False
        self._drop(session)
        pair.sessions[session] = None
        media.both = pair.group
        return True

    def _drop(self, session: Session) -> bool:
        media = session.media
        pair = self._pairs.get(media.both) if media is not None else None
        if media is None or pair is None:
            return False
        media.both = 0
        pair.sessions.pop(session, None)
        if not pair.sessions:
            del self._pairs[pair.group]
        return True

    # ------------------------------------------------------------------------------------------------ whole paths

    def suspect(self, path: Path, now: float) -> None:
        """A probe is late: the next best path carries a copy of everything, for the time being."""
        if not self._node.settings.move.duplicate or not path.on or not path.sessions:
            return
        timer = self._suspected.get(path)
        if timer is not None:
            timer.cancel()
        else:
            other = next((p for p in self._node.ranked(None) if p is not path and p.ipv6 == path.ipv6), None)
            if other is None:
                return
            self._node.act(SetPath(self._node.paths.media_path(path)._replace(also=(other.address, other.device))))
        until = now + self._node.settings.move.settle_after
        self._suspected[path] = self._node.timers.set(until, lambda at: self._trust(path))

    def _trust(self, path: Path) -> None:
        """No probe has been late for a while."""
        del self._suspected[path]
        if path.on:
            self._node.act(SetPath(self._node.paths.media_path(path)))
        for pair in list(self._pairs.values()):
            if pair.new is path and pair.old is path:
                for session in list(pair.sessions):
                    self.end(session)

    def paths_changed(self, path: Path) -> None:
        """A path has gone OFF or died: what leaves by it leaves by what works."""
        timer = self._suspected.pop(path, None)
        if timer is not None:
            timer.cancel()
        for pair in self._pairs.values():
            self._write(pair)

    def also(self, path: Path, best: Path) -> tuple[str, str] | None:
        """The second way of a dead path's calls, until each has moved: itself, if it is merely silent."""
        if not self._node.settings.move.duplicate or not path.present or path.ipv6 != best.ipv6:
            return None
        return (path.address, path.device)

    def _write(self, pair: Pair) -> None:
        """Both, one of them, or, when neither is there, the best there is."""
        there = [path for path in dict.fromkeys((pair.new, pair.old)) if path.present]
        if not pair.new.works:
            there.sort(key=lambda path: not path.works)  # what works comes first; the other may be silent only
        if not there or not there[0].works:
            ranked = [path for path in self._node.ranked(None) if path.ipv6 == pair.new.ipv6]
            there = [*ranked[:1], *there][:2]
        if not there:
            return
        also = (there[1].address, there[1].device) if len(there) > 1 else None
        written = MediaPath(pair.group, there[0].address, there[0].device, also)
        if written != pair.written:
            pair.written = written
            self._node.act(SetPath(written))

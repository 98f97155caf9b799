"""Offer and answer as one end of a call sees them (RFC 3264): what a far end of ours may never have to see."""

from __future__ import annotations

from dataclasses import dataclass, field

from sipnemo.sip.errors import ParseError
from sipnemo.sip.message import Message, Request, Response
from sipnemo.sip.parser import parse

_OFFERING = ("INVITE", "UPDATE")


@dataclass
class _Seen:
    """One call at one phone."""

    theirs: tuple[str, int] | None = None
    "The far end's request with an offer that has no final response yet."
    ours: tuple[str, int] | None = None
    "Our own."
    our_late_offer: int = 0
    "CSeq of the far end's INVITE without a description, whose 2xx has made an offer."
    bare: set[int] = field(default_factory=set)
    "CSeqs of the far end's INVITEs without a description, not acknowledged yet."
    known: set[str] = field(default_factory=set)
    "Messages that have come before: retransmissions say nothing new."
    answered: set[int] = field(default_factory=set)
    "CSeqs of our INVITEs whose answer came in a provisional response."
    cseq: int = 0
    "Of the far end's last request."
    version: int = -1
    "In o= of the far end's last description."
    text: str = ""
    "The rest of it."


class OfferWatch:
    """Reads every message of one phone; `broken` says what must not have come."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._calls: dict[str, _Seen] = {}

    def received(self, data: bytes) -> None:
        """A message of the far end's."""
        message = _read(data)
        if message is None:
            return
        seen = self._calls.setdefault(message.call_id, _Seen())
        assert isinstance(message, Request | Response)
        if isinstance(message, Request):
            key = f"{message.branch} {message.method}"
            if key not in seen.known:
                if message.method == "INVITE" and not message.to_tag:
                    seen = self._calls[message.call_id] = _Seen()  # another dialog
                seen.known.add(key)
                if message.method != "ACK":
                    if message.cseq <= seen.cseq:
                        return  # out of order: nobody looks into it
                    seen.cseq = message.cseq
                self._asked(seen, message)
        else:
            key = f"{message.branch} {message.status} {message.cseq} {message.to_tag} {message.value('rseq')}"
            if key not in seen.known:
                seen.known.add(key)
                self._was_answered(seen, message)

    def sent(self, data: bytes) -> None:
        """A message of this phone's."""
        message = _read(data)
        if message is None:
            return
        seen = self._calls.setdefault(message.call_id, _Seen())
        if isinstance(message, Request):
            if message.method in _OFFERING and message.body:
                seen.ours = (message.method, message.cseq)
            return
        assert isinstance(message, Response)
        if message.status >= 200 and seen.theirs == (message.cseq_method, message.cseq):
            if seen.ours is not None and message.status < 300:
                self._tell(message, "was taken while our own offer was under way")
            seen.theirs = None
        elif message.cseq in seen.bare and 200 <= message.status < 300 and message.body:
            seen.our_late_offer = message.cseq

    def silent(self, call_id: str) -> None:
        """This phone will not answer what it was asked last: who asked may ask again."""
        self._calls[call_id].theirs = None

    def _asked(self, seen: _Seen, request: Request) -> None:
        if request.method == "INVITE" and not request.body:
            seen.bare.add(request.cseq)
        if request.method == "ACK" and request.cseq == seen.our_late_offer:
            seen.bare.discard(request.cseq)
            seen.our_late_offer = 0
            if not request.body:
                self._tell(request, "does not answer the offer in our 2xx")
        # While the first INVITE rings the gateway asks by re-INVITEs, to be refused, whether it has been answered.
        if request.method in _OFFERING and request.body and request.to_tag:
            if seen.theirs is not None and seen.theirs != (request.method, request.cseq):
                self._tell(request, f"is a second offer while {seen.theirs} is not answered")
            seen.theirs = (request.method, request.cseq)
        self._described(seen, request)

    def _was_answered(self, seen: _Seen, response: Response) -> None:
        asked = (response.cseq_method, response.cseq)
        if response.body:
            seen.answered.add(response.cseq)
        if response.status >= 200 and seen.ours == asked:
            seen.ours = None
            if response.status < 300 and response.cseq not in seen.answered:
                self._tell(response, "takes our offer without an answer")
        self._described(seen, response)

    def _described(self, seen: _Seen, message: Message) -> None:
        """RFC 3264 §8: another description has a higher version, and the same version means the same description."""
        if not message.body or message.value("content-type") != "application/sdp":
            return
        head, _, rest = message.body.partition("\r\ns=")
        if isinstance(message, Response) and message.status >= 300:
            return
        origin = head.partition("o=")[2].split()
        if len(origin) < 3 or not origin[2].isdecimal():
            return  # broken on purpose
        version = int(origin[2])
        if version < seen.version:
            self._tell(message, f"goes back from version {seen.version} to {version}")
        elif version == seen.version and rest != seen.text:
            self._tell(message, f"says something else with the same version {version}")
        seen.version, seen.text = version, rest

    def _tell(self, message: Message, what: str) -> None:
        kind = message.method if isinstance(message, Request) else str(getattr(message, "status", ""))
        self.broken.append(f"{message.call_id[:8]}: {kind} (CSeq {message.cseq} {message.cseq_method}) {what}")


def _read(data: bytes) -> Message | None:
    if data[:1] < b"\x04" or not data.strip():
        return None
    try:
        message = parse(data)
    except ParseError:
        return None
    return message if message.cseq_method in ("INVITE", "UPDATE", "ACK", "PRACK") else None

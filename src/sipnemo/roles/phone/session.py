"""The offer/answer side of one call (RFC 3264): one G.711 audio stream with telephone-event, anything else rejected."""

from __future__ import annotations

from typing import Final, NamedTuple

from sipnemo.sdp.description import Description, SdpError, parse
from sipnemo.sdp.rewrite import endpoints
from sipnemo.sip.errors import SipError

DISCARD_PORT: Final = 9
_CODECS: Final = {"0": "PCMU", "8": "PCMA"}
_DTMF: Final = "101"
_REVERSED: Final = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class Remote(NamedTuple):
    """Where and how the far end wants its packets."""

    rtp: tuple[str, int]
    rtcp: tuple[str, int]
    payload_type: int
    held: bool
    "Nothing may be sent: its address is unspecified (RFC 3264 §8.4)."


class _Line(NamedTuple):
    """One m= line of the session, in its place for ever (RFC 3264 §8)."""

    kind: str
    proto: str
    formats: str
    attributes: tuple[str, ...]
    "rtpmap and fmtp lines of what is accepted."


class MediaSession:
    """Both descriptions of a call, and what follows for its one stream."""

    def __init__(self, host: str, port: int, session_id: int, mux: bool) -> None:
        self._host = host
        self._port = port
        self._id = session_id
        self._version = session_id - 1
        self._mux = mux
        self._said = ""
        self._lines = [_own_line()]
        self._audio = 0
        "Which of the lines is ours; -1: none."
        self.hold = False
        "We want the far end to hear nothing but music on hold: sendonly."
        self.offered = ""
        "The direction of our offer that is not answered yet; empty when there is none."
        self.direction = "sendrecv"
        "As negotiated, seen from here."
        self.remote: Remote | None = None

    # ------------------------------------------------------------------------------------------------ our words

    def offer(self) -> str:
        """A description to offer."""
        self.offered = "sendonly" if self.hold else "sendrecv"
        return self._write(self.offered, self._mux)

    def withdraw(self) -> None:
        """Our offer was refused: everything stays as it was (RFC 3264 §8, RFC 6141)."""
        self.offered = ""

    def answer(self, body: str) -> str:
        """Take in an offer and return the answer; SipError(488) when there is nothing in common."""
        description = _read(body)
        lines, audio, chosen = _pick(description)
        if audio < 0:
            raise SipError(488)
        offered = description.media[audio]
        direction = _REVERSED[offered.direction]
        if self.hold:
            direction = {"sendrecv": "sendonly", "recvonly": "inactive"}.get(direction, direction)
        self._lines, self._audio = lines, audio
        self._take(description, audio, chosen, direction, mux=self._mux and offered.rtcp_mux)
        return self._write(direction, self._mux and offered.rtcp_mux)

    def reject(self, body: str) -> str:
        """An answer that takes nothing, where an answer must be given (an offer in a 2xx)."""
        try:
            description = _read(body)
        except SipError:
            return self._write("inactive", False)
        lines = [f"m={media.kind} 0 {media.proto} {media.formats}" for media in description.media]
        return self._text(lines)

    def accept(self, body: str) -> None:
        """Take in the answer to our offer; SipError(488) when the stream was rejected or the answer is none."""
        offered, self.offered = self.offered, ""
        description = _read(body)
        if self._audio >= len(description.media):
            raise SipError(488)
        media = description.media[self._audio]
        chosen = _chosen(description, self._audio)
        if media.port == 0 or chosen is None:
            raise SipError(488)
        direction = _REVERSED[media.direction]
        if offered == "sendonly" and direction in ("sendrecv", "recvonly"):
            direction = "sendonly" if direction == "sendrecv" else "inactive"
        self._take(description, self._audio, chosen, direction, mux=self._mux and media.rtcp_mux)

    # ---------------------------------------------------------------------------------------------- what follows

    @property
    def sends(self) -> bool:
        """Whether packets are to be sent."""
        return self.remote is not None and not self.remote.held and self.direction in ("sendrecv", "sendonly")

    @property
    def expects(self) -> bool:
        """Whether packets are to arrive."""
        return self.remote is not None and self.direction in ("sendrecv", "recvonly")

    # -------------------------------------------------------------------------------------------------- internals

    def _take(self, description: Description, audio: int, chosen: str, direction: str, *, mux: bool) -> None:
        end = endpoints(description)[audio]
        rtp = (end.host, end.rtp_port)
        self.direction = direction
        self.remote = Remote(rtp, rtp if mux else (end.rtcp_host, end.rtcp_port), int(chosen), end.held)

    def _write(self, direction: str, mux: bool) -> str:
        lines = []
        for number, line in enumerate(self._lines):
            port = self._port if number == self._audio else 0
            lines.append(f"m={line.kind} {port} {line.proto} {line.formats}")
            if number == self._audio:
                lines += [*line.attributes, "a=ptime:20", f"a={direction}"]
                if mux:
                    lines.append("a=rtcp-mux")
        return self._text(lines)

    def _text(self, lines: list[str]) -> str:
        address = f"IN {'IP6' if ':' in self._host else 'IP4'} {self._host}"
        text = "\r\n".join(("s=-", f"c={address}", "t=0 0", *lines, ""))
        if text != self._said:  # the version says whether anything has changed (RFC 3264 §8)
            self._said = text
            self._version += 1
        return f"v=0\r\no=- {self._id} {self._version} {address}\r\n{text}"


def _own_line() -> _Line:
    rtpmaps = tuple(f"a=rtpmap:{number} {name}/8000" for number, name in _CODECS.items())
    dtmf = (f"a=rtpmap:{_DTMF} telephone-event/8000", f"a=fmtp:{_DTMF} 0-16")
    return _Line("audio", "RTP/AVP", " ".join((*_CODECS, _DTMF)), rtpmaps + dtmf)


def _read(body: str) -> Description:
    try:
        return parse(body)
    except SdpError as error:
        raise SipError(488, headers=(f'Warning: 399 sipnemo "{_quotable(str(error))}"',)) from error


def _quotable(text: str) -> str:
    return "".join(char for char in text if 32 <= ord(char) < 127 and char not in '"\\')


def _pick(description: Description) -> tuple[list[_Line], int, str]:
    """The lines of an answer, which of them is the stream (-1: none), and the payload type to send."""
    lines: list[_Line] = []
    audio, codec = -1, ""
    for number, media in enumerate(description.media):
        chosen = _chosen(description, number) if audio < 0 and media.port else None
        if chosen is None:
            lines.append(_Line(media.kind, media.proto, media.formats or "0", ()))
            continue
        audio, codec = number, chosen
        maps = _rtpmaps(description, number)
        formats, attributes = [chosen], [f"a=rtpmap:{chosen} {maps[chosen]}"]
        for dtmf in media.formats.split():
            if maps.get(dtmf, "").lower() == "telephone-event/8000":
                formats.append(dtmf)
                attributes += [f"a=rtpmap:{dtmf} telephone-event/8000", f"a=fmtp:{dtmf} 0-16"]
                break
        lines.append(_Line(media.kind, media.proto, " ".join(formats), tuple(attributes)))
    return lines, audio, codec


def _chosen(description: Description, number: int) -> str | None:
    """The payload type of the first G.711 format of a medium; None when it has none or is no plain RTP audio."""
    media = description.media[number]
    if media.kind != "audio" or media.proto not in ("RTP/AVP", "RTP/AVPF") or media.connection is None:
        return None
    maps = _rtpmaps(description, number)
    for name in media.formats.split():
        if maps.get(name, "").partition("/")[0].upper() in _CODECS.values() and int(name) < 128:
            return name
    return None


def _rtpmaps(description: Description, number: int) -> dict[str, str]:
    """Payload type → encoding, static ones included, of the formats that are numbers."""
    maps = {name: f"{codec}/8000" for name, codec in _CODECS.items()}
    medium = -1
    for line in description.lines:
        if line.startswith("m="):
            medium += 1
        elif medium == number and line.startswith("a=rtpmap:"):
            name, _, encoding = line[9:].partition(" ")
            if name.isdecimal() and len(name) <= 3:
                maps[name] = encoding.strip()
    return maps

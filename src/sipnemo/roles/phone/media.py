"""What the phone's core asks of the RTP engine, and the one thing that it hears back; data only.

A stream is one RTP session of one call: an own socket that sends numbered packets to the peer every 20 ms and keeps
count of what arrives. The engine chooses the port, since only it can see which are free; so the core opens the stream
first and writes its session description when `StreamOpened` has come.
"""

from __future__ import annotations

from typing import NamedTuple


class OpenStream(NamedTuple):
    """Bind a socket on this own address; answered by `StreamOpened` with the same ticket. Nothing is sent yet."""

    ticket: int

    stream: int
    "Number by which this process knows the stream from now on."

    host: str

    account: str
    "For the report only."

    call_id: str
    "For the report only."


class StreamOpened(NamedTuple):
    """Input: the stream's socket is bound to this port; 0 when no port is free. RTCP may use the port above."""

    ticket: int
    port: int


class SetStream(NamedTuple):
    """What was negotiated: where to send to from the next packet on, and what to expect. Given again on a change."""

    stream: int

    peer: tuple[str, int] | None
    "The far end's RTP address; None: nothing is sent (hold, or not known yet)."

    rtcp: tuple[str, int] | None
    "The far end's RTCP address; the RTP address itself when both share a port."

    payload_type: int

    expect: bool
    "Whether packets should arrive; silence that was agreed upon is no gap."


class CloseStream(NamedTuple):
    """Stop, close the socket and hand out the final report."""

    stream: int


MediaAction = OpenStream | SetStream | CloseStream

"""The media of one session: ports, both ends' addresses, and the flows that follow from them (RO-9).

An offer is only remembered; its answer puts both into force (RFC 3264). A rejected offer therefore changes nothing.
One port serves a medium on the I-face and on every E-face, so a path can change without any port changing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, flow_key, media_flow
from sipnemo.media.ports import PortPool
from sipnemo.roles.node import AddFlows, RemoveFlows
from sipnemo.sdp.description import Description, SdpError, parse
from sipnemo.sdp.multipart import find_sdp
from sipnemo.sdp.rewrite import Endpoint, endpoints, move
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Message

if TYPE_CHECKING:
    from sipnemo.roles.nms.path.paths import Path


class Prepared(NamedTuple):
    """An offer written beforehand, and for which state of its session it is the next one."""

    host: str
    said: str
    "The SIP-MN's description that it repeats."
    before: tuple[int, int]
    after: tuple[int, int]
    offer: str


class SessionMedia:
    """Everything about one session's media that signalling and the media plane must agree on."""

    __slots__ = (
        "_highest",
        "_pending_mn",
        "_pending_mn_sdp",
        "_prepared",
        "_told",
        "both",
        "cn",
        "cn_contact",
        "cn_host",
        "flows",
        "forwarded",
        "inside",
        "learnt",
        "mn",
        "mn_sdp",
        "origin",
        "pending_cn",
        "ports",
        "shift",
    )

    def __init__(self, inside: str, origin: str) -> None:
        self.inside = inside
        "Our address on the I-face, as the SIP-MN sees it."
        self.origin = origin
        "Address in the o= line towards the SIP-CN; stays for the session's life (RFC 3264 §8)."
        self.ports: list[int | None] = []
        "Even port per m= line; RTCP has the next one. None: nothing to forward."
        self.mn: list[Endpoint] = []
        "Where the SIP-MN receives, in force."
        self.cn: list[Endpoint] = []
        "Where the SIP-CN receives, in force."
        self.cn_contact = ""
        "Host of the SIP-CN's Contact, where its media addresses are private: a NAT's, as it knows it itself."
        self.cn_host = ""
        "Where the SIP-CN's signalling comes from: the only foreign address that symmetric RTP may be learnt from."
        self.mn_sdp = ""
        "The SIP-MN's description in force, as it wrote it: what a re-INVITE offers anew (RO-10)."
        self.shift = 0
        "How far our o= version towards the SIP-CN is ahead of the SIP-MN's: one per move."
        self.flows: dict[FlowKey, MediaFlow] = {}
        "What the media plane has been told to forward."
        self.forwarded = False
        "It has been told to, at some time."
        self.learnt: dict[FlowKey, tuple[str, int]] = {}
        self.both = 0
        "Group of the two paths that the uplink direction leaves by for the time of a move; 0: by the session's path."
        self._pending_mn: list[Endpoint] | None = None
        self._pending_mn_sdp = ""
        self._prepared: Prepared | None = None
        self.pending_cn: list[Endpoint] | None = None
        "Where the SIP-CN would receive by its offer, which is not answered yet."
        self._told = ""
        "The address of ours that the SIP-CN was told last."
        self._highest = 0
        "The version in the o= line that it was told last: of an offer that it has refused, perhaps."

    # ----------------------------------------------------------------------------------------- offers and answers

    def from_mn(self, text: str, host: str, answer: bool, pool: PortPool, now: float) -> str:
        """The SIP-MN's description as the SIP-CN gets it, received at our address `host`."""
        description, ends = _read(text)
        self._allocate(ends, pool, now)
        if host != self._told:  # the SIP-MN's version need not have changed, but this is another description (§8)
            if self._told:
                self.shift += 1
            self._told = host
        if answer:
            self.mn, self.mn_sdp = ends, text
            self._settle()
        else:
            self._pending_mn, self._pending_mn_sdp = ends, text
        self._highest = description.origin.version + self.shift
        return self._moved(description, ends, host, self.shift, self.origin)

    def from_cn(self, text: str, answer: bool, pool: PortPool, now: float) -> str:
        """The SIP-CN's description as the SIP-MN gets it, received at our I-face."""
        description, ends = _read(text)
        self._allocate(ends, pool, now)
        if answer:
            self.cn = ends
            self._settle()
        else:
            self.pending_cn = ends
        return self._moved(description, ends, self.inside, 0, self.inside)

    def hidden(self) -> bool:
        """Whether the SIP-CN's media are behind a NAT, by the address that it gives."""
        ends = self.cn if self.pending_cn is None else self.pending_cn
        return any(end.active and end.host != self.cn_host and _private(end.host) for end in ends)

    def shown(self, text: str) -> str:
        """A description of the SIP-CN's that is not to take effect, as the SIP-MN gets it."""
        description, ends = _read(text)
        return self._moved(description, ends, self.inside, 0, self.inside)

    def again(self, host: str) -> str:
        """A new offer to the SIP-CN: what the SIP-MN said last, received at another address (RO-10).

        That is its description in force, or its own offer where nobody is known to have answered that."""
        text = self._pending_mn_sdp if self._pending_mn is not None else self.mn_sdp
        if not text:
            return ""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.host == host and prepared.said is text and prepared.before == self._state:
            self._told, (self._highest, self.shift) = host, prepared.after
            return prepared.offer
        description, ends = _read(text)
        version = description.origin.version
        self._told, self._highest = host, max(self._highest, version + self.shift) + 1
        self.shift = self._highest - version
        return self._moved(description, ends, host, self.shift, self.origin)

    def prepare(self, host: str) -> None:
        """Write the offer beforehand that `again` is likely to be asked for (`preparing.py`)."""
        said = self._pending_mn_sdp if self._pending_mn is not None else self.mn_sdp
        known = self._prepared
        if known is not None and known.host == host and known.said is said and known.before == self._state:
            return
        told, before = self._told, self._state
        offer = self.again(host)
        self._prepared = Prepared(host, said, before, self._state, offer)
        self._told, (self._highest, self.shift) = told, before

    @property
    def _state(self) -> tuple[int, int]:
        return self._highest, self.shift

    def answered_again(self, text: str) -> None:
        """The SIP-CN's answer to an offer of our own."""
        ends = _read(text)[1]
        if len(ends) == len(self.mn):
            self.cn = ends

    @property
    def offering(self) -> bool:
        """An offer has passed that is not answered yet."""
        return self._pending_mn is not None or self.pending_cn is not None

    @property
    def described(self) -> bool:
        """The SIP-CN has got a description of the SIP-MN's."""
        return bool(self.mn_sdp) or self._pending_mn is not None

    def answers(self, outward: bool) -> bool:
        """Whether a description that goes this way answers an offer of the other end (RFC 3262 §5: in a PRACK)."""
        return (self.pending_cn if outward else self._pending_mn) is not None

    def rejected(self) -> None:
        """The offer at hand was refused: what was in force stays (RFC 3261 §14.1)."""
        self._pending_mn = self.pending_cn = None

    def _settle(self) -> None:
        if self._pending_mn is not None:
            self.mn, self.mn_sdp = self._pending_mn, self._pending_mn_sdp
        if self.pending_cn is not None:
            self.cn = self.pending_cn
        self._pending_mn = self.pending_cn = None

    def _moved(self, description: Description, ends: list[Endpoint], host: str, shift: int, origin: str) -> str:
        ports = [port if end.forwardable else None for port, end in zip(self.ports, ends, strict=False)]
        return move(description, host, ports, version=description.origin.version + shift, origin=origin)

    def _allocate(self, ends: list[Endpoint], pool: PortPool, now: float) -> None:
        ports = self.ports
        for index, end in enumerate(ends):
            if index == len(ports):
                ports.append(None)
            if ports[index] is None and end.forwardable:
                port = pool.allocate(now)
                if port is None:
                    raise SipError(503, "No media port free", ("Retry-After: 5",))
                ports[index] = port

    # ---------------------------------------------------------------------------------------------------- flows

    def receives(self, host: str) -> bool:
        """Whether the SIP-CN's packets are taken in at this address of ours."""
        return any(key.host == host for key in self.flows)

    def plan(self, path: Path, paths: Iterable[Path], left: str = "") -> dict[FlowKey, MediaFlow]:
        """What must be forwarded: out over `path`, in from every path that is ON, so that the SIP-CN may change sides
        when it obeys a re-INVITE, not when we expect it to. One that is OFF stays open until it is `left`."""
        flows: dict[FlowKey, MediaFlow] = {}
        group = self.both or path.group
        own = [known.address for known in paths]
        hosts = [path.address]
        for known in paths:
            if known is not path and (known.on or (known.address != left and self.receives(known.address))):
                hosts.append(known.address)
        for port, mn, cn in zip(self.ports, self.mn, self.cn, strict=False):
            if port is None or not (mn.active and cn.active and mn.forwardable and cn.forwardable):
                continue
            muxed = mn.mux and cn.mux
            self._stream(flows, port, (cn.host, cn.rtp_port), (mn.host, mn.rtp_port), cn, mn, group, hosts, own)
            if not muxed:
                to_cn, to_mn = (cn.rtcp_host, cn.rtcp_port), (mn.rtcp_host, mn.rtcp_port)
                self._stream(flows, port + 1, to_cn, to_mn, cn, mn, group, hosts, own)
        return flows

    def _stream(
        self,
        flows: dict[FlowKey, MediaFlow],
        port: int,
        to_cn: tuple[str, int],
        to_mn: tuple[str, int],
        cn: Endpoint,
        mn: Endpoint,
        group: int,
        hosts: list[str],
        own: list[str],
    ) -> None:
        up = flow_key((self.inside, port))
        admit: tuple[str, ...] = ()
        # A description that names our I-face, or a SIP-MN's that names any address of ours, would make packets circle
        # within this machine; an E-face's may stand in a SIP-CN's: that is another SIP-MN of ours.
        if not cn.held and to_cn[0] != self.inside:
            if self.cn_host and to_cn[0] != self.cn_host and _private(to_cn[0]):
                admit = (to_cn[0], self.cn_host, self.cn_contact) if self.cn_contact else (to_cn[0], self.cn_host)
            flows[up] = media_flow((up, self.learnt.get(up, to_cn), port, group, (), None))
        if not mn.held and to_mn[0] != self.inside and to_mn[0] not in own:
            for host in hosts:
                down = flow_key((host, port))
                flows[down] = media_flow((down, to_mn, port, INSIDE, admit, up if admit else None))

    def changes(self, wanted: dict[FlowKey, MediaFlow]) -> list[AddFlows | RemoveFlows]:
        """What the media plane must be told to get from what it has to what is wanted."""
        have = self.flows
        added = tuple(flow for key, flow in wanted.items() if have.get(key) != flow) if have else (*wanted.values(),)
        removed = tuple(key for key in have if key not in wanted) if wanted else (*have,)
        self.flows = wanted
        actions: list[AddFlows | RemoveFlows] = []
        if added:
            self.forwarded = True
            actions.append(AddFlows(added))
        if removed:
            actions.append(RemoveFlows(removed))
        return actions

    def release(self, pool: PortPool, now: float) -> list[AddFlows | RemoveFlows]:
        """The session has ended: its ports rest, its flows go. Without flows no packet can be late (a 407, a 486)."""
        for port in self.ports:
            if port is not None:
                pool.release(port, now, self.forwarded)
        self.ports, self.mn, self.cn, self.mn_sdp = [], [], [], ""
        return self.changes({})


def body_sdp(message: Message) -> tuple[int, int] | None:
    """Where the session description stands in a message's body, if it has one."""
    if not message.body:
        return None
    kind = message.value("content-type")
    if kind == "application/sdp":
        return (0, len(message.body))
    return find_sdp(kind, message.body)


def _read(text: str) -> tuple[Description, list[Endpoint]]:
    """A description and where its media want to receive."""
    try:
        return known(text)
    except SdpError as error:
        raise SipError(488, f"Unusable session description: {error}") from None


def known(text: str) -> tuple[Description, list[Endpoint]]:
    """The same, in the words of the parser when it is none: raises SdpError."""
    return _known(text) if len(text) <= 4096 else _known.__wrapped__(text)


@lru_cache(maxsize=2048)
def _known(text: str) -> tuple[Description, list[Endpoint]]:
    """Cached: a 183 and its 200 hold the same description, and so do a refresh and a move what came before them.

    So many that a thousand calls which move at once need not be read again, each before its re-INVITE leaves.
    """
    description = parse(text)
    return description, endpoints(description)


@lru_cache(maxsize=1024)
def _private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False

"""One call with media between a phone and a far end, message by message, and what each of the two has got."""

from __future__ import annotations

from typing import Any

from nms_world import FAR, INSIDE, PHONE, UPLINKS, Gateway, response

from sipnemo.roles.node import Link, Received
from sipnemo.sip.flow import Address
from sipnemo.sip.message import Request, Response

UP1, UP2 = UPLINKS.values()
KIND = "Content-Type: application/sdp"
CN_CONTACT = "Contact: <sip:cn@192.0.2.9>"
MN_CONTACT = "Contact: <sip:mn@10.7.0.11>"
CN = "<sip:cn@192.0.2.9>"
MN = "<sip:mn@else.example>"


def sdp(host: str, direction: str = "sendrecv", version: int = 1, port: int = 4000) -> str:
    """A description."""
    return (
        f"v=0\r\no=- 1 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na={direction}\r\n"
    )


class Talk:
    """A gateway with one call of the phone's, answered and acknowledged."""

    def __init__(self, acknowledged: bool = True, expires: str = "", **changes: Any) -> None:
        self.gateway = Gateway(**changes)
        self.seen: dict[Address, int] = {}
        self.mn_cseq, self.cn_cseq = 1, 100
        self.mn_sdp, self.cn_sdp = sdp("10.7.0.11"), sdp("192.0.2.9")
        invite = self.gateway.call(KIND, body=self.mn_sdp)
        lines = [KIND, CN_CONTACT, *([f"Session-Expires: {expires}"] if expires else [])]
        self.gateway.answer(FAR, invite, 200, *lines, body=self.cn_sdp)
        if acknowledged:
            self.mn("ACK", cseq=1)
        self.session = next(iter(self.gateway.node.calls.open))
        self.news(PHONE), self.news(FAR)

    # ------------------------------------------------------------------------------------------------- the two ends

    def mn(self, method: str, *lines: str, cseq: int = 0, **given: Any) -> str:
        """A request of the phone's; its branch."""
        if method not in ("ACK", "CANCEL") and not cseq:
            self.mn_cseq += 1
        number = cseq or self.mn_cseq
        more: tuple[str, ...] = (MN_CONTACT,) if method in ("INVITE", "UPDATE", "REFER") else ()
        if given.get("body"):
            more += (KIND,)
        to = f"{CN};tag=cn"
        return self.gateway.request(
            PHONE, INSIDE, method, "sip:cn@192.0.2.9", *more, *lines, cseq=number, to=to, **given
        )

    def cn(self, method: str, *lines: str, at: str = UP1, cseq: int = 0, **given: Any) -> str:
        """A request of the far end's, to one of our addresses; its branch."""
        if method not in ("ACK", "CANCEL") and not cseq:
            self.cn_cseq += 1
        number = cseq or self.cn_cseq
        more: tuple[str, ...] = (CN_CONTACT,) if method in ("INVITE", "UPDATE", "REFER") else ()
        if given.get("body"):
            more += (KIND,)
        names = {"from_": f"{CN};tag=cn", "to": f"{MN};tag=mn"}
        uri = f"sip:{at};mn={self.session.token}"
        return self.gateway.request(FAR, at, method, uri, *more, *lines, cseq=number, **names, **given)

    def cn_answers(self, status: int, *lines: str, body: str = "", method: str = "INVITE", which: int = -1) -> None:
        """The far end answers the last request of a method that it has got."""
        asked = self.gateway.got(FAR, method)[which]
        if body:
            lines += (KIND,)
        if status < 300 and method != "BYE":
            lines += (CN_CONTACT,)
        self.gateway.answer(FAR, asked, status, *lines, body=body)

    def mn_answers(self, status: int, *lines: str, body: str = "", method: str = "INVITE") -> None:
        """The phone does."""
        asked = self.gateway.got(PHONE, method)[-1]
        if body:
            lines += (KIND,)
        if status < 300 and method != "BYE":
            lines += (MN_CONTACT,)
        data = response(asked, status, *lines, tag="mn", body=body)
        self.gateway.feed(Received(data, self.gateway.flows[id(asked)]))

    # ---------------------------------------------------------------------------------------------------- the paths

    def cut(self, name: str = "wwan0") -> None:
        """Carrier loss."""
        index = 3 + list(UPLINKS).index(name)
        self.gateway.feed(Link(name, index, False, (UPLINKS[name],)))

    def mend(self, name: str = "wwan0") -> None:
        """It is back, and proves itself."""
        index = 3 + list(UPLINKS).index(name)
        self.gateway.feed(Link(name, index, True, (UPLINKS[name],)))
        self.gateway.run(2.0)

    def hear(self, packets: int = 10) -> None:
        """So many more packets of the far end arrive on every path."""
        self.gateway.run(0.1)  # so that the gateway knows what was there before
        media = self.session.media
        assert media is not None
        for key in media.flows:
            before = self.gateway.counters.get(key, (0, 0))[0]
            self.gateway.counters[key] = (before + packets, 0)
        self.gateway.run(0.1)

    # ------------------------------------------------------------------------------------------------- what was got

    def news(self, at: Address) -> list[str]:
        """What an address got since it was last asked, 100 and retransmissions left out: "INVITE 2", "491 3", …"""
        messages = self.gateway.sent.get(at, [])
        told: list[str] = []
        known: set[str] = set()
        for message in messages[self.seen.get(at, 0) :]:
            assert isinstance(message, Request | Response)
            what = message.method if isinstance(message, Request) else str(message.status)
            text = f"{what} {message.cseq}"
            if what != "100" and message.branch + text not in known:
                told.append(text)
            known.add(message.branch + text)
        self.seen[at] = len(messages)
        return told

    def to_cn(self) -> list[str]:
        """What the far end got since it was last asked."""
        return self.news(FAR)

    def to_mn(self) -> list[str]:
        """What the phone got."""
        return self.news(PHONE)

    def last(self, at: Address, what: str) -> Any:
        """The last message of that kind."""
        return self.gateway.got(at, what)[-1]

    def via(self, message: Any) -> str:
        """The path it left by."""
        return self.gateway.flows[id(message)].local.host

    @property
    def outcome(self) -> dict[str, int]:
        """How the last wave of moves ended."""
        ended: dict[str, int] = self.gateway.node.handover.waves[-1].row()["ended"]
        return ended


def address(message: Any) -> str:
    """The connection address of a description."""
    return str(next(line for line in message.body.split("\r\n") if line.startswith("c=")).split()[-1])


def direction(message: Any) -> str:
    """The direction of a description."""
    return str(next(line for line in message.body.split("\r\n") if line in DIRECTIONS)[2:])


def version(message: Any) -> int:
    """The version in o=."""
    return int(next(line for line in message.body.split("\r\n") if line.startswith("o=")).split()[2])


DIRECTIONS = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")

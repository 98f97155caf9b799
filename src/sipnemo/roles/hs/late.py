"""A 2xx that comes when its INVITE's transaction is over is passed on by its Via (RFC 3261 §16.7 item 5, RFC 6026).

Its caller can then end that call. No state is left to say where it belongs, so our branch parameter says it: sealed in
it is where the INVITE came from, and when. Nobody can make this server send anything to somebody who has not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.node import Send
from sipnemo.sip.flow import Address, Flow
from sipnemo.sip.message import Message, Request, Response
from sipnemo.sip.uri import is_address

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer

SPAN: Final = 600.0
"A seal is good for this long at least, and for twice as long at most: Timer C, and an answer that took its time."
SEAL: Final = 16
"Characters of a seal."


class LateAnswers:
    """Seals branches, and passes on what comes back with them."""

    def __init__(self, hs: HomeServer) -> None:
        self._hs: Final = hs

    def branch(self, request: Request, mark: str, now: float) -> str:
        """A branch parameter for one copy of this request, ending with its loop mark."""
        branch = self._hs.ids.branch()
        if request.method != "INVITE":
            return f"{branch}.{mark}"
        return f"{branch}{self._seal(branch, _source(request), int(now // SPAN))}.{mark}"

    def pass_on(self, response: Response, flow: Flow, now: float) -> None:
        """A response without transaction."""
        if not 200 <= response.status < 300 or response.cseq_method != "INVITE":
            return
        sealed = response.branch.rpartition(".")[0]
        branch, seal = sealed[:-SEAL], sealed[-SEAL:]
        response.pop("via")
        source = _source(response)
        span = int(now // SPAN)
        if source is None or seal not in (self._seal(branch, source, span), self._seal(branch, source, span - 1)):
            return
        back = self._hs.domain.flow_to("UDP", *source, flow.local)
        if back is not None:
            self._hs.act(Send(response.encode(), back))

    def _seal(self, branch: str, source: Address | None, span: int) -> str:
        return self._hs.ids.token(f"late {branch} {source} {span}")


def _source(message: Message) -> Address | None:
    """Where the topmost Via leads (§18.2.2); only plain UDP can be found again without state."""
    via = next(iter(message.values("via")), "")
    head, _, params = via.partition(";")
    protocol, _, sent_by = head.strip().rpartition(" ")
    if not protocol.strip().upper().endswith("/UDP"):
        return None
    found = dict(item.strip().partition("=")[::2] for item in params.split(";"))
    host, port = _host_port(sent_by)
    host = found.get("received", host).strip("[]")
    port = found.get("rport", "") or port
    return (host, int(port)) if port.isdecimal() and len(port) < 6 and is_address(host) else None


def _host_port(sent_by: str) -> tuple[str, str]:
    host, _, port = sent_by.rpartition(":") if sent_by[-1:] != "]" and ":" in sent_by else (sent_by, "", "5060")
    return host, port

"""A phone that answers requests within a call as a story wants it to."""

from __future__ import annotations

from sipnemo.roles.phone.node import Phone
from sipnemo.sip.message import Request
from sipnemo.sip.transaction import ServerTransaction

SILENCE = 0


class MoodyPhone(Phone):
    """Like any other until it is told what to answer."""

    refusals: list[tuple[int, tuple[str, ...]]]
    "For the next re-INVITEs, in order: status (SILENCE: no answer) and header lines; then it is a phone again."
    refused: list[tuple[float, Request]]

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Answer, or do what the story says."""
        if request.method == "INVITE" and request.to_tag and self.__dict__.get("refusals"):
            status, headers = self.refusals.pop(0)
            self.__dict__.setdefault("refused", []).append((now, request))
            if status == SILENCE:
                server.terminate()
            else:
                self.respond(server, status, now, headers=headers)
            return
        super().on_request(server, request, now)

"""A phone that answers requests within a call as a story wants it to."""

from __future__ import annotations

from typing import Any

from sim.offers import OfferWatch
from sipnemo.roles.node import Action, Environment, Input, Received, Send
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import Settings
from sipnemo.sip.message import Request
from sipnemo.sip.transaction import ServerTransaction

SILENCE = 0


class MoodyPhone(Phone):
    """Like any other until it is told what to answer; what it is offered is watched."""

    refusals: list[tuple[int, tuple[str, ...]]]
    "For the next re-INVITEs, in order: status (SILENCE: no answer) and header lines; then it is a phone again."
    refused: list[tuple[float, Request]]

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self.watch = OfferWatch()
        self.heard: list[int] = []
        "Final responses to INFO and bare UPDATE."
        super().__init__(settings, environment)

    def handle(self, input: Input, now: float) -> list[Action]:
        """As any phone, and read what passes."""
        if type(input) is Received:
            self.watch.received(input.data)
        actions = super().handle(input, now)
        for action in actions:
            if type(action) is Send:
                self.watch.sent(action.data)
        return actions

    def _obey(self, name: str, arguments: Any, now: float) -> dict[str, Any]:
        """What no user of a phone asks for, but a phone does by itself."""
        match name:
            case "reinvite":
                for call in self._active(arguments):
                    call.alter(None, now)
            case "refresh":
                for call in self._active(arguments):
                    call.refresh(now)
            case "info" | "update":
                for call in self._active(arguments):
                    call.send(name.upper(), now, lambda response, at: self.heard.append(response.status))
            case _:
                return super()._obey(name, arguments, now)
        return {}

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Answer, or do what the story says."""
        if request.method == "INVITE" and request.to_tag and self.__dict__.get("refusals"):
            status, headers = self.refusals.pop(0)
            if status == SILENCE and server.flow.reliable:
                super().on_request(server, request, now)  # nothing would ever come of it: TCP loses no request
                return
            self.__dict__.setdefault("refused", []).append((now, request))
            if status == SILENCE:
                self.watch.silent(request.call_id)
                server.terminate()
            else:
                self.respond(server, status, now, headers=headers)
            return
        super().on_request(server, request, now)

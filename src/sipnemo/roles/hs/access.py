"""Who is who: digest for accounts and users (RFC 3261 §22), asked for with 401 or 407."""

from __future__ import annotations

from typing import Final

from sipnemo.roles.hs.settings import HsSettings
from sipnemo.sip.digest import ha1
from sipnemo.sip.digest_server import Authenticator, Outcome
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request


class DeniedError(SipError):
    """The credentials were not good enough; `cause` is for the log, not for the peer."""

    def __init__(self, status: int, challenges: tuple[str, ...], outcome: Outcome, cause: str) -> None:
        super().__init__(status, headers=challenges)
        self.outcome = outcome
        self.cause = cause


class Access:
    """Checks credentials for the home domain."""

    def __init__(self, settings: HsSettings, seed: str) -> None:
        realm, algorithms = settings.domain, settings.digest
        self._authenticator: Final = Authenticator(realm, f"nonce {seed}".encode(), algorithms=algorithms)
        self._mark: Final = f'realm="{realm}"'
        self._secrets: Final = {
            name: {algorithm: ha1(algorithm, name, realm, password) for algorithm in algorithms}
            for name, password in {**settings.users, **settings.accounts}.items()
        }

    def registrant(self, request: Request, wall: float) -> str:
        """The name of who sends this REGISTER; raises the 401 that asks for it."""
        return self._check(request, "authorization", 401, "WWW-Authenticate", wall)

    def sender(self, request: Request, wall: float) -> str:
        """The name of who wants this request forwarded; raises the 407 that asks for it."""
        return self._check(request, "proxy-authorization", 407, "Proxy-Authenticate", wall)

    def consume(self, request: Request) -> None:
        """Take the credentials for this realm out of a request that is to be forwarded: no one else needs them."""
        name = "proxy-authorization"
        if name not in request.names:
            return
        kept = [
            (known, line)
            for known, line in zip(request.names, request.lines, strict=True)
            if known != name or self._mark not in line
        ]
        request.names = tuple([known for known, _ in kept])
        request.lines = [line for _, line in kept]

    def _check(self, request: Request, name: str, status: int, header: str, wall: float) -> str:
        credentials = request.values_raw(name)
        verdict = self._authenticator.verify(request.method, credentials, request.body, self._secrets.get, wall)
        if verdict.ok:
            return verdict.username
        stale = verdict.outcome in (Outcome.STALE, Outcome.REPLAYED)
        challenges = tuple(f"{header}: {value}" for value in self._authenticator.challenge(wall, stale))
        raise DeniedError(status, challenges, verdict.outcome, verdict.reason)

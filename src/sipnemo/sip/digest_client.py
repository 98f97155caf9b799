"""The client's side of digest authentication: which challenge to answer, and nonces kept for the next request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sipnemo.sip.digest import (
    HASHES,
    Answer,
    Challenge,
    DigestError,
    ha1,
    hash_of_user,
    parse_answer,
    parse_challenges,
    parse_parameters,
    response_for,
)

_MAX_REALMS: Final = 8
_STRONGEST_FIRST: Final = tuple(HASHES)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are, in ordinary text."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, …)"


def strongest(challenges: Sequence[Challenge]) -> Challenge | None:
    """The challenge with the best algorithm that we can answer; the first one of equals; None when there is none."""
    best: Challenge | None = None
    best_rank = len(_STRONGEST_FIRST)
    for challenge in challenges:
        base = challenge.algorithm.removesuffix("-sess")
        if base not in HASHES or (challenge.qop and not {"auth", "auth-int"} & set(challenge.qop)):
            continue
        rank = _STRONGEST_FIRST.index(base)
        if rank < best_rank:
            best, best_rank = challenge, rank
    return best


def answer(
    credentials: Credentials,
    challenges: Sequence[Challenge],
    method: str,
    uri: str,
    body: str,
    cnonce: str,
    nc: int = 1,
) -> str:
    """An Authorization value for the strongest of these challenges; raises DigestError when none can be answered.

    `auth` is preferred to `auth-int`, whose hash no relay that rewrites SDP would leave valid.
    """
    challenge = strongest(challenges)
    if challenge is None:
        raise DigestError("no challenge with an algorithm that we know")
    return _answer(credentials, challenge, method, uri, body, cnonce, nc)


def _answer(
    credentials: Credentials, challenge: Challenge, method: str, uri: str, body: str, cnonce: str, nc: int
) -> str:
    algorithm, realm = challenge.algorithm, challenge.realm
    base = algorithm.removesuffix("-sess")
    qop = ""
    if challenge.qop:
        qop = "auth" if "auth" in challenge.qop else "auth-int"
    elif not algorithm.endswith("-sess"):
        cnonce = ""
    username = hash_of_user(base, credentials.username, realm) if challenge.userhash else credentials.username
    unsigned = Answer(
        username,
        realm,
        challenge.nonce,
        uri,
        "",
        algorithm,
        cnonce,
        qop,
        nc if qop else 0,
        challenge.opaque,
        challenge.userhash,
    )
    user = ha1(base, credentials.username, realm, credentials.password)
    return str(unsigned._replace(response=response_for(unsigned, user, method, body)))


class _Realm:
    """What one realm last asked, and how often it was answered."""

    __slots__ = ("challenge", "cnonce", "count", "header")

    def __init__(self, header: str, challenge: Challenge) -> None:
        self.header = header
        self.challenge = challenge
        self.count = 0
        self.cnonce = ""


class ClientAuth:
    """One user's dealings with one server or proxy: nonces are reused until they are refused."""

    def __init__(self, credentials: Credentials, realm: str | None = None) -> None:
        self._credentials = credentials
        self._realm = realm
        "The only realm whose challenges are answered; None: every realm's."
        self._realms: dict[tuple[str, str], _Realm] = {}

    def challenged(self, status: int, values: Sequence[str], sent: Sequence[str] = ()) -> bool:
        """Take in the challenges of a 401 or 407; whether sending the request again can succeed.

        `sent`: the Authorization or Proxy-Authorization values that the refused request carried. False means that
        the password was refused, or that no challenge can be answered. A hostile server can keep hope alive with ever
        new realms, so callers also bound the attempts per request.
        """
        header = "Proxy-Authorization" if status == 407 else "Authorization"
        by_realm: dict[str, list[Challenge]] = {}
        for challenge in parse_challenges(values):
            if self._realm is None or challenge.realm == self._realm:
                by_realm.setdefault(challenge.realm, []).append(challenge)
        tried = _answers(sent)
        hope = False
        for realm, challenges in by_realm.items():
            best = strongest(challenges)
            if best is None:
                continue
            known = self._realms.pop((header, realm), None)
            before = tried.get(realm)
            hope = hope or before is None or best.stale or self._was_reused(known, before)
            if known is None or known.challenge.nonce != best.nonce or best.stale:
                known = _Realm(header, best)
            self._realms[header, realm] = known
        while len(self._realms) > _MAX_REALMS:
            del self._realms[next(iter(self._realms))]
        return hope

    def authorization(self, method: str, uri: str, body: str, cnonce: str) -> list[tuple[str, str]]:
        """Header names and values for the next request: one for each realm that has challenged us, often none."""
        headers: list[tuple[str, str]] = []
        for known in self._realms.values():
            known.count += 1
            # Of a -sess algorithm the session key holds the first cnonce (RFC 7616 §3.4.2).
            if not known.cnonce or not known.challenge.algorithm.endswith("-sess"):
                known.cnonce = cnonce
            value = _answer(self._credentials, known.challenge, method, uri, body, known.cnonce, known.count)
            headers.append((known.header, value))
        return headers

    def authenticated(self, info: str, sent: Sequence[str] = ()) -> None:
        """Take in an Authentication-Info value; its nextnonce is for the realm that `sent` answered."""
        try:
            nonce = parse_parameters(info).get("nextnonce")
        except DigestError:
            return
        if not nonce:
            return
        realms = _answers(sent)
        for (_, realm), known in self._realms.items():
            # A -sess key is bound to the nonce of the challenge, so there the old nonce goes on.
            if (realm in realms or not realms) and not known.challenge.algorithm.endswith("-sess"):
                known.challenge = known.challenge._replace(nonce=nonce, stale=False)
                known.count = 0

    def forget(self) -> None:
        """Drop every nonce: the next request goes out without credentials."""
        self._realms.clear()

    @staticmethod
    def _was_reused(known: _Realm | None, before: Answer | None) -> bool:
        """Whether the refused nonce may have been refused for its age: some servers never say stale=true."""
        if known is None or before is None:
            return True
        if before.nonce != known.challenge.nonce:
            return True  # refused meanwhile, or replaced by nextnonce
        return before.nc > 1 or (not before.qop and known.count > 1)


def _answers(values: Sequence[str]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for value in values:
        try:
            answer = parse_answer(value)
        except DigestError:
            continue
        if answer is not None:
            answers[answer.realm] = answer
    return answers

"""The server's side of digest authentication: nonces that need no memory, and credentials checked once each."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from sipnemo.sip.digest import HASHES, Answer, Challenge, DigestError, ha1, parse_answer, response_for

Secret = str | Mapping[str, str] | None
"A password; or `ha1` values by algorithm ('SHA-256', 'MD5'); or None when there is no such user."


class Outcome(Enum):
    """What the credentials were worth."""

    OK = "ok"
    MISSING = "missing"
    "None for our realm: challenge."

    STALE = "stale"
    "Right password, nonce too old or not ours (any more): challenge with stale=true."

    REPLAYED = "replayed"
    "Right, but seen before: challenge with stale=true; nothing may be done for this request."

    BAD = "bad"
    "Malformed, unknown user, wrong password, or an algorithm that was not offered."


class Verdict(NamedTuple):
    """The result of a check."""

    outcome: Outcome
    username: str = ""
    "Whom the credentials name; to be trusted with OK only."

    reason: str = ""
    "For the log; never for the peer."

    uri: str = ""
    "The digest-uri, for callers who compare it with the Request-URI (RFC 7616 §3.4.6)."

    algorithm: str = ""

    @property
    def ok(self) -> bool:
        """Whether the request may be served."""
        return self.outcome is Outcome.OK


_WINDOW: Final = 64
"Nonce counts may overtake each other by this much on UDP."


class _Use:
    """How a nonce has been used: highest count, and a bit for each of the counts just below it."""

    __slots__ = ("highest", "issued_at", "seen")

    def __init__(self, issued_at: float) -> None:
        self.issued_at = issued_at
        self.highest = 0
        self.seen = 0

    def first_time(self, count: int) -> bool:
        """Note the use of `count`; False when it was used before, or too long ago to tell."""
        if count > self.highest:
            self.seen = (self.seen << min(count - self.highest, _WINDOW)) & ((1 << _WINDOW) - 1) | 1
            self.highest = count
            return True
        bit = self.highest - count
        if bit >= _WINDOW or self.seen >> bit & 1:
            return False
        self.seen |= 1 << bit
        return True


class Authenticator:
    """Issues challenges for one realm and checks the answers to them."""

    def __init__(
        self,
        realm: str,
        secret: bytes,
        *,
        algorithms: Sequence[str] = ("SHA-256", "MD5"),
        qop: Sequence[str] = ("auth",),
        nonce_for: float = 300.0,
        memory: int = 100_000,
    ) -> None:
        """`nonce_for`: seconds a nonce may be used; `memory`: nonces in use whose counts are remembered."""
        self.realm: Final = realm
        self._key: Final = hashlib.blake2b(secret).digest()  # a MAC key has at most 64 octets
        self._algorithms: Final = tuple(algorithms)
        self._qop: Final = tuple(qop)
        self._nonce_for: Final = nonce_for
        self._memory: Final = memory
        self._issued = 0
        self._uses: dict[str, _Use] = {}
        self._forgotten_at = float("-inf")

    def challenge(self, now: float, stale: bool = False) -> list[str]:
        """Values for WWW-Authenticate or Proxy-Authenticate, strongest algorithm first (RFC 8760 §2.4)."""
        nonce = self._new_nonce(now)
        return [str(Challenge(self.realm, nonce, algorithm, self._qop, None, stale)) for algorithm in self._algorithms]

    def authentication_info(self, now: float) -> str:
        """An Authentication-Info value that spares an authenticated client the next 401 (RFC 7616 §3.5)."""
        return f'nextnonce="{self._new_nonce(now)}"'

    def verify(
        self,
        method: str,
        credentials: str | Sequence[str],
        body: str,
        lookup_secret: Callable[[str], Secret],
        now: float,
    ) -> Verdict:
        """Check the Authorization (or Proxy-Authorization) values of a request. Never raises on bad input.

        Credentials for other realms are skipped. The algorithm must be one that was offered and, when the user's
        secret is stored as hashes, one there is a hash for: nobody can ask for a weaker check than was configured.
        """
        found: Answer | None = None
        trouble = ""
        for value in (credentials,) if isinstance(credentials, str) else credentials:
            try:
                answer = parse_answer(value)
            except DigestError as error:
                trouble = str(error)
                continue
            if answer is not None and answer.realm == self.realm:
                found = answer
                break
        if found is None:
            return Verdict(Outcome.BAD, reason=trouble) if trouble else Verdict(Outcome.MISSING)
        trouble = self._trouble(found, method, body, lookup_secret)
        if trouble:
            outcome = Outcome.BAD
        else:
            # Only who knows the password learns anything about nonces, or takes room in our memory.
            outcome, trouble = self._freshness(found, now)
        return Verdict(outcome, found.username, trouble, found.uri, found.algorithm)

    def _trouble(self, answer: Answer, method: str, body: str, lookup_secret: Callable[[str], Secret]) -> str:
        base = answer.algorithm.removesuffix("-sess")
        if answer.algorithm not in self._algorithms or base not in HASHES:
            return f"algorithm {answer.algorithm} was not offered"
        if answer.qop and answer.qop not in self._qop:
            return f"qop {answer.qop} was not offered"
        if answer.userhash:
            return "userhash was not offered"
        secret = lookup_secret(answer.username)
        if isinstance(secret, str):
            user = ha1(base, answer.username, self.realm, secret)
        else:
            user = (secret or {}).get(base, "")
        # A check against nothing takes as long as any other, so time does not tell which users exist.
        right = response_for(answer, user or "0" * 64, method, body)
        same = hmac.compare_digest(right.encode(), answer.response.lower().encode("latin-1"))
        if secret is None:
            return "no such user"
        if not user:
            return f"no {base} hash is stored for this user"
        return "" if same else "wrong password"

    def _freshness(self, answer: Answer, now: float) -> tuple[Outcome, str]:
        use = self._uses.get(answer.nonce)
        issued_at = self._issued_at(answer.nonce) if use is None else use.issued_at
        if issued_at is None:
            return Outcome.STALE, "not a nonce of ours"
        if not now - self._nonce_for <= issued_at <= now + 1.0:
            return Outcome.STALE, "the nonce is too old"
        if use is None:
            if issued_at <= self._forgotten_at:
                return Outcome.STALE, "the nonce's uses are forgotten"
            use = _Use(issued_at)
            self._remember(answer.nonce, use, now)
        if not answer.qop:
            # RFC 2069 credentials carry no count, so a nonce is good for one of them.
            return (Outcome.OK, "") if use.first_time(1) else (Outcome.STALE, "the nonce is used up")
        if answer.nc == 0 or not use.first_time(answer.nc):
            return Outcome.REPLAYED, f"nonce count {answer.nc} was used before"
        return Outcome.OK, ""

    def _remember(self, nonce: str, use: _Use, now: float) -> None:
        """Keep the counts of this nonce, in bounded memory."""
        self._uses[nonce] = use
        if len(self._uses) <= self._memory:
            return
        oldest = now - self._nonce_for
        self._uses = {key: kept for key, kept in self._uses.items() if kept.issued_at >= oldest}
        # Under a flood the oldest half goes, and with it every nonce as old, so that none can be replayed.
        if len(self._uses) > self._memory:
            ages = sorted(kept.issued_at for kept in self._uses.values())
            self._forgotten_at = max(self._forgotten_at, ages[len(ages) // 2])
            self._uses = {key: kept for key, kept in self._uses.items() if kept.issued_at > self._forgotten_at}

    def _new_nonce(self, now: float) -> str:
        """Instant in ms, a number that makes it unique, and our seal on both."""
        self._issued += 1
        stamp = f"{int(now * 1000):x}.{self._issued:x}"
        return f"{stamp}.{self._seal(stamp)}"

    def _issued_at(self, nonce: str) -> float | None:
        stamp, _, seal = nonce.rpartition(".")
        if not stamp or not hmac.compare_digest(self._seal(stamp).encode(), seal.encode("latin-1")):
            return None
        return int(stamp.partition(".")[0], 16) / 1000

    def _seal(self, stamp: str) -> str:
        text = f"{stamp}:{self.realm}".encode("latin-1")
        return hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()

"""Branches, tags and tokens, from a seed given once: nothing in the core draws a random number."""

from __future__ import annotations

import hashlib


class Ids:
    """Unique, and not to be guessed from one another where that matters (RFC 3261 §8.1.1.7, §19.3)."""

    def __init__(self, seed: str) -> None:
        self._key = seed.encode()[:64]
        self._serial = 0
        self._secrets: list[str] = []
        "Hex digits for the next branches: one digest serves eight."
        self._prefix = f"z9hG4bK{self._digest('branch')[:8]}"

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(text.encode("latin-1"), digest_size=16, key=self._key).hexdigest()

    def branch(self) -> str:
        """A branch parameter with the magic cookie; unique, and with 64 bits that nobody can guess.

        A response is known by its branch: who could guess it could answer in the place of whom we have asked.
        """
        self._serial += 1
        if not self._secrets:
            text = hashlib.blake2b(b"branch%d" % self._serial, key=self._key).hexdigest()
            self._secrets = [text[at : at + 16] for at in range(0, 128, 16)]
        return f"{self._prefix}{self._secrets.pop()}{self._serial:x}"

    def tag(self) -> str:
        """128 unguessable bits as hex: tags, Call-IDs, cnonces, STUN transaction IDs."""
        self._serial += 1
        return self._digest(f"tag{self._serial}")

    def token(self, text: str) -> str:
        """The same short unguessable name for the same text, for example the contact token of a SIP-MN (RO-4)."""
        return self._digest(f"token{text}")[:16]

    def chance(self) -> float:
        """A number in [0, 1), for jitter and SRV weights."""
        self._serial += 1
        return int(self._digest(f"chance{self._serial}")[:12], 16) / float(1 << 48)

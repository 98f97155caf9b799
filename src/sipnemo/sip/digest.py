"""Digest authentication (RFC 7616, RFC 8760, RFC 3261 §22): the notation and the arithmetic.

`digest_server.py` and `digest_client.py` hold the state of the two sides. Text on the wire is Latin-1 (one character
per octet); user names and passwords are ordinary text, hashed and sent as UTF-8.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple


class DigestError(ValueError):
    """The challenge or the credentials are not well-formed, or name what is not supported."""


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha512_256(data: bytes) -> str:
    return hashlib.new("sha512_256", data).hexdigest()


HASHES: Final[Mapping[str, Callable[[bytes], str]]] = {
    "SHA-512-256": _sha512_256,
    "SHA-256": _sha256,
    "MD5": _md5,
}
"Strongest first. Each has a -sess variant (RFC 7616 §3.4.2)."

_NAMES: Final[Mapping[str, str]] = {(name + sess).upper(): name + sess for name in HASHES for sess in ("", "-sess")}


def canonical_algorithm(name: str) -> str | None:
    """The registered spelling of an algorithm ('md5-SESS' is 'MD5-sess'), or None when it is not supported."""
    return _NAMES.get(name.upper())


class Challenge(NamedTuple):
    """One WWW-Authenticate or Proxy-Authenticate value."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    "As registered when supported, else as written."

    qop: tuple[str, ...] = ()
    "What the server accepts, lower case; empty: RFC 2069 credentials without qop."

    opaque: str | None = None

    stale: bool = False
    "The nonce was too old, the password was right (RFC 7616 §3.3)."

    userhash: bool = False
    "The server accepts a hashed user name."

    def __str__(self) -> str:
        text = f"Digest realm={quote(self.realm)}, nonce={quote(self.nonce)}"
        if self.opaque is not None:
            text += f", opaque={quote(self.opaque)}"
        if self.stale:
            text += ", stale=true"
        text += f", algorithm={self.algorithm}"
        if self.qop:
            text += f', qop="{",".join(self.qop)}"'
        return text + ", userhash=true" if self.userhash else text


class Answer(NamedTuple):
    """One Authorization or Proxy-Authorization value."""

    username: str
    "Ordinary text; with `userhash`, the hash in hex."

    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = "MD5"
    "As registered when supported, else as written."

    cnonce: str = ""
    qop: str = ""
    "auth, auth-int, or empty for RFC 2069."

    nc: int = 0
    "Nonce count; 0 without qop."

    opaque: str | None = None
    userhash: bool = False

    def __str__(self) -> str:
        if self.username.isascii():
            name = f"username={quote(self.username)}"
        elif any(ord(character) < 0x20 for character in self.username):
            raise DigestError("the user name has control characters")
        else:
            # SIP quoted strings are UTF-8 (RFC 3261 §25.1); username* is HTTP's and hardly any SIP server reads it.
            name = f"username={quote(to_wire(self.username))}"
        text = (
            f"Digest {name}, realm={quote(self.realm)}, nonce={quote(self.nonce)}, uri={quote(self.uri)}, "
            f'response="{self.response}", algorithm={self.algorithm}'
        )
        if self.qop:
            text += f", cnonce={quote(self.cnonce)}, qop={self.qop}, nc={self.nc:08x}"
        elif self.cnonce:
            text += f", cnonce={quote(self.cnonce)}"
        if self.opaque is not None:
            text += f", opaque={quote(self.opaque)}"
        return text + ", userhash=true" if self.userhash else text


# ------------------------------------------------------------------------------------------------------ arithmetic


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(username:realm:password): what may be stored in place of the password, per algorithm without -sess."""
    return HASHES[algorithm](f"{username}:".encode() + realm.encode("latin-1") + f":{password}".encode())


def hash_of_user(algorithm: str, username: str, realm: str) -> str:
    """The user name as `userhash` sends it (RFC 7616 §3.4.4)."""
    return HASHES[algorithm.removesuffix("-sess")](f"{username}:".encode() + realm.encode("latin-1"))


def response_for(answer: Answer, user: str, method: str, body: str) -> str:
    """The right `response` to these credentials, where `user` is `ha1` of algorithm, user name and realm."""
    algorithm = answer.algorithm
    digest = HASHES[algorithm.removesuffix("-sess")]
    if algorithm.endswith("-sess"):
        user = digest(f"{user}:{answer.nonce}:{answer.cnonce}".encode("latin-1"))
    a2 = f"{method}:{answer.uri}"
    if answer.qop == "auth-int":
        a2 += ":" + digest(body.encode("latin-1"))
    request = digest(a2.encode("latin-1"))
    if answer.qop:
        text = f"{user}:{answer.nonce}:{answer.nc:08x}:{answer.cnonce}:{answer.qop}:{request}"
    else:
        text = f"{user}:{answer.nonce}:{request}"
    return digest(text.encode("latin-1"))


def to_wire(text: str) -> str:
    """Ordinary text as UTF-8 octets, one character each."""
    return text.encode().decode("latin-1")


def from_wire(text: str) -> str:
    """The ordinary text of UTF-8 octets; Latin-1 when they are not UTF-8."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


# -------------------------------------------------------------------------------------------------------- notation

_PARAMETER: Final = re.compile(
    r"[ \t\r\n]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t\r\n]*=[ \t\r\n]*"  # name =
    r'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s,"]+))[ \t\r\n]*(,|$)',  # "quoted" or token
    re.DOTALL,
)
_SCHEME: Final = re.compile(r"[ \t\r\n,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t\r\n]+(?=[^\s=,])")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*[ \t\r\n]*(,|$)")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def parse_challenges(values: str | Sequence[str]) -> list[Challenge]:
    """Every Digest challenge in these header values; several may share a line (RFC 7235 §2.1).

    Other schemes and challenges that are not well-formed are left out.
    """
    challenges: list[Challenge] = []
    for value in (values,) if isinstance(values, str) else values:
        try:
            schemes = _schemes(value)
        except DigestError:
            continue
        for scheme, fields in schemes:
            if scheme == "digest" and "realm" in fields and "nonce" in fields:
                challenges.append(_challenge(fields))
    return challenges


def _challenge(fields: Mapping[str, str]) -> Challenge:
    algorithm = fields.get("algorithm", "MD5")
    return Challenge(
        fields["realm"],
        fields["nonce"],
        canonical_algorithm(algorithm) or algorithm,
        tuple(word for word in re.split(r"[,\s]+", fields.get("qop", "").lower()) if word),
        fields.get("opaque"),
        fields.get("stale", "").lower() == "true",
        fields.get("userhash", "").lower() == "true",
    )


def parse_answer(value: str) -> Answer | None:
    """The Digest credentials in this header value; None for another scheme. Raises DigestError when malformed."""
    if value[:7].lower() != "digest " and value.lstrip()[:6].lower() != "digest":
        return None
    schemes = _schemes(value)
    if len(schemes) != 1:
        raise DigestError("several credentials in one header value")
    fields = schemes[0][1]
    try:
        realm, nonce, uri, response = fields["realm"], fields["nonce"], fields["uri"], fields["response"]
        username = fields["username"] if "username" in fields else _extended(fields["username*"])
    except KeyError as missing:
        raise DigestError(f"credentials without {missing.args[0]}") from None
    qop = fields.get("qop", "").lower()
    count = fields.get("nc", "")
    if qop:
        if qop not in ("auth", "auth-int"):
            raise DigestError(f"unknown qop {qop!r}")
        if len(count) != 8 or not _is_hex(count) or "cnonce" not in fields:
            raise DigestError("qop without a good nc and cnonce")
    algorithm = fields.get("algorithm", "MD5")
    return Answer(
        from_wire(username),
        realm,
        nonce,
        uri,
        response,
        canonical_algorithm(algorithm) or algorithm,
        fields.get("cnonce", ""),
        qop,
        int(count, 16) if qop else 0,
        fields.get("opaque"),
        fields.get("userhash", "").lower() == "true",
    )


def parse_parameters(text: str) -> dict[str, str]:
    """Comma-separated name=value pairs, names in lower case, values unquoted (Authentication-Info)."""
    fields, end = _parameters(text, 0)
    if end != len(text):
        raise DigestError("not a list of parameters")
    return fields


def quote(text: str) -> str:
    """`text` as a quoted-string (RFC 3261 §25.1)."""
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _schemes(value: str) -> list[tuple[str, dict[str, str]]]:
    """Scheme (lower case) and parameters of every challenge or credentials in one header value."""
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while value[at:].strip(" \t\r\n,"):
        scheme = _SCHEME.match(value, at)
        if scheme is None:
            raise DigestError("not an authentication scheme with parameters")
        name = scheme[1].lower()
        fields, at = _parameters(value, scheme.end())
        if not fields:
            token = _TOKEN68.match(value, at)  # "Negotiate abc==" beside ours
            if token is None or name == "digest":
                raise DigestError("bad parameters")
            at = token.end()
        found.append((name, fields))
    return found


def _parameters(text: str, at: int) -> tuple[dict[str, str], int]:
    """Parameters from `at` on, and where the first thing that is none begins."""
    fields: dict[str, str] = {}
    for parameter in _PARAMETER.finditer(text, at):
        if parameter.start() != at:
            break
        name, quoted, token, comma = parameter.groups()
        name = name.lower()
        if name in fields:
            raise DigestError(f"{name} twice")
        if quoted is None:
            fields[name] = token
        else:
            fields[name] = _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted
        at = parameter.end()
        if not comma:
            break
    return fields, at


def _extended(value: str) -> str:
    """The wire text of an ext-value (RFC 8187): UTF-8''J%C3%A4s%C3%B8n."""
    charset, _, rest = value.partition("'")
    text = rest.partition("'")[2]
    if charset.lower() != "utf-8":
        raise DigestError(f"username* in {charset!r}")
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda octet: chr(int(octet[1], 16)), text)


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)

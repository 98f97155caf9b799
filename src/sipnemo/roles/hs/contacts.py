"""Contact values of a REGISTER and of its answer (RFC 3261 §10.2, §20.10; RFC 5626 §4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from sipnemo.roles.hs.bindings import Binding
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request
from sipnemo.sip.uri import Uri, UriError, parse

_NAME_ADDR: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<>]*)<([^<>]*)>\s*((?:;.*)?)', re.S)
_ADDR_SPEC: Final = re.compile(r"([^\s<>;\"]+)\s*((?:;.*)?)", re.S)
_PARAM: Final = re.compile(r';\s*([^\s;="]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*))?\s*', re.S)
_Q: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?")
_OURS: Final = frozenset(("q", "expires", "+sip.instance", "reg-id", "ob", "pub-gruu", "temp-gruu"))


class Wanted(NamedTuple):
    """One Contact as a REGISTER asks for it."""

    uri: Uri
    text: str
    "Its URI as written."

    q: int
    "Priority in thousandths."

    expires: int | None
    "Seconds; None: not said."

    instance: str
    reg_id: int
    features: str


def wanted_contacts(request: Request) -> list[Wanted] | None:
    """The Contacts of a REGISTER; None for `*`. Raises SipError."""
    values = request.values("contact")
    if "*" in values:
        if len(values) > 1 or request.value("expires") != "0":
            raise SipError(400, "Contact * stands alone and needs Expires: 0")
        return None
    return [_wanted(value) for value in values]


@lru_cache(maxsize=4096)  # a refresh brings the same value again
def _wanted(value: str) -> Wanted:
    match = _NAME_ADDR.fullmatch(value) or _ADDR_SPEC.fullmatch(value)
    if match is None:
        raise SipError(400, "Malformed Contact header")
    text = match[1].strip()
    if "?" in text and "<" not in value:
        raise SipError(400, "A Contact URI with ? belongs in angle brackets")  # RFC 3261 §20
    try:
        uri = parse(text)
    except UriError:
        raise SipError(400, "Malformed Contact URI") from None
    if not uri.is_sip:
        raise SipError(416)
    params: dict[str, str] = {}
    features = ""
    for param in _PARAM.finditer(match[2]):
        name = param[1].lower()
        params.setdefault(name, param[2] or "")
        if name not in _OURS:
            features += f";{param[1]}" + (f"={param[2]}" if param[2] else "")
    q = params.get("q", "1")
    if not _Q.fullmatch(q):
        raise SipError(400, "Malformed q in Contact")
    reg_id = params.get("reg-id", "0")
    if "reg-id" in params and not (reg_id.isdecimal() and 0 < int(reg_id[:11]) < 2**31):
        raise SipError(400, "Malformed reg-id in Contact")
    return Wanted(
        uri,
        text,
        round(float(q) * 1000),
        _seconds(params["expires"]) if "expires" in params else None,
        params.get("+sip.instance", "").strip('"<>'),
        int(reg_id),
        features,
    )


def _seconds(text: str) -> int:
    """A span; what is malformed counts as an hour (§10.2.1.1)."""
    return min(int(text[:11]), 2**32 - 1) if text.isdecimal() and text.isascii() else 3600


def asked_seconds(request: Request) -> int | None:
    """The Expires header, which holds for Contacts that say nothing themselves."""
    text = request.value("expires")
    return _seconds(text) if text else None


def priority(q: int) -> str:
    """A Priority as `q` is written."""
    return f"{q / 1000:.3g}" if q % 1000 else f"{q // 1000}"


def contact_lines(bindings: Iterable[Binding], wall: float) -> list[str]:
    """Contact lines of a 200, one each (§10.3 item 8)."""
    lines = []
    for binding in bindings:
        left = max(0, round(binding.expires_at - wall))
        line = f"Contact: <{binding.contact}>;expires={left};q={priority(binding.q)}"
        if binding.instance:
            line += f';+sip.instance="<{binding.instance}>"'
        if binding.reg_id:
            line += f";reg-id={binding.reg_id}"
        lines.append(line + binding.features)
    return lines

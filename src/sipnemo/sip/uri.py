"""SIP and SIPS URIs (RFC 3261 §19.1), tel URIs (RFC 3966), and every other scheme left opaque."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, NamedTuple


class UriError(ValueError):
    """The text is not a URI, or not a well-formed SIP or SIPS URI."""


class Uri(NamedTuple):
    """A URI in its parts, each as it was written. `==` compares the text, `equivalent` the meaning."""

    scheme: str
    "Lower case: sip, sips, tel, or any other."

    user: str = ""
    "With escapes; empty when there is none. Of a tel URI, the number as written."

    password: str | None = None

    host: str = ""
    "Name or address; an IPv6 address in brackets. Empty for other schemes."

    port: int | None = None

    param_text: str = ""
    "Parameters as written, each with its semicolon in front: ';transport=tcp;lr'."

    header_text: str = ""
    "Headers as written, without the question mark: 'subject=x&priority=urgent'."

    opaque: str = ""
    "What follows the colon of a scheme that is neither sip, sips nor tel."

    @property
    def is_sip(self) -> bool:
        """Whether this is a SIP or SIPS URI, which has a host."""
        return self.host != ""

    @property
    def params(self) -> dict[str, str]:
        """Parameters, names in lower case; a parameter without value has ''. The first of equal names counts."""
        found: dict[str, str] = {}
        if self.param_text:
            for item in self.param_text[1:].split(";"):
                name, _, value = item.partition("=")
                found.setdefault(name.lower(), value)
        return found

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Header names, as written, and unescaped values."""
        items = self.header_text.split("&") if self.header_text else []
        pairs = [item.partition("=") for item in items]
        return [(unescape(name), unescape(value)) for name, _, value in pairs]

    def param(self, name: str) -> str | None:
        """The value of the parameter `name` (lower case); '' when it has no value, None when it is not there."""
        return self.params.get(name) if self.param_text else None

    @property
    def transport(self) -> str:
        """The transport parameter in upper case, as in Via; '' when there is none."""
        return (self.param("transport") or "").upper()

    def with_param(self, name: str, value: str = "") -> Uri:
        """The same URI with this parameter, at the end, in place of any of that name."""
        text = f";{name}={value}" if value else f";{name}"
        return self._replace(param_text=self.without_params(name).param_text + text)

    def without_params(self, *names: str) -> Uri:
        """The same URI without the parameters of these names (lower case)."""
        if not self.param_text:
            return self
        items = self.param_text[1:].split(";")
        kept = [";" + item for item in items if item.partition("=")[0].lower() not in names]
        return self._replace(param_text="".join(kept))

    def with_host(self, host: str, port: int | None = None) -> Uri:
        """The same URI at another host and port; brackets around an IPv6 literal are added."""
        return self._replace(host=f"[{host}]" if ":" in host and host[0] != "[" else host, port=port)

    def __str__(self) -> str:
        scheme, user, password, host, port, params, headers, opaque = self
        if not host:
            return f"{scheme}:{user}{params}{opaque}"
        text = f"{scheme}:"
        if user:
            text += f"{user}@" if password is None else f"{user}:{password}@"
        text += host
        if port is not None:
            text += f":{port}"
        text += params
        return f"{text}?{headers}" if headers else text


# unreserved = alphanum / mark; escapes are checked apart, as an alternation per character would be slow.
_UNRESERVED: Final = r"A-Za-z0-9\-_.!~*'()%"
_SIP: Final = re.compile(
    r"([Ss][Ii][Pp][Ss]?):"
    rf"(?:([{_UNRESERVED}&=+$,;?/]+)(?::([{_UNRESERVED}&=+$,]*))?@)?"
    r"([A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::([0-9]{1,5}))?"
    rf"((?:;[{_UNRESERVED}\[\]/:&+$]+(?:=[{_UNRESERVED}\[\]/:&+$]*)?)*)"
    rf"(?:\?([{_UNRESERVED}\[\]/?:+$=&]+))?"
)
_TEL: Final = re.compile(r"[Tt][Ee][Ll]:([0-9A-Fa-f*#+\-.()]*[0-9*#][0-9A-Fa-f*#\-.()]*)((?:;[^;\s<>\"]+)*)")
_OTHER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):([!-~]+)")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_IPV4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)", re.ASCII)
_NOT_IN_USER: Final = re.compile(r"[^A-Za-z0-9\-_.!~*'()&=+$,;?/]")
_UNRESERVED_ONLY: Final = re.compile(r"[A-Za-z0-9\-_.!~*'()]")


@lru_cache(maxsize=4096)
def parse(text: str) -> Uri:
    """The URI in `text`; raises UriError. Results are cached: the same few URIs come in message after message."""
    match = _SIP.fullmatch(text)
    if match is None:
        return _parse_other(text)
    scheme, user, password, host, port, params, headers = match.groups()
    if "%" in text and _BAD_ESCAPE.search(text):
        raise UriError(f"bad escape in {text!r}")
    if host[0] == "[":
        _check_ipv6(host)
    elif host[-1].isdecimal() and host.rpartition(".")[2].isdecimal() and not _IPV4.fullmatch(host):
        raise UriError(f"bad host in {text!r}")
    number = None if port is None else int(port)
    if number is not None and number > 65535:
        raise UriError(f"bad port in {text!r}")
    return Uri(scheme.lower(), user or "", password, host, number, params, headers or "")


def _parse_other(text: str) -> Uri:
    tel = _TEL.fullmatch(text)
    if tel is not None:
        return Uri("tel", tel[1], param_text=tel[2])
    other = _OTHER.fullmatch(text)
    if other is None:
        raise UriError(f"not a URI: {text!r}")
    scheme = other[1].lower()
    if scheme in ("sip", "sips", "tel"):
        raise UriError(f"not a well-formed {scheme} URI: {text!r}")
    return Uri(scheme, opaque=other[2])


def _check_ipv6(host: str) -> None:
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        raise UriError(f"bad IPv6 address {host}") from None


def host_port(uri: Uri) -> tuple[str, int]:
    """Host, an IPv6 address without brackets, and port, the scheme's or transport's own when none is written."""
    host = uri.host
    if host[:1] == "[":
        host = host[1:-1]
    if uri.port is not None:
        return host, uri.port
    return host, 5061 if uri.scheme == "sips" or uri.transport == "TLS" else 5060


def address_of_record(uri: Uri) -> str:
    """The form under which a registrar files a URI: no password, port, parameters or headers (RFC 3261 §10.3)."""
    if not uri.host:
        return f"{uri.scheme}:{uri.opaque or _tel_number(uri)}"
    host = uri.host.lower()
    return f"{uri.scheme}:{_normal(uri.user)}@{host}" if uri.user else f"{uri.scheme}:{host}"


def is_address(host: str) -> bool:
    """Whether `host`, without brackets, is an IPv4 or IPv6 literal; no name needs to be looked up for it."""
    return ":" in host or (host[-1:].isdecimal() and _IPV4.fullmatch(host) is not None)


def unescape(text: str) -> str:
    """`text` with every %HH replaced by that octet."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if "%" in text else text


def escape_user(text: str) -> str:
    """`text` (one character per octet) as the user part of a URI."""
    return _NOT_IN_USER.sub(lambda match: f"%{ord(match[0]):02X}", text)


def equivalent(a: Uri, b: Uri) -> bool:
    """Whether two URIs mean the same (RFC 3261 §19.1.4, RFC 3966 §4); other schemes: the same text."""
    if a == b:
        return True
    if a.scheme != b.scheme:
        return False
    if a.scheme == "tel":
        return _tel_number(a) == _tel_number(b) and _folded(a) == _folded(b)
    if not a.host or not b.host or a.port != b.port:
        return False
    if _normal(a.user) != _normal(b.user) or (a.password is None) != (b.password is None):
        return False
    if _normal(a.password or "") != _normal(b.password or "") or _normal_host(a.host) != _normal_host(b.host):
        return False
    return _same_params(_folded(a), _folded(b)) and _header_set(a) == _header_set(b)


_NEVER_IGNORED: Final = ("user", "ttl", "method", "maddr", "transport")


def _same_params(a: dict[str, str], b: dict[str, str]) -> bool:
    for name in _NEVER_IGNORED:
        if (name in a) != (name in b):
            return False
    return all(b.get(name, value) == value for name, value in a.items())


def _folded(uri: Uri) -> dict[str, str]:
    """Parameters for comparison: everything but the user part ignores case."""
    return {_normal(name).lower(): _normal(value).lower() for name, value in uri.params.items()}


def _header_set(uri: Uri) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in uri.headers)


def _normal(text: str) -> str:
    """`text` with needless escapes undone, as %61 and a are the same but %40 and @ are not (RFC 3261 §19.1.4)."""
    return _ESCAPE.sub(_undo_needless, text) if "%" in text else text


def _undo_needless(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED_ONLY.match(character) else match[0].upper()


def _normal_host(host: str) -> str:
    return str(IPv6Address(host[1:-1])) if host[0] == "[" else host.lower()


def _tel_number(uri: Uri) -> str:
    """The number without visual separators (RFC 3966 §5.1.1)."""
    return re.sub(r"[-.()]", "", uri.user).lower()

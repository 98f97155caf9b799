"""How one value is written in a configuration file: each kind reads TOML's value or says what to write instead."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sipnemo.sip.flow import Address, Local

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G)bit/s", re.I)
_FACTORS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_NAME: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?"
)
_URI: Final = re.compile(
    r"(sips?):(\[[^\]]*\]|[^:;?@\[\]]*)(?::(\d+))?((?:;[A-Za-z0-9._-]+(?:=[A-Za-z0-9._-]+)?)*)", re.I
)
_HOST_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::(\d{1,5}))?")
_USER: Final = re.compile(r"[A-Za-z0-9._~!$&*+=-]+")
_INTERFACE: Final = re.compile(r"[^\s/:\"\\]{1,15}")
_LISTEN: Final = re.compile(r"(udp|tcp|tls):(.+)", re.I)
TRANSPORTS: Final = ("udp", "tcp", "tls")


@dataclass(slots=True)
class Context:
    """What reading a value may need beside the value."""

    directory: Path
    "Relative file names are relative to the configuration file's directory."

    warnings: list[str] = field(default_factory=list)
    "What is allowed and yet a mistake, as the value's reader says it."

    read_files: bool = True
    "False: files that are named are not opened."


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    name: str
    "In the reference: what to write."

    read: Callable[[Any, Context], Any]
    "TOML's value to the settings' value; raises ValueError with what is wrong and what to do."

    example: str = ""
    "As written in TOML, for keys that have no default."


def _wrong(value: Any, want: str) -> ValueError:
    return ValueError(f"{_shown(value)} is not {want}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _text(value: Any, want: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, want)
    return value


# ------------------------------------------------------------------------------------------------- plain values


def _flag(value: Any, _: Context) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false (without quotes)")
    return value


FLAG: Final = Kind("true or false", _flag)


def integer(low: int, high: int) -> Kind:
    """A whole number within bounds, both included."""
    want = f"a whole number from {low} to {high}"

    def read(value: Any, _: Context) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(value, want)
        return value

    return Kind(want, read)


def number(low: float, high: float, unit: str) -> Kind:
    """A number of some unit within bounds, both included."""
    want = f"a number of {unit} from {low:g} to {high:g}"

    def read(value: Any, _: Context) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _wrong(value, want + (" (without quotes or unit)" if isinstance(value, str) else ""))
        return float(value)

    return Kind(want, read)


def seconds(low: float, high: float) -> Kind:
    """A span of time."""
    return number(low, high, "seconds")


def choice(*words: str) -> Kind:
    """One of some words."""
    want = " or ".join(f'"{word}"' for word in words)

    def read(value: Any, _: Context) -> str:
        if value not in words:
            raise _wrong(value, want)
        return str(value)

    return Kind(want, read)


def choices(words: Sequence[str], upper: bool = False) -> Kind:
    """A list of some words, none twice, at least one."""
    want = "a list of " + ", ".join(f'"{word}"' for word in words)

    def read(value: Any, _: Context) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise _wrong(value, want)
        chosen = [item.lower() if isinstance(item, str) else item for item in value]
        for item, word in zip(value, chosen, strict=True):
            if word not in words:
                raise ValueError(f"{_shown(item)} is not one of " + ", ".join(f'"{word}"' for word in words))
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{_shown(value)} names something twice; write each once")
        return tuple(word.upper() if upper else word for word in chosen)

    return Kind(want, read)


def _rate(value: Any, _: Context) -> int:
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise _wrong(value, 'a rate; write for example "2 Mbit/s" or "300 kbit/s"')
    rate = int(float(found[1]) * _FACTORS[found[2].lower()])
    if rate < 1_000:
        raise ValueError(f"{_shown(value)} is less than 1 kbit/s: no call fits; leave the key out when it is unknown")
    return rate


RATE: Final = Kind("a rate in bits per second", _rate, '"2 Mbit/s"')


def _port_range(value: Any, _: Context) -> tuple[int, int]:
    want = "a list of the first and the last port, for example [16384, 32767]"
    if not isinstance(value, list) or len(value) != 2 or not all(type(port) is int for port in value):
        raise _wrong(value, want)
    first, last = value
    if not 1024 <= first <= last <= 65535:
        raise ValueError(f"{_shown(value)} is not a range within 1024 to 65535; the first port comes first")
    if last - first + 1 < 8:
        raise ValueError(f"{_shown(value)} has fewer than 8 ports: not enough for one call with audio and video")
    return first, last


PORT: Final = integer(1, 65535)
PORT_RANGE: Final = Kind("the first and the last port", _port_range)

# ------------------------------------------------------------------------------------------------- names, addresses


def _any_text(value: Any, _: Context) -> str:
    return _text(value, "a text")


TEXT: Final = Kind("a text", _any_text)


def _user(value: Any, _: Context) -> str:
    want = "a user name: letters, digits and . _ ~ ! $ & * + = -"
    if not _USER.fullmatch(_text(value, want)):
        raise _wrong(value, want)
    return str(value)


USER: Final = Kind("a user name", _user, '"fleet7"')


def _users(value: Any, context: Context) -> tuple[str, ...]:
    want = 'a list of users, each as "alice" or "alice@home.example"'
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _wrong(value, want)
    users = []
    for user, at, host in (item.partition("@") for item in value):
        users.append(_user(user.lstrip("+"), context) and user + at + (_domain(host, context).lower() if at else ""))
    return tuple(users)


USERS: Final = Kind("a list of users", _users)


def _interface(value: Any, _: Context) -> str:
    want = "the name of a network interface (see: ip link)"
    if not _INTERFACE.fullmatch(_text(value, want)):
        raise _wrong(value, want)
    return str(value)


INTERFACE: Final = Kind("the name of a network interface", _interface, '"wwan0"')


def _address(value: Any, _: Context) -> str:
    want = 'an IP address, for example "10.7.0.1" or "2001:db8::1"'
    try:
        address = ipaddress.ip_address(_text(value, want))
    except ValueError:
        raise _wrong(value, want) from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{_shown(value)} is not the address of one host")
    return str(address)


ADDRESS: Final = Kind("an IP address", _address, '"198.51.100.7"')


def _addresses(value: Any, context: Context) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(value, 'a list of IP addresses, for example ["203.0.113.10", "2001:db8::10"]')
    return tuple(dict.fromkeys(_address(item, context) for item in value))


ADDRESSES: Final = Kind("a list of IP addresses", _addresses, '["203.0.113.10", "2001:db8::10"]')


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _domain(value: Any, _: Context) -> str:
    want = 'a domain name or an IP address, for example "home.example" or "203.0.113.10:5070"'
    text = _text(value, want)
    if ":" in text and _is_literal(text):
        text = f"[{text}]"
    found = _HOST_PORT.fullmatch(text)
    if found is None or not _is_host(found[1]) or not 1 <= int(found[2] or 5060) <= 65535:
        raise _wrong(value, want)
    return text.lower()


def _is_host(text: str) -> bool:
    """A domain name, an IPv4 address, or an IPv6 address in brackets."""
    host = text.strip("[]")
    if _is_literal(host):
        return (":" in host) == text.startswith("[")
    return _NAME.fullmatch(text) is not None


def _domains(value: Any, context: Context) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(value, 'a list of domain names or addresses, for example ["home.example"]')
    return tuple(_domain(item, context) for item in value)


DOMAIN: Final = Kind("a domain name or an IP address, with a port if not the usual one", _domain, '"home.example"')
DOMAINS: Final = Kind("a list of domain names or IP addresses", _domains)


def _home(value: Any, _: Context) -> str:
    want = 'a SIP URI, for example "sip:home.example" or "sip:203.0.113.10:5060"'
    text = _text(value, want)
    if "@" in text:
        raise ValueError(f'{_shown(value)} has a user; write the server only ("sip:…" without "…@")')
    found = _URI.fullmatch(text)
    if found is None:
        raise _wrong(value, want)
    if not _is_host(found[2]):
        raise ValueError(f"{_shown(value)} does not name a host; write for example {want.split(', for example ')[1]}")
    if found[3] is not None and not 1 <= int(found[3]) <= 65535:
        raise ValueError(f"{_shown(value)}: port {found[3]} is not within 1 to 65535")
    return text


HOME: Final = Kind("a SIP URI without user", _home, '"sip:home.example"')


def split_address(text: str) -> Address | None:
    """Address literal and port of "192.0.2.1:5060" or "[2001:db8::1]:5060"; None when it is neither."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not _is_literal(host) or (":" in host) != bracketed or not port.isascii() or not port.isdigit():
        return None
    return (host, int(port)) if 1 <= int(port) <= 65535 else None


def _listen(value: Any, _: Context) -> tuple[Local, ...]:
    example = '"udp:0.0.0.0:5060" or "tls:[::]:5061"'
    if not isinstance(value, list) or not value:
        raise _wrong(value, f"a list of listening points such as {example}")
    points: list[Local] = []
    for item in value:
        found = _LISTEN.fullmatch(item) if isinstance(item, str) else None
        address = split_address(found[2]) if found else None
        if found is None or address is None:
            raise _wrong(item, f"transport:address:port; write for example {example}")
        point = Local(found[1].upper(), *address)
        if point in points:
            raise ValueError(f"{_shown(item)} stands there twice; write it once")
        points.append(point)
    return tuple(points)


LISTEN: Final = Kind('a list of "transport:address:port"', _listen)


def _admin(value: Any, context: Context) -> str:
    if value in ("off", ""):
        return ""
    if isinstance(value, str) and value.startswith("unix:/"):
        return value
    address = split_address(value) if isinstance(value, str) else None
    if address is None:
        raise _wrong(value, 'address:port, unix:/file or "off"; write for example "127.0.0.1:8470"')
    if not ipaddress.ip_address(address[0]).is_loopback:
        context.warnings.append(
            f"{_shown(value)} can be reached from other hosts, and the admin interface asks nobody for a password; "
            "listen on 127.0.0.1 or keep others out with a firewall"
        )
    return str(value)


ADMIN: Final = Kind('"address:port", "unix:/file" or "off"', _admin)

# ------------------------------------------------------------------------------------------------- files


def _path(value: Any, context: Context) -> str:
    return str(context.directory / _text(value, "the name of a file"))


DIRECTORY: Final = Kind("a directory", _path)


def _file(value: Any, context: Context) -> str:
    path = _path(value, context)
    if context.read_files:
        _contents(path)
    return path


FILE: Final = Kind("a file", _file, '"/etc/sipnemo/cert.pem"')


def _contents(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        hint = "run as the user the service runs as, or mend its permissions" if error.errno == 13 else "create it"
        raise ValueError(f"{path} cannot be read ({error.strerror}); {hint}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None


def _password_file(value: Any, context: Context) -> str:
    path = _path(value, context)
    if not context.read_files:
        return ""
    password = _contents(path).rstrip("\r\n")
    if not password:
        raise ValueError(f"{path} is empty; write the password into it, on one line")
    if "\n" in password:
        raise ValueError(f"{path} has several lines; write the password only, on one line")
    mode = Path(path).stat().st_mode
    if mode & stat.S_IROTH:
        context.warnings.append(f"{path} can be read by everybody on this host; run: chmod o-r {path}")
    return password


PASSWORD_FILE: Final = Kind("a file that holds the password, on one line", _password_file, '"/etc/sipnemo/password"')


def _store(value: Any, context: Context) -> str:
    want = 'a store; write for example "sqlite:/var/lib/sipnemo/home.db"'
    text = _text(value, want)
    if text == "memory":
        context.warnings.append('"memory" forgets every registration when the server ends; for trials only')
        return text
    if text.startswith("redis:"):
        raise ValueError('a redis store is not available in this version; write "sqlite:/var/lib/sipnemo/home.db"')
    kind, _, path = text.partition(":")
    if kind != "sqlite" or not path:
        raise _wrong(value, want)
    return f"sqlite:{context.directory / path}"


STORE: Final = Kind('"sqlite:FILE" or "memory"', _store)

"""The options of `sipnemo phone`: flags, the same names in a TOML file, and what they mean together."""

from __future__ import annotations

import argparse
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sipnemo.roles.endpoint import host_text, split_host_port
from sipnemo.roles.phone.settings import BUSY, MANUAL, Account, Placed, Settings
from sipnemo.shell.tls import TlsSettings
from sipnemo.sip.flow import Local
from sipnemo.sip.uri import Uri, UriError
from sipnemo.sip.uri import parse as parse_uri

DEFAULT_PORTS: Final = "20000-29999"


class OptionsError(ValueError):
    """The options cannot be used; the text names the option and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the phone's process needs to know."""

    settings: Settings
    rtp_ports: tuple[int, int]
    gap_over: float
    "Seconds of silence beyond which a gap is recorded."

    symmetric: bool
    "Media go to where they come from."

    sparse: int
    "Media come every so many times 20 ms."

    full: frozenset[str]
    "Accounts whose media come every 20 ms all the same."

    json: bool
    verbose: bool

    ends_with_calls: bool
    "The process is over when the requested calls are: nobody asked it to wait for others."

    tls: TlsSettings | None


_TEXTS: Final[dict[str, tuple[str, str]]] = {
    "account": ("NAME[@DOMAIN]", "user part of the phone's address; with --count, {n} in it is the number"),
    "password-file": ("FILE", "holds the password, or lines 'name:password'; {n} in the name is the number"),
    "server": ("URI", "register here: sip:HOST[:PORT][;transport=tcp|tls]"),
    "proxy": ("URI", "outbound proxy: sip:HOST[:PORT][;transport=tcp|tls]"),
    "bind": ("ADDR[:PORT]", "own address (default: the one that reaches the server; port 5060 or any free one)"),
    "call": ("URI", "call this URI from every account; {n} in it is the account's number"),
    "answer": ("auto|MS|busy|manual", "answer at once (default), after MS milliseconds of ringing, never, by command"),
    "rtp-ports": ("A-B", f"range of ports for RTP and RTCP (default {DEFAULT_PORTS})"),
    "tls-ca": ("FILE", "authorities to trust for TLS (default: the system's)"),
    "tls-cert": ("FILE", "own certificate and key, to be reachable over TLS"),
    "config": ("FILE", "TOML file with a table [phone] of these options; flags win"),
}
_NUMBERS: Final[dict[str, tuple[str, str]]] = {
    "duration": ("S", "hang up every call this many seconds after it was answered"),
    "count": ("N", "hold accounts NAME1 to NAMEn, each registering and calling"),
    "expires": ("S", "registration interval to ask for (3600)"),
    "session-expires": ("S", "session timer to ask for, at least 90 (default: none)"),
    "gap-over": ("MS", "record silences longer than this as gaps; losses always are (60)"),
    "rate": ("N", "registrations or calls to begin per second (50)"),
    "packet-every": ("MS", "send media every MS milliseconds, a multiple of 20 (20)"),
    "full-every": ("N", "with --packet-every: the 1st of every N accounts sends every 20 ms all the same"),
}
_SWITCHES: Final[dict[str, str]] = {
    "json": "print JSON lines",
    "late-offer": "send INVITEs without an offer",
    "reliable": "ring reliably (100rel) whenever the caller can take it",
    "symmetric": "send media to where they come from, for a far end behind a NAT",
    "tls-insecure": "take any server certificate",
    "verbose": "log more to stderr",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the phone's flags; what is not given stays None, so that a file can say it."""
    for name, (metavar, text) in _TEXTS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    for name, (metavar, text) in _NUMBERS.items():
        kind = float if name in ("duration", "gap-over", "rate") else int
        parser.add_argument(f"--{name}", metavar=metavar, type=kind, help=text)
    for name, text in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", default=None, help=text)
    parser.add_argument(
        "--media", action=argparse.BooleanOptionalAction, default=None, help="send and receive RTP (default: yes)"
    )


def read_options(args: argparse.Namespace) -> Options:
    """The options in flags and file; raises OptionsError with all that is wrong."""
    given = _merged(args)
    account = given.get("account") or "phone"
    count = int(given.get("count") or 1)
    if count < 1:
        raise OptionsError("--count must be at least 1")
    server, proxy = (_sip_uri(given, name) for name in ("server", "proxy"))
    call = given.get("call") or ""
    destination = proxy or server or (_uri(call.replace("{n}", "1"), "--call") if call else None)
    tls = _tls(given, [uri for uri in (server, proxy, destination) if uri is not None])
    locals_, listens = _locals(given.get("bind") or "", destination, tls)
    name, _, domain = account.partition("@")
    if not name:
        raise OptionsError("--account must be a name or name@domain")
    domain = domain or (server.host if server is not None else host_text(locals_[0].host))
    if count > 1 and "{n}" not in name:
        name += "{n}"
    accounts = tuple(_account(name, domain, given.get("password-file") or "", n) for n in range(1, count + 1))
    calls: tuple[Placed, ...] = ()
    if call:
        calls = tuple(
            Placed(account=account.name, uri=str(_uri(call.replace("{n}", str(n)), "--call")))
            for n, account in enumerate(accounts, 1)
        )
    full_every = int(given.get("full-every") or 0)
    if full_every < 0:
        raise OptionsError("--full-every must be at least 1")
    rate = float(given.get("rate") or 50.0)
    if rate <= 0:
        raise OptionsError("--rate must be more than 0")
    settings = Settings(
        accounts=accounts,
        locals=locals_,
        listens=listens,
        server=str(server) if server is not None else "",
        proxy=str(proxy) if proxy is not None else "",
        calls=calls,
        answer_after=_answer(str(given.get("answer") or "auto")),
        duration=max(0.0, float(given.get("duration") or 0.0)),
        media=given.get("media") is not False,
        late_offer=bool(given.get("late-offer")),
        reliable=bool(given.get("reliable")),
        session_expires=_session_expires(given),
        expires=int(given.get("expires") or 3600),
        start_every=1.0 / rate,
    )
    return Options(
        settings=settings,
        rtp_ports=_ports(str(given.get("rtp-ports") or DEFAULT_PORTS)),
        gap_over=max(0.0, float(given.get("gap-over") or 60.0)) / 1000,
        symmetric=bool(given.get("symmetric")),
        sparse=_sparse(given),
        full=frozenset(one.name for one in accounts[::full_every]) if full_every else frozenset(),
        json=bool(given.get("json")),
        verbose=bool(given.get("verbose")),
        ends_with_calls=bool(call) and given.get("answer") is None,
        tls=tls,
    )


def _merged(args: argparse.Namespace) -> dict[str, Any]:
    names = [*_TEXTS, *_NUMBERS, *_SWITCHES, "media"]
    flags = {name: getattr(args, name.replace("-", "_"), None) for name in names}
    given: dict[str, Any] = {}
    if path := flags["config"]:
        try:
            with open(path, "rb") as file:
                table = tomllib.load(file).get("phone", {})
        except OSError as error:
            raise OptionsError(f"--config {path} cannot be read: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise OptionsError(f"--config {path} is not TOML: {error}") from error
        given = {key.replace("_", "-"): value for key, value in table.items()}
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise OptionsError(f"{path}: [phone] has no key {', '.join(unknown)}; there are {', '.join(names)}")
        for key, value in given.items():
            kinds = str if key in _TEXTS else bool if key in _SWITCHES or key == "media" else (int, float)
            if not isinstance(value, kinds) and not (key == "answer" and isinstance(value, int)):
                raise OptionsError(f"{path}: {key} in [phone] cannot be {value!r}")
    given.update({name: value for name, value in flags.items() if value is not None})
    return given


def _uri(text: str, option: str) -> Uri:
    try:
        uri = parse_uri(text if ":" in text.split("@")[0].split(";")[0] or "@" not in text else f"sip:{text}")
    except UriError as error:
        raise OptionsError(f"{option} {text!r}: {error}; write sip:USER@HOST or sip:HOST[:PORT]") from error
    if not uri.is_sip:
        raise OptionsError(f"{option} {text!r} must be a sip: or sips: URI")
    return uri


def _sip_uri(given: dict[str, Any], name: str) -> Uri | None:
    text = given.get(name)
    return _uri(text, f"--{name}") if text else None


def _tls(given: dict[str, Any], uris: list[Uri]) -> TlsSettings | None:
    cert = given.get("tls-cert") or ""
    if not cert and not any(uri.scheme == "sips" or uri.transport == "TLS" for uri in uris):
        return None
    return TlsSettings(cert=cert, ca=given.get("tls-ca") or "", verify=not given.get("tls-insecure"))


def _locals(bind: str, destination: Uri | None, tls: TlsSettings | None) -> tuple[tuple[Local, ...], tuple[Local, ...]]:
    host, port = split_host_port(bind) if bind.count(":") < 2 or bind.startswith("[") else (bind, 0)
    if bind.rpartition(":")[2] in ("0", bind) and ":" in bind and bind.count(":") < 2:
        port = 0
    host = host or _own_address(destination)
    wished = port
    for candidate in (port,) if wished else (5060, *(_free_port(host) for _ in range(5))):
        problem = _occupied(host, candidate)
        if not problem:
            port = candidate
            break
    else:
        raise OptionsError(f"--bind {host_text(host)}:{wished or 5060}: {problem}; choose another address or port")
    plain = (Local("UDP", host, port), Local("TCP", host, port))
    if tls is None:
        return plain, plain
    secure = Local("TLS", host, port + 1)
    return (*plain, secure), (*plain, secure) if tls.cert else plain


def _own_address(destination: Uri | None) -> str:
    """The address that packets to the destination leave from."""
    if destination is None:
        return "127.0.0.1"
    host = (destination.param("maddr") or destination.host).strip("[]")
    try:
        found = socket.getaddrinfo(host, 5060, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise OptionsError(f"{host} cannot be found ({error}); name your own address with --bind ADDR") from error
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            try:
                probe.connect(address)
            except OSError:
                continue
            return str(probe.getsockname()[0])
    raise OptionsError(f"{host} cannot be reached from here; name your own address with --bind ADDR")


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError as error:
            raise OptionsError(f"--bind {host}: {error.strerror}") from error
        return int(sock.getsockname()[1])


def _occupied(host: str, port: int) -> str:
    """Why this port cannot be listened on; empty when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError as error:
                return error.strerror or str(error)
    return ""


def _account(pattern: str, domain: str, password_file: str, number: int) -> Account:
    name = pattern.replace("{n}", str(number))
    return Account(name=name, domain=domain, password=_password(password_file, name, number))


def _password(pattern: str, name: str, number: int) -> str:
    if not pattern:
        return ""
    path = Path(pattern.replace("{n}", str(number)))
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OptionsError(f"--password-file {path} cannot be read: {why}") from error
    if len(lines) == 1:
        return lines[0]
    for line in lines:
        user, colon, password = line.partition(":")
        if colon and user == name:
            return password
    raise OptionsError(f"--password-file {path} has no line '{name}:PASSWORD'")


def _answer(text: str) -> float:
    match text:
        case "auto":
            return 0.0
        case "busy":
            return BUSY
        case "manual":
            return MANUAL
        case _ if text.isascii() and text.isdecimal():
            return int(text) / 1000
    raise OptionsError(f"--answer {text!r} must be auto, busy, manual, or milliseconds")


def _ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and 1 <= int(first) < int(last) <= 65535):
        raise OptionsError(f"--rtp-ports {text!r} must be FIRST-LAST within 1 to 65535")
    return int(first), int(last)


def _sparse(given: dict[str, Any]) -> int:
    milliseconds = int(given.get("packet-every") or 20)
    if milliseconds % 20 or not 20 <= milliseconds <= 1000:
        raise OptionsError("--packet-every must be a multiple of 20 milliseconds, at most 1000")
    return milliseconds // 20


def _session_expires(given: dict[str, Any]) -> int:
    seconds = int(given.get("session-expires") or 0)
    if seconds and seconds < 90:
        raise OptionsError("--session-expires must be at least 90 seconds (RFC 4028)")
    return seconds

"""TLS contexts from an operator's files: certificate, key, and whom to trust."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class TlsError(Exception):
    """The TLS settings cannot be used; the text names the file and what to do."""


class PeerNames(dict[str, str]):
    """Address literal → the domain that was looked for when DNS gave it (RFC 5922 §4): fed by the resolver.

    A server found by SRV answers for the domain, not for its host's name. The first domain that led to an address
    counts.
    """

    MOST = 10_000

    def __init__(self) -> None:
        super().__init__()
        self._domains: dict[str, str] = {}

    def learn(self, name: str, kind: str, records: Sequence[Sequence[Any]]) -> None:
        """Take an answer of the resolver in."""
        if len(self) + len(self._domains) > self.MOST:
            self.clear()
            self._domains.clear()
        for record in records:
            if kind == "SRV" and name.startswith("_sips._tcp."):
                self._domains.setdefault(str(record[1][3]).rstrip(".").lower(), name.removeprefix("_sips._tcp."))
            elif kind in ("A", "AAAA"):
                self.setdefault(str(record[1][0]), self._domains.get(name, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """What TLS needs to know."""

    cert: str = ""
    "PEM file with our certificate and its chain; without it nothing can be listened on."

    key: str = ""
    "PEM file with the private key; empty: it is in `cert`."

    ca: str = ""
    "PEM file with the authorities we trust; empty: the system's."

    verify: bool = True
    "Whether servers we connect to must show a certificate that a trusted authority signed."

    names: Mapping[str, str] = field(default_factory=dict)
    """Address literal → domain that its certificate must be for (RFC 5922). Consulted at every connection, so it may
    be a mapping that grows. For other addresses only the chain of trust is checked, not the name."""


class Tls:
    """The two contexts made from the settings; raises TlsError when they cannot be made."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self.server: ssl.SSLContext | None = None
        "For listeners; None without a certificate."

        if settings.cert:
            self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server.minimum_version = ssl.TLSVersion.TLSv1_2
            self._load_certificate(self.server)
        self._named = self._client(check_name=True)
        self._unnamed = self._client(check_name=False)

    def client(self, host: str) -> tuple[ssl.SSLContext, str | None]:
        """The context for a connection to this address, and the name its certificate must be for, if known."""
        name = self._settings.names.get(host)
        return (self._unnamed, None) if name is None else (self._named, name)

    def _client(self, check_name: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = check_name and self._settings.verify
        if not self._settings.verify:
            context.verify_mode = ssl.CERT_NONE
        elif self._settings.ca:
            try:
                context.load_verify_locations(self._settings.ca)
            except (OSError, ssl.SSLError) as error:
                raise TlsError(f"TLS authorities {self._settings.ca} cannot be read: {_why(error)}") from error
        else:
            context.load_default_certs()
        if self._settings.cert:
            self._load_certificate(context)
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        settings = self._settings
        try:
            context.load_cert_chain(settings.cert, settings.key or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            files = settings.cert + (f" with key {settings.key}" if settings.key else "")
            raise TlsError(f"TLS certificate {files} cannot be used: {_why(error)}") from error


def _no_password() -> str:
    raise ValueError("the private key is encrypted; store it without a passphrase, readable to the service only")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return f"not a usable PEM file ({error.reason or error})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

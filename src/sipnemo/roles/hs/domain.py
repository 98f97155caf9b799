"""Which URIs mean this server, and from where its own requests leave."""

from __future__ import annotations

from typing import Final

from sipnemo.roles.endpoint import host_text, split_host_port
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.uri import Uri, escape_user

WILDCARDS: Final = ("0.0.0.0", "::")


class Domain:
    """The home domain and the listening points behind it."""

    def __init__(self, settings: HsSettings) -> None:
        self.text: Final = settings.domain
        "As it stands in assigned URIs, and the digest realm."
        self.listen: Final = settings.listen
        host, port = split_host_port(settings.domain)
        self._host: Final = host.lower()
        self._port: Final = port
        self._ports: Final = {local.port for local in settings.listen} | ({port} if port else set())
        self._hosts: Final = {self._host, *(alias.lower().strip("[]") for alias in settings.aliases)}
        self._hosts.update(local.host for local in settings.listen if local.host not in WILDCARDS)
        self._wildcard: Final = any(local.host in WILDCARDS for local in settings.listen)
        self._uris: Final[dict[str, str]] = {}
        self._links: dict[str, tuple[str, ...]] = {}
        self._vias: Final = {local: self._via(local) for local in settings.listen}

    def link_changed(self, name: str, addresses: tuple[str, ...]) -> None:
        """With a wildcard listener every address of the machine is ours."""
        if self._wildcard:
            self._hosts.difference_update(set(self._links.get(name, ())) - {self._host})
            self._links[name] = addresses
            for known in self._links.values():
                self._hosts.update(known)

    def is_ours(self, uri: Uri) -> bool:
        """Whether this URI's host and port name this server."""
        host = uri.host.lower()
        if host[:1] == "[":
            host = host[1:-1]
        if host not in self._hosts:
            return False
        if uri.port is not None:
            return uri.port in self._ports
        return (host == self._host and not self._port) or (5061 if uri.scheme == "sips" else 5060) in self._ports

    def uri(self, user: str) -> str:
        """The URI of somebody who is registered here, or may be."""
        known = self._uris.get(user)
        if known is None:
            known = self._uris[user] = f"sip:{escape_user(user)}@{self.text}"
        return known

    def via(self, flow: Flow, branch: str) -> str:
        """The Via header line of a request on this flow; rport asks for a symmetric response (RFC 3581)."""
        return (self._vias.get(flow.local) or self._via(flow.local)) + branch

    def flow_to(self, transport: str, host: str, port: int, near: Local) -> Flow | None:
        """A flow to an address, from where the request at hand came in if that fits; None: no fitting listener."""
        found: Local | None = None
        for local in self.listen:
            if local.transport == transport and (":" in local.host) == (":" in host):
                if local.host == near.host:
                    return Flow(local, (host, port))
                found = found or local
        return Flow(found, (host, port)) if found is not None else None

    @property
    def transports(self) -> tuple[str, ...]:
        """What requests can leave by."""
        return tuple(name for name in ("UDP", "TCP", "TLS") if any(local.transport == name for local in self.listen))

    def _via(self, local: Local) -> str:
        host = self._host if local.host in WILDCARDS else local.host
        return f"Via: SIP/2.0/{local.transport} {host_text(host)}:{local.port};rport;branch="

"""The SIP-NMS's own paths: which exist, which are ON, and where a packet leaves by them (MH-1 … MH-5).

A path is one contact address of one E-face. It exists while its interface holds the address; it is ON while probes
over it are answered (R13), the link is up and the operator allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from sipnemo.media.flow import MediaPath
from sipnemo.nemo.egress_list import EgressEntry, Status
from sipnemo.roles.endpoint import host_text
from sipnemo.roles.nms.settings import EfaceSettings
from sipnemo.roles.node import Count, Link, Listen, Notice, SetPath, Unlisten
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.server_location import Target

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer

SECOND_CONTACT = 100
"Distance between the reg-ids of the contacts of one E-face: RFC 5626 allows one flow per reg-id, MH-5 several."


class Path:
    """One contact address of one E-face, and all that is known of it."""

    def __init__(self, eface: EfaceSettings, address: str, device: str, rank: int, group: int) -> None:
        self.eface = eface
        self.address = address
        self.ipv6 = ":" in address
        "The family of its address."
        self.device = device
        self.rank = rank
        "0 for the E-face's first contact address, 1 for the next (MH-5)."
        self.group = group
        "Of its media flows; leads to the egress interface (media.flow.MediaPath)."
        self.present = True
        "The interface holds the address and its link is up."
        self.proven = False
        "Probes are answered."
        self.wanted = True
        "False: drained by the operator."
        self.forced = False
        "True: ON by the operator's word, whatever the probes say."
        self.reason = "starting"
        "Why it is OFF."
        self.changed_at = 0.0
        self.sessions: dict[Session, None] = {}
        "Sessions that use it, in the order they came (a set's order would differ from run to run)."
        self.load = 0.0
        self.rate = 0.0
        "Bits per second of media on its E-face, in either direction, as last measured."
        self.rtt: float | None = None
        self.mapped: tuple[str, int] | None = None
        "Our SIP address and port (UDP) as the SIP-HS sees them; None: not known yet."
        self.natted = False
        "They are not our own."
        self.media_host = address
        "Address at which far ends are told to send media."
        bound = device if eface.interface else ""
        self.locals = {
            transport: Local(transport, address, eface.tls_port if transport == "TLS" else eface.port, bound)
            for transport in eface.transports
        }
        self.flow_to: Callable[[Target], Flow | None] = lru_cache(maxsize=256)(self._flow_to)
        "The flow over this path to a target; None where transport or address family do not fit."
        self._own_uris = {
            transport: f"sip:{host_text(address)}:{local.port}"
            + ("" if transport == "UDP" else f";transport={transport.lower()}")
            for transport, local in self.locals.items()
        }
        self._uris = dict(self._own_uris)

    @property
    def on(self) -> bool:
        """Whether calls may use this path."""
        return self.present and self.wanted and (self.proven or self.forced)

    def named(self, host: str, port: int) -> bool:
        """Whether a URI with this host and port means this path."""
        if host == self.address or host == self.media_host:
            return port in (self.eface.port, self.eface.tls_port)
        return (host, port) == self.mapped

    @property
    def works(self) -> bool:
        """Whether it carries packets, wanted or not: calls of a drained path stay on it until they have moved."""
        return self.present and (self.proven or self.forced)

    @property
    def reg_id(self) -> int:
        """E-face ID for the first contact address; the further ones follow at a distance (RFC 5626 §4.2)."""
        return self.eface.id + SECOND_CONTACT * self.rank

    @property
    def name(self) -> str:
        """As people and logs call it: E-face ID and address."""
        return f"{self.eface.id}/{self.address}"

    def _flow_to(self, target: Target) -> Flow | None:
        local = self.locals.get(target.transport)
        if local is None or (":" in target.host) != self.ipv6:
            return None
        return Flow(local, (target.host, target.port))

    @property
    def nowhere(self) -> Flow:
        """A flow without a far end, for what only needs to know the path."""
        return Flow(next(iter(self.locals.values())), ("", 0))

    def contact(self, transport: str, parameters: str = "") -> str:
        """The SIP URI of this path, for Contact (RO-8): as the outside has it, behind a NAT."""
        return (self._uris.get(transport) or next(iter(self._uris.values()))) + parameters

    def own_contact(self, transport: str) -> str:
        """The same with our own address, for the SIP-HS: it answers on the flow, whatever is said (RFC 5626 §5.3)."""
        return self._own_uris.get(transport) or next(iter(self._own_uris.values()))

    def tell(self, contacts: dict[str, str], media_host: str) -> None:
        """What the outside is told instead of our own address, where it is hidden: by transport, and for media."""
        self.media_host = media_host or self.address
        self._uris = self._own_uris | contacts

    def entry(self, host_id: str) -> EgressEntry:
        """This path's Egress List entry (MH-1)."""
        return EgressEntry(
            host_id=host_id,
            eface_id=self.eface.id,
            contact=(self.address, self.eface.port),
            status=Status.ON if self.on else Status.OFF,
            load=self.load,
            priority=self.eface.priority,
            capacity_bps=self.eface.capacity,
            rtt=self.rtt,
        )


class Paths:
    """All own paths, kept in step with the interfaces (rtnetlink) and the operator."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self.all: list[Path] = []
        self.mixed = False
        "They are of both address families."
        self._twice: dict[tuple[int, str], Link] = {}
        "By E-face ID and address: interfaces with an address that another E-face has."

    def on(self) -> list[Path]:
        """Paths that are ON."""
        return [path for path in self.all if path.on]

    def of(self, local: Local) -> Path | None:
        """The path a message came in by."""
        for path in self.all:
            if path.address == local.host and path.locals.get(local.transport) == local:
                return path
        return None

    def link_changed(self, link: Link, now: float) -> None:
        """An interface came, went, gained or lost carrier or addresses (MH-2)."""
        for eface in self._node.settings.efaces:
            if eface.interface:
                if eface.interface == link.name:
                    self._match(eface, link, link.addresses, now)
            elif eface.address in link.addresses or any(
                path.eface is eface and path.device == link.name for path in self.all
            ):
                self._match(eface, link, (eface.address,) if eface.address in link.addresses else (), now)
        for (number, address), other in list(self._twice.items()):
            if all(path.address != address for path in self.all):
                del self._twice[number, address]
                self.link_changed(other, now)

    def _match(self, eface: EfaceSettings, link: Link, addresses: tuple[str, ...], now: float) -> None:
        families = ["ipv6" if ":" in address else "ipv4" for address in addresses]
        usable = [a for _, a in sorted(zip(families, addresses, strict=True), key=lambda pair: _order(eface, pair[0]))]
        usable = [a for a in usable if ("ipv6" if ":" in a else "ipv4") in eface.families]
        for number, address in [key for key in self._twice if key[0] == eface.id]:
            del self._twice[number, address]
        usable = [address for address in usable if not self._used_by_another(eface, address, link)]
        for path in [path for path in self.all if path.eface is eface]:
            if path.address not in usable:
                self._gone(path, "address" if link.ifindex and link.up else "carrier", link, now)
        for address in usable:
            known = next((path for path in self.all if path.eface is eface and path.address == address), None)
            if known is None:
                known = self._add(eface, address, link, now)
            elif link.up and (not known.present or known.device != link.name):
                if known.present:  # the address has gone to another interface, with whatever is behind that
                    self._gone(known, "address", link, now)
                if known.device != link.name:
                    known.device = link.name
                    self._node.act(SetPath(self.media_path(known)))
                self._back(known, now)
            if not link.up and known.present:
                self._gone(known, "carrier", link, now)

    def _used_by_another(self, eface: EfaceSettings, address: str, link: Link) -> bool:
        """Whether another E-face has this address: no packet could be told to leave by the right one.

        Two routers that give out the same private addresses do that, and, for a moment, an address that moves.
        """
        other = next((path for path in self.all if path.eface is not eface and path.address == address), None)
        if other is None:
            return False
        self._twice[eface.id, address] = link
        self._node.log(
            "warning",
            "two uplinks have the same address, of which the second is not used: give one router another network",
            address=address,
            first=other.device,
            second=link.name,
        )
        return True

    def _add(self, eface: EfaceSettings, address: str, link: Link, now: float) -> Path:
        taken = {path.rank for path in self.all if path.eface is eface}
        rank = next(rank for rank in range(SECOND_CONTACT) if rank not in taken)
        path = Path(eface, address, link.name, rank, self._free_group())
        path.present = link.up
        path.changed_at = now
        self.all.append(path)
        self.all.sort(key=lambda p: (p.eface.priority, p.rank))
        self._mix()
        self._node.log("info", "path found", path=path.name, device=path.device)
        for local in path.locals.values():
            self._node.act(Listen(local))
        self._node.act(SetPath(self.media_path(path)))
        self._node.path_added(path, now)
        return path

    def _mix(self) -> None:
        self.mixed = len({path.ipv6 for path in self.all}) == 2

    def _free_group(self) -> int:
        """A media group that neither a path nor a call still on a vanished path uses."""
        used = {path.group for path in self.all} | {session.path.group for session in self._node.calls.open}
        return next(group for group in range(1, len(used) + 2) if group not in used)

    def _back(self, path: Path, now: float) -> None:
        path.present = True
        path.proven = False  # an answered probe, not the carrier, says that it works (R13)
        path.changed_at = now
        path.reason = "not probed yet"
        self._node.log("info", "path is back, waiting for its probes", path=path.name)
        for local in path.locals.values():
            self._node.act(Listen(local))  # the interface may be a new one under the old name
        self._node.path_added(path, now)

    def _gone(self, path: Path, cause: str, link: Link, now: float) -> None:
        was_on, works = path.on, path.works
        path.present = False
        path.proven = False
        path.reason = cause
        lost_address = path.address not in link.addresses
        if was_on:
            self._off(path, cause, now)
        elif works:
            self._node.path_died(path, cause, now)
        else:
            self._node.home.path_lost(path, now)  # it may be registered all the same
        if lost_address and (link.ifindex == 0 or link.up):
            self._node.path_removed(path, now)
            self.all.remove(path)
            self._mix()
            for local in path.locals.values():
                self._node.act(Unlisten(local))

    def proved(self, path: Path, now: float) -> None:
        """Probes are answered again, for long enough."""
        was_on = path.on
        path.proven = True
        if path.on and not was_on:
            self._on(path, now)

    def silent(self, path: Path, cause: str, now: float) -> None:
        """Probes are not answered any more (MH-3)."""
        was_on, works = path.on, path.works
        path.proven = False
        path.reason = cause
        if was_on and not path.on:
            self._off(path, cause, now)
        elif works and not path.works:
            self._node.path_died(path, cause, now)

    def command(self, path: Path, state: str, now: float) -> None:
        """The operator's word: off drains it, on forces it, auto leaves it to the probes."""
        was_on = path.on
        path.wanted = state != "off"
        path.forced = state == "on"
        if was_on and not path.on:
            self._off(path, "command", now)
        elif path.on and not was_on:
            self._on(path, now)

    def media_path(self, path: Path) -> MediaPath:
        """Where this path's media flows leave."""
        return MediaPath(path.group, path.address, path.device)

    def _on(self, path: Path, now: float) -> None:
        path.changed_at = now
        path.reason = ""
        self._node.log("info", "path is ON", path=path.name)
        self._node.act(Notice("path", {"path": path.name, "status": "ON"}))
        self._node.path_on(path, now)

    def _off(self, path: Path, cause: str, now: float) -> None:
        path.changed_at = now
        path.reason = cause
        self._node.log("warning", "path is OFF", path=path.name, cause=cause, sessions=len(path.sessions))
        self._node.act(Count("path_failures", (cause,)))
        self._node.act(Notice("path", {"path": path.name, "status": "OFF", "cause": cause}))
        self._node.path_off(path, cause, now)


def _order(eface: EfaceSettings, family: str) -> int:
    return eface.families.index(family) if family in eface.families else len(eface.families)

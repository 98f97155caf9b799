"""The kernel media plane: packets are rewritten and forwarded by nf_tables where they come in (see nft_rules).

What the kernel cannot express, or must not yet, goes through an embedded relay: flows that still learn their peer
(symmetric RTP), a SIP-MN and a SIP-CN of different address families, a peer that is this host itself, and a
destination for which the path knows no next hop.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, MediaPath
from sipnemo.media.flow_table import FlowTable
from sipnemo.shell import nft_objects as nft
from sipnemo.shell import nft_rules as rules
from sipnemo.shell.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    Transaction,
    attributes,
    text,
)
from sipnemo.shell.nft_rules import FAMILIES, family_of
from sipnemo.shell.relay import OnLearned, PlaneStatistics, RelayPlane, check
from sipnemo.shell.routes import Hop, Routes, next_hop

TABLE = "sipnemo"

CAPACITY = 65_536
"Elements per flow map: four directions and more per session. The kernel's hash table is sized by it."

ALL_AT_ONCE = 256
"More counters than these are read by a dump of the whole map."

LOOPBACK = "lo"
TRIAL = Hop(ip_network("192.0.2.0/24"), 1, "192.0.2.2")


class _Path:
    """A way out: the chain that writes its source address and knows its next hops."""

    def __init__(self, chain: str, source: str, hops: tuple[Hop, ...]) -> None:
        self.chain = chain
        self.source = source
        self.change(hops)

    def change(self, hops: tuple[Hop, ...]) -> None:
        """Other next hops than before."""
        self.hops = hops
        self.reaches_all = not hops or not hops[-1].prefix.prefixlen
        "Every destination has a next hop; or none has: a path that is down drops, nothing can help it."
        self._reached: dict[str, bool] = {}

    def reaches(self, host: str) -> bool:
        """Whether a next hop is known."""
        if self.reaches_all:
            return True
        known = self._reached.get(host)
        if known is None:
            known = self._reached[host] = next_hop(self.hops, host) is not None
        return known


class KernelPlane:
    """The kernel media plane; needs CAP_NET_ADMIN in its network namespace and a running event loop.

    See MediaPlane for what its methods promise. Raises OSError when the kernel does not support or permit it.
    """

    kind = "kernel"

    def __init__(self, on_learned: OnLearned | None = None, table: str = TABLE, capacity: int = CAPACITY) -> None:
        self.name = table
        self._capacity = capacity
        self._on_learned = on_learned
        self._asked: dict[FlowKey, MediaFlow] = {}
        self._table = FlowTable()
        self._latched: set[FlowKey] = set()
        self._elements: dict[FlowKey, tuple[bytes, bytes]] = {}
        self._by_octets: dict[bytes, FlowKey] = {}
        self._carried: dict[FlowKey, tuple[int, int]] = {}
        self._elsewhere: set[FlowKey] = set()  # relayed for another reason than learning
        self._paths: dict[tuple[str, str], _Path] = {}  # (source, device) → its chain
        self._verdicts: dict[tuple[int, int], _Path | None] = {}  # (family, group) → path; None drops
        self._chains = 0
        self._devices: dict[str, int] = {}
        self._refused = 0
        self._last_error = ""
        self._closed = False
        self._routes_netlink = Netlink(NETLINK_ROUTE)
        try:
            self._netlink = Netlink(NETLINK_NETFILTER)
            try:
                self._routes = Routes.read(self._routes_netlink)
                self._set_up()
                self._relay = RelayPlane(on_latched=self._on_latched)
            except BaseException:
                self._netlink.close()
                raise
        except BaseException:
            self._routes_netlink.close()
            raise

    # ------------------------------------------------------------------------------------------------------ interface

    def attach(self, devices: Iterable[str]) -> None:
        """Take media in from exactly these interfaces (and from this host itself) from now on."""
        wanted = {name: index for name in {LOOPBACK, *devices} if (index := _index(name))}
        hooked = self._hooked()
        transaction = Transaction()
        for name in hooked - set(wanted):
            nft.delete_chain(transaction, self.name, f"in_{name}")
        for name, index in wanted.items():
            if name in hooked:
                if self._devices.get(name) == index:
                    continue
                nft.delete_chain(transaction, self.name, f"in_{name}")
            rules.add_ingress(transaction, self.name, f"in_{name}", name)
        self._netlink.commit(transaction)
        self._devices = wanted
        self.refresh_routes()

    def refresh_routes(self) -> None:
        """Look the next hops of every path up anew."""
        self._routes = Routes.read(self._routes_netlink)
        in_use = {id(path) for path in self._verdicts.values()}
        transaction = Transaction()
        for (source, device), path in list(self._paths.items()):
            hops = self._routes.hops(source, device)
            if not hops and id(path) not in in_use:
                nft.delete_chain(transaction, self.name, path.chain)
                del self._paths[source, device]
            elif hops != path.hops:
                path.change(hops)
                nft.flush_chain(transaction, self.name, path.chain)
                rules.add_path_rules(transaction, self.name, path.chain, source, hops)
        self._commit(transaction)
        self._relay.refresh_routes()
        if transaction:
            self._place(list(self._table.flows.values()))

    def add(self, flows: Sequence[MediaFlow]) -> None:
        """Forward these flows from now on, all or (OSError) none; a known key is replaced and keeps its counters."""
        changed = [flow for flow in flows if self._asked.get(flow.key) != flow]
        for flow in changed:
            check(flow)
        relearn = self._latched.intersection(flow.key for flow in changed)
        self._latched -= relearn
        try:
            self._place(changed)
        except OSError:
            self._latched |= relearn
            raise
        for flow in changed:
            self._asked[flow.key] = flow

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Stop forwarding; unknown keys are ignored."""
        known = [key for key in keys if self._asked.pop(key, None) is not None]
        transaction = Transaction()
        self._delete_elements(transaction, known)
        self._commit(transaction)
        self._relay.remove(known)
        for key in known:
            self._forget_element(key)
            self._table.pop(key)
            self._carried.pop(key, None)
            self._latched.discard(key)
            self._elsewhere.discard(key)

    def set_path(self, path: MediaPath) -> None:
        """Every flow of the group leaves by this path from the next packet on."""
        transaction = Transaction()
        way = self._way(transaction, path)
        changes: dict[tuple[int, int], _Path | None] = {(family_of(path.source).version, path.group): way}
        if path.group != INSIDE:
            changes.update({(version, path.group): None for version in (4, 6) if (version, path.group) not in changes})
        for (version, group), target in changes.items():
            self._change_verdict(transaction, version, group, target)
        self._commit(transaction)
        self._verdicts.update(changes)
        self._relay.set_path(path)
        if not way.reaches_all or any(self._table.flows[key].group == path.group for key in self._elsewhere):
            self._place([flow for flow in self._table.flows.values() if flow.group == path.group])

    def counters(self, keys: Iterable[FlowKey] | None = None) -> dict[FlowKey, tuple[int, int]]:
        """Packets and octets taken in so far per flow; unknown keys are absent."""
        wanted = list(self._table.flows) if keys is None else [key for key in keys if key in self._table.flows]
        kernel = self._read([key for key in wanted if key in self._elements])
        relayed = self._relay.counters(wanted)
        found = {}
        for key in wanted:
            parts = (self._carried.get(key, (0, 0)), kernel.get(key, (0, 0)), relayed.get(key, (0, 0)))
            found[key] = (sum(part[0] for part in parts), sum(part[1] for part in parts))
        return found

    def statistics(self) -> PlaneStatistics:
        """What the plane holds and what went wrong."""
        relay = self._relay.statistics()
        return relay._replace(
            kernel_flows=len(self._elements), refused=self._refused, last_error=self._last_error or relay.last_error
        )

    def close(self) -> None:
        """Remove the table and close every socket. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._relay.close()
        transaction = Transaction()
        nft.delete_table(transaction, self.name)
        with contextlib.suppress(NetlinkError):  # gone already
            self._netlink.commit(transaction)
        self._netlink.close()
        self._routes_netlink.close()

    # ------------------------------------------------------------------------------------------------------ the table

    def _set_up(self) -> None:
        """Make the table, in the place of what a predecessor left."""
        stale = False
        with contextlib.suppress(NetlinkError):
            stale = bool(self._netlink.ask_nf_tables(nft.GETTABLE, text(1, self.name), "looking for the table", 0))
        # Owned: `nft flush ruleset`, which firewalls' reload does, leaves it alone. Persistent: after a crash the
        # kernel goes on forwarding until the successor takes over. Kernels before 6.9 know neither.
        for flags in (nft.NFT_TABLE_F_OWNER | nft.NFT_TABLE_F_PERSIST, 0):
            transaction = Transaction()
            if stale:
                nft.delete_table(transaction, self.name)
            nft.add_table(transaction, self.name, flags)
            self._describe(transaction)
            try:
                self._netlink.commit(transaction)
                return
            except NetlinkError as error:
                if flags == 0 or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise

    def _describe(self, transaction: Transaction) -> None:
        """Everything in the table, from what is remembered."""
        rules.add_maps(transaction, self.name, self._capacity)
        for (source, _device), path in self._paths.items():
            nft.add_chain(transaction, self.name, path.chain)
            rules.add_path_rules(transaction, self.name, path.chain, source, path.hops)
        if not self._paths:  # find out now whether this kernel can forward from a chain
            nft.add_chain(transaction, self.name, "trial")
            rules.add_path_rules(transaction, self.name, "trial", "192.0.2.1", [TRIAL])
            nft.delete_chain(transaction, self.name, "trial")
        for (version, group), target in self._verdicts.items():
            element = nft.verdict_element(rules.path_key(group), target.chain if target else "")
            nft.change_elements(transaction, nft.NEWSETELEM, self.name, f"path{version}", [element])
        for family in FAMILIES:
            elements = [
                nft.flow_element(*element) for key, element in self._elements.items() if family_of(key.host) is family
            ]
            nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.flows, elements)
        for name in self._devices or {LOOPBACK: 0}:
            if _index(name):
                rules.add_ingress(transaction, self.name, f"in_{name}", name)

    def _commit(self, transaction: Transaction) -> None:
        """Carry out a change; a table that somebody has flushed is made anew first."""
        try:
            self._netlink.commit(transaction)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            self._trouble(error)
            self._set_up()
            self._netlink.commit(transaction)

    def _hooked(self) -> set[str]:
        """The interfaces that have a chain now; a vanished one may or may not, depending on the kernel."""
        found = set()
        for message in self._netlink.ask_nf_tables(nft.GETCHAIN, b"", "listing chains"):
            members = dict(attributes(message.body))
            table, chain = (members.get(kind, b"").rstrip(b"\0").decode() for kind in (1, 3))
            if table == self.name and chain.startswith("in_"):
                found.add(chain.removeprefix("in_"))
        return found

    # ---------------------------------------------------------------------------------------------------------- paths

    def _way(self, transaction: Transaction, path: MediaPath) -> _Path:
        """The chain of a path; one that is new is resolved and made."""
        known = self._paths.get((path.source, path.device))
        if known is not None:
            return known
        self._routes = Routes.read(self._routes_netlink)
        self._chains += 1
        way = _Path(f"path_{self._chains}", path.source, self._routes.hops(path.source, path.device))
        nft.add_chain(transaction, self.name, way.chain)
        rules.add_path_rules(transaction, self.name, way.chain, path.source, way.hops)
        self._paths[path.source, path.device] = way
        return way

    def _change_verdict(self, transaction: Transaction, version: int, group: int, target: _Path | None) -> None:
        key = rules.path_key(group)
        name = f"path{version}"
        if (version, group) in self._verdicts:
            if self._verdicts[version, group] is target:
                return
            nft.change_elements(transaction, nft.DELSETELEM, self.name, name, [nft.element_key(key)])
        element = nft.verdict_element(key, target.chain if target else "")
        nft.change_elements(transaction, nft.NEWSETELEM, self.name, name, [element])

    # ---------------------------------------------------------------------------------------------------------- flows

    def _expressible(self, flow: MediaFlow) -> bool:
        """Whether the kernel can forward this flow, apart from learning."""
        host = flow.peer[0]
        six = ":" in host
        if six != (":" in flow.key.host) or host in self._routes.addresses:
            return False
        path = self._verdicts.get((6 if six else 4, flow.group))
        return path is None or path.reaches(host)

    def _learning(self, flow: MediaFlow) -> bool:
        return bool(flow.admit) and flow.key not in self._latched

    def _place(self, flows: Sequence[MediaFlow]) -> None:
        """Put flows where they belong, kernel or relay, from wherever they are; OSError: nothing has changed."""
        in_kernel: list[MediaFlow] = []
        in_relay: list[MediaFlow] = []
        elsewhere: set[FlowKey] = set()
        for flow in flows:
            if not self._expressible(flow):
                elsewhere.add(flow.key)
                in_relay.append(flow)
            elif self._learning(flow):
                in_relay.append(flow)
            else:
                in_kernel.append(flow)
        before = self._relay.holds([flow.key for flow in flows])
        try:
            if in_relay:
                # The sockets stand before the elements go, so that no packet finds neither.
                self._relay.add([flow if self._learning(flow) else flow._replace(admit=()) for flow in in_relay])
            try:
                self._write(in_kernel, in_relay)
            except NetlinkError as error:
                if not in_kernel:
                    raise
                self._trouble(error)
                self._relay.add([flow._replace(admit=()) for flow in in_kernel])
                elsewhere |= {flow.key for flow in in_kernel}
                self._write([], flows)
        except OSError:
            self._relay.remove([flow.key for flow in flows if flow.key not in before])
            raise
        for flow in flows:
            self._table.put(flow)
        if self._elsewhere or elsewhere:
            self._elsewhere -= {flow.key for flow in flows}
            self._elsewhere |= elsewhere

    def _write(self, in_kernel: Sequence[MediaFlow], in_relay: Sequence[MediaFlow]) -> None:
        """Bring the kernel's elements in line, in one transaction, and let go of what it has taken over."""
        known = self._elements
        fresh: dict[FlowKey, tuple[bytes, bytes]] = {}
        elements: tuple[list[bytes], list[bytes]] = ([], [])
        stale = [flow.key for flow in in_relay if flow.key in known]
        transaction = Transaction()
        pathless = set()
        for flow in in_kernel:
            key = flow.key
            element = (rules.flow_key(key.host, key.port), rules.flow_data(flow))
            old = known.get(key)
            if old == element:
                continue
            if old is not None:
                stale.append(key)
            fresh[key] = element
            six = ":" in key.host
            elements[six].append(nft.flow_element(*element))
            if (6 if six else 4, flow.group) not in self._verdicts:
                pathless.add((6 if six else 4, flow.group))
        for version, group in pathless:  # dropped until a path is set: the rewriting rule must find an element
            self._change_verdict(transaction, version, group, None)
        counted = self._read(stale) if stale else {}
        self._delete_elements(transaction, stale)
        for family, members in zip(FAMILIES, elements, strict=True):
            if members:
                nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.flows, members)
        self._commit(transaction)
        self._verdicts.update(dict.fromkeys(pathless))
        for key in stale:
            self._carry(key, counted.get(key, (0, 0)))
            self._forget_element(key)
        known.update(fresh)
        self._by_octets.update((element[0], key) for key, element in fresh.items())
        for key, count in self._relay.retire([flow.key for flow in in_kernel]).items():
            self._carry(key, count)

    def _delete_elements(self, transaction: Transaction, keys: Sequence[FlowKey]) -> None:
        if not keys:
            return
        for family in FAMILIES:
            elements = [
                nft.flow_element_key(self._elements[key][0])
                for key in keys
                if key in self._elements and family_of(key.host) is family
            ]
            if elements:
                nft.change_elements(transaction, nft.DELSETELEM, self.name, family.flows, elements)

    def _forget_element(self, key: FlowKey) -> None:
        element = self._elements.pop(key, None)
        if element is not None:
            del self._by_octets[element[0]]

    def _on_latched(self, key: FlowKey, peer: tuple[str, int]) -> None:
        """The relay has learnt where a flow's packets come from: correct the other direction, leave both to the
        kernel."""
        flow = self._table.flows[key]
        self._latched.add(key)
        moved = [other for other in self._table.opposite(flow) if other.peer != peer]
        try:
            self._place([flow, *(other._replace(peer=peer) for other in moved)])
        except OSError as error:
            self._trouble(error)
        if moved and flow.reverse is not None and self._on_learned is not None:
            self._on_learned(flow.reverse, peer)

    def _trouble(self, error: OSError) -> None:
        self._refused += 1
        self._last_error = str(error)

    # ------------------------------------------------------------------------------------------------------- counters

    def _carry(self, key: FlowKey, count: tuple[int, int]) -> None:
        packets, octets = self._carried.get(key, (0, 0))
        self._carried[key] = (packets + count[0], octets + count[1])

    def _read(self, keys: Sequence[FlowKey]) -> dict[FlowKey, tuple[int, int]]:
        """What the kernel has counted for these flows."""
        found: dict[FlowKey, tuple[int, int]] = {}
        for family in FAMILIES:
            octets = [self._elements[key][0] for key in keys if family_of(key.host) is family]
            if not octets:
                continue
            what = f"reading map {family.flows}"
            if len(octets) > ALL_AT_ONCE:
                body = nft.map_name(self.name, family.flows)
                messages = self._netlink.ask_nf_tables(nft.GETSETELEM, body, what, NLM_F_DUMP)
            else:
                bodies = nft.element_lists(self.name, family.flows, map(nft.flow_element_key, octets))
                messages = [
                    message for body in bodies for message in self._netlink.ask_nf_tables(nft.GETSETELEM, body, what, 0)
                ]
            for message in messages:
                for key, packets, size in nft.counted_elements(message.body):
                    if (flow_key := self._by_octets.get(key)) is not None:
                        found[flow_key] = (packets, size)
        wanted = set(keys)
        return {key: count for key, count in found.items() if key in wanted}


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0

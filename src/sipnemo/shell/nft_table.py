"""The kernel plane's nf_tables table: what is in it, changed one transaction at a time; no policy.

What is in the table is remembered here, so that it can be made anew when somebody has removed it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import ip_network

from sipnemo.media.flow import FlowKey, MediaFlow
from sipnemo.shell import nft_objects as nft
from sipnemo.shell import nft_rules as rules
from sipnemo.shell.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    Transaction,
    attributes,
    text,
)
from sipnemo.shell.nft_rules import FAMILIES, FOUR, LOOPBACK, SIX, family_of
from sipnemo.shell.nft_ways import BothWays, Verdicts, WayOut, ways_in
from sipnemo.shell.routes import Hop

ALL_AT_ONCE = 256
"More counters than these are read by a dump of the whole map."

TRIAL = Hop(ip_network("192.0.2.0/24"), 1, "192.0.2.2")

Counts = dict[FlowKey, tuple[int, int]]


class NftTable:
    """The table; made at construction, in the place of what a predecessor left. Raises OSError when it cannot be."""

    def __init__(self, name: str, capacity: int, on_remade: Callable[[OSError], None]) -> None:
        self.name = name
        self.elements: dict[FlowKey, tuple[bytes, bytes]] = {}
        "Flows in the kernel → key and data of their element."

        self.ways: dict[tuple[str, str], WayOut] = {}
        "(source, device) → its chain."

        self.verdicts: dict[tuple[int, int], WayOut | BothWays | None] = {}
        "(IP version, group) → the way out; None drops."

        self._capacity = capacity
        self._on_remade = on_remade
        self._by_octets: dict[bytes, FlowKey] = {}
        self._devices: dict[str, int] = {}
        self._chains = 0
        self._both: dict[tuple[str, str], BothWays] = {}  # by the two chains
        self._netlink = Netlink(NETLINK_NETFILTER)
        try:
            self._make()
        except BaseException:
            self._netlink.close()
            raise

    def close(self) -> None:
        """Remove the table."""
        transaction = Transaction()
        nft.delete_table(transaction, self.name)
        with contextlib.suppress(NetlinkError):  # gone already
            self._netlink.commit(transaction)
        self._netlink.close()

    # ---------------------------------------------------------------------------------------------------- interfaces

    def attach(self, devices: Iterable[str]) -> None:
        """Take packets in from exactly these interfaces, and from this host itself."""
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

    def switch(self, verdicts: Verdicts) -> None:
        """Let each of these groups leave by another way; one that is new gets its chain."""
        transaction = Transaction()
        known = {id(way) for way in self.ways.values()}
        for way in ways_in(verdicts):
            if id(way) not in known:
                self._add_way(transaction, way)
        both = {pair.chain: pair for pair in verdicts.values() if isinstance(pair, BothWays)}
        for chain, pair in both.items():
            if chain not in {other.chain for other in self._both.values()}:
                self._add_both(transaction, pair)
        for (version, group), target in verdicts.items():
            self._change_verdict(transaction, version, group, target)
        after = {**self.verdicts, **verdicts}
        used = {pair.chain for pair in after.values() if isinstance(pair, BothWays)}
        gone = [key for key, pair in self._both.items() if pair.chain not in used]
        for key in gone:
            copy = [nft.element_key(rules.copy_key(self._both[key].number))]
            nft.change_elements(transaction, nft.DELSETELEM, self.name, rules.COPIES, copy)
            nft.delete_chain(transaction, self.name, self._both[key].chain)
        self.commit(transaction)
        self.verdicts.update(verdicts)
        for key in gone:
            del self._both[key]
        self._both.update(((pair.first.chain, pair.second.chain), pair) for pair in both.values())

    def new_way(self, source: str, hops: tuple[Hop, ...]) -> WayOut:
        """A way out with a chain name of its own; `switch` puts it into the kernel."""
        self._chains += 1
        return WayOut(f"path_{self._chains}", source, hops)

    def both_ways(self, first: WayOut, second: WayOut) -> BothWays:
        """Two ways out at once; `switch` puts it into the kernel, and takes it out when no group leaves by it."""
        known = self._both.get((first.chain, second.chain))
        if known is None:
            taken = {pair.number for pair in self._both.values()}
            known = BothWays(next(number for number in range(1, len(taken) + 2) if number not in taken), first, second)
        return known

    def change_hops(self, changed: Mapping[tuple[str, str], tuple[Hop, ...]]) -> None:
        """Give ways out other next hops; those without any that no group leaves by are forgotten."""
        in_use = {id(way) for way in ways_in(self.verdicts)}
        transaction = Transaction()
        gone = []
        for key, hops in changed.items():
            way = self.ways[key]
            if hops or id(way) in in_use:
                nft.flush_chain(transaction, self.name, way.chain)
                rules.add_path_rules(transaction, self.name, way.chain, way.source, hops)
            else:
                nft.delete_chain(transaction, self.name, way.chain)
                gone.append(key)
        self.commit(transaction)
        for key, hops in changed.items():
            self.ways[key].change(hops)
        for key in gone:
            del self.ways[key]

    def _add_way(self, transaction: Transaction, way: WayOut) -> None:
        nft.add_chain(transaction, self.name, way.chain)
        rules.add_path_rules(transaction, self.name, way.chain, way.source, way.hops)

    def _add_both(self, transaction: Transaction, pair: BothWays) -> None:
        nft.add_chain(transaction, self.name, pair.chain)
        rules.add_both_rules(transaction, self.name, pair.chain, pair.number, _index(LOOPBACK), pair.first.chain)
        copy = nft.verdict_element(rules.copy_key(pair.number), pair.second.chain)
        nft.change_elements(transaction, nft.NEWSETELEM, self.name, rules.COPIES, [copy])

    def _change_verdict(
        self, transaction: Transaction, version: int, group: int, target: WayOut | BothWays | None
    ) -> None:
        if (version, group) in self.verdicts:
            if self.verdicts[version, group] is target:
                return
            key = [nft.element_key(rules.path_key(group))]
            family = SIX if version == 6 else FOUR
            nft.change_elements(transaction, nft.DELSETELEM, self.name, family.sources, key)
            nft.change_elements(transaction, nft.DELSETELEM, self.name, family.paths, key)
        self._add_verdict(transaction, version, group, target)

    def _add_verdict(
        self, transaction: Transaction, version: int, group: int, target: WayOut | BothWays | None
    ) -> None:
        family = SIX if version == 6 else FOUR
        key = rules.path_key(group)
        source = nft.data_element(key, rules.source_data(family, target.source if target else ""))
        verdict = nft.verdict_element(key, target.chain if target else "")
        nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.sources, [source])
        nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.paths, [verdict])

    # ---------------------------------------------------------------------------------------------------------- flows

    def write(self, flows: Sequence[MediaFlow], gone: Collection[FlowKey] = ()) -> Counts:
        """Make these flows the kernel's and those not; returns what the elements that went had counted."""
        known = self.elements
        fresh: dict[FlowKey, tuple[bytes, bytes]] = {}
        elements: tuple[list[bytes], list[bytes]] = ([], [])
        stale = [key for key in gone if key in known]
        pathless = set()
        for flow in flows:
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
            if (6 if six else 4, flow.group) not in self.verdicts:
                pathless.add((6 if six else 4, flow.group))
        transaction = Transaction()
        for version, group in pathless:  # dropped until a path is set: the rewriting rule must find an element
            self._change_verdict(transaction, version, group, None)
        counted = self.read(stale) if stale else {}
        self._delete(transaction, stale)
        for family, members in zip(FAMILIES, elements, strict=True):
            if members:
                nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.flows, members)
        self.commit(transaction)
        self.verdicts.update(dict.fromkeys(pathless))
        for key in stale:
            del self._by_octets[known.pop(key)[0]]
        known.update(fresh)
        self._by_octets.update((element[0], key) for key, element in fresh.items())
        return counted

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Forget these flows and what they counted."""
        known = [key for key in keys if key in self.elements]
        transaction = Transaction()
        self._delete(transaction, known)
        self.commit(transaction)
        for key in known:
            del self._by_octets[self.elements.pop(key)[0]]

    def _delete(self, transaction: Transaction, keys: Sequence[FlowKey]) -> None:
        elements: tuple[list[bytes], list[bytes]] = ([], [])
        for key in keys:
            elements[":" in key.host].append(nft.flow_element_key(self.elements[key][0]))
        for family, members in zip(FAMILIES, elements, strict=True):
            if members:
                nft.change_elements(transaction, nft.DELSETELEM, self.name, family.flows, members)

    def read(self, keys: Sequence[FlowKey]) -> Counts:
        """What the kernel has counted for these flows, all of which it has."""
        found: Counts = {}
        for family in FAMILIES:
            octets = [self.elements[key][0] for key in keys if family_of(key.host) is family]
            if not octets:
                continue
            what = f"reading map {family.flows}"
            if len(octets) > ALL_AT_ONCE:
                bodies, flags = [nft.map_name(self.name, family.flows)], NLM_F_DUMP
            else:
                bodies = list(nft.element_lists(self.name, family.flows, map(nft.flow_element_key, octets)))
                flags = 0
            wanted = set(octets)
            for body in bodies:
                for message in self._netlink.ask_nf_tables(nft.GETSETELEM, body, what, flags):
                    for key, packets, size in nft.counted_elements(message.body):
                        if key in wanted:
                            found[self._by_octets[key]] = (packets, size)
        return found

    # ------------------------------------------------------------------------------------------------------ the table

    def commit(self, transaction: Transaction) -> None:
        """Carry out a change; a table that somebody has removed is made anew first."""
        try:
            self._netlink.commit(transaction)
        except NetlinkError as error:
            if error.errno != errno.ENOENT or self._exists():
                raise
            self._make()
            self._on_remade(error)
            self._netlink.commit(transaction)

    def _exists(self) -> bool:
        with contextlib.suppress(NetlinkError):
            return bool(self._netlink.ask_nf_tables(nft.GETTABLE, text(1, self.name), "looking for the table", 0))
        return False

    def _make(self) -> None:
        """Make the table and all that is remembered of it."""
        stale = self._exists()
        # Owned: `nft flush ruleset`, which firewalls' reload does, leaves it alone. Persistent: after a crash the
        # kernel goes on forwarding until the successor takes over. Kernels before 6.9 do not know both.
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
        rules.add_maps(transaction, self.name, self._capacity)
        for way in self.ways.values():
            self._add_way(transaction, way)
        for pair in self._both.values():
            self._add_both(transaction, pair)
        if not self.ways:  # find out now whether this kernel can forward from a chain
            nft.add_chain(transaction, self.name, "trial")
            rules.add_path_rules(transaction, self.name, "trial", "192.0.2.1", [TRIAL])
            nft.delete_chain(transaction, self.name, "trial")
        for (version, group), target in self.verdicts.items():
            self._add_verdict(transaction, version, group, target)
        for family in FAMILIES:
            own = (element for key, element in self.elements.items() if family_of(key.host) is family)
            elements = [nft.flow_element(*element) for element in own]
            nft.change_elements(transaction, nft.NEWSETELEM, self.name, family.flows, elements)
        for name in self._devices or {LOOPBACK: 0}:
            if _index(name):
                rules.add_ingress(transaction, self.name, f"in_{name}", name)


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0

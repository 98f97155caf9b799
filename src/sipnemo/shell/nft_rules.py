"""The rules of the kernel plane: how one packet is rewritten and handed to a neighbour. Octets only; no socket.

    map flow4   : daddr . dport  →  new daddr . (new sport, new dport) . group      one counter per element
    map source4 : group          →  new saddr
    map path4   : group          →  jump to the chain of the path the group leaves by
    chain in_<device> (netdev ingress):  look up flow4, source4 → write ports → write saddr, daddr → jump by path4
    chain path_<n>:  saddr not the path's → write it; per prefix, longest first: send to the gateway, or to daddr where
                     it is on-link
    chain both_<n>:  mark := n, copy to lo, jump to the first path's chain
    map copy : mark              →  jump to the second path's chain (asked at lo's ingress only)

and the same with IPv6. nft's own syntax cannot say "look up once, use the parts", hence the expressions are put
together here. A path is a chain and not one map element (address, interface, next hop), since its next hop may depend
on the destination: on-link SIP-CNs and SIP-MNs behind a router need no special case. The source address has a map of
its own because both addresses are then written, and the checksums corrected, in one go. Moving a group is still one
transaction that replaces its two elements, whatever the number of its flows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sipnemo.media.flow import MediaFlow
from sipnemo.shell import nft_objects as nft
from sipnemo.shell.netlink import Transaction
from sipnemo.shell.routes import Hop

COPIES = "copy"
"Map of the copies that come back by lo: mark → jump to the chain of the way they take."

MARKS = 0x534E0000
"Packets with such a mark are copies of ours; no forwarded packet leaves with it."

_PORTS = struct.Struct(">HH")
_GROUP = struct.Struct("=I")

LOOPBACK = "lo"

GROUPS = 512
"Paths there may be per family. Not more: the kernel walks the whole hash table on every switch."


class Family:
    """What differs between IPv4 and IPv6: names, lengths, offsets and registers."""

    def __init__(self, version: int) -> None:
        six = version == 6
        self.version = version
        self.flows = f"flow{version}"
        self.sources = f"source{version}"
        self.paths = f"path{version}"
        self.protocol = b"\x86\xdd" if six else b"\x08\x00"
        self.number = 10 if six else 2  # NFPROTO_IPV6, NFPROTO_IPV4
        self.length = 16 if six else 4
        self.source_at, self.destination_at = (8, 24) if six else (12, 16)
        # Only IPv4 has a header checksum; the pseudo-header makes both correct UDP's.
        self.checksum = (nft.CSUM_NONE, 0, nft.L4_PSEUDO_HEADER) if six else (nft.CSUM_INET, 10, nft.L4_PSEUDO_HEADER)
        self.type = nft.TYPE_IPV6 if six else nft.TYPE_IPV4

    @property
    def words(self) -> int:
        """Registers that an address takes."""
        return self.length // 4


FOUR, SIX = Family(4), Family(6)
FAMILIES = (FOUR, SIX)


def family_of(host: str) -> Family:
    """The family of an address literal."""
    return SIX if ":" in host else FOUR


def flow_key(host: str, port: int) -> bytes:
    """Key of a flow element; every part fills whole registers."""
    return nft.packed(host) + _PORTS.pack(port, 0)


def flow_data(flow: MediaFlow) -> bytes:
    """Data of a flow element."""
    peer, port = flow.peer
    return nft.packed(peer) + _PORTS.pack(flow.source_port, port) + _GROUP.pack(flow.group)


def path_key(group: int) -> bytes:
    """Key of a path element."""
    return _GROUP.pack(group)


def source_data(family: Family, source: str) -> bytes:
    """Data of a source element; without a source nothing leaves, so any address will do."""
    return nft.packed(source) if source else bytes(family.length)


def add_maps(transaction: Transaction, table: str, capacity: int) -> None:
    """Make the seven maps."""
    nft.add_map(transaction, table, COPIES, 7, (nft.TYPE_MARK, 4), (nft.NFT_DATA_VERDICT, 0), GROUPS, counter=False)
    for number, family in enumerate(FAMILIES):
        key = (family.type << 6 | nft.TYPE_PORT, family.length + 4)
        data = (family.type << 12 | nft.TYPE_MARK << 6 | nft.TYPE_MARK, family.length + 8)
        group = (nft.TYPE_MARK, 4)
        own = (family.type, family.length)
        verdict = (nft.NFT_DATA_VERDICT, 0)
        nft.add_map(transaction, table, family.flows, 3 * number + 1, key, data, capacity, counter=True)
        nft.add_map(transaction, table, family.sources, 3 * number + 2, group, own, GROUPS, counter=False)
        nft.add_map(transaction, table, family.paths, 3 * number + 3, group, verdict, GROUPS, counter=False)


def add_ingress(transaction: Transaction, table: str, chain: str, device: str) -> None:
    """Make the chain that takes media in from one interface."""
    nft.add_chain(transaction, table, chain, device)
    if device == LOOPBACK:
        register = nft.FIRST_REGISTER
        lookup = nft.lookup(COPIES, register, nft.VERDICT_REGISTER)
        nft.add_rule(transaction, table, chain, nft.load_meta(nft.META_MARK, register), lookup)
    for family in FAMILIES:
        nft.add_rule(transaction, table, chain, *_rewrite(family, nft.NOT_EQUAL if family is FOUR else None))
    # "No checksum" (0, IPv4 only) must stay 0, or the far end drops the packet: the ports are written without.
    nft.add_rule(transaction, table, chain, *_rewrite(FOUR, nft.EQUAL))


def _rewrite(family: Family, checksum_zero: int | None) -> Iterable[bytes]:
    # Both addresses side by side, as in the header; with IPv6 they take the place of the key, which is used up by then.
    key = nft.FIRST_REGISTER
    port = key + family.words
    saddr = key if family is SIX else port + 1
    daddr = saddr + family.words
    ports = daddr + family.words
    group = ports + 1
    yield nft.load_meta(nft.META_PROTOCOL, key)
    yield nft.compare(key, nft.EQUAL, family.protocol)
    yield nft.load_meta(nft.META_L4PROTO, key)
    yield nft.compare(key, nft.EQUAL, b"\x11")
    if checksum_zero is not None:
        yield nft.load(key, nft.TRANSPORT_HEADER, 6, 2)
        yield nft.compare(key, checksum_zero, b"\0\0")
    yield nft.load(key, nft.NETWORK_HEADER, family.destination_at, family.length)
    yield nft.load(port, nft.TRANSPORT_HEADER, 2, 2)
    yield nft.lookup(family.flows, key, daddr)
    yield nft.lookup(family.sources, group, saddr)
    kind, at = (nft.CSUM_NONE, 0) if checksum_zero == nft.EQUAL else (nft.CSUM_INET, 6)
    yield nft.store(ports, nft.TRANSPORT_HEADER, 0, 4, kind, at, 0)
    yield nft.store(saddr, nft.NETWORK_HEADER, family.source_at, 2 * family.length, *family.checksum)
    yield nft.lookup(family.paths, group, nft.VERDICT_REGISTER)


def add_path_rules(transaction: Transaction, table: str, chain: str, source: str, hops: Iterable[Hop]) -> None:
    """Fill the chain of a path; what no prefix covers is dropped, for it has been rewritten already."""
    family = family_of(source)
    address = nft.FIRST_REGISTER
    device = address + family.words
    neighbour = device + 1
    # A packet that looked its source up before the group moved and its path afterwards has the wrong source: the path
    # decides. No packet leaves with an address that does not belong to its uplink.
    nft.add_rule(
        transaction,
        table,
        chain,
        nft.load(address, nft.NETWORK_HEADER, family.source_at, family.length),
        nft.compare(address, nft.NOT_EQUAL, nft.packed(source)),
        nft.immediate(address, nft.packed(source)),
        nft.store(address, nft.NETWORK_HEADER, family.source_at, family.length, *family.checksum),
    )
    for hop in hops:
        rule: list[bytes] = []
        if length := hop.prefix.prefixlen:
            octets = (length + 7) // 8
            whole = (octets + 3) & ~3  # whole words are loaded faster, and comparing fewer octets needs no mask
            rule.append(nft.load(address, nft.NETWORK_HEADER, family.destination_at, whole))
            if length % 8:
                rule.append(nft.mask(address, address, hop.prefix.netmask.packed[:whole]))
            rule.append(nft.compare(address, nft.EQUAL, hop.prefix.network_address.packed[:octets]))
        rule.append(nft.immediate(device, struct.pack("=I", hop.ifindex)))
        if hop.gateway:
            rule.append(nft.immediate(neighbour, nft.packed(hop.gateway)))
        else:
            rule.append(nft.load(neighbour, nft.NETWORK_HEADER, family.destination_at, family.length))
        rule.append(nft.forward(device, neighbour, family.number))
        nft.add_rule(transaction, table, chain, *rule)
    nft.add_rule(transaction, table, chain, nft.drop())


def copy_key(number: int) -> bytes:
    """Key of a copy element, and the mark of the copies."""
    return _GROUP.pack(MARKS | number)


def add_both_rules(transaction: Transaction, table: str, chain: str, number: int, loopback: int, first: str) -> None:
    """Fill the chain of two paths at once: a copy goes to the second by way of lo, the packet itself by the first.

    The kernel's `dup` hands a copy out with the Ethernet header the packet came with, so an uplink's neighbour would
    not take it. lo takes anything, and what comes in there is rewritten and forwarded like every packet: by the mark
    that tells it from others. The packet itself loses the mark again, the copy in the second path's chain needs none.
    """
    mark, device = nft.FIRST_REGISTER, nft.FIRST_REGISTER + 1
    nft.add_rule(
        transaction,
        table,
        chain,
        nft.immediate(mark, copy_key(number)),
        nft.store_meta(nft.META_MARK, mark),
        nft.immediate(device, struct.pack("=I", loopback)),
        nft.duplicate(device),
        nft.immediate(mark, bytes(4)),
        nft.store_meta(nft.META_MARK, mark),
        nft.jump(first),
    )

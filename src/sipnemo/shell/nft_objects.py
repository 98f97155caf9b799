"""nf_tables tables, chains, maps, elements and rules of the netdev family as netlink octets; no socket, no policy.

The names of constants and attributes are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import functools
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

from sipnemo.shell.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Transaction,
    attribute,
    attributes,
    be32,
    nested,
    text,
)

NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, DELRULE = 6, 8
NEWSET = 9
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14

NFT_TABLE_F_OWNER = 2
NFT_TABLE_F_PERSIST = 4
NFT_SET_MAP = 8
NFT_DATA_VERDICT = 0xFFFFFF00
NF_DROP = 0
NFT_JUMP = 0xFFFFFFFD  # -3
TYPE_IPV4, TYPE_IPV6, TYPE_PORT, TYPE_MARK = 7, 8, 13, 19  # nft's own numbers, so that `nft list` can print the maps

FIRST_REGISTER = 8  # NFT_REG32_00
VERDICT_REGISTER = 0
META_PROTOCOL, META_MARK, META_L4PROTO = 1, 3, 16
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
EQUAL, NOT_EQUAL = 0, 1
CSUM_NONE, CSUM_INET = 0, 1
L4_PSEUDO_HEADER = 1

LARGEST_LIST = 60_000  # octets of elements in one message: an attribute's length has 16 bits


@functools.lru_cache(maxsize=8192)
def packed(host: str) -> bytes:
    """The octets of an IPv4 or IPv6 literal."""
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


# ---------------------------------------------------------------------------------------------------------- objects


def add_table(transaction: Transaction, table: str, flags: int) -> None:
    """Make a table, or keep it when it exists."""
    body = text(1, table) + be32(2, flags)
    transaction.add(NEWTABLE, body, f"adding table {table}", NLM_F_CREATE)


def delete_table(transaction: Transaction, table: str) -> None:
    """Remove a table with everything in it."""
    transaction.add(DELTABLE, text(1, table), f"deleting table {table}")


def add_chain(transaction: Transaction, table: str, chain: str, device: str = "") -> None:
    """Make a chain; with a device, one that sees every packet arriving there."""
    body = text(1, table) + text(3, chain)
    if device:
        hook = nested(4, be32(1, 0), be32(2, 0), text(3, device))  # NF_NETDEV_INGRESS, priority 0
        body += hook + be32(5, 1) + text(7, "filter")  # NF_ACCEPT
    transaction.add(NEWCHAIN, body, f"adding chain {chain}", NLM_F_CREATE)


def delete_chain(transaction: Transaction, table: str, chain: str) -> None:
    """Remove a chain and its rules."""
    transaction.add(DELCHAIN, text(1, table) + text(3, chain), f"deleting chain {chain}")


def add_rule(transaction: Transaction, table: str, chain: str, *expressions: bytes) -> None:
    """Append a rule to a chain."""
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    transaction.add(NEWRULE, body, f"adding a rule to {chain}", NLM_F_CREATE | NLM_F_APPEND)


def flush_chain(transaction: Transaction, table: str, chain: str) -> None:
    """Remove every rule of a chain."""
    transaction.add(DELRULE, text(1, table) + text(2, chain), f"flushing chain {chain}")


def add_map(
    transaction: Transaction,
    table: str,
    name: str,
    number: int,
    key: tuple[int, int],
    data: tuple[int, int],
    size: int,
    counter: bool,
) -> None:
    """Make a map; key and data are (type, length). With `counter` every element counts its packets and octets."""
    body = text(1, table) + text(2, name) + be32(3, NFT_SET_MAP) + be32(4, key[0]) + be32(5, key[1])
    body += be32(10, number) + be32(6, data[0]) + be32(7, data[1]) + nested(9, be32(1, size))
    if counter:
        body += nested(17, text(1, "counter"))
    transaction.add(NEWSET, body, f"adding map {name}", NLM_F_CREATE)


# --------------------------------------------------------------------------------------------------------- elements

_NEST = 0x8000
_FLOW4 = struct.Struct("=HHHHHH8sHHHH12s")
_FLOW6 = struct.Struct("=HHHHHH20sHHHH24s")
_KEY4 = struct.Struct("=HHHHHH8s")
_KEY6 = struct.Struct("=HHHHHH20s")


def flow_element(key: bytes, data: bytes) -> bytes:
    """One element of a flow map. A single `pack`: a session's elements are on the path of every call."""
    if len(key) == 8:
        return _FLOW4.pack(40, 1 | _NEST, 16, 1 | _NEST, 12, 1, key, 20, 2 | _NEST, 16, 1, data)
    return _FLOW6.pack(64, 1 | _NEST, 28, 1 | _NEST, 24, 1, key, 32, 2 | _NEST, 28, 1, data)


def flow_element_key(key: bytes) -> bytes:
    """The same element named by its key alone, to delete or to read it."""
    if len(key) == 8:
        return _KEY4.pack(20, 1 | _NEST, 16, 1 | _NEST, 12, 1, key)
    return _KEY6.pack(32, 1 | _NEST, 28, 1 | _NEST, 24, 1, key)


def verdict_element(key: bytes, chain: str) -> bytes:
    """One element of a verdict map: jump to the chain, or drop when there is none."""
    verdict = be32(1, NFT_JUMP) + text(2, chain) if chain else be32(1, NF_DROP)
    return nested(1, nested(1, attribute(1, key)), nested(2, nested(2, verdict)))


def data_element(key: bytes, data: bytes) -> bytes:
    """One element of any other map."""
    return nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, data)))


def element_key(key: bytes) -> bytes:
    """Any element named by its key alone."""
    return nested(1, nested(1, attribute(1, key)))


def change_elements(transaction: Transaction, kind: int, table: str, name: str, elements: Iterable[bytes]) -> None:
    """Add (NEWSETELEM) or delete (DELSETELEM) elements of a map."""
    what = f"{'adding' if kind == NEWSETELEM else 'deleting'} elements of map {name}"
    flags = NLM_F_CREATE if kind == NEWSETELEM else 0
    for body in element_lists(table, name, elements):
        transaction.add(kind, body, what, flags)


@functools.lru_cache(maxsize=64)
def map_name(table: str, name: str) -> bytes:
    """The start of every message about a map's elements."""
    return text(1, table) + text(2, name)


def element_lists(table: str, name: str, elements: Iterable[bytes]) -> Iterator[bytes]:
    """Message bodies with the elements, as many as fit into each."""
    head = map_name(table, name)
    chunk: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > LARGEST_LIST:
            yield head + nested(3, *chunk)
            chunk, size = [], 0
        chunk.append(element)
        size += len(element)
    if chunk:
        yield head + nested(3, *chunk)


# An element as the kernel lists it: { KEY, DATA, EXPR { NAME "counter", DATA { BYTES, PACKETS } } }; the two attribute
# headers in the middle tell whether this is the layout.
_COUNTED = {84: struct.Struct("=12x8s20x20xI8sI8s"), 108: struct.Struct("=12x20s32x20xI8sI8s")}
_BYTES = int.from_bytes(struct.pack("=HH", 12, 1), sys.byteorder)
_PACKETS = int.from_bytes(struct.pack("=HH", 12, 2), sys.byteorder)


def counted_elements(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(key, packets, octets) of the elements in one answer to GETSETELEM."""
    big = int.from_bytes
    for kind, listed in attributes(body):
        if kind != 3:
            continue
        offset, end = 0, len(listed)
        while offset + 4 <= end:
            length = int.from_bytes(listed[offset : offset + 2], sys.byteorder)
            if length < 4:
                return
            if (layout := _COUNTED.get(length)) is not None:
                key, first, octets, second, packets = layout.unpack_from(listed, offset)
                if first == _BYTES and second == _PACKETS:
                    yield key, big(packets, "big"), big(octets, "big")
                    offset += length
                    continue
            yield _counted(listed[offset + 4 : offset + length])
            offset += (length + 3) & ~3


def _counted(element: bytes) -> tuple[bytes, int, int]:
    """One element, whatever else the kernel says about it."""
    key, packets, octets = b"", 0, 0
    for member, value in attributes(element):
        if member == 1:
            key = value[4:]
        elif member == 7:
            for part, inner in attributes(value):
                if part == 2:
                    numbers = dict(attributes(inner))
                    octets = int.from_bytes(numbers.get(1, b""), "big")
                    packets = int.from_bytes(numbers.get(2, b""), "big")
    return key, packets, octets


# ------------------------------------------------------------------------------------------------------ expressions


def _expression(name: str, *members: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *members))


def load_meta(key: int, register: int) -> bytes:
    """register := a property of the packet"""
    return _expression("meta", be32(1, register), be32(2, key))


def store_meta(key: int, register: int) -> bytes:
    """a property of the packet := register"""
    return _expression("meta", be32(2, key), be32(3, register))


def compare(register: int, operator: int, value: bytes) -> bytes:
    """Go on with the rule only when the register (not) equals the value."""
    return _expression("cmp", be32(1, register), be32(2, operator), nested(3, attribute(1, value)))


def mask(register: int, to: int, bits: bytes) -> bytes:
    """to := register & bits"""
    zero = attribute(1, bytes(len(bits)))
    return _expression(
        "bitwise", be32(1, register), be32(2, to), be32(3, len(bits)), nested(4, attribute(1, bits)), nested(5, zero)
    )


def load(register: int, header: int, offset: int, length: int) -> bytes:
    """register := octets of the packet"""
    return _expression("payload", be32(1, register), be32(2, header), be32(3, offset), be32(4, length))


def store(
    register: int, header: int, offset: int, length: int, csum_kind: int, csum_offset: int, csum_flags: int
) -> bytes:
    """octets of the packet := register, and correct the checksums that cover them"""
    return _expression(
        "payload",
        *(be32(5, register), be32(2, header), be32(3, offset), be32(4, length)),
        *(be32(6, csum_kind), be32(7, csum_offset), be32(8, csum_flags)),
    )


def lookup(name: str, register: int, to: int) -> bytes:
    """to := the map's data for this key; the rule ends here when there is no such element."""
    return _expression("lookup", text(1, name), be32(2, register), be32(3, to))


def immediate(register: int, value: bytes) -> bytes:
    """register := value"""
    return _expression("immediate", be32(1, register), nested(2, attribute(1, value)))


def drop() -> bytes:
    """Discard the packet."""
    return _expression("immediate", be32(1, VERDICT_REGISTER), nested(2, nested(2, be32(1, NF_DROP))))


def jump(chain: str) -> bytes:
    """Go on with another chain."""
    return _expression("immediate", be32(1, VERDICT_REGISTER), nested(2, nested(2, be32(1, NFT_JUMP) + text(2, chain))))


def duplicate(device: int) -> bytes:
    """Give a copy of the packet, as it is, to the interface whose index is in the register."""
    return _expression("dup", be32(2, device))


def forward(device: int, neighbour: int, family: int) -> bytes:
    """Send the packet out of the interface whose index is in one register, to the neighbour in the other."""
    return _expression("fwd", be32(1, device), be32(2, neighbour), be32(3, family))

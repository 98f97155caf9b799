"""A small synchronous netlink client: nf_tables transactions and rtnetlink dumps; no knowledge of media.

pyroute2 has no working nf_tables maps, and its synchronous half refuses to run inside an event loop. The media plane
needs both within microseconds, so it speaks to the kernel itself. The kernel answers a netlink request before `send`
returns, hence nothing here ever waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER = 16 << 20
SMALL, LARGE = 4096, 1 << 16  # octets of one acknowledgement, of one part of a dump

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1

NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFPROTO_NETDEV = 5

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct(">BBH")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
_NF_TABLES = NFNL_SUBSYS_NFTABLES << 8


class NetlinkError(OSError):
    """The kernel refused a request; the text says which one, and why as far as the kernel tells."""

    def __init__(self, number: int, what: str, detail: str = "") -> None:
        super().__init__(number, f"{what}: {detail + ': ' if detail else ''}{os.strerror(number)}")
        self.what = what


class Message(NamedTuple):
    """One message of a dump: its netlink type and what follows the netlink header."""

    type: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four octets."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) & 3)


def nested(kind: int, *members: bytes) -> bytes:
    """An attribute that holds other attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(members))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network order, as nf_tables wants its numbers."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The (type, value) pairs of a run of attributes; stops at damage."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class Transaction:
    """nf_tables messages that take effect together or not at all."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, str]] = []

    def add(self, kind: int, body: bytes, what: str, flags: int = 0) -> None:
        """Append one message; `what` names it in errors, for example 'adding chain in_eth0'."""
        self.messages.append((kind << 16 | flags, body, what))

    def __bool__(self) -> bool:
        return bool(self.messages)


class Netlink:
    """One netlink socket."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            for force, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
                try:
                    self._socket.setsockopt(socket.SOL_SOCKET, force, BUFFER)
                except PermissionError:  # root of a user namespace only: the system's limit must do
                    self._socket.setsockopt(socket.SOL_SOCKET, plain, BUFFER)
            for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            if protocol == NETLINK_ROUTE:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self.largest = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 3 // 4
            "Octets that one transaction may have; the kernel counts its own overhead too."
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def commit(self, transaction: Transaction) -> None:
        """Carry out a transaction; raises NetlinkError, naming the first message refused, when nothing was done."""
        messages = transaction.messages
        if not messages:
            return
        sequence = self._sequence
        self._sequence = (sequence + len(messages) + 2) & 0x3FFFFFFF
        parts = [
            _HEADER.pack(20, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, sequence, 0),
            _NFGEN.pack(0, 0, NFNL_SUBSYS_NFTABLES),
        ]
        last = sequence + len(messages)
        number = sequence
        for kind_flags, body, _what in messages:
            number += 1
            flags = kind_flags & 0xFFFF | NLM_F_REQUEST
            if number == last:  # an acknowledged BATCH_END is news to kernels before 6.10
                flags |= NLM_F_ACK
            parts.append(_HEADER.pack(20 + len(body), _NF_TABLES | kind_flags >> 16, flags, number, 0))
            parts.append(b"\x05\0\0\0")  # NFPROTO_NETDEV
            parts.append(body)
        parts.append(_HEADER.pack(20, NFNL_MSG_BATCH_END, NLM_F_REQUEST, last + 1, 0))
        parts.append(_NFGEN.pack(0, 0, NFNL_SUBSYS_NFTABLES))
        self._socket.send(b"".join(parts))
        self._collect(sequence, last, messages)

    def _collect(self, first: int, last: int, messages: list[tuple[int, bytes, str]]) -> None:
        """Read every acknowledgement of a transaction; raise what the first error says."""
        refused: NetlinkError | None = None
        while True:
            try:
                data = self._socket.recv(SMALL, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, number, _port = _HEADER.unpack_from(data, offset)
                if kind == NLMSG_ERROR and first <= number <= last + 1:
                    code = -_CODE.unpack_from(data, offset + 16)[0]
                    if code == 0 and number == last and refused is None:
                        return
                    if code and refused is None:
                        index = number - first - 1
                        what = messages[index][2] if 0 <= index < len(messages) else "nf_tables transaction"
                        refused = NetlinkError(code, what, _detail(data[offset : offset + length], flags))
                offset += (length + 3) & ~3
        raise refused or NetlinkError(errno.EIO, "nf_tables transaction", "the kernel did not answer")

    def query(self, kind: int, body: bytes, what: str, flags: int = NLM_F_DUMP) -> list[Message]:
        """All messages the kernel answers a question with; raises NetlinkError. `body` starts behind the header."""
        while True:
            self._sequence += 1
            number = self._sequence
            header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0)
            self._socket.send(header + body)
            found = self._answers(number, what)
            if found is not None:
                return found

    def ask_nf_tables(self, kind: int, body: bytes, what: str, flags: int = NLM_F_DUMP) -> list[Message]:
        """`query` for an nf_tables object of the netdev family; the bodies start with its attributes."""
        found = self.query(_NF_TABLES | kind, _NFGEN.pack(NFPROTO_NETDEV, 0, 0) + body, what, flags)
        return [Message(message.type & 0xFF, message.body[4:]) for message in found]

    def _answers(self, number: int, what: str) -> list[Message] | None:
        """The answers to one question; None when the kernel says that they changed meanwhile."""
        found: list[Message] = []
        torn = False
        while True:
            data = self._socket.recv(LARGE)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
                if sequence != number:
                    pass  # left over from a transaction that failed
                elif kind in (NLMSG_DONE, NLMSG_ERROR):
                    code = -_CODE.unpack_from(data, offset + 16)[0]
                    if code and kind == NLMSG_ERROR:
                        raise NetlinkError(code, what, _detail(data[offset : offset + length], flags))
                    return None if torn else found
                else:
                    found.append(Message(kind, data[offset + 16 : offset + length]))
                offset += (length + 3) & ~3


def _detail(message: bytes, flags: int) -> str:
    """The kernel's own words in an error message (NETLINK_EXT_ACK), if it has any."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    for kind, value in attributes(message, 36):  # NETLINK_CAP_ACK: only the request's header is quoted
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""

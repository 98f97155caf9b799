"""Where a message came from and where it goes: transport, own address, far address."""

from __future__ import annotations

from typing import NamedTuple

Address = tuple[str, int]
"Address literal (IPv6 without brackets or zone) and port."


class Local(NamedTuple):
    """One of our own listening points. Value object: the shell finds the socket by it."""

    transport: str
    "UDP, TCP or TLS, as in Via (RFC 3261 §20.42)."

    host: str
    "Own address literal."

    port: int

    device: str = ""
    "Interface the socket is bound to, so that a packet leaves by the uplink it belongs to; empty: by routing."


class Flow(NamedTuple):
    """One bidirectional stream of messages (RFC 5626 §2): for TCP and TLS, one connection.

    Of a connection that the far end opened, `remote` is its ephemeral port; sending on that flow reuses the
    connection while it lives.
    """

    local: Local
    remote: Address

    @property
    def reliable(self) -> bool:
        """Whether the transport itself retransmits (RFC 3261 §17)."""
        return self.local.transport != "UDP"

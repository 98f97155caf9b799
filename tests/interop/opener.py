"""Open a socket in the namespace this runs in and hand it over standard input (a Unix socket) to the caller.

tap IFACE: every IPv4 frame in and out of the interface · tcp ADDRESS PORT: a connection · udp ADDRESS PORT: bound there
"""

import array
import socket
import sys

ETH_P_ALL = 0x0003
SO_TIMESTAMPNS = 35


def opened(kind: str, arguments: list[str]) -> socket.socket:
    match kind, arguments:
        case "tap", [name]:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            tap.bind((name, ETH_P_ALL))
            return tap
        case "tcp", [address, port]:
            return socket.create_connection((address, int(port)), timeout=2)
        case "udp", [address, port]:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, int(port)))
            return udp
    raise SystemExit(f"unknown: {kind} {arguments}")


if __name__ == "__main__":
    made = opened(sys.argv[1], sys.argv[2:])
    with socket.socket(fileno=0) as caller:
        caller.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])

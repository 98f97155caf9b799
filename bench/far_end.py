"""A far end that answers every INVITE and BYE at once, from memory of nothing: `python far_end.py ADDRESS PORT`.

SIPp answers to where a call's first message came from, so it cannot follow a call to another uplink.
"""

from __future__ import annotations

import socket
import sys

from sipnemo.sip.message import Request, reply
from sipnemo.sip.parser import parse


def main(host: str, port: int) -> None:
    """Answer until killed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((host, port))
    sdp = f"v=0\r\no=far 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 26384 RTP/AVP 8\r\n"
    contact = f"Contact: <sip:{host}:{port}>"
    while True:
        data, source = sock.recvfrom(65535)
        request = parse(data)
        if not isinstance(request, Request) or request.method == "ACK":
            continue
        routes = [line for name, line in zip(request.names, request.lines, strict=True) if name == "record-route"]
        headers, body = (*routes, contact), ""
        if request.method == "INVITE":
            headers, body = (*headers, "Content-Type: application/sdp"), sdp
        sock.sendto(reply(request, 200, to_tag="far", headers=headers, body=body), source)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

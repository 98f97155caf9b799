"""Ask a server inside a host over HTTP: `fetch.py ADDRESS PORT`, one path per line in, one JSON answer per line out.

It runs in the host, where the admin interface listens on loopback only, so that nothing needs to be opened for a
spectator. Of its own few imports so that it starts quickly.
"""

from __future__ import annotations

import http.client
import json
import sys


def main() -> None:
    """Answer until standard input ends; null for what cannot be fetched."""
    address, port = sys.argv[1], int(sys.argv[2])
    for line in sys.stdin:
        body = None
        connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            connection.request("GET", line.strip())
            answer = connection.getresponse()
            data = answer.read()
            if answer.status == 200:
                body = json.loads(data)
        except (OSError, ValueError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        print(json.dumps(body), flush=True)


if __name__ == "__main__":
    main()

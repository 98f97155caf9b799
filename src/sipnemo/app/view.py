"""Read a running server through its admin interface and show the answer as tables."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT = 6.0
"Seconds to wait for a server that does not answer; a little longer than it gives its node."


class AdminError(Exception):
    """The server could not be asked, or refused; the text says what to do."""


def view(name: str, admin: str, *, as_json: bool = False) -> int:
    """Print one view: status, paths, bindings, sessions or moves."""
    return _show(name, admin, f"/api/{name}", None, as_json)


def set_path(eface_id: int, state: str, admin: str, *, as_json: bool = False) -> int:
    """Take an uplink out of use, put it in use, or leave it to its probes."""
    return _show("path", admin, f"/api/path/{eface_id}", {"state": state}, as_json)


def what_if(state: str, admin: str, *, eface_id: int | None, path: str | None, as_json: bool = False) -> int:
    """Print what would become of the calls if an uplink, or one path of it, were taken out of use or put in."""
    about = {"path": path} if path else {"eface_id": eface_id}
    return _show("what-if", admin, f"/api/what-if?{urlencode({**about, 'state': state})}", None, as_json)


def _show(name: str, admin: str, path: str, body: dict[str, Any] | None, as_json: bool) -> int:
    try:
        answer = ask(admin, path, body)
    except AdminError as error:
        print(f"sipnemo {name}: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        from sipnemo.app.tables import print_answer

        print_answer(name, answer)
    return 0


def ask(admin: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The server's JSON answer to a GET, or with a body to a POST."""
    connection = _connection(admin)
    data = None if body is None else json.dumps(body)
    try:
        connection.request("GET" if data is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except TimeoutError:
        raise AdminError(f"the server at {admin} does not answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise AdminError(
            f"no server answers at {admin} ({error.strerror or error}); is it running, and is that its [admin] listen?"
        ) from None
    except http.client.HTTPException:
        raise AdminError(f"what answers at {admin} is not a sipnemo server; see [admin] listen") from None
    finally:
        connection.close()
    try:
        result = json.loads(content)
    except ValueError:
        raise AdminError(f"what answers at {admin} is not a sipnemo server; see [admin] listen") from None
    if answer.status >= 400:
        raise AdminError(str(result["error"]) if isinstance(result, dict) and "error" in result else answer.reason)
    return result


def _connection(admin: str) -> http.client.HTTPConnection:
    """To http://HOST:PORT, HOST:PORT or unix:/PATH."""
    if admin.startswith("unix:/"):
        return _UnixConnection(admin.removeprefix("unix:"))
    try:
        url = urlsplit(admin if "://" in admin else f"http://{admin}")
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or url.scheme not in ("http", "https") or url.path.strip("/"):
        raise AdminError(f"{admin} is not an address; write for example --admin http://127.0.0.1:8470")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)

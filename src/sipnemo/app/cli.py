"""The command `sipnemo`. Each subcommand imports what it needs when it runs, so that `sipnemo status` starts fast."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from sipnemo import __version__

OK: Final = 0
USAGE: Final = 2
DEFAULT_ADMIN: Final = "http://127.0.0.1:8470"

_SERVERS: Final = {"nms": "run the gateway", "hs": "run the home server"}
_VIEWS: Final = {
    "status": "what a running server is, and how it is",
    "paths": "the Egress List: every path, whether it is ON, its load and round trip",
    "bindings": "who is registered, and where",
    "sessions": "calls that live now, and the path of each",
    "moves": "calls that changed their path: why, and the gap per direction",
}
_BORROWED: Final = {
    "phone": ("sipnemo.app.phone", "a small phone without sound: registers, calls, answers, measures gaps"),
    "demo": ("sipnemo.lab.demo", "show calls moving between uplinks, on this machine alone"),
    "lab": ("sipnemo.app.lab", "play a scenario of failing uplinks, on this machine alone"),
}
"Commands whose module provides `add_arguments(parser)` and `main(arguments) -> int`."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser(words[0] if words else "").parse_args(words)
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader of our output has gone: `sipnemo sessions | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    command: str = arguments.command
    if command in _SERVERS:
        from sipnemo.app.serve import serve

        return serve(command, arguments)
    if command == "check":
        from sipnemo.app.check import check_file

        return check_file(arguments.file)
    if command in _VIEWS:
        from sipnemo.app.view import view

        return view(command, arguments.admin, as_json=arguments.json)
    if command == "path":
        from sipnemo.app.view import set_path

        return set_path(arguments.eface_id, arguments.state, arguments.admin, as_json=arguments.json)
    if command == "what-if":
        from sipnemo.app.view import what_if

        where = {"eface_id": arguments.eface, "path": arguments.path}
        return what_if(arguments.state, arguments.admin, **where, as_json=arguments.json)
    if command in _BORROWED:
        return int(import_module(_BORROWED[command][0]).main(arguments))
    print("sipnemo fs: the fan-out server is not available in this version", file=sys.stderr)
    return USAGE


def _parser(first: str) -> argparse.ArgumentParser:
    """`first` is the first word typed: only that command's module is asked for its arguments."""
    parser = argparse.ArgumentParser(
        prog="sipnemo", description="Live calls move between uplinks.", epilog="sipnemo COMMAND --help tells more."
    )
    parser.add_argument("--version", action="version", version=f"sipnemo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _SERVERS.items():
        _server_arguments(commands.add_parser(name, help=text, description=f"{text.capitalize()} in the foreground."))
    commands.add_parser("fs", help="not available in this version").add_argument("--config", help=argparse.SUPPRESS)
    check = commands.add_parser("check", help="explain every mistake in a configuration file")
    check.add_argument("file", metavar="FILE", help="nms.toml or hs.toml")
    for name, text in _VIEWS.items():
        _view_arguments(commands.add_parser(name, help=text, description=f"Show {text}."))
    path = commands.add_parser("path", help="drain an uplink by hand, or give it back")
    path.add_argument("eface_id", metavar="EFACE_ID", type=int, help="number of the uplink ([[eface]] id)")
    path.add_argument(
        "state", choices=("off", "on", "auto"), help="off: move its calls away; on: use it untested; auto: as probed"
    )
    _view_arguments(path)
    _what_if_arguments(commands.add_parser("what-if", help="which calls would go where, and is there room?"))
    for name, (module, text) in _BORROWED.items():
        borrowed = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        if name == first:
            import_module(module).add_arguments(borrowed)
    return parser


def _server_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", required=True, help="see docs/configuration.md")
    parser.add_argument("--log", choices=("text", "json"), help="form of the log on stderr (default: [admin] log)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="least level logged ([admin] log_level)"
    )
    parser.add_argument(
        "--record", metavar="FILE", help="write every input to FILE, for replay; it holds what passed, secrets included"
    )


def _what_if_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Tell what `sipnemo path` would do, and do nothing."
    about = parser.add_mutually_exclusive_group(required=True)
    about.add_argument("--eface", metavar="ID", type=int, help="the uplink ([[eface]] id)")
    about.add_argument("--path", metavar="ADDRESS", help="only this contact address of an uplink")
    parser.add_argument("state", choices=("off", "on", "auto"), help="as in `sipnemo path`")
    _view_arguments(parser)


def _view_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON as the server gave it")
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=os.environ.get("SIPNEMO_ADMIN", DEFAULT_ADMIN),
        help=f"admin interface of the server (default: $SIPNEMO_ADMIN or {DEFAULT_ADMIN})",
    )


if __name__ == "__main__":
    sys.exit(main())

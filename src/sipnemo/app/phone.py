"""`sipnemo phone`: a SIP phone without sound, for demos, tests and drills. See docs/phone.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import resource
import stat
import sys
import time
from typing import Any, Final

from sipnemo.app.phone_options import Options, OptionsError, add_arguments, read_options
from sipnemo.app.phone_printer import Printer
from sipnemo.roles.node import Command, Notice, Reply
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream
from sipnemo.roles.phone.node import Phone
from sipnemo.shell.rtp import Rtp
from sipnemo.shell.runtime import Runtime
from sipnemo.shell.server import ShellSettings, serve

__all__ = ["add_arguments", "main"]

USAGE: Final = 2
REFUSED: Final = ("401", "403", "404", "407")
"Answers to a REGISTER after which a call that waits for it has failed."

HELP: Final = "call [ACCOUNT] URI, answer, busy, hangup [CALL_ID|all], hold CALL_ID, resume CALL_ID, refer CALL_ID URI, report, quit"  # noqa: E501


class Application:
    """Joins the phone to its RTP engine, the lines on standard input, and what is printed."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.printer = Printer(as_json=options.json)
        self.failed = False
        self._stop = asyncio.Event()
        self._runtime: Runtime | None = None
        self._rtp: Rtp | None = None
        self._tickets = itertools.count(1)
        self._line = b""
        self._waiting = {placed.account for placed in options.settings.calls}
        "Accounts whose requested call has not ended yet."

    async def run(self) -> int:
        """Until told to stop, or until the requested calls are over; the exit status."""
        status = await serve(
            lambda environment: Phone(self.options.settings, environment),
            ShellSettings(role="phone", tls=self.options.tls, log_level="info" if self.options.verbose else "warning"),
            on_notice=self._notice,
            attach=self._attach,
            stop=self._stop,
        )
        self._close_input()
        if self._rtp is not None:
            self._rtp.close()
        return status or int(self.failed or bool(self._waiting))

    def _attach(self, runtime: Runtime) -> None:
        self._runtime = runtime
        options = self.options
        rtp = self._rtp = Rtp(
            runtime.feed,
            options.rtp_ports,
            self.printer.stream,
            options.gap_over,
            options.symmetric,
            lambda account: 1 if account in options.full else options.sparse,
        )
        runtime.perform(OpenStream, rtp.open)
        runtime.perform(SetStream, rtp.set)
        runtime.perform(CloseStream, rtp.close_stream)
        runtime.perform(Reply, self._reply)
        local = self.options.settings.locals[0]
        self.printer.event("listening", {"host": local.host, "port": local.port})
        self._open_input()

    # ------------------------------------------------------------------------------------------------- the node

    def _notice(self, notice: Notice) -> None:
        body = notice.body
        self.printer.event(notice.name, body)
        if notice.name == "ended":
            self.failed = self.failed or bool(body["failed"])
            if body["outgoing"]:
                self._over(body["account"])
        elif notice.name == "register-failed" and str(body["reason"])[:3] in REFUSED and self._waits(body["account"]):
            self.failed = True
            self._over(body["account"])

    def _waits(self, account: str) -> bool:
        return account in self._waiting

    def _over(self, account: str) -> None:
        if account not in self._waiting:
            return
        self._waiting.discard(account)
        if not self._waiting and self.options.ends_with_calls:
            # Not at once: the far end's answer to our BYE, and the report, come first.
            asyncio.get_running_loop().call_later(0.1, self._stop.set)

    def _reply(self, reply: Reply) -> None:
        if reply.result.get("error"):
            self.printer.event("error", {"reason": reply.result["error"]})

    # ------------------------------------------------------------------------------------------ standard input

    def _open_input(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            mode = os.fstat(0).st_mode
        except OSError:
            return
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return  # in the background a read would stop us
        if stat.S_ISREG(mode):
            loop.call_soon(self._readable)
        else:
            with contextlib.suppress(OSError):
                loop.add_reader(0, self._readable)

    def _close_input(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(0)

    def _readable(self) -> None:
        data = os.read(0, 65536)
        if not data:
            self._close_input()
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._obey(line.decode("utf-8", "replace").split())

    def _obey(self, words: list[str]) -> None:
        arguments: dict[str, Any] = {}
        match words:
            case []:
                return
            case ["quit"]:
                self._stop.set()
                return
            case ["report"]:
                assert self._rtp is not None
                for report in self._rtp.reports():
                    self.printer.stream(report)
                return
            case ["call", uri]:
                arguments = {"uri": uri}
            case ["call", account, uri]:
                arguments = {"account": account, "uri": uri}
            case ["answer" | "busy" | "hangup"]:
                pass
            case ["answer" | "busy" | "hangup" | "hold" | "resume", call_id]:
                arguments = {"call_id": call_id}
            case ["refer", call_id, uri]:
                arguments = {"call_id": call_id, "uri": uri}
            case _:
                self.printer.event("error", {"reason": f"not understood: {' '.join(words)}; there is {HELP}"})
                return
        assert self._runtime is not None
        self._runtime.feed(Command(next(self._tickets), words[0], arguments))


def main(args: argparse.Namespace) -> int:
    """Run the phone; the exit status: 0, 1 when a call was not set up or was lost, 2 for a mistake in the options."""
    try:
        options = read_options(args)
    except OptionsError as error:
        print(f"sipnemo phone: {error}", file=sys.stderr)
        return USAGE
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    started = time.monotonic()
    status = asyncio.run(_run(options))
    if options.verbose:
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        print(f"sipnemo phone: {used:.2f} s CPU in {time.monotonic() - started:.2f} s", file=sys.stderr)
    return status


async def _run(options: Options) -> int:
    return await Application(options).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="sipnemo phone", description=__doc__)
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))

"""Join namespaces and become a program: `enter.py AGENT_PID USER NET MNT -- ARGV`, run by `Namespace.command`.

USER, NET and MNT are descriptor numbers held by the agent process (USER is "-" when there is no user namespace). It
is a file of its own, with few imports, because it stands before every program that is started in a host.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SIGKILL = 9

libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces named by the flags for new ones; raises OSError."""
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace this descriptor holds; raises OSError."""
    if libc.setns(descriptor, kind) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """mount(2); raises OSError."""
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    """Have the kernel end this process when the thread that started it ends."""
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Join, then exec; the process id stays the same, so the caller's handle on it stays good."""
    agent, user, net, mnt = arguments[:4]
    argv = arguments[5:]
    directory = os.getcwd()
    wanted = [(user, CLONE_NEWUSER), (net, CLONE_NEWNET), (mnt, CLONE_NEWNS)]
    # All are opened first: once inside the user namespace the agent's descriptors may be out of sight.
    held = [(os.open(f"/proc/{agent}/fd/{number}", os.O_RDONLY), kind) for number, kind in wanted if number != "-"]
    for descriptor, kind in held:
        setns(descriptor, kind)
        os.close(descriptor)
    os.chdir(directory)  # joining a mount namespace moves to its root
    die_with_parent()  # after setns, which clears it
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])

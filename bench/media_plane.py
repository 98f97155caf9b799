"""Media plane: packets per core-second beside plain IP forwarding in the same run, and the cost of its control.

    python bench/media_plane.py [--batches 100] [--flows 1000] [--rounds 7] [--json FILE]

Three hosts made of namespaces: gen ── i0 nms e1 ── sink, which discards at ingress. A veth hands a packet over within
the sender's own system call, so one `sendmmsg` of one packet per flow lasts as long as sending, receiving, forwarding
and discarding them takes one core. Taken off is what the same call lasts into a cable without carrier; what remains is
the gateway's work, reception included. The modes take turns, and of each mode's calls the fastest counts: what else a
busy or throttled machine does only ever adds. The relay does its part in a process of its own: its CPU time per
packet is added. Run as root or where user namespaces are allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sipnemo.lab.namespace import Namespace, Sandbox
from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, MediaPath
from sipnemo.shell import nft_objects as nft
from sipnemo.shell.media_plane import open_plane
from sipnemo.shell.netlink import NETLINK_NETFILTER, Netlink, Transaction

PAYLOAD = 172  # G.711, 20 ms, with its RTP header
FIRST_PORT = 20000
PAUSE = 0.02  # between batches for the relay, so that it forwards instead of dropping
GOAL = 0.70
SESSIONS = 1000
FAMILIES = {
    "IPv4": {
        "gen": "10.7.0.2",
        "inside": "10.7.0.1",
        "e1": "10.1.0.1",
        "e2": "10.2.0.1",
        "cn": "10.99.0.1",
        "nowhere": "10.98.0.1",
    },
    "IPv6": {
        "gen": "fd07::2",
        "inside": "fd07::1",
        "e1": "fd01::1",
        "e2": "fd02::1",
        "cn": "fd99::1",
        "nowhere": "fd98::1",
    },
}

# ------------------------------------------------------------------------------------------------------- inside: gen


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int64),  # an int, padded
        ("sent", ctypes.c_uint64),  # likewise
    )


def generate(target: str, flows: int, batches: int, pause: float) -> None:
    """Send one packet to each flow in turn, `batches` times; print how long a packet took, in seconds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    six = ":" in target
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    payload = ctypes.create_string_buffer(PAYLOAD)
    vector = _IoVec(ctypes.addressof(payload), PAYLOAD)
    messages = (_Message * flows)()
    names = []
    for number in range(flows):
        port = (FIRST_PORT + 2 * number).to_bytes(2, "big")
        address = nft.packed(target)
        family = int(sock.family).to_bytes(2, sys.byteorder)
        name = family + port + (bytes(4) + address + bytes(4) if six else address + bytes(8))
        names.append(ctypes.create_string_buffer(name, len(name)))
        messages[number].name = ctypes.addressof(names[-1])
        messages[number].name_length = len(name)
        messages[number].vectors = ctypes.addressof(vector)
        messages[number].vector_count = 1
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    descriptor = sock.fileno()
    lasted = []
    for _batch in range(batches):
        started = time.perf_counter()
        sent = send(descriptor, messages, flows, 0)
        lasted.append((time.perf_counter() - started) / flows)
        if sent != flows:
            raise SystemExit(f"sendmmsg to {target}: {sent} of {flows}: {os.strerror(ctypes.get_errno())}")
        if pause:
            time.sleep(pause)
    print(json.dumps(min(lasted)))


# ------------------------------------------------------------------------------------------------------ inside: sink


def discard(device: str) -> None:
    """Drop all that arrives, where it arrives; stays until standard input ends."""
    netlink = Netlink(NETLINK_NETFILTER)
    transaction = Transaction()
    nft.add_table(transaction, "bench", 0)
    nft.add_chain(transaction, "bench", "in", device)
    udp = [nft.load_meta(nft.META_L4PROTO, 8), nft.compare(8, nft.EQUAL, b"\x11")]
    nft.add_rule(transaction, "bench", "in", *udp, nft.drop())
    netlink.commit(transaction)
    print("ready", flush=True)
    sys.stdin.read()
    netlink.close()


# ------------------------------------------------------------------------------------------------------- inside: nms


def session(number: int, family: str) -> tuple[MediaFlow, ...]:
    """One medium's flows: RTP and RTCP, up by group 1, down from two E-faces."""
    own = FAMILIES[family]
    flows = []
    for port in (FIRST_PORT + 2 * number, FIRST_PORT + 2 * number + 1):
        flows.append(MediaFlow(FlowKey(own["inside"], port), (own["cn"], port), port, 1))
        flows += [MediaFlow(FlowKey(own[e], port), (own["gen"], port), port, INSIDE) for e in ("e1", "e2")]
    return tuple(flows)


def packets_out() -> int:
    """Packets that have left by e1."""
    with open("/proc/self/net/dev") as devices:
        return int(next(line for line in devices if line.strip().startswith("e1:")).split()[10])


async def gateway(mode: str, family: str, flows: int) -> None:
    """Forward in one mode until a line comes; print packets forwarded and the process's CPU time meanwhile."""
    own = FAMILIES[family]
    plane = None
    if mode in ("kernel", "relay"):
        plane = open_plane({"kernel": "kernel", "relay": "userspace"}[mode]).plane
        plane.attach(["i0", "e1", "e2"])
        plane.set_path(MediaPath(INSIDE, own["inside"], "i0"))
        plane.set_path(MediaPath(1, own["e1"], "e1"))
        for number in range(flows):
            plane.add(session(number, family))
    packets, process = packets_out(), time.process_time()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await asyncio.sleep(0.5)  # what still waits in sockets is forwarded too
    print(json.dumps([packets_out() - packets, time.process_time() - process]), flush=True)
    if plane is not None:
        plane.close()


async def control() -> dict[str, float]:
    """Microseconds per control operation, the slowest of the fastest tenth, with SESSIONS live sessions."""
    own = FAMILIES["IPv4"]
    plane = open_plane("kernel").plane
    plane.attach(["i0", "e1", "e2"])
    for path in (
        MediaPath(INSIDE, own["inside"], "i0"),
        MediaPath(2, own["e2"], "e2"),
        MediaPath(1, own["e1"], "e1"),
    ):
        plane.set_path(path)
    sessions = [session(number, "IPv4") for number in range(SESSIONS)]
    figures = {}

    def measure(name: str, times: int, what: Any) -> None:
        lasted = []
        for number in range(times):
            started = time.perf_counter()
            what(number)
            lasted.append(time.perf_counter() - started)
        figures[name] = sorted(lasted)[times // 10] * 1e6

    measure("add a session (6 flows)", SESSIONS, lambda number: plane.add(sessions[number]))
    measure("add it again unchanged", SESSIONS, lambda number: plane.add(sessions[number]))
    ways = [MediaPath(1, own["e1"], "e1"), MediaPath(1, own["e2"], "e2")]
    measure(f"move {SESSIONS} sessions to another path", SESSIONS, lambda number: plane.set_path(ways[1 - number % 2]))
    keys = [[flow.key for flow in flows] for flows in sessions]
    measure("read a session's counters", SESSIONS, lambda number: plane.counters(keys[number]))
    measure(f"read all {6 * SESSIONS} counters", 5, lambda _number: plane.counters())
    measure("look up routes anew", 20, lambda _number: plane.refresh_routes())
    measure("remove a session", SESSIONS, lambda number: plane.remove(keys[number]))
    plane.close()
    return figures


# ---------------------------------------------------------------------------------------------------------- outside


def lay_out(sandbox: Sandbox) -> tuple[Namespace, Namespace, Namespace]:
    """The three hosts, cabled and addressed; the sink's neighbour entries are static, since it answers nothing."""
    gen, nms, sink = (sandbox.host(name) for name in ("gen", "nms", "sink"))
    for host in (gen, nms, sink):  # neighbours can be asked for at once
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)
    sandbox.cable(gen, "eth0", nms, "i0")
    sandbox.cable(gen, "cut", nms, "other")
    sandbox.cable(nms, "e1", sink, "up1")
    sandbox.cable(nms, "e2", sink, "up2")
    for length, own, router in ((24, FAMILIES["IPv4"], "10.{}.0.2"), (64, FAMILIES["IPv6"], "fd0{}::2")):
        gen.add_address("eth0", f"{own['gen']}/{length}")
        nms.add_address("i0", f"{own['inside']}/{length}")
        for number in (1, 2):
            nms.add_address(f"e{number}", f"{own[f'e{number}']}/{length}")
            sink.add_address(f"up{number}", f"{router.format(number)}/{length}")
        every = "::/0" if length == 64 else "default"
        gen.add_route(dst=every, gateway=own["inside"])
        nms.add_route(dst=every, gateway=router.format(1), device="e1")
        nms.add_route(dst=every, gateway=router.format(2), device="e2", metric=5000)
    gen.set_sysctl("net/ipv6/conf/cut/keep_addr_on_down", 1)
    gen.add_address("cut", "10.98.0.2/24")
    gen.add_address("cut", "fd98::2/64")
    nms.set_link("other", up=False)
    nms.set_sysctl("net/ipv4/ip_forward", 1)
    nms.set_sysctl("net/ipv6/conf/all/forwarding", 1)
    return gen, nms, sink


def started(host: Namespace, *words: str) -> subprocess.Popen[str]:
    """This file in a host, doing one of its inside jobs."""
    process = host.popen(
        [sys.executable, __file__, "--inside", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def answer(host: Namespace, *words: str) -> Any:
    """What an inside job that ends by itself has found."""
    argv = [sys.executable, __file__, "--inside", *words]
    done = host.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def measure(family: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of one core per packet in every mode."""
    best: dict[str, dict[str, float]] = {mode: {} for mode in ("plain", "kernel", "relay")}
    own = FAMILIES[family]
    with Sandbox() as sandbox:
        gen, nms, sink = lay_out(sandbox)
        sink_process = started(sink, "discard", "up1")
        for _round in range(arguments.rounds):
            for mode, costs in best.items():
                batches, pause = (arguments.batches, 0.0) if mode != "relay" else (arguments.batches // 4, PAUSE)
                target = own["cn"] if mode == "plain" else own["inside"]
                flows = str(arguments.flows)
                gateway_process = started(nms, "gateway", mode, family, flows)
                answer(gen, "generate", target, flows, "5", str(PAUSE))  # neighbours are found, caches are warm
                found = {
                    "nowhere": answer(gen, "generate", own["nowhere"], flows, str(batches), str(pause)),
                    "whole": answer(gen, "generate", target, flows, str(batches), str(pause)),
                }
                packets, process = finished(gateway_process)
                if packets < 0.9 * arguments.flows * (batches + 5):
                    raise SystemExit(f"{family} {mode}: only {packets} packets came through")
                found["process"] = process / packets if mode == "relay" else 0.0
                for part, cost in found.items():
                    costs[part] = min(cost, costs.get(part, cost))
        assert sink_process.stdin is not None
        sink_process.stdin.close()
        sink_process.wait()
    nowhere = min(costs["nowhere"] for mode, costs in best.items() if mode != "relay")
    return {
        mode: costs["whole"] - (costs["nowhere"] if mode == "relay" else nowhere) + costs["process"]
        for mode, costs in best.items()
    }


def finished(process: subprocess.Popen[str]) -> Any:
    """End a gateway and return what it has found."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found = json.loads(process.stdout.readline())
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return found


def main() -> None:
    """Measure everything, print a table, write JSON; exit status 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.inside:
        case ["generate", target, flows, batches, pause]:
            generate(target, int(flows), int(batches), float(pause))
        case ["discard", device]:
            discard(device)
        case ["gateway", mode, family, flows]:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            asyncio.run(gateway(mode, family, int(flows)))
        case ["control"]:
            print(json.dumps(asyncio.run(control())))
        case _:
            report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """The outside job."""
    result: dict[str, Any] = {"flows": arguments.flows, "payload": PAYLOAD, "forwarding": {}, "goal": GOAL}
    print(f"{arguments.flows} flows, {PAYLOAD}-octet payloads, best of {arguments.rounds} rounds\n")
    print(f"{'':6}{'mode':16}{'packets per core-second':>24}{'of plain':>12}")
    met = True
    for family in FAMILIES:
        rates = {mode: 1 / cost for mode, cost in measure(family, arguments).items()}
        ratios = {mode: rate / rates["plain"] for mode, rate in rates.items()}
        for mode, rate in rates.items():
            print(f"{family:6}{mode:16}{rate:>24,.0f}{ratios[mode]:>12.2f}")
        result["forwarding"][family] = {"packets_per_core_second": rates, "ratios": ratios}
        met = met and ratios["kernel"] >= GOAL
    with Sandbox() as sandbox:
        _gen, nms, _sink = lay_out(sandbox)
        result["control_us"] = answer(nms, "control")
    print("\nkernel plane, time per operation (fastest tenth)")
    for name, cost in result["control_us"].items():
        print(f"  {name:44}{cost:>12,.1f} µs")
    result["met"] = met
    print(f"\nkernel plane at least {GOAL:.2f} of plain forwarding: {'yes' if met else 'NO'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()

"""Both media planes, the same promises: what goes in at a key comes out at the peer, unharmed, by the right uplink."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from inside import PlaneIn, open_udp

from sipnemo.lab.namespace import Namespace, Sandbox, available
from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

SO_NO_CHECK = 11
RTP, RTCP = 20000, 20001
PHONE_RTP, CN_RTP = 4000, 6000


class Addresses(NamedTuple):
    """One family's addresses: SIP-MN's, ours on the I-face and the two E-faces, SIP-CN's, and an on-link SIP-CN's."""

    phone: str
    inside: str
    e1: str
    e2: str
    cn: str
    near: str


V4 = Addresses("10.7.0.2", "10.7.0.1", "10.1.0.1", "10.2.0.1", "10.99.0.1", "10.1.0.2")
V6 = Addresses("fd07::2", "fd07::1", "fd01::1", "fd02::1", "fd99::1", "fd01::2")


class World(NamedTuple):
    """phone ── i0 nms e1 ── r1 ── cn, and nms e2 ── r2 ── cn; the routers refuse sources that are not theirs."""

    phone: Namespace
    nms: Namespace
    r1: Namespace
    r2: Namespace
    cn: Namespace


@pytest.fixture(scope="module")
def hosts() -> Iterator[World]:
    with Sandbox() as sandbox:
        world = World(*(sandbox.host(name) for name in World._fields))
        sandbox.cable(world.phone, "eth0", world.nms, "i0")
        wire_uplink(sandbox, world, 1)
        wire_uplink(sandbox, world, 2)
        sandbox.cable(world.r1, "down", world.cn, "c1")
        sandbox.cable(world.r2, "down", world.cn, "c2")
        for phone, nms in ((V4.phone, V4.inside), (V6.phone, V6.inside)):
            length = 64 if ":" in phone else 24
            world.phone.add_address("eth0", f"{phone}/{length}")
            world.nms.add_address("i0", f"{nms}/{length}")
        world.phone.add_address("eth0", "10.7.0.66/24")
        address_uplinks(world)
        for number, router in ((1, world.r1), (2, world.r2)):
            router.add_address("down", f"10.10{number}.0.1/24")
            router.add_address("down", f"fd0a:{number}::1/64")
            world.cn.add_address(f"c{number}", f"10.10{number}.0.2/24")
            world.cn.add_address(f"c{number}", f"fd0a:{number}::2/64")
            router.set_sysctl("net/ipv4/ip_forward", 1)
            router.set_sysctl("net/ipv6/conf/all/forwarding", 1)
            router.set_sysctl("net/ipv4/conf/all/rp_filter", 1)
            router.add_route(dst="10.99.0.0/16", gateway=f"10.10{number}.0.2")
            router.add_route(dst="fd99::/64", gateway=f"fd0a:{number}::2")
            world.cn.add_route(dst=f"10.{number}.0.0/24", gateway=f"10.10{number}.0.1")
            world.cn.add_route(dst=f"fd0{number}::/64", gateway=f"fd0a:{number}::1")
        for address in ("10.99.0.1/32", "10.99.0.66/32", "fd99::1/128"):
            world.cn.add_address("lo", address)
        yield world


def wire_uplink(sandbox: Sandbox, world: World, number: int) -> None:
    router = world.r1 if number == 1 else world.r2
    sandbox.cable(world.nms, f"e{number}", router, "up")


def address_uplinks(world: World, numbers: tuple[int, ...] = (1, 2)) -> None:
    for number in numbers:
        router = world.r1 if number == 1 else world.r2
        router.add_address("up", f"10.{number}.0.2/24")
        router.add_address("up", f"fd0{number}::2/64")
        world.nms.add_address(f"e{number}", f"10.{number}.0.1/24")
        world.nms.add_address(f"e{number}", f"fd0{number}::1/64")
        world.nms.add_route(dst="default", gateway=f"10.{number}.0.2", device=f"e{number}", metric=number)
        world.nms.add_route(dst="::/0", gateway=f"fd0{number}::2", device=f"e{number}", metric=number)


@pytest.fixture(params=["kernel", "userspace"])
def plane(hosts: World, request: pytest.FixtureRequest) -> Iterator[PlaneIn]:
    with PlaneIn(hosts.nms, request.param) as made:
        made.attach("i0", "e1", "e2")
        made.set_path(INSIDE, V4.inside, "i0")
        made.set_path(INSIDE, V6.inside, "i0")
        yield made


@pytest.fixture
def udp() -> Iterator[Callable[..., socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield lambda *words: stack.enter_context(open_udp(*words))


def stream(addresses: Addresses, group: int = 1, port: int = RTP, cn: str = "") -> list[MediaFlow]:
    """Both directions of one stream: up from the phone by the group's path, down from the SIP-CN by either E-face."""
    up = MediaFlow(FlowKey(addresses.inside, port), (cn or addresses.cn, CN_RTP + port - RTP), port, group)
    phone = (addresses.phone, PHONE_RTP + port - RTP)
    down = [MediaFlow(FlowKey(host, port), phone, port, INSIDE) for host in (addresses.e1, addresses.e2)]
    return [up, *down]


def received(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    data, address = sock.recvfrom(2048)
    return data, address[:2]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def nothing_arrives(sock: socket.socket, sentinel: Callable[[], object], expected: bytes) -> None:
    """The next packet is the sentinel's: what was sent before it did not come."""
    sentinel()
    assert received(sock)[0] == expected


@pytest.mark.req("RO-9")
@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "no checksum"])
def test_rtp_and_rtcp_pass_both_ways(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket], addresses: Addresses, checksum: bool
) -> None:
    if addresses is V6 and not checksum:
        pytest.skip("IPv6 has no packets without a UDP checksum (RFC 8200 §8.1)")
    plane.set_path(1, addresses.e1, "e1")
    plane.add(*stream(addresses), *stream(addresses, port=RTCP))
    for port in (RTP, RTCP):
        phone = udp(hosts.phone, addresses.phone, PHONE_RTP + port - RTP)
        cn = udp(hosts.cn, addresses.cn, CN_RTP + port - RTP)
        if not checksum:
            for sock in (phone, cn):
                sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        for payload in (b"", b"odd", b"x" * 172, b"y" * 1400):
            phone.sendto(payload, (addresses.inside, port))
            assert received(cn) == (payload, (addresses.e1, port))
            for own in (addresses.e1, addresses.e2):
                cn.sendto(payload, (own, port))
                assert received(phone) == (payload, (addresses.inside, port))


def test_a_udp_checksum_of_zero_stays_zero_in_the_kernel(hosts: World, udp: Callable[..., socket.socket]) -> None:
    with PlaneIn(hosts.nms, "kernel") as plane:
        plane.attach("i0", "e1", "e2")
        plane.set_path(1, V4.e1, "e1")
        plane.add(*stream(V4))
        phone = udp(hosts.phone, V4.phone, PHONE_RTP)
        raw = udp(hosts.cn, V4.cn, 0, socket.SOCK_RAW, socket.IPPROTO_UDP)
        udp(hosts.cn, V4.cn, CN_RTP)
        phone.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        phone.sendto(b"bare", (V4.inside, RTP))
        packet = raw.recv(2048)
        assert packet[20:22] == RTP.to_bytes(2, "big")
        assert packet[26:28] == b"\0\0"


@pytest.mark.req("RO-10")
@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
def test_switching_the_path_loses_no_packet(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket], addresses: Addresses
) -> None:
    plane.set_path(2, addresses.e2, "e2")  # announced before it is needed
    plane.set_path(1, addresses.e1, "e1")
    plane.add(*stream(addresses))
    phone = udp(hosts.phone, addresses.phone, PHONE_RTP)
    cn = udp(hosts.cn, addresses.cn, CN_RTP)
    for own in (addresses.e1, addresses.e2):  # both neighbours are known before packets are counted
        plane.set_path(1, own, "e1" if own == addresses.e1 else "e2")
        phone.sendto(b"first", (addresses.inside, RTP))
        assert received(cn) == (b"first", (own, RTP))
    total = 2000

    def talk() -> None:
        for number in range(total):
            phone.sendto(number.to_bytes(4, "big"), (addresses.inside, RTP))
            if number % 8 == 0:
                time.sleep(0.0005)  # so that the receiver's buffer holds what has not been read yet

    talker = threading.Thread(target=talk)
    got: list[int] = []
    sources = set()

    def listen() -> None:
        while len(got) < total:
            data, source = received(cn)
            got.append(int.from_bytes(data, "big"))
            sources.add(source)

    listener = threading.Thread(target=listen)
    listener.start()
    talker.start()
    moves = 0
    while talker.is_alive():
        plane.set_path(1, *((addresses.e2, "e2") if moves % 2 else (addresses.e1, "e1")))
        moves += 1
    talker.join()
    listener.join()
    # A packet with one uplink's source that left by the other would have been refused by its router.
    assert sorted(got) == list(range(total))
    assert sources == {(addresses.e1, RTP), (addresses.e2, RTP)}


@pytest.mark.req("MH-4")
def test_counters_count_what_came_in_and_survive_a_replacement(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    up, down, other = stream(V4)
    plane.add(up, down, other)
    phone = udp(hosts.phone, V4.phone, PHONE_RTP)
    cn, elsewhere = udp(hosts.cn, V4.cn, CN_RTP), udp(hosts.cn, V4.cn, 7000)
    for _ in range(3):
        phone.sendto(b"x" * 172, (V4.inside, RTP))
        received(cn)
    plane.add(up)  # the same again changes nothing
    plane.add(up._replace(peer=(V4.cn, 7000)))
    phone.sendto(b"x" * 172, (V4.inside, RTP))
    assert received(elsewhere) == (b"x" * 172, (V4.e1, RTP))
    assert plane.counters() == {up.key: (4, 800), down.key: (0, 0), other.key: (0, 0)}
    assert plane.counters(up.key, FlowKey("10.7.0.1", 9)) == {up.key: (4, 800)}
    plane.remove(up.key, FlowKey("10.7.0.1", 9))
    assert up.key not in plane.counters()
    plane.add(up)
    assert plane.counters(up.key) == {up.key: (0, 0)}


def test_a_removed_flow_forwards_nothing(hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]) -> None:
    plane.set_path(1, V4.e1, "e1")
    up, *down = stream(V4)
    kept = up._replace(key=FlowKey(V4.inside, RTP + 2), source_port=RTP + 2)
    plane.add(up, *down, kept)
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    plane.remove(up.key)
    phone.sendto(b"stray", (V4.inside, RTP))
    nothing_arrives(cn, lambda: phone.sendto(b"kept", (V4.inside, RTP + 2)), b"kept")


def test_a_sip_cn_on_the_uplink_s_own_network_is_reached_directly(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    for addresses in (V4, V6):
        plane.set_path(1, addresses.e1, "e1")
        plane.add(*stream(addresses, cn=addresses.near))
        phone, near = udp(hosts.phone, addresses.phone, PHONE_RTP), udp(hosts.r1, addresses.near, CN_RTP)
        phone.sendto(b"up", (addresses.inside, RTP))
        assert received(near) == (b"up", (addresses.e1, RTP))
        near.sendto(b"down", (addresses.e1, RTP))
        assert received(phone) == (b"down", (addresses.inside, RTP))


def test_a_phone_and_a_correspondent_of_different_families_hear_each_other(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V6.e1, "e1")
    up = MediaFlow(FlowKey(V4.inside, RTP), (V6.cn, CN_RTP), RTP, 1)
    down = MediaFlow(FlowKey(V6.e1, RTP), (V4.phone, PHONE_RTP), RTP, INSIDE)
    plane.add(up, down)
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V6.cn, CN_RTP)
    phone.sendto(b"up", (V4.inside, RTP))
    assert received(cn) == (b"up", (V6.e1, RTP))
    cn.sendto(b"down", (V6.e1, RTP))
    assert received(phone) == (b"down", (V4.inside, RTP))
    plane.set_path(1, V6.e2, "e2")
    phone.sendto(b"up", (V4.inside, RTP))
    assert received(cn) == (b"up", (V6.e2, RTP))


def learning(addresses: Addresses = V4) -> list[MediaFlow]:
    """A stream whose phone hides behind another address than it signals: 10.7.0.250 instead of `phone`."""
    up, *down = stream(addresses)
    signalled = ("10.7.0.250", PHONE_RTP)
    up = up._replace(admit=(addresses.phone,), reverse=down[0].key)
    return [up, *(flow._replace(peer=signalled) for flow in down)]


def test_a_phone_is_sent_media_where_its_own_comes_from(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    up, e1, e2 = learning()
    plane.add(up, e1, e2)
    phone, cn = udp(hosts.phone, V4.phone, 4444), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"here I am", (V4.inside, RTP))
    assert received(cn) == (b"here I am", (V4.e1, RTP))
    until(lambda: bool(plane.learned()))
    assert plane.learned() == [(e1.key, (V4.phone, 4444))]
    for own in (V4.e1, V4.e2):
        cn.sendto(b"hello", (own, RTP))
        assert received(phone) == (b"hello", (V4.inside, RTP))
    phone.sendto(b"still here", (V4.inside, RTP))
    assert received(cn) == (b"still here", (V4.e1, RTP))
    assert plane.counters(up.key)[up.key][0] == 2
    if plane.opened[0] == "kernel":
        assert (plane.statistics()["kernel_flows"], plane.statistics()["relayed_flows"]) == (3, 0)


def test_nobody_else_can_divert_a_phone_s_media(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    plane.add(*learning())
    phone, cn = udp(hosts.phone, V4.phone, 4444), udp(hosts.cn, V4.cn, CN_RTP)
    thief = udp(hosts.phone, "10.7.0.66", 4444)
    outsider = udp(hosts.cn, "10.99.0.66", CN_RTP)
    thief.sendto(b"me!", (V4.inside, RTP))  # before the phone has latched
    received(cn)
    phone.sendto(b"here I am", (V4.inside, RTP))
    received(cn)
    until(lambda: bool(plane.learned()))
    thief.sendto(b"me!", (V4.inside, RTP))  # and after
    received(cn)
    outsider.sendto(b"me!", (V4.e1, RTP))
    received(phone)
    late = udp(hosts.phone, V4.phone, 5555)  # even the phone's own address latches only once
    late.sendto(b"me!", (V4.inside, RTP))
    received(cn)
    cn.sendto(b"secret", (V4.e1, RTP))
    assert received(phone)[0] == b"secret"
    assert [peer for _key, peer in plane.learned()] == [(V4.phone, 4444)]
    thief.setblocking(False)
    with pytest.raises(BlockingIOError):
        thief.recv(2048)


def test_a_replaced_flow_learns_anew(hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]) -> None:
    plane.set_path(1, V4.e1, "e1")
    up, *down = learning()
    plane.add(up, *down)
    cn = udp(hosts.cn, V4.cn, CN_RTP)
    first, second = udp(hosts.phone, V4.phone, 4444), udp(hosts.phone, V4.phone, 5555)
    first.sendto(b"1", (V4.inside, RTP))
    received(cn)
    until(lambda: len(plane.learned()) == 1)
    plane.add(up._replace(admit=(V4.phone, "10.7.0.9")))
    second.sendto(b"2", (V4.inside, RTP))
    received(cn)
    until(lambda: len(plane.learned()) == 2)
    cn.sendto(b"to the second", (V4.e2, RTP))
    assert received(second)[0] == b"to the second"


def test_learning_obeys_the_switch_of_a_path(hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]) -> None:
    plane.set_path(1, V4.e1, "e1")
    plane.add(*learning())
    cn, thief = udp(hosts.cn, V4.cn, CN_RTP), udp(hosts.phone, "10.7.0.66", 4444)
    thief.sendto(b"1", (V4.inside, RTP))
    assert received(cn)[1] == (V4.e1, RTP)
    plane.set_path(1, V4.e2, "e2")
    thief.sendto(b"2", (V4.inside, RTP))
    assert received(cn)[1] == (V4.e2, RTP)


def test_an_uplink_that_is_cut_harms_nothing_but_its_own_packets(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    plane.add(*stream(V4))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"before", (V4.inside, RTP))
    assert received(cn) == (b"before", (V4.e1, RTP))
    hosts.r1.set_link("up", up=False)
    try:
        until(lambda: not hosts.nms.has_carrier("e1"))
        phone.sendto(b"lost", (V4.inside, RTP))
        until(lambda: plane.counters(FlowKey(V4.inside, RTP))[FlowKey(V4.inside, RTP)][0] == 2)
        plane.set_path(1, V4.e2, "e2")
        phone.sendto(b"after", (V4.inside, RTP))
        assert received(cn) == (b"after", (V4.e2, RTP))
    finally:
        hosts.r1.set_link("up", up=True)
        hosts.r1.add_address("up", "fd01::2/64")
        # The lost packet waits in the neighbour table and would come out in the next test.
        phone.sendto(b"awake", (V4.inside, RTP))
        plane.set_path(1, V4.e1, "e1")
        while received(cn)[1] != (V4.e1, RTP):
            phone.sendto(b"awake", (V4.inside, RTP))


def test_an_interface_that_comes_back_is_used_again(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    plane.add(*stream(V4))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"before", (V4.inside, RTP))
    assert received(cn) == (b"before", (V4.e1, RTP))
    hosts.nms.delete_link("e1")
    plane.attach("i0", "e1", "e2")
    phone.sendto(b"lost", (V4.inside, RTP))
    wire_uplink(hosts.nms.sandbox, hosts, 1)
    address_uplinks(hosts, (1,))
    hosts.r1.set_sysctl("net/ipv4/conf/up/rp_filter", 1)
    plane.attach("i0", "e1", "e2")
    phone.sendto(b"after", (V4.inside, RTP))
    assert received(cn) == (b"after", (V4.e1, RTP))
    cn.sendto(b"down", (V4.e1, RTP))
    assert received(phone) == (b"down", (V4.inside, RTP))


def test_a_path_may_be_named_by_its_address_alone(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "")
    plane.add(*stream(V4))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"up", (V4.inside, RTP))
    assert received(cn) == (b"up", (V4.e1, RTP))


def test_two_phones_of_one_gateway_hear_each_other_by_an_own_address(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1")
    there, back = RTP, RTP + 10
    plane.add(
        MediaFlow(FlowKey(V4.inside, there), (V4.e1, back), there, 1),
        MediaFlow(FlowKey(V4.e1, there), (V4.phone, 4000), there, INSIDE),
        MediaFlow(FlowKey(V4.inside, back), (V4.e1, there), back, 1),
        MediaFlow(FlowKey(V4.e1, back), (V4.phone, 4010), back, INSIDE),
    )
    caller, called = udp(hosts.phone, V4.phone, 4000), udp(hosts.phone, V4.phone, 4010)
    caller.sendto(b"hello", (V4.inside, there))
    assert received(called) == (b"hello", (V4.inside, back))
    called.sendto(b"hi", (V4.inside, back))
    assert received(caller) == (b"hi", (V4.inside, there))


def test_nothing_is_forwarded_before_a_path_is_set(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.add(*stream(V4, group=9))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"early", (V4.inside, RTP))
    key = FlowKey(V4.inside, RTP)
    until(lambda: plane.counters(key)[key][0] == 1)
    plane.set_path(9, V4.e2, "e2")
    phone.sendto(b"now", (V4.inside, RTP))
    assert received(cn) == (b"now", (V4.e2, RTP))


@pytest.mark.parametrize(
    "flow",
    [
        MediaFlow(FlowKey(V4.inside, RTP), ("cn.example", CN_RTP), RTP, 1),
        MediaFlow(FlowKey(V4.inside, RTP), ("10.99.0.1", 99999), RTP, 1),
        MediaFlow(FlowKey("nowhere", RTP), ("10.99.0.1", CN_RTP), RTP, 1),
    ],
    ids=["a name", "no port", "no address"],
)
def test_a_flow_that_cannot_be_is_refused_with_all_of_its_kind(plane: PlaneIn, flow: MediaFlow) -> None:
    with pytest.raises(OSError, match="media flow"):
        plane.add(*stream(V4, port=RTP + 4), flow)
    assert plane.counters() == {}


def test_nothing_is_left_behind(plane: PlaneIn) -> None:
    plane.set_path(1, V4.e1, "e1")
    plane.add(*stream(V4), *stream(V6, port=RTP + 2), *learning()[:0])
    plane.add(*(flow._replace(key=flow.key._replace(port=RTP + 8)) for flow in learning()))
    flows = plane.counters()
    assert len(flows) == 9
    plane.remove(*flows)
    assert {**plane.census(), "tables": 0} == {"tables": 0, "elements": 0, "sockets": 0}
    plane.add(*stream(V4), *learning())
    plane.close_plane()
    assert plane.census() == {"tables": 0, "elements": 0, "sockets": 0}


def test_a_crashed_predecessor_s_table_is_replaced(hosts: World, udp: Callable[..., socket.socket]) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(PlaneIn(hosts.nms, "kernel"))
        first.attach("i0", "e1", "e2")
        first.set_path(1, V4.e1, "e1")
        first.add(*stream(V4))
        phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
        first.kill()
        phone.sendto(b"still flowing", (V4.inside, RTP))
        assert received(cn)[0] == b"still flowing"
        second = stack.enter_context(PlaneIn(hosts.nms, "kernel"))
        assert second.census() == {"tables": 1, "elements": 0, "sockets": 0}


def test_two_kernel_planes_do_not_fight(hosts: World) -> None:
    with PlaneIn(hosts.nms, "kernel"):
        with pytest.raises(OSError, match="another process owns"):
            PlaneIn(hosts.nms, "kernel")
        with PlaneIn(hosts.nms, "auto") as plane:
            assert plane.opened[0] == "userspace"
            assert "another process owns" in plane.opened[1]


@pytest.mark.req("RO-10")
@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "no checksum"])
def test_a_group_may_leave_by_two_paths_at_once(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket], addresses: Addresses, checksum: bool
) -> None:
    if addresses is V6 and not checksum:
        pytest.skip("IPv6 has no packets without a UDP checksum (RFC 8200 §8.1)")
    first, second = (addresses.e1, "e1"), (addresses.e2, "e2")
    plane.set_path(2, *second)
    plane.set_path(1, *first)
    plane.add(*stream(addresses), *stream(addresses, group=2, port=RTP + 2))
    phone, cn = udp(hosts.phone, addresses.phone, PHONE_RTP), udp(hosts.cn, addresses.cn, CN_RTP)
    if not checksum:
        phone.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)

    def come_by(payload: bytes, *sources: str) -> None:
        phone.sendto(payload, (addresses.inside, RTP))
        got = sorted(received(cn) for _ in sources)
        assert got == sorted((payload, (source, RTP)) for source in sources)

    come_by(b"one", addresses.e1)
    plane.set_path(1, *first, also=second)
    for payload in (b"two", b"x" * 1400, b""):
        come_by(payload, addresses.e1, addresses.e2)
    other = udp(hosts.cn, addresses.cn, CN_RTP + 2)
    phone.sendto(b"not doubled", (addresses.inside, RTP + 2))
    assert received(other) == (b"not doubled", (addresses.e2, RTP + 2))
    plane.set_path(1, *second, also=first)
    come_by(b"the other way round", addresses.e1, addresses.e2)
    plane.set_path(1, *second)
    come_by(b"one again", addresses.e2)
    nothing_arrives(cn, lambda: phone.sendto(b"last", (addresses.inside, RTP)), b"last")
    key = FlowKey(addresses.inside, RTP)
    assert plane.counters(key)[key][0] == 7, "copies are not counted"
    assert plane.statistics()["refused"] == 0
    assert plane.statistics()["relayed_flows"] == (0 if plane.opened[0] == "kernel" else 6)


def test_a_second_way_of_another_family_is_left_out(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1", also=(V6.e2, "e2"))
    plane.add(*stream(V4))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    phone.sendto(b"once", (V4.inside, RTP))
    assert received(cn) == (b"once", (V4.e1, RTP))
    nothing_arrives(cn, lambda: phone.sendto(b"next", (V4.inside, RTP)), b"next")


def test_a_dead_second_way_costs_the_first_no_packet(
    hosts: World, plane: PlaneIn, udp: Callable[..., socket.socket]
) -> None:
    plane.set_path(1, V4.e1, "e1", also=("10.3.0.1", "e9"))  # there is no such interface
    plane.add(*stream(V4))
    phone, cn = udp(hosts.phone, V4.phone, PHONE_RTP), udp(hosts.cn, V4.cn, CN_RTP)
    for payload in (b"1", b"2", b"3"):
        phone.sendto(payload, (V4.inside, RTP))
        assert received(cn) == (payload, (V4.e1, RTP))

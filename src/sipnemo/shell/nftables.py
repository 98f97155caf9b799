"""The kernel media plane: packets are rewritten and forwarded by nf_tables where they come in (see nft_rules).

What the kernel cannot express, or must not yet, goes through an embedded relay: flows that still learn their peer
(symmetric RTP), a SIP-MN and a SIP-CN of different address families, a peer that is this host itself, and a
destination for which the path knows no next hop; and what leaves by two paths at once (MediaPath.also), where the
SIP-MNs' interface has no Ethernet headers or the kernel lacks CONFIG_NFT_DUP_NETDEV.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterable, Sequence

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, MediaPath
from sipnemo.media.flow_table import FlowTable
from sipnemo.shell.netlink import NETLINK_ROUTE, Netlink, NetlinkError
from sipnemo.shell.nft_rules import family_of
from sipnemo.shell.nft_table import Counts, NftTable
from sipnemo.shell.nft_ways import BothWays, WayOut
from sipnemo.shell.relay import OnLearned, PlaneStatistics, RelayPlane
from sipnemo.shell.relayed import check
from sipnemo.shell.routes import Routes

TABLE = "sipnemo"

# linux/sockios.h, linux/if_arp.h
SIOCGIFHWADDR = 0x8927
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772

CAPACITY = 65_536
"Elements per flow map: four directions and more per session. The kernel's hash table is sized by it."


class KernelPlane:
    """The kernel media plane; needs CAP_NET_ADMIN in its network namespace and a running event loop.

    See MediaPlane for what its methods promise. Raises OSError when the kernel does not support or permit it.
    """

    kind = "kernel"

    def __init__(self, on_learned: OnLearned | None = None, table: str = TABLE, capacity: int = CAPACITY) -> None:
        self._on_learned = on_learned
        self._asked: dict[FlowKey, MediaFlow] = {}
        self._flows = FlowTable()
        self._latched: set[FlowKey] = set()
        self._carried: Counts = {}  # what was counted where a flow was before
        self._elsewhere: set[FlowKey] = set()  # relayed for another reason than learning
        self._can_double = True  # until the kernel says otherwise
        self._doubled_in_relay: set[int] = set()  # groups whose packets leave by two paths, where the kernel cannot
        self._refused = 0
        self._last_error = ""
        self._closed = False
        self._relay = RelayPlane(on_latched=self._on_latched)
        try:
            self._netlink = Netlink(NETLINK_ROUTE)
            try:
                self._routes = Routes.read(self._netlink)
                self._kernel = NftTable(table, capacity, self._trouble)
            except BaseException:
                self._netlink.close()
                raise
        except BaseException:
            self._relay.close()
            raise

    # ------------------------------------------------------------------------------------------------------ interface

    def attach(self, devices: Iterable[str]) -> None:
        """Take media in from exactly these interfaces (and from this host itself) from now on."""
        self._kernel.attach(devices)
        self.refresh_routes()

    def refresh_routes(self) -> None:
        """Look the next hops of every path up anew."""
        self._relay.refresh_routes()
        addresses = self._routes.addresses
        self._routes = Routes.read(self._netlink)
        changed = {}
        for (source, device), way in self._kernel.ways.items():
            hops = self._routes.hops(source, device)
            if hops != way.hops:
                changed[source, device] = hops
        if changed:
            self._kernel.change_hops(changed)
        if changed or self._routes.addresses != addresses:
            self._place(list(self._flows.flows.values()))

    def add(self, flows: Sequence[MediaFlow]) -> None:
        """Forward these flows from now on, all or (OSError) none; a known key is replaced and keeps its counters."""
        changed = [flow for flow in flows if self._asked.get(flow.key) != flow]
        for flow in changed:
            check(flow)
        relearn = self._latched.intersection(flow.key for flow in changed)
        self._latched -= relearn
        try:
            self._place(changed)
        except OSError:
            self._latched |= relearn
            raise
        for flow in changed:
            self._asked[flow.key] = flow

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Stop forwarding; unknown keys are ignored."""
        known = [key for key in keys if self._asked.pop(key, None) is not None]
        self._kernel.remove(known)
        self._relay.remove(known)
        for key in known:
            self._flows.pop(key)
            self._carried.pop(key, None)
        self._latched.difference_update(known)
        self._elsewhere.difference_update(known)

    def set_path(self, path: MediaPath) -> None:
        """Every flow of the group leaves by this path from the next packet on."""
        key = (path.source, path.device)
        way = self._way(key)
        out: WayOut | BothWays = way
        version = family_of(path.source).version
        doubled = path.also is not None and family_of(path.also[0]).version == version
        ways = {key: way}
        if path.group == INSIDE and path.device:
            self._can_double = self._can_double and _has_ethernet_headers(path.device)
        if doubled and path.also is not None and self._can_double:
            second = ways[path.also] = self._way(path.also)
            out = self._kernel.both_ways(way, second)
        verdicts: dict[tuple[int, int], WayOut | BothWays | None] = {(version, path.group): out}
        if path.group != INSIDE:
            verdicts[10 - version, path.group] = None  # of 4 and 6, the other one
        try:
            self._kernel.switch(verdicts)
        except NetlinkError as error:
            if not isinstance(out, BothWays) or error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                raise
            self._trouble(error)  # no `dup` in this kernel: the relay doubles
            self._can_double = False
            self.set_path(path)
            return
        self._kernel.ways.update(ways)
        self._relay.set_path(path)
        was, now = path.group in self._doubled_in_relay, doubled and not self._can_double
        if now:
            self._doubled_in_relay.add(path.group)
        else:
            self._doubled_in_relay.discard(path.group)
        moved = was or now or not out.reaches_all
        if moved or any(self._flows.flows[key].group == path.group for key in self._elsewhere):
            self._place([flow for flow in self._flows.flows.values() if flow.group == path.group])

    def _way(self, key: tuple[str, str]) -> WayOut:
        """The way out by an address and an interface; a new one when there is none."""
        way = self._kernel.ways.get(key)
        if way is None:
            self._routes = Routes.read(self._netlink)
            way = self._kernel.new_way(key[0], self._routes.hops(*key))
        return way

    def punch(self, path: MediaPath, port: int, peer: tuple[str, int], data: bytes) -> None:
        """Send these octets once from a media port by a path, for the NATs on it; what cannot be sent is not."""
        self._relay.punch(path, port, peer, data)  # of what comes in, its socket sees nothing: the kernel is faster

    def counters(self, keys: Iterable[FlowKey] | None = None) -> dict[FlowKey, tuple[int, int]]:
        """Packets and octets taken in so far per flow; unknown keys are absent."""
        wanted = list(self._flows.flows) if keys is None else [key for key in keys if key in self._flows.flows]
        nothing = (0, 0)
        kernel = self._kernel.read([key for key in wanted if key in self._kernel.elements])
        found = {key: kernel.get(key, nothing) for key in wanted}
        for others in (self._relay.counters(self._relay.holds(wanted)), self._carried):
            for key in found.keys() & others.keys():
                found[key] = (found[key][0] + others[key][0], found[key][1] + others[key][1])
        return found

    def statistics(self) -> PlaneStatistics:
        """What the plane holds and what went wrong."""
        relay = self._relay.statistics()
        return relay._replace(
            kernel_flows=len(self._kernel.elements),
            refused=self._refused,
            last_error=self._last_error or relay.last_error,
        )

    def close(self) -> None:
        """Remove the table and close every socket. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._relay.close()
        self._kernel.close()
        self._netlink.close()

    # --------------------------------------------------------------------------------------------- kernel or relay

    def _expressible(self, flow: MediaFlow) -> bool:
        """Whether the kernel can forward this flow, apart from learning."""
        host = flow.peer[0]
        six = ":" in host
        if six != (":" in flow.key.host) or host in self._routes.addresses or flow.group in self._doubled_in_relay:
            return False
        way = self._kernel.verdicts.get((6 if six else 4, flow.group))
        return way is None or way.reaches(host)

    def _learning(self, flow: MediaFlow) -> bool:
        return bool(flow.admit) and flow.key not in self._latched

    def _place(self, flows: Sequence[MediaFlow]) -> None:
        """Put flows where they belong, kernel or relay, from wherever they are; OSError: nothing has changed."""
        in_kernel: list[MediaFlow] = []
        in_relay: list[MediaFlow] = []
        elsewhere: set[FlowKey] = set()
        for flow in flows:
            if not self._expressible(flow):
                elsewhere.add(flow.key)
                in_relay.append(flow)
            elif self._learning(flow):
                in_relay.append(flow)
            else:
                in_kernel.append(flow)
        before = self._relay.holds([flow.key for flow in flows])
        try:
            if in_relay:
                # The sockets stand before the elements go, so that no packet finds neither.
                self._relay.add([flow if self._learning(flow) else flow._replace(admit=()) for flow in in_relay])
            try:
                counted = self._kernel.write(in_kernel, [flow.key for flow in in_relay])
            except NetlinkError as error:
                if not in_kernel:
                    raise
                self._trouble(error)
                self._relay.add([flow._replace(admit=()) for flow in in_kernel])
                elsewhere |= {flow.key for flow in in_kernel}
                counted = self._kernel.write([], [flow.key for flow in flows])
                in_kernel = []
        except OSError:
            self._relay.remove([flow.key for flow in flows if flow.key not in before])
            raise
        counted.update(self._relay.retire([flow.key for flow in in_kernel]))
        for key, (packets, octets) in counted.items():
            carried = self._carried.get(key, (0, 0))
            self._carried[key] = (carried[0] + packets, carried[1] + octets)
        for flow in flows:
            self._flows.put(flow)
        if self._elsewhere or elsewhere:
            self._elsewhere.difference_update(flow.key for flow in flows)
            self._elsewhere |= elsewhere

    def _on_latched(self, key: FlowKey, peer: tuple[str, int]) -> None:
        """The relay knows where a flow's packets come from: correct the other direction, leave both to the kernel."""
        flow = self._flows.flows[key]
        self._latched.add(key)
        moved = [other for other in self._flows.opposite(flow) if other.peer != peer]
        try:
            self._place([flow, *(other._replace(peer=peer) for other in moved)])
        except OSError as error:
            self._trouble(error)
        if moved and flow.reverse is not None and self._on_learned is not None:
            self._on_learned(flow.reverse, peer)

    def _trouble(self, error: OSError) -> None:
        self._refused += 1
        self._last_error = str(error)


def _has_ethernet_headers(device: str) -> bool:
    """Whether packets come in by this interface with a header that lo understands: what is copied comes back there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFHWADDR, struct.pack("16s24x", device.encode()[:15]))
        except OSError:
            return True  # not there (yet)
    return int(struct.unpack_from("=H", answer, 16)[0]) in (ARPHRD_ETHER, ARPHRD_LOOPBACK)

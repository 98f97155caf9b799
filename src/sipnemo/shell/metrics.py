"""Prometheus metrics: everything there is stands in the tables below."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from sipnemo.roles.node import Count, Observe

logger = logging.getLogger("sipnemo.shell")

PREFIX = "sipnemo_"
GAPS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"Silence a listener hears during a move: from one packet to 'the call is gone'."

TIMES = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 32.0)
"Answers, from the same network to Timer B."

DURATIONS = (1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0)
"Calls, from 'wrong number' to 'forgot to hang up'."


class Declared(NamedTuple):
    """What a metric means, and which labels it has."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


COUNTERS: dict[str, Declared] = {
    "acks_dropped": Declared("ACKs that belong to no call"),
    "authentication_failures": Declared("Requests whose credentials were refused", ("outcome",)),
    "bugs": Declared("Exceptions that should not have happened"),
    "calls_answered": Declared("Calls answered", ("direction",)),
    "calls_given_up": Declared("Calls ended because both ends were silent", ("cause",)),
    "calls_refused": Declared("Calls refused or failed", ("status",)),
    "flow_failures": Declared("Flows that did not answer", ("reason",)),
    "goodbyes": Declared("BYEs that far ends got after their call had ended here"),
    "malformed_messages": Declared("Messages that could not be parsed", ("status",)),
    "media_refused": Declared("Times flows of a call could not be forwarded"),
    "moves": Declared("Calls that changed their path, by cause and outcome", ("cause", "outcome", "reason")),
    "nat_rebinds": Declared("Times a NAT has mapped an uplink anew", ("eface_id",)),
    "path_failures": Declared("Paths that went OFF", ("cause",)),
    "paths_suppressed": Declared("Times a path was put behind the others because it flaps"),
    "phone_registrations": Declared("Registrations of phones at their own servers", ("result",)),
    "registrations": Declared("Registrations, by how they ended", ("result",)),
    "registration_repairs": Declared("What the home server listed wrong of this gateway", ("kind",)),
    "registrations_expired": Declared("Bindings that were not refreshed in time"),
    "requests": Declared("Requests taken in", ("method",)),
    "requests_overload": Declared("Requests refused because too many were being served"),
    "requests_refused": Declared("Requests answered with an error of ours", ("status",)),
    "session_refreshes": Declared("Session timers of phones refreshed after a move, in the far end's place"),
    "stream_overflows": Declared("Connections closed because the far end did not read"),
    "stream_refused": Declared("Connections refused"),
    "strangers_refused": Declared("INVITEs refused that did not come from the home server"),
    "udp_dropped": Declared("Datagrams not sent", ("reason",)),
}
"Counters `sipnemo_<name>_total`."

HISTOGRAMS: dict[str, Declared] = {
    "call_duration_seconds": Declared("From the 200 to the BYE", (), DURATIONS),
    "call_setup_seconds": Declared("From the INVITE to its 200", (), TIMES),
    "move_answer_seconds": Declared("From the loss of a path to the far end's answer to the re-INVITE", (), TIMES),
    "move_gap_seconds": Declared("From the loss of a path to the first packet on the new one", ("direction",), GAPS),
}
"Histograms `sipnemo_<name>`."

GAUGES: dict[str, Declared] = {
    "bindings": Declared("Contacts bound now"),
    "gateways_reachable": Declared("SIP-NMSs with at least one contact"),
    "live_sessions": Declared("Calls that are answered and not ended"),
    "media_kernel_flows": Declared("Flows forwarded by the kernel now"),
    "media_plane_refusals": Declared("Times the kernel refused a change of flows"),
    "media_ports_resting": Declared("Media ports in quarantine"),
    "media_ports_used": Declared("Port pairs in use for media"),
    "media_relayed_flows": Declared("Flows forwarded in user space now"),
    "media_unsent_packets": Declared("Packets the userspace relay could not send on"),
    "path_load_ratio": Declared("Share of the E-face's capacity in use", ("eface_id", "contact")),
    "path_on": Declared("1 while the path is ON", ("eface_id", "contact")),
    "path_rtt_seconds": Declared("Smoothed round trip to the home server", ("eface_id", "contact")),
    "path_sessions": Declared("Sessions on the path", ("eface_id", "contact")),
    "paths": Declared("Paths known"),
    "paths_on": Declared("Paths that are ON"),
    "phones": Declared("Phones registered through this gateway"),
    "registered_paths": Declared("Paths registered at the SIP-HS"),
    "sessions": Declared("Entries of the Session List"),
    "subscriptions": Declared("Subscriptions now"),
    "transactions": Declared("Transactions now"),
    "users_reachable": Declared("Users with at least one contact"),
}
"""Gauges `sipnemo_<name>`. Their values are what the node answers the command `status` with: under these names, or in
`gauges`: name → number, or name → list of [labels, number]."""


class _Observations:
    """One histogram's numbers."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Take one observation in."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound → how many were at most that, as Prometheus wants them."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


class Metrics:
    """Counts what passes. A name or label that is not declared is a bug: an error when strict, else said once.

    Plain numbers, since every call counts and observes something: the client library's own objects, which are safe to
    use from many threads, take ten times as long. The library writes the numbers out.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._strict = strict
        self._unknown: set[str] = set()
        self._gauges: dict[str, Any] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], float] = {
            (name, ()): 0.0 for name, declared in COUNTERS.items() if not declared.labels
        }
        self._observations: dict[tuple[str, tuple[str, ...]], _Observations] = {
            (name, ()): _Observations(declared.buckets) for name, declared in HISTOGRAMS.items() if not declared.labels
        }
        self.sources: list[Callable[[], Mapping[str, Any]]] = []
        "Further gauges, asked for at every scrape."

        self.registry.register(self)

    def count(self, action: Count) -> None:
        """Add to a counter."""
        name, labels, amount = action
        key = (name, labels)
        if key in self._counts:
            self._counts[key] += amount
        elif self._declared(COUNTERS, name, labels) is not None:
            self._counts[key] = amount

    def observe(self, action: Observe) -> None:
        """Add to a histogram."""
        name, value, labels = action
        key = (name, labels)
        observations = self._observations.get(key)
        if observations is None:
            declared = self._declared(HISTOGRAMS, name, labels)
            if declared is None:
                return
            observations = self._observations[key] = _Observations(declared.buckets)
        observations.add(value)

    def text(self, status: Mapping[str, Any] | None = None) -> bytes:
        """Everything in Prometheus' text format; `status` is the node's answer to the command `status`."""
        status = status or {}
        self._gauges = {name: status[name] for name in GAUGES if isinstance(status.get(name), int | float)}
        for gauges in (status.get("gauges", {}), *(source() for source in self.sources)):
            self._gauges.update(gauges)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Everything there is (called by the registry)."""
        for name, declared in COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, declared.help, labels=declared.labels)
            for (counted, labels), number in self._counts.items():
                if counted == name:
                    counter.add_metric(labels, number)
            yield counter
        for name, declared in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(PREFIX + name, declared.help, labels=declared.labels)
            for (observed, labels), observations in self._observations.items():
                if observed == name:
                    histogram.add_metric(labels, observations.buckets(), observations.sum)
            yield histogram
        yield from self._collect_gauges()

    def _collect_gauges(self) -> Iterator[Metric]:
        for name, value in self._gauges.items():
            declared = GAUGES.get(name)
            if declared is None:
                self._complain(f"gauge {name}")
                continue
            family = GaugeMetricFamily(PREFIX + name, declared.help, labels=declared.labels)
            for labels, number in value if isinstance(value, list | tuple) else [((), value)]:
                if len(labels) != len(declared.labels):
                    self._complain(f"gauge {name} with {len(labels)} labels")
                else:
                    family.add_metric([str(label) for label in labels], float(number))
            yield family

    def _declared(self, table: Mapping[str, Declared], name: str, labels: tuple[str, ...]) -> Declared | None:
        declared = table.get(name)
        if declared is None or len(declared.labels) != len(labels):
            self._complain(f"metric {name} with {len(labels)} labels")
            return None
        return declared

    def _complain(self, what: str) -> None:
        if self._strict:
            raise KeyError(f"{what} is not declared in metrics.py")
        if what not in self._unknown:
            self._unknown.add(what)
            logger.error("%s is not declared in metrics.py", what)

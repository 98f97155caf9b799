"""Prometheus metrics: everything there is stands in the tables below."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
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
    "path_failures": Declared("Paths that went OFF", ("cause",)),
    "phone_registrations": Declared("Registrations of phones at their own servers", ("result",)),
    "registrations": Declared("Registrations, by how they ended", ("result",)),
    "registration_repairs": Declared("What the home server listed wrong of this gateway", ("kind",)),
    "registrations_expired": Declared("Bindings that were not refreshed in time"),
    "requests": Declared("Requests taken in", ("method",)),
    "requests_overload": Declared("Requests refused because too many were being served"),
    "requests_refused": Declared("Requests answered with an error of ours", ("status",)),
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


class Metrics:
    """Counts what passes. A name or label that is not declared is a bug: an error when strict, else said once."""

    def __init__(self, *, strict: bool = False) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._strict = strict
        self._unknown: set[str] = set()
        self._gauges: dict[str, Any] = {}
        self._counters = {
            name: Counter(PREFIX + name, declared.help, declared.labels, registry=self.registry)
            for name, declared in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(
                PREFIX + name, declared.help, declared.labels, registry=self.registry, buckets=declared.buckets
            )
            for name, declared in HISTOGRAMS.items()
        }
        self.sources: list[Callable[[], Mapping[str, Any]]] = []
        "Further gauges, asked for at every scrape."

        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self.registry.register(self)

    def count(self, action: Count) -> None:
        """Add to a counter."""
        child = self._children.get((action.name, action.labels)) or self._child(self._counters, COUNTERS, action)
        if child is not None:
            child.inc(action.amount)

    def observe(self, action: Observe) -> None:
        """Add to a histogram."""
        child = self._children.get((action.name, action.labels)) or self._child(self._histograms, HISTOGRAMS, action)
        if child is not None:
            child.observe(action.value)

    def text(self, status: Mapping[str, Any] | None = None) -> bytes:
        """Everything in Prometheus' text format; `status` is the node's answer to the command `status`."""
        status = status or {}
        self._gauges = {name: status[name] for name in GAUGES if isinstance(status.get(name), int | float)}
        for gauges in (status.get("gauges", {}), *(source() for source in self.sources)):
            self._gauges.update(gauges)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """The gauges (called by the registry)."""
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

    def _child(self, metrics: Mapping[str, Any], table: Mapping[str, Declared], action: Count | Observe) -> Any:
        declared = table.get(action.name)
        if declared is None or len(declared.labels) != len(action.labels):
            self._complain(f"metric {action.name} with {len(action.labels)} labels")
            return None
        metric = metrics[action.name]
        child = metric.labels(*action.labels) if action.labels else metric
        self._children[action.name, action.labels] = child
        return child

    def _complain(self, what: str) -> None:
        if self._strict:
            raise KeyError(f"{what} is not declared in metrics.py")
        if what not in self._unknown:
            self._unknown.add(what)
            logger.error("%s is not declared in metrics.py", what)

"""How urgent a call is: what it says of itself (RFC 4412, RFC 3261 §20.26) and what the operator says of its ends.

Urgency is a number, 0 for an ordinary call; the greater goes first. Resource-Priority comes before the operator's
list, and that before `Priority: emergency`, which any phone may write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

NAMESPACES: Final = {
    "wps": ("4", "3", "2", "1", "0"),
    "ets": ("4", "3", "2", "1", "0"),
    "esnet": ("0", "1", "2", "3", "4"),
    "drsn": ("routine", "priority", "immediate", "flash", "flash-override", "flash-override-override"),
    "dsn": ("routine", "priority", "immediate", "flash", "flash-override"),
    "q735": ("4", "3", "2", "1", "0"),
}
"Namespace → its priorities, the least urgent first (RFC 4412 §10.3 … §10.6, RFC 7135 for esnet)."

EMERGENCY: Final = 1
"`Priority: emergency`."
NAMED: Final = 2
"One end is in the operator's list."
_FIRST: Final = 3
_STEP: Final = 8
"More than any namespace has priorities."


def stated(values: Iterable[str], namespaces: Sequence[str]) -> int:
    """What Resource-Priority values ("wps.2") ask for; `namespaces` is the operator's order, the most urgent first.

    RFC 4412 leaves the order of namespaces to whoever runs the network (§8); one that is not listed, and a priority
    that is not its namespace's, say nothing (§4.6.2).
    """
    best = 0
    for value in values:
        namespace, _, level = value.strip().lower().partition(".")
        if namespace in namespaces and level in NAMESPACES.get(namespace, ()):
            height = len(namespaces) - 1 - namespaces.index(namespace)
            best = max(best, _FIRST + height * _STEP + NAMESPACES[namespace].index(level))
    return best


def named(uris: Iterable[str], listed: Sequence[str]) -> int:
    """Whether one of these URIs is in the operator's list: a user ("+441632960000"), or user@host."""
    for uri in uris:
        scheme, _, rest = uri.partition(":")
        user, at, host = rest.partition(";")[0].partition("?")[0].rpartition("@")
        if at:
            known = user in listed or f"{user}@{host.partition(':')[0].lower()}" in listed
        else:
            known = scheme.lower() == "tel" and host in listed
        if known:
            return NAMED
    return 0

"""Four real phones, two behind the gateway and two outside, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from .baresip import AnswerMode, Baresip
from .gateway import ALL, INSIDE, UPLINKS, GatewayWorld
from .hosts import wait_until
from .pjsip import Pjsip
from .programs import Kamailio, Mode, Transport
from .tap import Tap

SERVERS: dict[Mode, str] = {"proxy": "server", "redirect": "server2"}
HOSTS = {"alice": "mn1", "bob": "mn2", "carol": "cn1", "dave": "cn2"}
"Who sits where: alice and bob behind the gateway, carol and dave outside."
USERS = {name: f"{name}-secret" for name in HOSTS}


@dataclass
class Party:
    """One phone, and what its interface carries."""

    phone: Baresip | Pjsip
    tap: Tap


Make = Literal["baresip", "pjsip"]
PJSIP_OPTIONS = {";mediaenc=srtp-mand": "srtp", ";100rel=yes": "prack-required", "": ""}
"What baresip's account parameters are called there."


def start_servers(gateway: GatewayWorld) -> None:
    """The phones' own server, once as a proxy and once as a redirect server."""
    for mode, name in SERVERS.items():
        Kamailio(gateway.hosts[name], mode, USERS, ALL, gateway.certificates).start()


@contextmanager
def phones(
    gateway: GatewayWorld,
    transport: Transport = "udp",
    mode: Mode = "proxy",
    answer: AnswerMode = "auto",
    options: str = "",
    inside: Make = "baresip",
    outside: Make = "baresip",
) -> Iterator[dict[str, Party]]:
    """The four, registered; `options` are more account parameters of baresip."""
    domain = gateway.hosts[SERVERS[mode]].address
    secure = gateway.certificates if transport == "tls" else None
    with ExitStack() as stack:
        made = {}
        for user, place in HOSTS.items():
            host = gateway.hosts[place]
            tap = stack.enter_context(Tap(host))
            outbound, make = (f"sip:{INSIDE}", inside) if place.startswith("mn") else ("", outside)
            phone: Baresip | Pjsip
            if make == "baresip":
                phone = Baresip(host, user, USERS[user], domain, transport, outbound, answer, secure, options)
            else:
                more = PJSIP_OPTIONS[options]
                phone = Pjsip(host, user, USERS[user], domain, transport, outbound, answer, secure, more)
            stack.callback(phone.stop)
            phone.start(register=False)
            made[user] = Party(phone, tap)
        for party in made.values():
            party.phone.wait_until_registered()
        try:
            yield made
        except AssertionError as error:
            ladders = "\n".join(party.tap.ladder() for party in made.values())
            raise AssertionError(f"{error}\n{ladders}") from error


def connect(caller: Party, called: Party, number: int = 1) -> None:
    """A call, and RTP both ways at both phones; `number` counts the calls of each of the two."""
    caller.phone.dial(called.phone.uri)
    for party in (caller, called):
        party.phone.wait_for("CALL_ESTABLISHED", number=number)
    hear(caller, called)


def hear(*parties: Party) -> None:
    """RTP goes both ways at each phone, from now on."""
    for party in parties:
        party.tap.wait_for_rtp()


def leaves_by(line: str, *outside: Party) -> None:
    """The media of these far ends comes from this uplink of the gateway, and theirs goes there."""
    address = UPLINKS[line]

    def so() -> bool:
        ends = [(p.tap.rtp("in")[-1].source[0], p.tap.rtp("out")[-1].destination[0]) for p in outside]
        return all(pair == (address, address) for pair in ends)

    wait_until(so, 10, f"media by {line}")
    hear(*outside)


def hang_up(closer: Party, other: Party, number: int = 1) -> None:
    """One side ends the call and the other learns it."""
    closer.phone.hang_up()
    for party in (closer, other):
        party.phone.wait_for("CALL_CLOSED", number=number)

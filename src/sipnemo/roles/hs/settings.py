"""What an operator decides about one SIP-HS; `app/schema.py` says how each is written in hs.toml.

Spans are seconds. Values are checked before they get here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sipnemo.sip.flow import Local
from sipnemo.sip.parser import LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class HsSettings:
    """One SIP-HS."""

    domain: str
    "The home domain: a name or an address literal (IPv6 in brackets), with a port where it is not the default one."

    listen: tuple[Local, ...]
    "Where SIP is answered; 0.0.0.0 and :: stand for every address."

    accounts: Mapping[str, str] = field(default_factory=dict, repr=False)
    "SIP-NMSs that may register: account name and password."

    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    "Phones whose own SIP server this is: user name and password."

    mode: Literal["proxy", "redirect"] = "proxy"
    "How requests for a user are passed on: forwarded, or answered with 302 (MH-11)."

    aliases: tuple[str, ...] = ()
    "Further hosts that requests may name this server by."

    min_expires: int = 5
    "Shorter registrations are refused with 423."

    default_expires: int = 600
    "Of a REGISTER that asks for no span."

    max_expires: int = 3600
    "Longer registrations are cut to this."

    grace: float = 5.0
    "How long an expired binding is still used, so that a refresh on its way costs no call."

    path_timeout: float = 2.0
    "Silence after which a request for a SIP-NMS is tried on its next Priority as well (MH-11)."

    digest: tuple[str, ...] = ("SHA-256", "SHA-512-256", "MD5")
    "Hash functions that credentials may use, the preferred one first (RFC 8760 §2.4)."

    max_contacts: int = 16
    "Bindings per SIP-NMS or user; beyond: 403."

    max_instances: int = 64
    "SIP-NMSs per account; beyond: 403."

    limits: Limits = LIMITS

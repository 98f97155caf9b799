"""What a user decides about the phone; frozen values, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass

from sipnemo.sip.flow import Local

MANUAL = -1.0
"`Settings.answer_after`: the phone rings until the command 'answer'."

BUSY = -2.0
"`Settings.answer_after`: every call is answered with 486."


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of the phone; its calls come to the user part of its Contact."""

    name: str
    "User part of address-of-record and Contact, and the name that digest credentials carry."

    domain: str
    "Host part of the address-of-record; without a server, our own address."

    password: str = ""

    @property
    def uri(self) -> str:
        """The address-of-record."""
        return f"sip:{self.name}@{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A call to make when the phone is up (and its account registered, when there is a server)."""

    account: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the phone's core needs to know."""

    accounts: tuple[Account, ...]

    locals: tuple[Local, ...]
    "Own addresses, one per transport; the first one is preferred for a URI that names no transport."

    listens: tuple[Local, ...] = ()
    "Those of `locals` that are listened on: TLS without a certificate only connects."

    server: str = ""
    "Registrar as a SIP URI; empty: the phone does not register."

    proxy: str = ""
    "Outbound proxy as a SIP URI; empty: requests go where their URI says."

    calls: tuple[Placed, ...] = ()

    answer_after: float = 0.0
    "Seconds of ringing before an incoming call is answered; 0 at once, or MANUAL or BUSY."

    duration: float = 0.0
    "Seconds after which an answered call is hung up; 0: never."

    media: bool = True
    "Whether RTP is sent and received; without it, descriptions name the discard port."

    rtcp_mux: bool = True
    "Offer and accept RTP and RTCP on one port (RFC 5761)."

    late_offer: bool = False
    "INVITEs carry no offer; the far end makes it in its answer (RFC 3261 §13.2.1)."

    reliable: bool = False
    "Ring reliably whenever the caller can take it (RFC 3262); a caller that requires it always gets it."

    session_expires: int = 0
    "Session interval to ask for, in seconds (RFC 4028); 0: none, but the far end's wish is honoured."

    expires: int = 3600
    "Registration interval to ask for, in seconds."

    retry_after: float = 1.0
    "First pause before another REGISTER, in seconds; doubles up to `retry_at_most`, with jitter."

    retry_at_most: float = 60.0

    ring_at_most: float = 180.0
    "Seconds until a call that nobody answers is cancelled."

    start_every: float = 0.02
    "Pause between the first REGISTERs, and between the calls, of many accounts, in seconds."

    user_agent: str = "sipnemo phone"

"""Challenges to requests of the gateway's own, answered from the [[trunk]] credentials (R4, RFC 3261 §22).

Nobody else can answer them. A request of our own has no counterpart at the SIP-MN, so a 401 or 407 to it cannot be
passed on: the SIP-MN would get a response to nothing. Nor can credentials of the SIP-MN that have passed be used
again: they are bound to method and Request-URI, and their nonce count to one request (RFC 7616 §3.4). Where no
credentials are configured, the move therefore waits for a request of the SIP-MN's own, which it can sign itself.

Nonces are kept per next hop and realm, for every call and every move: the next request is signed before it is asked
to be (RFC 3261 §22.3), with the next nonce count.
"""

from __future__ import annotations

from typing import Final

from sipnemo.roles.nms.settings import TrunkCredentials
from sipnemo.sip.digest import parse_challenges
from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.ids import Ids
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target

MOST_CHALLENGES: Final = 4
"Times one request is sent again with (other) credentials: a server and two proxies, and a nonce that is too old."
MOST_SPACES: Final = 64
"Next hops and realms whose nonces are remembered; beyond, the oldest is asked anew."
_CHALLENGES: Final = (
    (401, "www-authenticate", "Authorization"),
    (407, "proxy-authenticate", "Proxy-Authorization"),
)
_INFOS: Final = ("authentication-info", "proxy-authentication-info")

Signature = list[tuple[str, str]]
"Header names and values."


class Trunk:
    """The credentials of this gateway, and every nonce they may be used with now."""

    def __init__(self, credentials: tuple[TrunkCredentials, ...], ids: Ids) -> None:
        self._credentials = {known.realm: known for known in credentials}
        self._ids = ids
        self._spaces: dict[tuple[Target, str], ClientAuth] = {}

    def sign(self, hop: Target, method: str, uri: str, body: str) -> Signature:
        """The credentials for a request, for every realm behind this next hop that has asked before; often none."""
        signature: Signature = []
        for (where, _), auth in self._spaces.items():
            if where == hop:
                signature += auth.authorization(method, uri, body, self._ids.tag()[:16])
        return signature

    def challenged(self, hop: Target, response: Response, sent: Signature) -> bool:
        """Take in a 401 or 407 to a request that carried `sent`; whether sending it again can succeed."""
        hope = False
        for status, name, header in _CHALLENGES:  # one response may carry both kinds (§16.7 item 7)
            values = response.values_raw(name) if name in response.names else []
            before = [value for key, value in sent if key == header]
            for realm in dict.fromkeys(challenge.realm for challenge in parse_challenges(values)):
                known = self._credentials.get(realm)
                if known is None:
                    continue
                auth = self._spaces.pop((hop, realm), None)
                auth = auth or ClientAuth(Credentials(known.username, known.password), realm)
                if auth.challenged(status, values, before):
                    self._spaces[hop, realm] = auth
                    hope = True
        while len(self._spaces) > MOST_SPACES:
            del self._spaces[next(iter(self._spaces))]
        return hope

    def accepted(self, hop: Target, response: Response, sent: Signature) -> None:
        """Take in the answer to a request that carried `sent`: it may name the next nonce (RFC 7615 §3)."""
        for name in _INFOS:
            if name in response.names:
                for (where, _), auth in self._spaces.items():
                    if where == hop:
                        auth.authenticated(response.value(name), [value for _, value in sent])

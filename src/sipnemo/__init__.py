"""Multihomed SIP network mobility: a gateway that moves live calls between uplinks with one re-INVITE.

Start at docs/first-call.md, which follows one INVITE through the tree. The layers, from the bytes outwards:
sip and sdp (the RFCs), nemo and media (the drafts' nouns, what must be forwarded where), roles (one node per
entity), shell (sockets, clock, kernel), lab (topologies of namespaces) and app (commands and configuration).
"""

__version__ = "0.1.0"

"""One node per entity of the drafts: SIP-NMS, SIP-HS and a small SIP phone.

A node is sans-IO: `handle(input, now) -> actions` and `deadline`. Open `node.py` first: it holds every input and
every action there is. Then `nms/node.py`, `hs/node.py` or `phone/node.py`, which only decide whose story an input
belongs to.
"""

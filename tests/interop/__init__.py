"""Real programs (baresip, Kamailio, SIPp) in namespaces, nothing mocked.

`hosts.py` makes the worlds, `tap.py` counts RTP and records SIP at a host, `programs.py` runs the programs,
`sippkit.py` runs a pair of SIPp scenarios and compares what both sides saw. The `test_*_baseline.py` files prove the
programs against each other, without sipnemo; the `test_*gateway*.py` files put the gateway in between.
"""

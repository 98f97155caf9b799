"""The gateway's own registration with its SIP-HS. Begin with `home.py`."""

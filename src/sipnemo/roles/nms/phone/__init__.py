"""The SIP-MNs and their registrations. Begin with `bindings.py`."""

"""Calls, from INVITE to BYE, and requests outside of calls. Begin with `inviting.py`; `session.py` is one call."""

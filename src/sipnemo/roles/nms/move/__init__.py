"""Calls change their path. Begin with `handover.py`; `reinvite.py` is one call's move."""

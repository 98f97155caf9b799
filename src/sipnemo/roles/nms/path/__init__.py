"""The uplinks: which paths there are, whether they work, and who can be reached by them. Begin with `paths.py`."""

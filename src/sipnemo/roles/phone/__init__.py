"""A small SIP phone for demos, tests and drills. Open `node.py` first."""

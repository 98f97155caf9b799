"""The SIP-HS, one story a file. Open `node.py` first."""

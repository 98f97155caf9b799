"""The SIP-NMS, one story a file. Open `node.py` first."""

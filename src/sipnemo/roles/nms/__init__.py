"""The SIP-NMS, one story a file, in five folders. Open `node.py` first."""

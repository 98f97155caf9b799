"""SDP, order kept: parse, print and move to another address. Open `description.py` first."""

"""The media plane's plan: flows, paths and ports. Nothing here forwards a packet; `shell` does.

Open `flow.py` first.
"""

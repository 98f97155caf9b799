"""RFC 3261 and friends. Has never heard of mobility.

Open `message.py` first (raw lines, typed when asked), then `transaction.py` (the four machines of §17).
"""

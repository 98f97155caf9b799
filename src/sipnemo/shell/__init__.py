"""The only place with sockets, clock, randomness, kernel and disk. Open `runtime.py` first."""

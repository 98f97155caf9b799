"""Commands, configuration and what an operator sees. Open `cli.py` first."""

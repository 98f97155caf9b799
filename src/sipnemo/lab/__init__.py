"""Whole topologies on one machine: namespaces, delay lines, events, report. Open `topology.py` first."""

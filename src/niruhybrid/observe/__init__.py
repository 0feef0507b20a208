"""Sinks of the counters: what monitoring reads."""

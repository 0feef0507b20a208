"""Buffers, the scheduler and the processors that run on them."""

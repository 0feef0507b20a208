"""The store: a durable log and the indexes derived from it."""

"""Load for one's own server: when to ask, asking, what came of it."""

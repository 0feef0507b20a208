"""Clients of the server: answers and acknowledgements that survive a broken connection."""

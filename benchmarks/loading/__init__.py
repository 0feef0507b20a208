"""The parts of the load benchmark of the server."""

"""HTTP: Server-Sent Events, problem details, health."""

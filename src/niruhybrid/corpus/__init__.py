"""Documents from files, and the demo corpus."""

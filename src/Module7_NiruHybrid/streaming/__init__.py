"""The guide's import paths for streaming."""

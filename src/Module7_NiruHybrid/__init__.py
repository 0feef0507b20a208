"""The guide's import paths: re-exports of `niruhybrid`, nothing else."""

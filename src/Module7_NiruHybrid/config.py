"""The guide's import path for settings."""

from niruhybrid.config import StreamingConfig

__all__ = ("StreamingConfig",)

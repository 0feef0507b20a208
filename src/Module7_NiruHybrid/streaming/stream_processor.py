"""The guide's import path for processors."""

from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor

__all__ = ("AsyncStreamProcessor", "StreamProcessor")

"""The guide's import path for buffers."""

from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer, StreamBuffer

__all__ = ("AsyncStreamBuffer", "StreamBuffer")

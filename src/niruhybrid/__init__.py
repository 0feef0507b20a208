"""NiruHybrid: a real-time retrieval pipeline. One encoder for queries and generated data; every answer is a stream."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niruhybrid.client.blocking import Client
    from niruhybrid.client.tasks import AsyncClient
    from niruhybrid.config import RetryPolicy, ServerConfig, StoreConfig, StreamingConfig
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder
    from niruhybrid.errors import InvalidInputError, NiruError, OverloadedError
    from niruhybrid.generation.extractive import ExtractiveGenerator
    from niruhybrid.pipeline import Pipeline
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer, StreamBuffer
    from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
    from niruhybrid.types import (
        BufferStats,
        DataResult,
        Document,
        Hit,
        PassageResult,
        Query,
        QueryResult,
        StreamEvent,
        StreamItem,
        Timings,
        Token,
    )

    __version__: str

__all__ = (
    "AsyncClient",
    "AsyncStreamBuffer",
    "AsyncStreamProcessor",
    "BufferStats",
    "Client",
    "DataResult",
    "Document",
    "EmbeddedStore",
    "ExtractiveGenerator",
    "Hit",
    "HybridEncoder",
    "InvalidInputError",
    "NiruError",
    "OverloadedError",
    "PassageResult",
    "Pipeline",
    "Query",
    "QueryResult",
    "RetryPolicy",
    "ServerConfig",
    "StoreConfig",
    "StreamBuffer",
    "StreamEvent",
    "StreamItem",
    "StreamProcessor",
    "StreamingConfig",
    "Timings",
    "Token",
    "__version__",
)

_HOME = {
    "client.blocking": ("Client",),
    "client.tasks": ("AsyncClient",),
    "config": ("RetryPolicy", "ServerConfig", "StoreConfig", "StreamingConfig"),
    "encoding.hybrid_encoder": ("HybridEncoder",),
    "errors": ("InvalidInputError", "NiruError", "OverloadedError"),
    "generation.extractive": ("ExtractiveGenerator",),
    "pipeline": ("Pipeline",),
    "retrieval.store": ("EmbeddedStore",),
    "streaming.stream_buffer": ("AsyncStreamBuffer", "StreamBuffer"),
    "streaming.stream_processor": ("AsyncStreamProcessor", "StreamProcessor"),
    "types": (
        "BufferStats",
        "DataResult",
        "Document",
        "Hit",
        "PassageResult",
        "Query",
        "QueryResult",
        "StreamEvent",
        "StreamItem",
        "Timings",
        "Token",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that a buffer needs no encoder (PEP 562)."""
    if name == "__version__":
        return import_module(f"{__name__}.settings").library_version()
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""The values that travel through the pipeline: frozen, slotted, checked when they are made.

A `Query` or `Document` that exists is valid: texts are encodable and not blank, ids printable, embeddings finite.
"""

from niruhybrid.types.checks import FinishReason, Metadata, SearchMode, Vector
from niruhybrid.types.events import Finish, StreamEvent, Token
from niruhybrid.types.items import BufferStats, Document, Query, StreamItem
from niruhybrid.types.results import DataResult, Hit, PassageResult, QueryResult, Timings
from niruhybrid.types.searching import IndexEntry, Match, SearchRequest, SearchResponse, StandingQuery

__all__ = (
    "BufferStats",
    "DataResult",
    "Document",
    "Finish",
    "FinishReason",
    "Hit",
    "IndexEntry",
    "Match",
    "Metadata",
    "PassageResult",
    "Query",
    "QueryResult",
    "SearchMode",
    "SearchRequest",
    "SearchResponse",
    "StandingQuery",
    "StreamEvent",
    "StreamItem",
    "Timings",
    "Token",
    "Vector",
)

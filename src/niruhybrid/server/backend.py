"""What the server asks of a pipeline, so that one in another process can take its place."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any, Protocol, Self

from niruhybrid.observe.tracing import Tracing
from niruhybrid.pipeline_state import PipelineStats, Readiness
from niruhybrid.types import DataResult, Document, Match, Query, QueryResult, StreamEvent, Vector

__all__ = ("Backend", "Matches")


class Matches(Protocol):
    """The matches of a standing query, in the order of the writes that brought them; to be closed."""

    @property
    def dropped(self) -> int:
        """Matches given up so far because they were not taken."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Match:
        """Return the next match, however long it takes."""
        ...

    async def aclose(self) -> None:
        """Wait for nothing more."""
        ...


class Backend(Protocol):
    """A pipeline, here or elsewhere. Each method is what `Pipeline` says of the one of its name, errors included."""

    @property
    def tracing(self) -> Tracing | None:
        """Where spans go; None if nowhere."""
        ...

    def stream(self, query: Query, *, progressive: bool = False) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer's events; closing the iterator stops the answer."""
        ...

    async def search(self, query: Query) -> QueryResult:
        """Return what a query finds."""
        ...

    async def subscribe(
        self, query: Query, *, min_score: float | None = None, per_minute: int | None = None
    ) -> Matches:
        """Return the documents that match from now on."""
        ...

    async def watermark(self) -> int:
        """Return the store's last write."""
        ...

    def ingest(self, items: AsyncIterable[Any] | Iterable[Any], *, ordered: bool = True) -> AsyncIterator[DataResult]:
        """Store `items` and yield one result each. The server reads ids, watermarks and errors, no vectors."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Encode texts as queries are encoded."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens texts have together."""
        ...

    async def get(self, ids: Sequence[str]) -> list[Document | None]:
        """Return documents by their ids."""
        ...

    async def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents and return how many there were, and the watermark."""
        ...

    async def stats(self) -> PipelineStats:
        """Return the counters at this instant."""
        ...

    def ready(self) -> Readiness:
        """Say whether queries are taken."""
        ...

    async def aclose(self) -> None:
        """Release what it holds."""
        ...

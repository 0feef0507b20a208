"""A pipeline as a replica that Ray Serve runs: its encoder, its two lanes, its connections to the store."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from niruhybrid.cluster.ray.bursts import in_bursts
from niruhybrid.cluster.ray.scaling import Meter
from niruhybrid.errors import ClosedError
from niruhybrid.pipeline import Pipeline
from niruhybrid.pipeline_state import PipelineStats
from niruhybrid.types import DataResult, Document, Match, Query, QueryResult, StreamEvent, Vector

__all__ = ("Replica",)

_BURST = 256
"""Events, results or matches that go over in one message at the most."""


class Replica:
    """Does for `RemotePipeline` what its `Pipeline` does; a query stays a query, and data stays data.

    What comes in numbers goes over in lists. Errors go over as they are.

    Args:
        open_pipeline: returns the running pipeline; called once, where the replica runs.
        streams: streams that the pipeline serves at a time.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, open_pipeline: Callable[[], Awaitable[Pipeline]], streams: int
    ) -> None:
        self._pipeline = await open_pipeline()
        self._streams = asyncio.Semaphore(streams)
        self._meter = Meter(time.monotonic())

    async def __del__(self) -> None:
        """Close the pipeline; Ray Serve awaits this when what the replica had begun is done."""
        await self._pipeline.aclose()

    def check_health(self) -> None:
        """Have Ray Serve take another replica in this one's place when it takes no queries any more.

        Raises:
            ClosedError: it doesn't.
        """
        readiness = self._pipeline.ready()
        if not readiness.ready:
            raise ClosedError(f"the pipeline takes no queries ({', '.join(readiness.reasons)}): start another replica")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the figures that `scaling.policy` decides by."""
        stats = await self._pipeline.stats()
        return self._meter.read(stats.processor, time.monotonic())

    async def stream(self, query: Query, progressive: bool) -> AsyncIterator[list[StreamEvent]]:
        """Yield the answer's events."""
        async with aclosing(in_bursts(self._pipeline.stream(query, progressive=progressive), _BURST)) as bursts:
            async for events in bursts:
                yield events

    async def search(self, query: Query) -> QueryResult:
        """Return what a query finds."""
        return replace(await self._pipeline.search(query), vector=None)

    async def subscribe(
        self, query: Query, min_score: float | None, per_minute: int | None
    ) -> AsyncIterator[tuple[int, list[Match]]]:
        """Yield once when it has begun, then how many matches have been dropped, and those that have come."""
        subscription = await self._pipeline.subscribe(query, min_score=min_score, per_minute=per_minute)
        async with aclosing(subscription), aclosing(in_bursts(subscription, _BURST)) as bursts:
            yield 0, []
            async for matches in bursts:
                yield subscription.dropped, matches

    async def ingest(self, items: list[Any], ordered: bool) -> AsyncIterator[list[DataResult]]:
        """Yield one result for each item, without its vector; wait where the pipeline would refuse one more stream."""
        async with self._streams, aclosing(in_bursts(self._pipeline.ingest(items, ordered=ordered), _BURST)) as bursts:
            async for results in bursts:
                yield [replace(result, vector=None) for result in results]

    async def watermark(self) -> int:
        """Return the store's last write."""
        return await self._pipeline.watermark()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Encode texts as queries are encoded."""
        return await self._pipeline.embed(texts)

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens texts have together."""
        return await self._pipeline.count_tokens(texts)

    async def get(self, ids: Sequence[str]) -> list[Document | None]:
        """Return documents by their ids."""
        return await self._pipeline.get(ids)

    async def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents and return how many there were, and the watermark."""
        return await self._pipeline.delete(ids)

    async def stats(self) -> PipelineStats:
        """Return this replica's counters."""
        return await self._pipeline.stats()

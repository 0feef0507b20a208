"""A pipeline whose replicas are elsewhere: what the server asks of one, forwarded over Ray Serve's handles."""

import asyncio
import contextvars
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from niruhybrid.cluster.ray.bursts import in_bursts
from niruhybrid.cluster.ray.counters import together
from niruhybrid.cluster.ray.failures import ours
from niruhybrid.cluster.ray.matches import RemoteMatches
from niruhybrid.errors import DeadlineExceededError, ReplicaLostError
from niruhybrid.pipeline_state import PipelineStats, Readiness
from niruhybrid.types import DataResult, Document, Query, QueryResult, StreamEvent, Vector

__all__ = ("RemotePipeline",)

_TRIES = 3
"""Replicas that are asked, one after the other, while those before them are lost."""

_MARGIN = 2.0
"""Seconds beyond a replica's own limit in which its answer, or its end, must be here."""

_BATCH = 128
"""Items that are handed over at a time: enough to keep a replica busy, few enough to hold in memory on both sides."""


class RemotePipeline:
    """Has what the server asks of a pipeline, done by replicas that share a store; see `Backend` for each method.

    What only reads is asked of another replica when one is lost, an answer as long as nothing of it has come. What
    writes is not: how far it came is not known, and `ReplicaLostError` says so.

    Args:
        handle: Ray Serve's handle of the replicas.
        patience: seconds in which a replica must answer what has no limit of its own: its `processing_timeout`.
    """

    tracing = None  # spans begin where the work is done: at the replicas

    def __init__(self, handle: Any, *, patience: float) -> None:
        self._handle = handle
        self._patience = patience
        self._lost = False  # the last call found its replica gone

    async def stream(self, query: Query, *, progressive: bool = False) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer's events; closing the iterator stops the answer at its replica."""
        begun = False
        for left in reversed(range(_TRIES)):
            try:
                async with aclosing(self._parts("stream", query, progressive, limit=query.timeout)) as parts:
                    async for events in parts:
                        for event in events:
                            begun = True
                            yield event
                    return
            except ReplicaLostError:
                if begun or not left:
                    raise

    async def search(self, query: Query) -> QueryResult:
        """Return what a query finds; its vector stays where it was made."""
        result: QueryResult = await self._asked("search", query, limit=query.timeout)
        return result

    async def subscribe(
        self, query: Query, *, min_score: float | None = None, per_minute: int | None = None
    ) -> RemoteMatches:
        """Return the documents that match from now on."""
        parts = self._parts("subscribe", query, min_score, per_minute, limit=query.timeout, endless=True)
        await anext(parts)
        return RemoteMatches(parts)

    async def watermark(self) -> int:
        """Return the store's last write."""
        watermark: int = await self._asked("watermark")
        return watermark

    async def ingest(
        self, items: AsyncIterable[Any] | Iterable[Any], *, ordered: bool = True
    ) -> AsyncGenerator[DataResult, None]:
        """Yield one result for each item; no more is read than one batch ahead, and batches keep their order."""
        async with aclosing(in_bursts(items, _BATCH)) as batches:
            async for batch in batches:
                async with aclosing(self._parts("ingest", batch, ordered)) as parts:
                    async for results in parts:
                        for result in results:
                            yield result

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Encode texts as queries are encoded."""
        vectors: list[Vector] = await self._asked("embed", texts)
        return vectors

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens texts have together."""
        count: int = await self._asked("count_tokens", texts)
        return count

    async def get(self, ids: Sequence[str]) -> list[Document | None]:
        """Return documents by their ids."""
        documents: list[Document | None] = await self._asked("get", ids)
        return documents

    async def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents; not tried again, since a second try would say that there were none."""
        removed: tuple[int, int] = await self._asked("delete", ids, tries=1)
        return removed

    async def stats(self) -> PipelineStats:
        """Return the counters of all replicas together."""
        asked = _apart(self._handle.broadcast, "stats")
        async with self._within(None, "stats"):
            found = await asked.results_async(return_exceptions=True)
        told = [each for each in found if isinstance(each, PipelineStats)]
        if not told:
            raise ReplicaLostError(f"{len(found)} replicas were asked and none has answered: try again in a moment")
        return together(told)

    def ready(self) -> Readiness:
        """Say whether queries are taken: as far as the last of them can tell."""
        if self._lost:
            return Readiness(ready=True, degraded=True, reasons=("a replica of the pipeline was lost",))
        return Readiness(ready=True)

    async def aclose(self) -> None:
        """Do nothing: the replicas are Ray Serve's to stop."""

    async def _asked(self, method: str, *args: object, limit: float | None = None, tries: int = _TRIES) -> Any:
        for left in reversed(range(tries)):
            response = _apart(getattr(self._handle, method).remote, *args)
            try:
                async with self._within(limit, method):
                    return await response
            except ReplicaLostError:
                if not left:
                    raise
            except BaseException:
                response.cancel()
                raise
        raise AssertionError("unreachable: the last try returns or raises")

    async def _parts(
        self, method: str, *args: object, limit: float | None = None, endless: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Yield what a replica yields, and stop it when nobody takes it any more."""
        response = _apart(getattr(self._handle.options(stream=True), method).remote, *args)
        try:
            async with self._within(limit, method):
                part = await anext(response, None)
            while part is not None:
                yield part
                async with self._within(math.inf if endless else limit, method):
                    part = await anext(response, None)
        except BaseException:
            response.cancel()
            raise

    @asynccontextmanager
    async def _within(self, limit: float | None, method: str) -> AsyncGenerator[None, None]:
        """Bound a wait for a replica, and have what Ray raises raised as what it means here."""
        seconds = (self._patience if limit is None else limit) + _MARGIN
        deadline = asyncio.timeout(None if seconds == math.inf else seconds)
        try:
            async with deadline:
                yield
        except Exception as err:
            if deadline.expired():
                raise DeadlineExceededError(
                    f"no replica answered `{method}` within {seconds:.3g} s: try again, or run more replicas"
                ) from err
            failure = ours(err)
            self._lost = isinstance(failure, ReplicaLostError)
            if failure is err:
                raise
            raise failure from err
        self._lost = False


def _apart(call: Callable[..., Any], *args: object) -> Any:
    """Begin a call that belongs to no request: Ray Serve would cancel it with the request that it was begun for.

    An answer goes on when its reader has left, for who may come back; and it is stopped here when it is to be stopped.
    """
    return contextvars.Context().run(call, *args)

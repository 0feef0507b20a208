"""What both processors share: the encoder, the store, and the batcher that runs them. No waiting happens here."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, cast

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import InvalidInputError, InvalidSettingError, QueueFullError
from niruhybrid.ports import BatchObserver, Encoder, Store
from niruhybrid.streaming.batcher import Batcher
from niruhybrid.streaming.cache import CacheStats
from niruhybrid.streaming.documents import Documents
from niruhybrid.streaming.kinds import AnyDone, AnyJob, Item, Kind, Result
from niruhybrid.streaming.ledger import LaneStats, SchedulerStats
from niruhybrid.streaming.long_texts import LongJob, LongTexts
from niruhybrid.streaming.queries import Queries
from niruhybrid.streaming.reading import Reader
from niruhybrid.types import Vector

__all__ = ("Engine", "StreamStats", "configured")


@dataclass(frozen=True, slots=True)
class StreamStats:
    """A processor's counters at one instant.

    Attributes:
        lanes: the counters of both lanes; each adds up.
        cache: the counters of the cache of query vectors.
        open_streams: streams being served now.
        degraded: whether the last encode hung.
    """

    lanes: SchedulerStats
    cache: CacheStats
    open_streams: int
    degraded: bool

    @property
    def queries(self) -> LaneStats:
        """The lane of queries."""
        return self.lanes.interactive

    @property
    def data(self) -> LaneStats:
        """The lane of generated data."""
        return self.lanes.bulk

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            **self.lanes.to_dict(),
            "cache": self.cache.to_dict(),
            "open_streams": self.open_streams,
            "degraded": self.degraded,
        }


class Engine:
    """An encoder, a store or none, and the batcher that runs them.

    Args:
        encoder: anything with `encode(list[str])`.
        store: where documents are kept and found; None only encodes.
        config: bounds, batch sizes, shares and timeouts.
        observer: is told of every batch.

    Attributes:
        config: the same.
        reader: what cuts texts for the encoder.
        batcher: what runs the jobs.
        queries: the steps from a query to its result.
        data: the steps from a document to its result.

    Raises:
        InvalidSettingError: `encoder` has no `encode`.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Store | None,
        config: StreamingConfig,
        observer: BatchObserver | None = None,
    ) -> None:
        if not callable(getattr(encoder, "encode", None)):
            raise InvalidSettingError(
                f"`hybrid_encoder` is a {type(encoder).__name__} without `encode`: "
                "give an object with encode(list[str])"
            )
        self.config = config
        self.reader = Reader(encoder, config)
        self._queries = Queries(self.reader, store)
        self._documents = Documents(self.reader, store, getattr(encoder, "dimension", None))
        self.queries, self.data = self._queries.kind, self._documents.kind
        finish = None if store is None else {"interactive": self._queries.search, "bulk": self._documents.write}
        self.batcher = Batcher(encoder, config, finish=cast("Any", finish), observer=observer)
        self._long = LongTexts(self.batcher.start, self.batcher.has_room, 2 * config.batch_size)
        self._streams = 0
        self._streams_lock = threading.Lock()

    @property
    def window(self) -> int:
        """Items a stream may have read and not yet yielded."""
        return min(self.config.buffer_size, 8 * self.config.batch_size)

    def start(self, job: AnyJob) -> "Future[Any]":
        """Hand in a job from any thread; cancelling the future takes it back.

        Raises:
            OverloadedError, ClosedError: it was refused.
        """
        self._documents.arrive(job.payload)
        return self._long.start(job) if isinstance(job, LongJob) else self.batcher.start(job)

    def start_here(self, job: AnyJob) -> "asyncio.Future[Any]":
        """Hand in a job from a coroutine, as `start` does; the future belongs to the running event loop."""
        self._documents.arrive(job.payload)
        if isinstance(job, LongJob):
            return asyncio.wrap_future(self._long.start(job))
        return self.batcher.start_here(job)

    def feed(self, job: AnyJob, handed_in: Callable[[], object]) -> "Future[Any]":
        """Hand in a job of a stream, as `start` does; the first window of a long text waits for room as others do.

        Args:
            job: the job.
            handed_in: of a long text, called in another thread when its last window is handed in.
        """
        if isinstance(job, LongJob):
            self._documents.arrive(job.payload)
            return self._long.feed(job, handed_in)
        return self.start(job)

    def feed_here(self, job: AnyJob, handed_in: Callable[[], object]) -> "asyncio.Future[Any]":
        """Hand in a job of a stream from a coroutine, as `feed` does; the future belongs to the running event loop."""
        if isinstance(job, LongJob):
            return asyncio.wrap_future(self.feed(job, handed_in))
        return self.start_here(job)

    async def run(self, job: AnyJob) -> AnyDone:
        """Hand in a job and wait for its end, on the running event loop; cancelling takes it back.

        Raises:
            OverloadedError, ClosedError: it was refused.
            NiruError: it was accepted and ended so.
        """
        if isinstance(job, LongJob):
            return cast("AnyDone", await self.start_here(job))
        self._documents.arrive(job.payload)
        return await self.batcher.run(job)

    def close(self, timeout: float) -> None:
        """Close the batcher, as it says, and what feeds it; in a child of the process that used them, do nothing."""
        if self.batcher.forked:
            return
        self.batcher.close(timeout)
        self._long.close()

    def job(self, kind: Kind[Item, Result], item: Item) -> AnyJob:
        """Return an item's job; a refusal is counted.

        Raises:
            InvalidInputError: the item can't be used.
        """
        try:
            return kind.job(item)
        except InvalidInputError:
            self.batcher.refuse(kind.lane, "invalid")
            raise

    def job_of(self, kind: Kind[Item, Result], raw: object, position: int) -> AnyJob:
        """Return the job of an input; a refusal is counted.

        Raises:
            InvalidInputError: the input can't be used.
        """
        try:
            item = kind.read(raw, position)
        except InvalidInputError:
            self.batcher.refuse(kind.lane, "invalid")
            raise
        return self.job(kind, item)

    def embedding(self, texts: Sequence[str], timeout: float | None) -> Kind[str, Vector]:
        """Return the steps from a text to its vector alone; a refusal is counted.

        Raises:
            InvalidInputError: as `Queries.embedding` does.
        """
        try:
            return self._queries.embedding(texts, timeout)
        except InvalidInputError:
            self.batcher.refuse("interactive", "invalid")
            raise

    def removal(self, ids: Sequence[str]) -> Callable[[], tuple[int, int]]:
        """Return what removes documents, as `Documents.removal` does."""
        return self._documents.removal(ids)

    def open_stream(self) -> None:
        """Count a stream in.

        Raises:
            QueueFullError: `max_concurrent_streams` are open.
            ClosedError: this is a child of the process that used the engine before.
        """
        self.batcher.refuse_forked()
        with self._streams_lock:
            if self._streams >= self.config.max_concurrent_streams:
                raise QueueFullError(
                    f"{self._streams} of {self.config.max_concurrent_streams} streams are open: "
                    "end one, or raise `max_concurrent_streams`",
                    retry_after=1.0,
                )
            self._streams += 1

    def close_stream(self) -> None:
        """Count a stream out."""
        with self._streams_lock:
            self._streams -= 1

    def stats(self) -> StreamStats:
        """Return every counter, as of now."""
        lanes, cache = self.batcher.stats()
        return StreamStats(lanes, cache, self._streams, self.batcher.degraded)


def configured(config: StreamingConfig | None, batch_size: int | None) -> StreamingConfig:
    """Return the settings a processor runs on: an argument given wins over `config`, that over the defaults."""
    base = config or StreamingConfig()
    return base if batch_size is None else replace(base, batch_size=batch_size)

"""What both processors share: how an input becomes a job and its end a result. No waiting happens here."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar, cast

from niruhybrid import analysis
from niruhybrid.config import StreamingConfig
from niruhybrid.errors import (
    InvalidInputError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
    NiruError,
    QueueFullError,
)
from niruhybrid.ports import BatchObserver, Encoder, Store, TermEncoder, TokenCounter
from niruhybrid.streaming.batcher import Batcher, Job
from niruhybrid.streaming.cache import CacheStats
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.inputs import as_document, as_query, id_of, text_of
from niruhybrid.streaming.lanes import LaneName
from niruhybrid.streaming.ledger import LaneStats, SchedulerStats
from niruhybrid.streaming.long_texts import LongDone, LongJob, LongTexts
from niruhybrid.streaming.reading import Gathering, Growing, Part, Reader
from niruhybrid.types import (
    DataResult,
    Document,
    IndexEntry,
    PassageResult,
    Query,
    QueryResult,
    SearchRequest,
    SearchResponse,
    Vector,
    checked_text,
    checked_timeout,
)
from niruhybrid.windows import Window

__all__ = ("AnyDone", "AnyJob", "Engine", "Item", "Kind", "Result", "StreamStats", "configured")

_CHARS_COUNTED = 20  # characters for each token of the window; words are shorter

Item = TypeVar("Item", bound=Query | Document | Window)
Result = TypeVar("Result", bound=QueryResult | DataResult | PassageResult)
AnyJob: TypeAlias = Job | LongJob
AnyDone: TypeAlias = Done | LongDone


@dataclass(frozen=True, slots=True)
class Kind(Generic[Item, Result]):
    """The four steps from an input to a result, for queries or for documents.

    Attributes:
        lane: where the items wait.
        read: makes an item of an input and its place in the stream; raises `InvalidInputError`.
        job: what the batcher is to do for an item; raises `InvalidInputError`.
        result: the result of a job that ended well.
        failed: the result of an input, at its place in the stream, that ended with an error.
    """

    lane: LaneName
    read: Callable[[object, int], Item]
    job: Callable[[Item], AnyJob]
    result: Callable[[AnyJob, AnyDone], Result]
    failed: Callable[[object, int, NiruError], Result]


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
        self._store = store
        self._terms = encoder.terms if isinstance(encoder, TermEncoder) else analysis.terms
        self._counter = encoder if isinstance(encoder, TokenCounter) else None
        self._dim: int | None = getattr(encoder, "dimension", None)
        finish = None if store is None else {"interactive": self._search, "bulk": self._write}
        self.batcher = Batcher(encoder, config, finish=cast("Any", finish), observer=observer)
        self.reader = Reader(encoder, config)
        self._long = LongTexts(self.batcher.start, 2 * config.batch_size)
        self._streams = 0
        self._streams_lock = threading.Lock()
        self.queries = Kind(
            lane="interactive", read=as_query, job=self._query_job, result=self._query_result, failed=_failed_query
        )
        self.data = Kind(
            lane="bulk", read=as_document, job=self._data_job, result=self._data_result, failed=_failed_data
        )

    @property
    def window(self) -> int:
        """Items a stream may have read and not yet yielded."""
        return min(self.config.buffer_size, 8 * self.config.batch_size)

    def start(self, job: AnyJob) -> "Future[Any]":
        """Hand in a job from any thread; cancelling the future takes it back.

        Raises:
            OverloadedError, ClosedError: it was refused.
        """
        return self._long.start(job) if isinstance(job, LongJob) else self.batcher.start(job)

    def start_here(self, job: AnyJob) -> "asyncio.Future[Any]":
        """Hand in a job from a coroutine, as `start` does; the future belongs to the running event loop."""
        if isinstance(job, LongJob):
            return asyncio.wrap_future(self._long.start(job))
        return self.batcher.start_here(job)

    async def run(self, job: AnyJob) -> AnyDone:
        """Hand in a job and wait for its end, on the running event loop; cancelling takes it back.

        Raises:
            OverloadedError, ClosedError: it was refused.
            NiruError: it was accepted and ended so.
        """
        if isinstance(job, LongJob):
            return cast("AnyDone", await self.start_here(job))
        return await self.batcher.run(job)

    def close(self, timeout: float) -> None:
        """Close the batcher, as it says, and what feeds it."""
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

    def open_stream(self) -> None:
        """Count a stream in.

        Raises:
            QueueFullError: `max_concurrent_streams` are open.
        """
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

    # --- jobs --------------------------------------------------------------------------------------------------

    def _query_job(self, query: Query) -> Job:
        self._refuse_long(query.text, "query text")
        timeout = query.timeout or self.config.processing_timeout
        return Job(query, "interactive", query.text, timeout, None, query.session)

    def _data_job(self, document: Document) -> AnyJob:
        timeout = document.timeout or self.config.processing_timeout
        vector = document.embedding
        if vector is not None:
            if self._dim is not None and vector.size != self._dim:
                raise InvalidVectorError(
                    f"embedding has {vector.size} dimensions, the encoder has {self._dim}: use the same model"
                )
            return Job(document, "bulk", "", timeout, vector)
        text = _encoded_text(document)
        self._refuse_long(text, "document text")
        mode = self.config.long_text
        if mode == "truncate":
            return Job(document, "bulk", text, timeout)
        gathering = Gathering(document, mean=mode == "mean")

        def part(window: Window, left: float, last: bool) -> Job:
            if last:
                gathering.total = window.part + 1
            return self.reader.job(Part(window, gathering), window, document.title, left)

        cutter = self.reader.cutter(document.title)
        windows = self.reader.windows(document.text, cutter)
        first, second = next(windows), next(windows, None)
        if second is None:
            return self.reader.job(document, first, document.title, timeout)
        if mode == "error":
            raise InvalidTextError("document text is longer than the encoder reads: split it, or choose a `long_text`")
        rest = chain((first, second), windows)
        return LongJob(document, rest, part, document.timeout, self.config.processing_timeout, lambda: cutter.seen)

    def embed_jobs(self, texts: Sequence[str], timeout: float | None) -> list[AnyJob]:
        """Return the jobs that only encode, one for each text; a refusal is counted.

        Raises:
            InvalidInputError: `texts` is one string, one of them can't be used (the message gives its position), or
                `timeout` can't.
        """
        try:
            if isinstance(texts, str | bytes):
                raise InvalidTextError("texts is one string: give a list, such as [text]")
            checked_timeout(timeout)
            most = self.config.max_text_chars
            checked = [checked_text(text, what=f"text {at}", max_chars=most) for at, text in enumerate(texts)]
        except InvalidInputError:
            self.batcher.refuse("interactive", "invalid")
            raise
        return [self._embed_job(text, timeout) for text in checked]

    def _embed_job(self, text: str, timeout: float | None) -> AnyJob:
        each = timeout or self.config.processing_timeout
        cutter = self.reader.cutter("")
        windows = self.reader.windows(text, cutter)
        first, second = next(windows), next(windows, None)
        if second is None:
            return Job(None, "interactive", text, each)

        def part(window: Window, left: float, last: bool) -> Job:  # noqa: ARG001  # as documents need it
            return self.reader.job(None, window, "", left, "interactive")

        return LongJob(None, chain((first, second), windows), part, timeout, each, lambda: cutter.seen)

    def _refuse_long(self, text: str, what: str) -> None:
        if len(text) > self.config.max_text_chars:
            checked_text(text, what=what, max_chars=self.config.max_text_chars)

    # --- the stage after encoding, in its thread -----------------------------------------------------------------

    def _search(self, items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
        """Search for the queries; a text that was only to be encoded is done."""
        requests = {
            at: SearchRequest(
                vector, self._terms(query.text), query.top_k, query.filter, query.mode, query.min_watermark
            )
            for at, (query, vector) in enumerate(items)
            if isinstance(query, Query)
        }
        found = cast("Store", self._store).search(list(requests.values())) if requests else []
        by_place = dict(zip(requests, found, strict=True))
        return [by_place.get(at) for at in range(len(items))]

    def _write(self, items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
        """Write documents read whole, and of long ones what is complete; all in one transaction."""
        entries: list[IndexEntry] = []
        gatherings: dict[Gathering | Growing, None] = {}
        for payload, vector in items:
            if isinstance(payload, Part):
                payload.gathering.put(payload.window, vector)
                gatherings[payload.gathering] = None
            else:
                document = cast("Document", payload)
                entries.append(IndexEntry(document, vector, self._entry_terms(document)))
        complete = {each: found for each in gatherings if (found := each.entries(self._entry_terms))}
        entries += chain.from_iterable(complete.values())
        if not entries:
            return [None] * len(items)
        watermark = cast("Store", self._store).upsert(entries)
        for gathering in complete:
            gathering.written(watermark)
        return [watermark] * len(items)

    def _entry_terms(self, document: Document) -> list[str]:
        return self._terms(_encoded_text(document))

    # --- results -------------------------------------------------------------------------------------------------

    def _query_result(self, job: AnyJob, done: AnyDone) -> QueryResult:
        query, found = cast("Query", job.payload), cast("SearchResponse | None", done.found)
        return QueryResult(
            id=query.id,
            text=query.text,
            vector=done.vector,
            hits=() if found is None else found.hits,
            metadata=query.metadata,
            timings=done.timings,
            watermark=None if found is None else found.watermark,
            notes=self._notes(query.text),
        )

    def _data_result(self, job: AnyJob, done: AnyDone) -> DataResult:
        document = cast("Document", job.payload)
        cut = self.config.long_text == "truncate" and document.embedding is None
        windows, seen, used = self._counts(job, done)
        return DataResult(
            id=document.id,
            vector=done.vector,
            metadata=document.metadata,
            timings=done.timings,
            watermark=cast("int | None", done.found),
            notes=self._notes(_encoded_text(document)) if cut else (),
            windows=windows,
            tokens_seen=seen,
            tokens_used=used,
        )

    def _counts(self, job: AnyJob, done: AnyDone) -> tuple[int, int | None, int | None]:
        """Return in how many windows a document was read, and how many tokens it has and were read."""
        if isinstance(done, LongDone):
            counts = (done.tokens_seen, done.tokens_used) if self.reader.counts else (None, None)
            return done.windows, *counts
        if isinstance(job, Job) and isinstance(job.text, Window):
            return 1, job.text.used, job.text.used
        if self._counter is not None and isinstance(job, Job) and job.text:
            seen = self._counter.count_tokens([cast("str", job.text)])[0]
            return 1, seen, min(seen, self._counter.max_tokens)
        return int(isinstance(job, Job) and job.vector is None), None, None

    def _notes(self, text: str) -> tuple[str, ...]:
        """Say what of a text the encoder did not read. The start of a long text is enough to tell, and soon counted."""
        if self._counter is None or len(text) <= self._counter.max_tokens:
            return ()
        most = self._counter.max_tokens
        if self._counter.count_tokens([text[: _CHARS_COUNTED * most]])[0] <= most:
            return ()
        return (f"truncated: only the first {most} tokens were encoded; split the text into passages",)


def configured(config: StreamingConfig | None, batch_size: int | None) -> StreamingConfig:
    """Return the settings a processor runs on: an argument given wins over `config`, that over the defaults."""
    base = config or StreamingConfig()
    return base if batch_size is None else replace(base, batch_size=batch_size)


def _encoded_text(document: Document) -> str:
    return f"{document.title}\n{document.text}" if document.title else document.text


def _failed_query(raw: object, position: int, error: NiruError) -> QueryResult:
    return QueryResult(id=id_of(raw, position), text=text_of(raw), error=error)


def _failed_data(raw: object, position: int, error: NiruError) -> DataResult:
    return DataResult(id=id_of(raw, position), error=error)

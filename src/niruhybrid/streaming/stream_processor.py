"""`StreamProcessor` and `AsyncStreamProcessor`: texts in, results out, in micro-batches shared by all callers."""

import asyncio
import atexit
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from niruhybrid.config import StreamingConfig
from niruhybrid.ports import BatchObserver, Encoder, Store
from niruhybrid.streaming.batcher import Batcher
from niruhybrid.streaming.engine import Engine, StreamStats, configured
from niruhybrid.streaming.growing import GrowingText, text_stream, text_stream_here
from niruhybrid.streaming.streams import stream, stream_here
from niruhybrid.types import DataResult, Document, Metadata, PassageResult, Query, QueryResult, Vector

__all__ = ("AsyncStreamProcessor", "StreamProcessor")

_CLOSE_TIMEOUT = 5.0  # seconds that a close waits for what is in flight


class _Processor:
    """What both processors have in common: an engine that is closed at the latest when they are gone."""

    def __init__(
        self,
        hybrid_encoder: Encoder,
        batch_size: int | None = None,
        *,
        store: Store | None = None,
        config: StreamingConfig | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self._engine = Engine(hybrid_encoder, store, configured(config, batch_size), observer)
        _open_batchers.add(self._engine.batcher)
        weakref.finalize(self, self._engine.batcher.abandon).atexit = False

    @property
    def config(self) -> StreamingConfig:
        """The settings it runs on."""
        return self._engine.config

    def stats(self) -> StreamStats:
        """Return every counter of both lanes, all as of the same instant."""
        return self._engine.stats()


class StreamProcessor(_Processor):
    """Encode queries and generated data, and with a store search and index them, from any number of threads.

    Args:
        hybrid_encoder: a `HybridEncoder`, or any object with `encode(list[str])` that returns one row per text.
        batch_size: items in a micro-batch at the most; wins over `config`.
        store: where documents are kept and found; None only encodes.
        config: all other settings.
        observer: is told of every batch.

    Raises:
        InvalidSettingError: an argument can't be used.
    """

    def process_query(
        self,
        query_id: str,
        query_text: str,
        *,
        top_k: int = 5,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        session: str | None = None,
    ) -> QueryResult:
        """Encode one query and search for it.

        Args:
            query_id: returned with the result.
            query_text: what is asked.
            top_k: hits wanted, 1 to 1000.
            metadata: returned with the result.
            timeout: seconds until it is given up; None takes `processing_timeout`.
            session: a newer query of the same session supersedes this one.

        Raises:
            InvalidInputError: an argument can't be used.
            OverloadedError: it was refused; try again after its `retry_after` seconds.
            DeadlineExceededError, SupersededError, ClosedError, EncoderError, StoreError: it was accepted and ended so.
        """
        return self.submit_query(Query(query_id, query_text, top_k, metadata or {}, timeout, session))

    def submit_query(self, query: Query) -> QueryResult:
        """Encode one query and search for it; raises as `process_query` does."""
        job = self._engine.job(self._engine.queries, query)
        future = self._engine.start(job)
        try:
            return self._engine.queries.result(job, future.result())
        finally:
            future.cancel()  # only if the wait itself was interrupted

    def process_query_batch(self, queries: Iterable[object]) -> list[QueryResult]:
        """Process queries together; one that fails has `.error` set and leaves the others alone.

        There may be any number of them: the time of each counts from when it is handed in, as the encoder gets to it.

        Args:
            queries: strings, mappings (`id`, `text`, `top_k`, `metadata`, `timeout`, `session`) or `Query`.

        Returns:
            One result per query, in their order.
        """
        return list(stream(self._engine, self._engine.queries, queries, ordered=True, counted=False))

    def process_query_stream(self, queries: Iterable[object], *, ordered: bool = True) -> Iterator[QueryResult]:
        """Yield the result of each query as the stream of queries goes on.

        Args:
            queries: strings, mappings or `Query`; read in a thread of its own, no further ahead than the bounds.
            ordered: in the order of the queries; False yields each as it completes.

        Raises:
            QueueFullError: `max_concurrent_streams` are open.
        """
        return stream(self._engine, self._engine.queries, queries, ordered=ordered)

    def process_data(
        self,
        data_id: str,
        data_text: str = "",
        *,
        title: str = "",
        metadata: Metadata | None = None,
        embedding: Vector | None = None,
        timeout: float | None = None,
    ) -> DataResult:
        """Encode one document, unless it brings its `embedding`, and index it.

        Without a `timeout` it has no deadline. Of several documents with one id, the one handed in last is kept.

        Raises:
            InvalidInputError: an argument can't be used.
            OverloadedError: it was refused; try again after its `retry_after` seconds.
            DeadlineExceededError, ClosedError, EncoderError, StoreError: it was accepted and ended so.
        """
        return self.submit_document(Document(data_id, data_text, title, metadata or {}, embedding, timeout))

    def submit_document(self, document: Document) -> DataResult:
        """Encode and index one document; raises as `process_data` does."""
        job = self._engine.job(self._engine.data, document)
        future = self._engine.start(job)
        try:
            return self._engine.data.result(job, future.result())
        finally:
            future.cancel()

    def process_data_batch(self, items: Iterable[object]) -> list[DataResult]:
        """Process documents together; one that fails has `.error` set and leaves the others alone.

        There may be any number of them.

        Args:
            items: strings, mappings (`id`, `text`, `title`, `metadata`, `embedding`, `timeout`) or `Document`.

        Returns:
            One result per document, in their order.
        """
        return list(stream(self._engine, self._engine.data, items, ordered=True, counted=False))

    def process_data_stream(self, items: Iterable[object], *, ordered: bool = True) -> Iterator[DataResult]:
        """Yield the result of each document as the stream goes on; arguments as in `process_query_stream`."""
        return stream(self._engine, self._engine.data, items, ordered=ordered)

    def process_text_stream(
        self, text_id: str, pieces: Iterable[str | bytes], *, title: str = "", metadata: Metadata | None = None
    ) -> Iterator[PassageResult]:
        """Encode and index a text while it still grows, passage by passage.

        However it is cut into pieces, the passages are the same. The first takes the place of what was kept under
        `text_id`; each is searchable when its result is there, and none is given up for being slow. Of the text no
        more is held than a window and the passages that are under way.

        Args:
            text_id: the id under which all of it is kept.
            pieces: strings, or bytes of UTF-8, cut anywhere; read in a thread of its own, within the bounds.
            title: read with every passage, searched by words; may be empty.
            metadata: kept and returned with every hit.

        Returns:
            The passages' results, in order, none of them with an error.

        Raises:
            InvalidInputError: an argument can't be used, or a piece, or there was no text; what came before is kept.
            OverloadedError, DeadlineExceededError, ClosedError, EncoderError, StoreError: a passage ended so; those
                before it are kept.
            Exception: whatever `pieces` raised, after the results of what came before.
        """
        return text_stream(self._engine, GrowingText(self._engine, text_id, title, metadata), pieces)

    def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> list[Vector]:
        """Encode texts and search for nothing, all or none, before generated data, as queries are.

        Args:
            texts: what is encoded, however many; handed in as the encoder gets to them, so that queries do not wait
                behind all of them.
            timeout: seconds until all are given up; None gives each text `processing_timeout`, from when it is handed
                in.

        Returns:
            One `(dim,)` unit vector for each text, in their order.

        Raises:
            InvalidInputError: an argument can't be used; nothing was encoded.
            OverloadedError: one can't be encoded in time; try again after its `retry_after` seconds.
            DeadlineExceededError, ClosedError, EncoderError: one was accepted and ended so.
        """
        kind = self._engine.embedding(texts, timeout)
        return list(stream(self._engine, kind, texts, ordered=True, counted=False))

    def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents from the store; documents of these ids that are under way are not kept either.

        Returns:
            How many there were, and the watermark.

        Raises:
            InvalidSettingError: the processor has no store.
            StoreError: nothing was removed.
        """
        return self._engine.removal(ids)()

    def close(self) -> None:
        """Refuse new items, end those that wait, and wait up to 5 s for those in flight; a second call does no harm."""
        self._engine.close(_CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStreamProcessor(_Processor):
    """Encode queries and generated data, and with a store search and index them, from any number of tasks.

    Args:
        hybrid_encoder: a `HybridEncoder`, or any object with `encode(list[str])` that returns one row per text.
        batch_size: items in a micro-batch at the most; wins over `config`.
        store: where documents are kept and found; None only encodes.
        config: all other settings.
        observer: is told of every batch.

    Raises:
        InvalidSettingError: an argument can't be used.
    """

    async def process_query(
        self,
        query_id: str,
        query_text: str,
        *,
        top_k: int = 5,
        metadata: Metadata | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # a deadline that travels with the item, not a wait around it
        session: str | None = None,
    ) -> QueryResult:
        """Encode one query and search for it; arguments and errors as in `StreamProcessor.process_query`.

        Cancelling takes the query back: it is not encoded, unless it is in the encoder already.
        """
        return await self.submit_query(Query(query_id, query_text, top_k, metadata or {}, timeout, session))

    async def submit_query(self, query: Query) -> QueryResult:
        """Encode one query and search for it; raises as `process_query` does."""
        job = self._engine.job(self._engine.queries, query)
        return self._engine.queries.result(job, await self._engine.run(job))

    async def process_query_batch(self, queries: Iterable[object]) -> list[QueryResult]:
        """Process queries together; as `StreamProcessor.process_query_batch`."""
        results = stream_here(self._engine, self._engine.queries, queries, ordered=True, counted=False)
        return [each async for each in results]

    def process_query_stream(
        self, queries: AsyncIterable[object] | Iterable[object], *, ordered: bool = True
    ) -> AsyncIterator[QueryResult]:
        """Yield the result of each query as the stream of queries goes on.

        Args:
            queries: strings, mappings or `Query`; read no further ahead than the bounds.
            ordered: in the order of the queries; False yields each as it completes.

        Raises:
            QueueFullError: `max_concurrent_streams` are open.
        """
        return stream_here(self._engine, self._engine.queries, queries, ordered=ordered)

    async def process_data(
        self,
        data_id: str,
        data_text: str = "",
        *,
        title: str = "",
        metadata: Metadata | None = None,
        embedding: Vector | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # a deadline that travels with the item, not a wait around it
    ) -> DataResult:
        """Encode and index one document; arguments and errors as in `StreamProcessor.process_data`."""
        return await self.submit_document(Document(data_id, data_text, title, metadata or {}, embedding, timeout))

    async def submit_document(self, document: Document) -> DataResult:
        """Encode and index one document; raises as `process_data` does."""
        job = self._engine.job(self._engine.data, document)
        return self._engine.data.result(job, await self._engine.run(job))

    async def process_data_batch(self, items: Iterable[object]) -> list[DataResult]:
        """Process documents together; as `StreamProcessor.process_data_batch`."""
        results = stream_here(self._engine, self._engine.data, items, ordered=True, counted=False)
        return [each async for each in results]

    def process_data_stream(
        self, items: AsyncIterable[object] | Iterable[object], *, ordered: bool = True
    ) -> AsyncIterator[DataResult]:
        """Yield the result of each document as the stream goes on; arguments as in `process_query_stream`."""
        return stream_here(self._engine, self._engine.data, items, ordered=ordered)

    def process_text_stream(
        self,
        text_id: str,
        pieces: AsyncIterable[str | bytes] | Iterable[str | bytes],
        *,
        title: str = "",
        metadata: Metadata | None = None,
    ) -> AsyncIterator[PassageResult]:
        """Encode and index a text while it still grows; as `StreamProcessor.process_text_stream`."""
        return text_stream_here(self._engine, GrowingText(self._engine, text_id, title, metadata), pieces)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # a deadline that travels with the item, not a wait around it
    ) -> list[Vector]:
        """Encode texts and search for nothing; arguments and errors as in `StreamProcessor.embed`.

        Cancelling takes the texts back.
        """
        kind = self._engine.embedding(texts, timeout)
        results = stream_here(self._engine, kind, texts, ordered=True, counted=False)
        return [each async for each in results]

    async def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents from the store; as `StreamProcessor.delete`."""
        return await asyncio.to_thread(self._engine.removal(ids))

    async def aclose(self) -> None:
        """Refuse new items, end those that wait, and wait up to 5 s for those in flight; a second call does no harm."""
        await asyncio.to_thread(self._engine.close, _CLOSE_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


_open_batchers: "weakref.WeakSet[Batcher]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads before the interpreter does: a thread inside the encoder must not be cut off."""
    for batcher in tuple(_open_batchers):
        batcher.close(_CLOSE_TIMEOUT)

"""The composition root: ready parts, or settings, become a running pipeline."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from niruhybrid import analysis
from niruhybrid.answer import Answer, sources_of
from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError
from niruhybrid.forks import forked_error, watch
from niruhybrid.observe.tracing import Tracing, open_tracing, query_trace
from niruhybrid.parts import Parts, open_parts
from niruhybrid.pipeline_state import PipelineStats, Readiness
from niruhybrid.ports import Encoder, Generator, Store, TermEncoder, TokenCounter
from niruhybrid.settings import Settings
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor
from niruhybrid.streaming.subscription import Subscription
from niruhybrid.types import (
    DataResult,
    Document,
    Metadata,
    PassageResult,
    Query,
    QueryResult,
    SearchRequest,
    SearchResponse,
    StandingQuery,
    StreamEvent,
    Vector,
)

__all__ = ("Pipeline",)


class Pipeline:
    """Two streams in, answers out: encodes, stores, searches and generates.

    It owns its parts: closing it closes the store.

    Example:
        ```python
        async with await Pipeline.open() as pipeline:
            async for event in pipeline.stream(Query("q1", "what is a context manager?")):
                print(event)
        ```

    Args:
        encoder: turns texts into vectors; gives the lexical terms too, if it is a `TermEncoder`.
        store: keeps and finds documents.
        generator: writes answers from hits.
        streaming: how items are batched and given up on.
        tracing: where spans go; closed with the pipeline.

    Attributes:
        tracing: the same; None if nowhere.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        generator: Generator,
        *,
        streaming: StreamingConfig | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.tracing = tracing
        self._streaming = streaming or StreamingConfig()
        self._encoder = encoder
        self._store = store
        self._generator = generator
        self._terms = encoder.terms if isinstance(encoder, TermEncoder) else analysis.terms
        self._processor = AsyncStreamProcessor(encoder, store=store, config=self._streaming, observer=tracing)
        self._answers = {"done": 0, "error": 0, "cancelled": 0}
        self._open_answers = 0
        self._subscriptions: set[Subscription] = set()
        self._closing: asyncio.Task[None] | None = None
        self._forked = False  # whether this is a child of the process that made the pipeline
        watch(self)

    @classmethod
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        encoder: Encoder | None = None,
        store: Store | str | Path | None = None,
        generator: Generator | None = None,
        tracing: Tracing | None = None,
    ) -> Self:
        """Return a running pipeline; parts that are not given are made from `settings`, off the event loop.

        Args:
            settings: what the parts are made from; None takes the defaults.
            encoder: turns texts into vectors.
            store: keeps documents; a path or a URL takes the place of `store.path`.
            generator: writes answers.
            tracing: where spans go.

        Raises:
            ModelError: the model can't be loaded.
            StoreError: the store can't be opened.
            InvalidSettingError: a generator or traces are asked for whose key or package is not there.
        """
        settings = settings or Settings()
        tracing = tracing or await asyncio.to_thread(open_tracing, settings.observe)
        opening = asyncio.ensure_future(asyncio.to_thread(open_parts, settings, encoder, store, generator))
        try:
            parts = await asyncio.shield(opening)
        except BaseException as err:
            if isinstance(err, asyncio.CancelledError):
                opening.add_done_callback(_close_unused)
            if tracing is not None:
                tracing.close()
            raise
        return cls(*parts, streaming=settings.streaming, tracing=tracing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def stream(self, query: Query, *, progressive: bool = False) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer's events: `sources` first and once, any number of `token`, then one `done` or `error`.

        Whatever goes wrong before `sources` is raised; after it, it is the `error` event, and `partial` in it says
        whether part of the answer was given. Closing the iterator stops the generation at once. `timeout` of the
        query bounds the answer as a whole; without it `processing_timeout` bounds the search, and the wait for each
        token.

        Args:
            query: what is asked.
            progressive: of a hybrid search, yield what the words alone find as `provisional`, before `sources`, if it
                is there sooner.

        Raises:
            OverloadedError: refused, nothing was done.
            DeadlineExceededError: the search was not done in time.
            EncoderError: the query can't be encoded.
            StoreError: the store can't be searched.
            ClosedError: the pipeline has been closed.
        """
        self._refuse_when_closed()
        began = time.monotonic()
        ending = "cancelled"
        self._open_answers += 1
        searching: asyncio.Task[QueryResult] | None = None
        trace = query_trace(self.tracing, query)
        failure: Exception | None = None
        told: Mapping[str, Any] = {}
        try:
            try:
                if progressive and query.mode == "hybrid":
                    with trace.active():
                        searching = asyncio.ensure_future(self._processor.submit_query(query))
                    if (found := await self._worded(query, searching)) is not None:
                        yield StreamEvent("provisional", sources_of(query, found))
                with trace.active():
                    result = await (searching or self._processor.submit_query(query))
            except Exception as err:
                ending, failure = "error", err
                raise
            trace.found(result)
            yield StreamEvent("sources", sources_of(query, result))
            silence = self._streaming.processing_timeout
            answer = Answer(self._generator, query, result, began=began, silence=silence, trace=trace)
            async with aclosing(answer.events()) as events:
                async for event in events:
                    if event.event != "token":
                        ending, told = event.event, event.data
                    yield event
        finally:
            trace.end(ending, error=failure or told.get("code"), finish=told.get("finish_reason"))
            if searching is not None:
                searching.cancel()
            self._open_answers -= 1
            self._answers[ending] += 1

    async def search(self, query: Query) -> QueryResult:
        """Return what a query finds, without an answer.

        Raises:
            NiruError: as `stream` does before its first event.
        """
        self._refuse_when_closed()
        trace = query_trace(self.tracing, query)
        with trace.whole():
            result = await self._processor.submit_query(query)
            trace.found(result)
        return result

    async def subscribe(
        self, query: Query, *, min_score: float | None = None, per_minute: int | None = None
    ) -> Subscription:
        """Return an async iterator of the documents that match `query` from now on; close it when it is done with.

        Args:
            query: what is waited for: its text, `filter` and `mode`.
            min_score: the score that a match must have; None leaves it to `per_minute`.
            per_minute: matches in a minute at the most; None for no cap. One of the two is needed.

        Raises:
            InvalidSettingError: neither is given, or one is out of its range.
            NiruError: the query can't be encoded, as in `stream`.
        """
        self._refuse_when_closed()
        limits = StandingQuery(query.id, None, (), min_score, per_minute, query.filter, query.mode)  # refuses first
        found = await self._processor.submit_query(replace(query, top_k=1, min_watermark=0, session=None))
        standing = replace(limits, vector=found.vector, terms=self._terms(query.text))
        self._refuse_when_closed()
        subscription = await asyncio.to_thread(Subscription, self._store, standing, self._subscriptions.discard)
        if self._closing is not None:
            subscription.close()
            self._refuse_when_closed()
        self._subscriptions.add(subscription)
        return subscription

    async def watermark(self) -> int:
        """Return the store's last write."""
        self._refuse_when_closed()
        [found] = await asyncio.to_thread(self._store.search, [SearchRequest(None, (), 1, mode="lexical")])
        return found.watermark

    async def _worded(self, query: Query, searching: asyncio.Task[QueryResult]) -> SearchResponse | None:
        """Return what the words alone find, if they do so sooner than `searching` ends."""
        by_words = SearchRequest(
            None, self._terms(query.text), query.top_k, query.filter, "lexical", query.min_watermark
        )
        looking = asyncio.ensure_future(asyncio.to_thread(self._store.search, [by_words]))
        looking.add_done_callback(_seen)
        await asyncio.wait({looking, searching}, return_when=asyncio.FIRST_COMPLETED)
        if searching.done() or looking.exception() is not None:  # what fails here fails there too, and is told there
            return None
        [found] = looking.result()
        return found

    def ingest(self, items: AsyncIterable[Any] | Iterable[Any], *, ordered: bool = True) -> AsyncIterator[DataResult]:
        """Encode and store `items`, yielding one result each; a result without `error` is searchable and durable.

        However long it takes, a document without its own `timeout` is not given up. Of several with one id, the one
        handed in last is kept.

        Args:
            items: strings, mappings or `Document`s, read as the encoder gets to them, a few seconds of work ahead.
            ordered: yield in the items' order, else as they complete.

        Raises:
            ClosedError: the pipeline has been closed.
        """
        self._refuse_when_closed()
        return self._processor.process_data_stream(items, ordered=ordered)

    def process_text_stream(
        self,
        text_id: str,
        pieces: AsyncIterable[str | bytes] | Iterable[str | bytes],
        *,
        title: str = "",
        metadata: Metadata | None = None,
    ) -> AsyncIterator[PassageResult]:
        """Encode and store a text while it still grows: a passage can be found as soon as its result is there.

        Hits name `text_id`, and their `span` says where in the text the passage is. However the text is cut into
        pieces, the passages are the same.

        Args:
            text_id: the id under which all of it is kept; the first passage takes the place of what is kept there.
            pieces: strings, or bytes of UTF-8, cut anywhere; read no further ahead than the bounds.
            title: read with every passage, searched by words; may be empty.
            metadata: kept and returned with every hit.

        Returns:
            The passages' results, in order, none of them with an error.

        Raises:
            ClosedError: the pipeline has been closed.
            InvalidInputError: an argument can't be used, or a piece, or there was no text; what came before is kept.
            OverloadedError, DeadlineExceededError, EncoderError, StoreError: a passage ended so; those before it are
                kept.
            Exception: whatever `pieces` raised, after the results of what came before.
        """
        self._refuse_when_closed()
        return self._processor.process_text_stream(text_id, pieces, title=title, metadata=metadata)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Encode texts as queries are encoded, ahead of generated data; all or none.

        There may be any number of them: they are handed in as the encoder gets to them.

        Returns:
            One `(dim,)` unit vector for each text, in their order.

        Raises:
            NiruError: as `stream` does before its first event.
        """
        self._refuse_when_closed()
        return await self._processor.embed(texts)

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens texts have together, as the encoder counts; words, for an encoder that can't."""
        written = [text for text in texts if text and not text.isspace()]
        if isinstance(self._encoder, TokenCounter):
            return sum(await asyncio.to_thread(self._encoder.count_tokens, written))
        return sum(len(text.split()) for text in written)

    async def get(self, ids: Sequence[str]) -> list[Document | None]:
        """Return the stored documents of these ids, in their order, None for each unknown one."""
        self._refuse_when_closed()
        return await asyncio.to_thread(self._store.get, ids)

    async def delete(self, ids: Sequence[str]) -> tuple[int, int]:
        """Remove documents and return how many there were, and the watermark.

        A document of one of these ids that was handed in before and is still under way is not kept either.

        Raises:
            StoreError: nothing was removed.
        """
        self._refuse_when_closed()
        return await self._processor.delete(ids)

    async def stats(self) -> PipelineStats:
        """Return the counters at this instant."""
        self._refuse_when_closed()
        documents = await asyncio.to_thread(self._store.count)
        return PipelineStats(documents, dict(self._answers), self._open_answers, self._processor.stats().to_dict())

    def ready(self) -> Readiness:
        """Say whether queries are taken and, if not, why."""
        if self._forked:
            return Readiness(ready=False, reasons=("made before the process was forked",))
        if self._closing is not None:
            return Readiness(ready=False, reasons=("closed",))
        if self._processor.stats().degraded:
            return Readiness(ready=True, degraded=True, reasons=("the last encode hung",))
        return Readiness(ready=True)

    async def aclose(self) -> None:
        """Finish or fail what is under way and release every part; a second call waits for the first."""
        if self._forked:
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.close()
        try:
            await self._processor.aclose()
        finally:
            try:
                await _close_generator(self._generator)
            finally:
                await asyncio.to_thread(self._store.close)
                if self.tracing is not None:
                    await asyncio.to_thread(self.tracing.close)

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked."""
        self._forked = True

    def _refuse_when_closed(self) -> None:
        if self._forked:
            raise forked_error("this pipeline")
        if self._closing is not None:
            raise ClosedError("the pipeline is closed: open a new one")


def _close_unused(opening: asyncio.Future[Parts]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()


def _seen(task: asyncio.Task[Any]) -> None:
    """Read a task's exception, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()


async def _close_generator(generator: Generator) -> None:
    close = getattr(generator, "aclose", None)  # most hold nothing
    if close is not None:
        await close()

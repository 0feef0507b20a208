"""Store many documents: read them off the event loop, skip what is there already, retry, and count everything."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from niruhybrid.config import RetryPolicy
from niruhybrid.errors import NiruError
from niruhybrid.pipeline import Pipeline
from niruhybrid.transient import TRANSIENT, is_transient
from niruhybrid.types import DataResult, Document

__all__ = ("Failure", "IngestReport", "ingest_new")

_CHUNK = 64
_KEPT_FAILURES = 100
_MOST_WAITING = 64  # documents to be tried again, before the source is read any further
_PATIENT = RetryPolicy(5, 0.5, 8.0, on=TRANSIENT)


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that was not stored, or a part of a file that could not be read.

    Attributes:
        reason: what happened and what to do.
        code: of the error, see `niruhybrid.errors`.
        id: of the document; None if none could be read.
        path: of the file it was read from; None if that is not known.
        line: in that file, from 1; None if that is not known.
    """

    reason: str
    code: str
    id: str | None = None
    path: str | None = None
    line: int | None = None

    @classmethod
    def of(cls, error: Exception, document_id: str, document: Document | None = None) -> Self:
        """Return the failure of a document; its metadata may tell the file and the line."""
        known = {} if document is None else document.metadata
        path, line = known.get("path"), known.get("line")
        return cls(
            str(error),
            error.code if isinstance(error, NiruError) else NiruError.code,
            document_id,
            path if isinstance(path, str) else None,
            line if type(line) is int else None,
        )

    def __str__(self) -> str:
        place = f"{self.path}{f':{self.line}' if self.line else ''}" if self.path else ""
        return f"{self.id if self.id is not None else place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the documents so far.

    Attributes:
        stored: encoded and written; searchable and durable. A document is also counted here if it failed for a passing
            reason and a later one of the same id was stored in this run.
        unchanged: in the store already, with the same text, title and metadata.
        failed: refused, or failed at each try.
        failures: the first hundred of those; `on_failure` of `ingest_new` is told of all.
    """

    stored: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()

    def with_stored(self, number: int = 1) -> Self:
        """Return the report with `number` documents more that were stored."""
        return replace(self, stored=self.stored + number)

    def with_failure(self, failure: Failure) -> Self:
        """Return the report with one failure more."""
        kept = self.failures if len(self.failures) >= _KEPT_FAILURES else (*self.failures, failure)
        return replace(self, failed=self.failed + 1, failures=kept)


async def ingest_new(
    pipeline: Pipeline,
    documents: Iterable[Document],
    *,
    on_progress: Callable[[IngestReport], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    retry: RetryPolicy = _PATIENT,
) -> IngestReport:
    """Store the documents that are not in the store as they are, and return what became of all.

    Of several documents with one id the last one is kept, however often the same documents are ingested. Stopped at
    any point, it goes on where it stopped when it is called again with the same documents. A document that fails for a
    passing reason is tried again.

    Args:
        pipeline: where they go, beside its queries and never before them.
        documents: read in a worker thread, no further ahead than the pipeline's bounds.
        on_progress: called after each result, in the event loop.
        on_failure: called with each document that was not stored, in the event loop.
        retry: how often a document is tried, and how long to wait in between; `on` is not used.

    Raises:
        ClosedError: the pipeline was closed meanwhile.
    """
    run = _Run(retry)
    source = _new(pipeline, iter(documents), run)
    while run.goes_on:
        async for result in pipeline.ingest(_handed_in(source, run)):
            failure = run.ended(result, time.monotonic())
            if failure is not None and on_failure is not None:
                on_failure(failure)
            if on_progress is not None:
                on_progress(run.report)
        await asyncio.sleep(run.pause(time.monotonic()))
    return run.report


async def _handed_in(source: AsyncGenerator[Document, None], run: "_Run") -> AsyncGenerator[Document, None]:
    """Yield what is to be tried again, then new documents, until a document waits to be tried again."""
    for attempt in run.take_failed():
        yield run.begun(attempt)
    while run.may_read(time.monotonic()):
        document = await anext(source, None)
        if document is None:
            run.exhausted = True
        else:
            yield run.begun(_Attempt(document))


async def _new(pipeline: Pipeline, documents: Iterator[Document], run: "_Run") -> AsyncGenerator[Document, None]:
    """Yield the documents that the store does not have as they are; count the others."""
    while chunk := await asyncio.to_thread(lambda: list(islice(documents, _CHUNK))):
        pending = {document.id for document in chunk if run.is_pending(document.id)}
        stored = await pipeline.get([document.id for document in chunk])
        for document, known in zip(chunk, stored, strict=True):
            # While an id is pending, what the store has of it is not the version before this one: hand in each.
            if document.id in pending or not _same(document, known):
                pending.add(document.id)
                yield document
            else:
                run.unchanged()


def _same(document: Document, stored: Document | None) -> bool:
    return stored is not None and (document.text, document.title, dict(document.metadata)) == (
        stored.text,
        stored.title,
        dict(stored.metadata),
    )


@dataclass(slots=True, eq=False)
class _Attempt:
    document: Document
    tries: int = 0


class _Run:
    """The state of one ingest: what is under way, what waits to be tried again, what became of the rest. Pure.

    Documents are tried again only when nothing is under way, and in their order, so an old version of a document never
    overtakes a newer one.
    """

    def __init__(self, retry: RetryPolicy) -> None:
        self.report = IngestReport()
        self.exhausted = False
        self._retry = retry
        self._under_way: deque[_Attempt] = deque()  # in the order of the pipeline's results
        self._failed: list[_Attempt] = []  # to be tried again, in their order
        self._pending: Counter[str] = Counter()  # ids of both
        self._due = 0.0  # when the first of the failed may be tried again

    @property
    def goes_on(self) -> bool:
        """Whether there is anything left to hand in."""
        return bool(self._failed) or not self.exhausted

    def is_pending(self, document_id: str) -> bool:
        """Return whether a document of this id is under way or waits to be tried again."""
        return document_id in self._pending

    def may_read(self, now: float) -> bool:
        """Return whether another document may be read now."""
        if self.exhausted or len(self._failed) >= _MOST_WAITING:
            return False
        return not self._failed or now < self._due

    def pause(self, now: float) -> float:
        """Return the seconds until the failed documents may be tried again."""
        return max(0.0, self._due - now) if self._failed else 0.0

    def take_failed(self) -> list[_Attempt]:
        """Return what is to be tried again now, in its order."""
        failed, self._failed = self._failed, []
        return failed

    def begun(self, attempt: _Attempt) -> Document:
        """Note that a document is handed in, and return it."""
        if not attempt.tries:
            self._pending[attempt.document.id] += 1
        attempt.tries += 1
        self._under_way.append(attempt)
        return attempt.document

    def unchanged(self) -> None:
        """Note a document that the store has as it is."""
        self.report = replace(self.report, unchanged=self.report.unchanged + 1)

    def ended(self, result: DataResult, now: float) -> Failure | None:
        """Note the next result; return the failure if the document is not tried again."""
        attempt = self._under_way.popleft()
        document = attempt.document
        if result.error is None:
            replaced = [older for older in self._failed if older.document.id == document.id]
            self._failed = [older for older in self._failed if older.document.id != document.id]
            self._forget(document.id, 1 + len(replaced))
            self.report = self.report.with_stored(1 + len(replaced))
            return None
        has_timeout = document.timeout is not None
        if attempt.tries < self._retry.attempts and is_transient(result.error, has_timeout=has_timeout):
            due = now + self._retry.wait(attempt.tries, result.error)
            self._due = max(self._due, due) if self._failed else due
            self._failed.append(attempt)
            return None
        self._forget(document.id, 1)
        failure = Failure.of(result.error, document.id, document)
        self.report = self.report.with_failure(failure)
        return failure

    def _forget(self, document_id: str, number: int) -> None:
        self._pending[document_id] -= number
        if not self._pending[document_id]:
            del self._pending[document_id]

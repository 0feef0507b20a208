"""Bringing many documents into a pipeline: read off the event loop, skip what is there already, count everything."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from niruhybrid.pipeline import Pipeline
from niruhybrid.types import DataResult, Document

__all__ = ("IngestReport", "ingest_new")

_CHUNK = 64
_KEPT_FAILURES = 100


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the documents so far.

    Attributes:
        stored: encoded and written; searchable and durable.
        unchanged: in the store already, with the same text, title and metadata.
        failed: refused, or given up.
        failures: the first hundred of those, as `id: reason`.
    """

    stored: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()

    def with_result(self, result: DataResult) -> "IngestReport":
        """Return the report with one result more."""
        if result.error is None:
            return replace(self, stored=self.stored + 1)
        kept = self.failures
        if len(kept) < _KEPT_FAILURES:
            kept = (*kept, f"{result.id}: {result.error}")
        return replace(self, failed=self.failed + 1, failures=kept)


async def ingest_new(
    pipeline: Pipeline, documents: Iterable[Document], *, on_progress: Callable[[IngestReport], None] | None = None
) -> IngestReport:
    """Store the documents that are not in the store as they are, and return what became of all.

    Stopped at any point, it goes on where it stopped when it is called again with the same documents.

    Args:
        pipeline: where they go, beside its queries and never before them.
        documents: read in a worker thread, no further ahead than the pipeline's bounds.
        on_progress: told of every change, in the event loop.

    Raises:
        ClosedError: the pipeline was closed meanwhile.
    """
    report = IngestReport()
    unchanged = 0

    def count_unchanged(number: int) -> None:
        nonlocal unchanged
        unchanged += number

    async for result in pipeline.ingest(_new(pipeline, iter(documents), count_unchanged), ordered=False):
        report = replace(report.with_result(result), unchanged=unchanged)
        if on_progress is not None:
            on_progress(report)
    return replace(report, unchanged=unchanged)


async def _new(
    pipeline: Pipeline, documents: Iterator[Document], count_unchanged: Callable[[int], None]
) -> AsyncIterator[Document]:
    while chunk := await asyncio.to_thread(lambda: list(islice(documents, _CHUNK))):
        stored = await pipeline.get([document.id for document in chunk])
        new = [document for document, known in zip(chunk, stored, strict=True) if not _same(document, known)]
        count_unchanged(len(chunk) - len(new))
        for document in new:
            yield document


def _same(document: Document, stored: Document | None) -> bool:
    return stored is not None and (document.text, document.title, dict(document.metadata)) == (
        stored.text,
        stored.title,
        dict(stored.metadata),
    )

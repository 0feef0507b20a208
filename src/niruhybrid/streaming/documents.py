"""Generated data: documents, read whole or in windows, and written as they are complete."""

from collections.abc import Sequence
from itertools import chain
from typing import cast

from niruhybrid.errors import InvalidTextError, InvalidVectorError, NiruError
from niruhybrid.ports import Store
from niruhybrid.streaming.inputs import as_document, id_of
from niruhybrid.streaming.kinds import AnyDone, AnyJob, Kind
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.long_texts import LongDone, LongJob
from niruhybrid.streaming.reading import Gathering, Growing, Part, Reader, truncated
from niruhybrid.types import DataResult, Document, IndexEntry, Vector
from niruhybrid.windows import Window

__all__ = ("Documents",)


class Documents:
    """The lane of generated data.

    Args:
        reader: cuts the texts; tells of the encoder's tokens and terms.
        store: where documents are kept; None only encodes.
        dim: length of the encoder's vectors; None where it does not tell.

    Attributes:
        kind: the steps from a document to its result.
    """

    def __init__(self, reader: Reader, store: Store | None, dim: int | None) -> None:
        self._reader = reader
        self._config = reader.config
        self._store = store
        self._dim = dim
        self._titled: tuple[str, list[str]] = ("", [])  # the last title, and its terms
        self.kind = Kind(lane="bulk", read=as_document, job=self._job, result=self._result, failed=_failed)

    def _job(self, document: Document) -> AnyJob:
        timeout = document.timeout or self._config.processing_timeout
        vector = document.embedding
        if vector is not None:
            if self._dim is not None and vector.size != self._dim:
                raise InvalidVectorError(
                    f"embedding has {vector.size} dimensions, the encoder has {self._dim}: use the same model"
                )
            return Job(document, "bulk", "", timeout, vector)
        self._reader.refuse_long(_encoded_text(document), "document text")
        if self._config.long_text == "truncate":
            return self._truncated(document, timeout)
        return self._windowed(document, timeout)

    def _truncated(self, document: Document, timeout: float) -> AnyJob:
        """Return the job of a document of which the beginning is read, and the rest only counted."""
        text = _encoded_text(document)
        if not self._reader.may_be_cut(text):
            return Job(document, "bulk", text, timeout)
        first, unread, seen = self._reader.beginning(document.text, document.title)
        if first.whole:
            return self._reader.job(document, first, document.title, timeout)

        def job(window: Window, left: float, last: bool) -> Job:  # noqa: ARG001  # as texts of several windows need it
            return self._reader.job(document, window, document.title, left)

        each = self._config.processing_timeout
        return LongJob(document, iter((first,)), job, document.timeout, each, seen, unread)

    def _windowed(self, document: Document, timeout: float) -> AnyJob:
        """Return the job of a document that is read in windows; one window is read like any text."""
        cutter = self._reader.cutter(document.title)
        windows = self._reader.windows(document.text, cutter)
        first, second = next(windows), next(windows, None)
        if second is None and cutter.seen == first.used:  # else not all of the title was read, and that is told
            return self._reader.job(document, first, document.title, timeout)
        mode = self._config.long_text
        if mode == "error":
            raise InvalidTextError(
                "document text or title is longer than the encoder reads: split it, or choose a `long_text`"
            )
        gathering = Gathering(document, mean=mode == "mean")

        def part(window: Window, left: float, last: bool) -> Job:
            if last:
                gathering.total = window.part + 1
            return self._reader.job(Part(window, gathering), window, document.title, left)

        rest = (first,) if second is None else chain((first, second), windows)
        each = self._config.processing_timeout
        return LongJob(document, iter(rest), part, document.timeout, each, lambda: cutter.seen)

    def write(self, items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
        """Write documents read whole, and of long ones what is complete; all in one transaction.

        For the stage after encoding, in its thread.
        """
        entries: list[IndexEntry] = []
        gatherings: dict[Gathering | Growing, None] = {}
        for payload, vector in items:
            if isinstance(payload, Part):
                payload.gathering.put(payload.window, vector)
                gatherings[payload.gathering] = None
            else:
                document = cast("Document", payload)
                entries.append(IndexEntry(document, vector, self._terms(document)))
        complete = {each: found for each in gatherings if (found := each.entries(self._terms))}
        entries += chain.from_iterable(complete.values())
        if not entries:
            return [None] * len(items)
        watermark = cast("Store", self._store).upsert(entries)
        for gathering in complete:
            gathering.written(watermark)
        return [watermark] * len(items)

    def _terms(self, document: Document) -> list[str]:
        """Return the terms of title and text. The passages of a document follow each other and share the title's."""
        title, terms = self._titled
        if title != document.title:
            terms = self._reader.terms(document.title) if document.title else []
            self._titled = document.title, terms
        return [*terms, *self._reader.terms(document.text)]

    def _result(self, job: AnyJob, done: AnyDone) -> DataResult:
        document = cast("Document", job.payload)
        windows, seen, used = self._counts(job, done)
        return DataResult(
            id=document.id,
            vector=done.vector,
            metadata=document.metadata,
            timings=done.timings,
            watermark=cast("int | None", done.found),
            notes=self._notes(seen, used),
            windows=windows,
            tokens_seen=seen,
            tokens_used=used,
        )

    def _notes(self, seen: int | None, used: int | None) -> tuple[str, ...]:
        if seen is None or used is None or used == seen:
            return ()
        if self._config.long_text == "truncate":
            return (truncated(used),)
        return (f"truncated: {seen - used} tokens of the title were not encoded; shorten it",)

    def _counts(self, job: AnyJob, done: AnyDone) -> tuple[int, int | None, int | None]:
        """Return in how many windows a document was read, and how many tokens it has and were read."""
        if isinstance(done, LongDone):
            known = self._reader.counts or self._config.long_text == "truncate"
            return (done.windows, done.tokens_seen, done.tokens_used) if known else (done.windows, None, None)
        if not isinstance(job, Job) or job.vector is not None:
            return 0, None, None
        if isinstance(job.text, Window):
            return 1, job.text.used, job.text.used
        tokens = self._reader.counted(job.text)
        return 1, tokens, tokens


def _encoded_text(document: Document) -> str:
    return f"{document.title}\n{document.text}" if document.title else document.text


def _failed(raw: object, position: int, error: NiruError) -> DataResult:
    return DataResult(id=id_of(raw, position), error=error)

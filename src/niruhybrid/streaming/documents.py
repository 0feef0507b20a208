"""Generated data: documents, read whole or in windows, and written as they are complete."""

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from math import inf
from typing import TypeAlias, cast

from niruhybrid.errors import InvalidSettingError, InvalidTextError, InvalidVectorError, NiruError
from niruhybrid.ports import Store
from niruhybrid.streaming.inputs import as_document, id_of
from niruhybrid.streaming.kinds import AnyDone, AnyJob, Kind
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.long_texts import LongDone, LongJob
from niruhybrid.streaming.reading import Gathering, Growing, Part, Reader, Whole, truncated
from niruhybrid.streaming.write_order import WriteOrder
from niruhybrid.types import DataResult, Document, IndexEntry, Vector
from niruhybrid.windows import Window

__all__ = ("Documents",)

Unit: TypeAlias = Whole | Gathering | Growing
"""What is written at once."""


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
        self._order = WriteOrder()
        self._order_lock = threading.Lock()  # held for an instant, by whoever hands in
        self._write_lock = threading.Lock()  # held while the store writes
        self._titled: tuple[str, list[str]] = ("", [])  # the last title, and its terms
        self.kind = Kind(lane="bulk", read=as_document, job=self._job, result=self._result, failed=_failed)

    def _job(self, document: Document) -> AnyJob:
        timeout = document.timeout or inf
        vector = document.embedding
        if vector is not None:
            if self._dim is not None and vector.size != self._dim:
                raise InvalidVectorError(
                    f"embedding has {vector.size} dimensions, the encoder has {self._dim}: use the same model"
                )
            return Job(Whole(document), "bulk", "", timeout, vector)
        self._reader.refuse_long(_encoded_text(document), "document text")
        if self._config.long_text == "truncate":
            return self._truncated(document, timeout)
        return self._windowed(document, timeout)

    def _truncated(self, document: Document, timeout: float) -> AnyJob:
        """Return the job of a document of which the beginning is read, and the rest only counted."""
        text = _encoded_text(document)
        if not self._reader.may_be_cut(text):
            return Job(Whole(document), "bulk", text, timeout)
        first, unread, seen = self._reader.beginning(document.text, document.title)
        whole = Whole(document)
        if first.whole:
            return self._reader.job(whole, first, document.title, timeout)

        def job(window: Window, left: float, last: bool) -> Job:  # noqa: ARG001  # as texts of several windows need it
            return self._reader.job(whole, window, document.title, left)

        return LongJob(whole, iter((first,)), job, document.timeout, inf, seen, unread)

    def _windowed(self, document: Document, timeout: float) -> AnyJob:
        """Return the job of a document that is read in windows; one window is read like any text."""
        cutter = self._reader.cutter(document.title)
        windows = self._reader.windows(document.text, cutter)
        first, second = next(windows), next(windows, None)
        if second is None and cutter.seen == first.used:  # else not all of the title was read, and that is told
            return self._reader.job(Whole(document), first, document.title, timeout)
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
        return LongJob(gathering, iter(rest), part, document.timeout, inf, lambda: cutter.seen)

    def arrive(self, payload: object) -> None:
        """Take note that a job's document is handed in now: of several of one id the last is kept."""
        if isinstance(payload, Part):
            payload = payload.gathering
            if payload.arrival is not None:
                return  # with its first window
        if isinstance(payload, Unit):
            with self._order_lock:
                payload.arrival = self._order.arrive(payload.document.id)

    def removal(self, ids: Sequence[str]) -> Callable[[], tuple[int, int]]:
        """Take note that documents are to be removed now: those of these ids that are under way are not kept either.

        Returns:
            What removes them, and returns how many there were and the watermark; it blocks, and raises `StoreError`.

        Raises:
            InvalidSettingError: there is no store.
        """
        store = self._store
        if store is None:
            raise InvalidSettingError("documents can't be removed without a store: give the processor a `store`")
        with self._order_lock:
            arrivals = {each: self._order.arrive(each) for each in ids}

        def remove() -> tuple[int, int]:
            with self._write_lock:
                due = [each for each, arrival in arrivals.items() if arrival.superseded is None]
                removed, watermark = store.delete(due)
                for each in due:
                    arrivals[each].written(watermark)
            return removed, watermark

        return remove

    def write(self, items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
        """Write documents read whole, and of long ones what is complete; all in one transaction.

        Of several writes of one id only the one handed in last is kept, whichever comes first. An earlier one is
        complete with the watermark of the later.

        For the stage after encoding, in its thread.

        Returns:
            A watermark for each item; None for one whose document is not complete yet.
        """
        units = [_put(payload, vector) for payload, vector in items]
        complete = {unit: found for unit in dict.fromkeys(units) if (found := unit.entries(self._terms))}
        with self._write_lock:
            watermarks = self._written(complete)
        return [watermarks.get(unit) for unit in units]

    def _written(self, complete: dict[Unit, list[IndexEntry]]) -> dict[Unit, int]:
        """Write what is complete and not superseded; return the watermark of each."""
        watermarks: dict[Unit, int] = {}
        newest: dict[str, Unit] = {}
        for unit in complete:
            later = None if unit.arrival is None else unit.arrival.superseded
            if later is not None:
                watermarks[unit] = later
                continue
            other = newest.get(unit.document.id)
            if other is None or _number(other) < _number(unit):
                newest[unit.document.id] = unit
        if newest:
            entries = list(chain.from_iterable(complete[unit] for unit in newest.values()))
            watermark = cast("Store", self._store).upsert(entries)
            for unit in newest.values():
                if unit.arrival is not None:
                    unit.arrival.written(watermark)
            watermarks = dict.fromkeys(complete, watermark) | watermarks
        for unit, watermark in watermarks.items():
            unit.written(watermark)
        return watermarks

    def _terms(self, document: Document) -> list[str]:
        """Return the terms of title and text. The passages of a document follow each other and share the title's."""
        title, terms = self._titled
        if title != document.title:
            terms = self._reader.terms(document.title) if document.title else []
            self._titled = document.title, terms
        return [*terms, *self._reader.terms(document.text)]

    def _result(self, job: AnyJob, done: AnyDone) -> DataResult:
        document = cast("Whole | Gathering", job.payload).document
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


def _put(payload: object, vector: Vector) -> Unit:
    """Give a vector to what it belongs to, and return that."""
    if isinstance(payload, Part):
        payload.gathering.put(payload.window, vector)
        return payload.gathering
    whole = cast("Whole", payload)
    whole.put(vector)
    return whole


def _number(unit: Unit) -> int:
    return 0 if unit.arrival is None else unit.arrival.number


def _encoded_text(document: Document) -> str:
    return f"{document.title}\n{document.text}" if document.title else document.text


def _failed(raw: object, position: int, error: NiruError) -> DataResult:
    return DataResult(id=id_of(raw, position), error=error)

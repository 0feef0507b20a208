"""Texts for which somebody waits: queries, which are searched for, and texts that are only to be encoded."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import cast

from niruhybrid.errors import DeadlineExceededError, InvalidTextError, NiruError
from niruhybrid.ports import Store
from niruhybrid.streaming.inputs import as_query, id_of, text_of
from niruhybrid.streaming.kinds import AnyDone, AnyJob, Kind
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.long_texts import LongJob
from niruhybrid.streaming.reading import Reader
from niruhybrid.types import Query, QueryResult, SearchRequest, SearchResponse, Vector
from niruhybrid.types.checks import checked_text, checked_timeout
from niruhybrid.windows import Window

__all__ = ("Queries",)

_SHORT = 256  # characters that are tokenized at once on an event loop


class Queries:
    """The lane of queries.

    Args:
        reader: tells of the encoder's tokens and terms.
        store: where is searched; None only encodes.

    Attributes:
        kind: the steps from a query to its result.
    """

    def __init__(self, reader: Reader, store: Store | None) -> None:
        self._reader = reader
        self._config = reader.config
        self._store = store
        self.kind = Kind(lane="interactive", read=as_query, job=self._job, result=self._result, failed=_failed)

    def _job(self, query: Query) -> Job:
        self._reader.refuse_long(query.text, "query text")
        timeout = query.timeout or self._config.processing_timeout
        return Job(query, "interactive", self._reader.as_read(query.text), timeout, None, query.session)

    def _result(self, job: AnyJob, done: AnyDone) -> QueryResult:
        query, found = cast("Query", job.payload), cast("SearchResponse | None", done.found)
        return QueryResult(
            id=query.id,
            text=query.text,
            vector=done.vector,
            hits=() if found is None else found.hits,
            metadata=query.metadata,
            timings=done.timings,
            watermark=None if found is None else found.watermark,
            notes=self._reader.notes(query.text),
        )

    def embedding(self, texts: Sequence[str], timeout: float | None) -> Kind[str, Vector]:
        """Return the steps from a text to its vector alone; the first text that fails raises its error.

        Args:
            texts: all texts that are to be encoded.
            timeout: seconds from now until they are given up; None gives each `processing_timeout` from when it is
                handed in.

        Raises:
            InvalidInputError: `texts` is one string, one of them can't be used (the message gives its position), or
                `timeout` can't.
        """
        if isinstance(texts, str | bytes):
            raise InvalidTextError("texts is one string: give a list, such as [text]")
        checked_timeout(timeout)
        most = self._config.max_text_chars
        for at, text in enumerate(texts):
            checked_text(text, what=f"text {at}", max_chars=most)
        due = None if timeout is None else time.monotonic() + timeout

        def job(text: str) -> AnyJob:
            return self._embed_job(text, None if due is None or timeout is None else _left(due, timeout))

        return Kind("interactive", _as_text, job, _vector, _raise, aside=_takes_long)

    def _embed_job(self, text: str, timeout: float | None) -> AnyJob:
        each = timeout or self._config.processing_timeout
        cutter = self._reader.cutter("")
        windows = self._reader.windows(text, cutter)
        first, second = next(windows), next(windows, None)
        if second is None:
            return Job(None, "interactive", text, each)

        def part(window: Window, left: float, last: bool) -> Job:  # noqa: ARG001  # as documents need it
            return self._reader.job(None, window, "", left, "interactive")

        return LongJob(None, chain((first, second), windows), part, timeout, each, lambda: cutter.seen)

    def search(self, items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
        """Search for the queries; a text that was only to be encoded is done. For the stage after encoding."""
        requests = {
            at: SearchRequest(
                vector, self._reader.terms(query.text), query.top_k, query.filter, query.mode, query.min_watermark
            )
            for at, (query, vector) in enumerate(items)
            if isinstance(query, Query)
        }
        found = cast("Store", self._store).search(list(requests.values())) if requests else []
        by_place = dict(zip(requests, found, strict=True))
        return [by_place.get(at) for at in range(len(items))]


def _left(due: float, timeout: float) -> float:
    left = due - time.monotonic()
    if left <= 0.0:
        raise DeadlineExceededError(f"not all texts were encoded within {timeout:g} s: allow more time")
    return left


def _as_text(raw: object, position: int) -> str:  # noqa: ARG001  # as every kind does
    return cast("str", raw)


def _takes_long(raw: object) -> bool:
    return len(cast("str", raw)) > _SHORT


def _vector(job: AnyJob, done: AnyDone) -> Vector:  # noqa: ARG001  # as every kind does
    return done.vector


def _raise(raw: object, position: int, error: NiruError) -> Vector:  # noqa: ARG001  # as every kind does
    raise error


def _failed(raw: object, position: int, error: NiruError) -> QueryResult:
    return QueryResult(id=id_of(raw, position), text=text_of(raw), error=error)

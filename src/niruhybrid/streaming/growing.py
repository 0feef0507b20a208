"""A text that still grows through the engine: its windows are a stream like any other, of one document."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, closing
from math import inf
from typing import cast

import numpy as np

from niruhybrid.errors import InvalidSettingError, InvalidTextError, NiruError
from niruhybrid.streaming.engine import Engine
from niruhybrid.streaming.inputs import TextDecoder
from niruhybrid.streaming.kinds import AnyDone, AnyJob, Kind
from niruhybrid.streaming.reading import Growing, Part
from niruhybrid.streaming.streams import stream, stream_here
from niruhybrid.types import Document, Metadata, PassageResult
from niruhybrid.windows import Window

__all__ = ("GrowingText", "text_stream", "text_stream_here")

_SLICE = 2048  # characters tokenized at a time: few milliseconds


class GrowingText:
    """One text: decoded, cut, and how its windows become results.

    Args:
        engine: what encodes and writes.
        text_id: the document's id.
        title: the document's.
        metadata: the document's.

    Raises:
        InvalidInputError: an argument can't be used, or the engine's `long_text` needs whole texts.
    """

    def __init__(self, engine: Engine, text_id: str, title: str, metadata: Metadata | None) -> None:
        mode = engine.config.long_text
        if mode not in {"windows", "late"}:
            raise InvalidSettingError(f"`long_text` is {mode!r}: a text that still grows needs 'windows' or 'late'")
        self._document = Document(text_id, "", title, metadata or {}, np.ones(1, np.float32))  # passages bring the rest
        self._engine = engine
        self._decoder = TextDecoder()
        self._cutter = engine.reader.cutter(title)
        self._passages = Growing(self._document)
        self._used = 0
        self._blank = True
        self.kind = Kind("bulk", self._read, self._job, self._result, self._failed)

    def slices(self, piece: object) -> Iterator[list[Window]]:
        """Yield the windows that a piece completes, slice by slice; every slice takes a few milliseconds at the most.

        Raises:
            InvalidTextError: the piece can't be used.
        """
        text = self._decoder.text(piece)
        self._blank = self._blank and (not text or text.isspace())
        for start in range(0, len(text), _SLICE):
            yield self._cutter.feed(text[start : start + _SLICE])

    def end(self) -> list[Window]:
        """Return the last windows.

        Raises:
            InvalidTextError: the text ends within a character, or is empty.
        """
        self._decoder.end()
        if self._blank:
            raise InvalidTextError("text is empty (nothing, or all blank): give some text")
        return self._cutter.close()

    def _read(self, raw: object, position: int) -> Window:  # noqa: ARG002  # as every kind does
        return cast("Window", raw)

    def _job(self, window: Window) -> AnyJob:
        return self._engine.reader.job(Part(window, self._passages), window, self._document.title, inf)

    def _result(self, job: AnyJob, done: AnyDone) -> PassageResult:
        window = cast("Part", job.payload).window
        self._used += window.used
        counts = self._engine.reader.counts
        return PassageResult(
            id=self._document.id,
            part=window.part,
            text=window.text,
            span=(window.start, window.end),
            vector=done.vector,
            timings=done.timings,
            watermark=self._passages.watermarks.pop(window.part, None),
            tokens_seen=self._cutter.seen if counts else None,
            tokens_used=self._used if counts else None,
        )

    def _failed(self, raw: object, position: int, error: NiruError) -> PassageResult:  # noqa: ARG002  # as every kind does
        window = cast("Window", raw)
        span = (window.start, window.end)
        return PassageResult(self._document.id, window.part, window.text, span, error=error)


async def text_stream_here(
    engine: Engine, text: GrowingText, pieces: AsyncIterable[str | bytes] | Iterable[str | bytes]
) -> AsyncIterator[PassageResult]:
    """Yield the results of a text's passages, on the running event loop; the first that fails is raised."""

    async def windows() -> AsyncIterator[Window]:
        async for piece in _each(pieces):
            for final in text.slices(piece):
                for window in final:
                    yield window
                await asyncio.sleep(0)
        for window in text.end():
            yield window

    results = stream_here(engine, text.kind, windows(), ordered=True)
    async with aclosing(results):  # type: ignore[type-var]  # an async generator
        async for result in results:
            yield _raised(result)


def text_stream(engine: Engine, text: GrowingText, pieces: Iterable[str | bytes]) -> Iterator[PassageResult]:
    """Yield the results of a text's passages; the first that fails is raised."""

    def windows() -> Iterator[Window]:
        for piece in pieces:
            for final in text.slices(piece):
                yield from final
        yield from text.end()

    results = stream(engine, text.kind, windows(), ordered=True)
    with closing(results):  # type: ignore[type-var]  # a generator
        for result in results:
            yield _raised(result)


def _raised(result: PassageResult) -> PassageResult:
    if result.error is not None:
        raise result.error
    return result


async def _each(pieces: AsyncIterable[str | bytes] | Iterable[str | bytes]) -> AsyncIterator[str | bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece

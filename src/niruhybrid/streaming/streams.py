"""A stream of inputs through the engine, as a stream of results: one shell for threads, one for asyncio.

A reader takes inputs as fast as results are taken, and never more than the engine's window ahead. Results come in the
order of the inputs, or as they complete. An input that fails is a result with an error; it does not end the stream. An
overloaded lane slows the reader down instead of refusing its input: it waits for an input of its own that is under way;
where there is none, a document that names no `timeout` is given as much more time as what waits before it will take.
When the source itself raises, everything read before it is yielded first.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from niruhybrid.errors import DeadlineUnreachableError, NiruError, OverloadedError
from niruhybrid.streaming.engine import Engine
from niruhybrid.streaming.kinds import AnyJob, Item, Kind, Result
from niruhybrid.streaming.lanes import Job
from niruhybrid.types import Document

__all__ = ("stream", "stream_here")

_BREATH = 16  # inputs after which a reader lets other tasks of its event loop run

_F = TypeVar("_F", "Future[Any]", "asyncio.Future[Any]")


@dataclass(frozen=True, slots=True, eq=False)
class _Begun(Generic[_F]):
    """An input that is being worked on."""

    raw: object
    position: int
    job: AnyJob
    future: _F


@dataclass(frozen=True, slots=True, eq=False)
class _Refused:
    """An input that was refused."""

    raw: object
    position: int
    error: NiruError


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the source, the number of inputs read, and the error it ended with."""

    read: int
    error: BaseException | None


class _Shared(Generic[Item, Result, _F]):
    """What both shells decide alike: how an input begins, what its result is, what to wait for if there is no room."""

    def __init__(self, engine: Engine, kind: Kind[Item, Result], start: Callable[[AnyJob], _F]) -> None:
        self._engine = engine
        self._kind = kind
        self._start: Callable[[AnyJob], _F] = start
        self._live: dict[_Begun[_F], None] = {}

    def begin(self, raw: object, position: int) -> _Begun[_F] | _Refused:
        try:
            job = self._engine.job_of(self._kind, raw, position)
            begun = _Begun(raw, position, job, self._begun(job))
        except NiruError as err:
            return _Refused(raw, position, err)
        self._live[begun] = None
        return begun

    def _begun(self, job: AnyJob) -> _F:
        try:
            return self._start(job)
        except DeadlineUnreachableError as err:
            if self._live or not isinstance(job, Job) or not _may_wait(job):
                raise
            job.timeout = 2 * (job.timeout + err.retry_after)  # what it would wait at the door, it waits in its lane
            return self._start(job)

    def in_the_way(self, refused: _Begun[_F] | _Refused) -> _F | None:
        """Return the future whose end may make room for a refused input, if there is one."""
        if isinstance(refused, _Refused) and isinstance(refused.error, OverloadedError):
            return next((begun.future for begun in tuple(self._live) if not begun.future.done()), None)
        return None

    def result(self, entry: _Begun[_F] | _Refused) -> Result:
        """Return the result of an input that has ended."""
        if isinstance(entry, _Refused):
            return self._kind.failed(entry.raw, entry.position, entry.error)
        del self._live[entry]
        try:
            done = entry.future.result()
        except NiruError as err:
            return self._kind.failed(entry.raw, entry.position, err)
        return self._kind.result(entry.job, done)

    def give_up(self) -> None:
        """Take back whatever is still under way."""
        for begun in tuple(self._live):
            begun.future.cancel()


async def stream_here(
    engine: Engine, kind: Kind[Item, Result], source: AsyncIterable[object] | Iterable[object], *, ordered: bool
) -> AsyncIterator[Result]:
    """Yield the results of a source's inputs, on the running event loop.

    Raises:
        QueueFullError: too many streams are open.
        Exception: whatever the source raised, after the results of everything read before.
    """
    engine.open_stream()
    shared = _Shared(engine, kind, engine.start_here)
    slots = asyncio.Semaphore(engine.window)
    ready: asyncio.Queue[_Begun[asyncio.Future[Any]] | _Refused | _End] = asyncio.Queue()  # bounded by the slots
    reader = asyncio.create_task(_read_here(shared, source, slots, ready, ordered=ordered), name="niru-stream-reader")
    try:
        taken, owed, end, together = 0, 0, None, _together(engine.window)
        while end is None or taken < end.read:
            entry = await ready.get()
            if isinstance(entry, _End):
                end = entry
                continue
            if isinstance(entry, _Begun) and not entry.future.done():
                await asyncio.wait([entry.future])
            taken += 1
            owed += 1
            if owed == together or ready.empty():
                for _ in range(owed):
                    slots.release()
                owed = 0
            yield shared.result(entry)
        if end.error is not None:
            raise end.error
    finally:
        reader.cancel()
        shared.give_up()
        engine.close_stream()
        await asyncio.wait([reader])


async def _read_here(
    shared: "_Shared[Item, Result, asyncio.Future[Any]]",
    source: AsyncIterable[object] | Iterable[object],
    slots: asyncio.Semaphore,
    ready: "asyncio.Queue[_Begun[asyncio.Future[Any]] | _Refused | _End]",
    *,
    ordered: bool,
) -> None:
    position, error = 0, None
    try:
        async for raw in _each(source):
            await slots.acquire()
            position += 1
            if position % _BREATH == 0:
                await asyncio.sleep(0)
            begun = shared.begin(raw, position)
            while (blocking := shared.in_the_way(begun)) is not None:
                await asyncio.wait([blocking])
                begun = shared.begin(raw, position)
            if ordered or isinstance(begun, _Refused):
                ready.put_nowait(begun)
            else:
                begun.future.add_done_callback(_putter(ready.put_nowait, begun))
    except Exception as err:  # noqa: BLE001  # handed to the consumer, who raises it
        error = err
    ready.put_nowait(_End(position, error))


async def _each(source: AsyncIterable[object] | Iterable[object]) -> AsyncIterator[object]:
    if isinstance(source, AsyncIterable):
        async for raw in source:
            yield raw
    else:
        for raw in source:
            yield raw


def stream(engine: Engine, kind: Kind[Item, Result], source: Iterable[object], *, ordered: bool) -> Iterator[Result]:
    """Yield the results of a source's inputs; the source is read in a thread of its own.

    Raises:
        QueueFullError: too many streams are open.
        Exception: whatever the source raised, after the results of everything read before.
    """
    engine.open_stream()
    shared = _Shared(engine, kind, engine.start)
    slots = threading.Semaphore(engine.window)
    ready: SimpleQueue[_Begun[Future[Any]] | _Refused | _End] = SimpleQueue()  # bounded by the slots
    stopped = threading.Event()

    def read() -> None:
        end = _End(*_read(shared, source, slots, ready, stopped, ordered=ordered))
        ready.put(end)

    threading.Thread(target=read, name="niru-stream-reader", daemon=True).start()
    try:
        taken, owed, last, together = 0, 0, None, _together(engine.window)
        while last is None or taken < last.read:
            entry = ready.get()
            if isinstance(entry, _End):
                last = entry
                continue
            if isinstance(entry, _Begun):
                with suppress(CancelledError):
                    entry.future.exception()  # waits until it is done
            taken += 1
            owed += 1
            if owed == together or ready.empty():
                slots.release(owed)
                owed = 0
            yield shared.result(entry)
        if last.error is not None:
            raise last.error
    finally:
        stopped.set()
        slots.release()  # the reader may be waiting for one; it sees that it has been stopped
        shared.give_up()
        engine.close_stream()


def _read(
    shared: "_Shared[Item, Result, Future[Any]]",
    source: Iterable[object],
    slots: threading.Semaphore,
    ready: "SimpleQueue[_Begun[Future[Any]] | _Refused | _End]",
    stopped: threading.Event,
    *,
    ordered: bool,
) -> tuple[int, BaseException | None]:
    position = 0
    try:
        for raw in source:
            slots.acquire()
            if stopped.is_set():
                break
            position += 1
            begun = shared.begin(raw, position)
            while (blocking := shared.in_the_way(begun)) is not None:
                wait([blocking])
                begun = shared.begin(raw, position)
            if ordered or isinstance(begun, _Refused):
                ready.put(begun)
            else:
                begun.future.add_done_callback(_putter(ready.put, begun))
    except Exception as err:  # noqa: BLE001  # handed to the consumer, who raises it
        return position, err
    return position, None


def _may_wait(job: Job) -> bool:
    return isinstance(job.payload, Document) and job.payload.timeout is None


def _together(window: int) -> int:
    """Return how many results are taken before the reader is given room for as many more: waking it has its price."""
    return min(_BREATH, max(1, window // 4))


def _putter(put: "Callable[[_Begun[_F]], None]", begun: "_Begun[_F]") -> Callable[[object], None]:
    return lambda _: put(begun)

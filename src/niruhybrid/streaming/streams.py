"""A stream of inputs through the engine, as a stream of results: one shell for threads, one for asyncio.

A reader takes inputs as fast as their lane has room for them and as results are taken. Results come in the order of the
inputs, or as they complete. An input that fails is a result with an error; it does not end the stream. What an item
waits for before it is handed in is decided in one place, `_Shared.begin`:

- the results of the stream that nobody has taken yet are bounded, in number and in bytes;
- the windows of a long text are all handed in before the next input;
- the lane has room, by the batcher's prediction; an input with none of its stream's before it needs only a lane that is
  not full.

So a lane that is busy slows a stream down and refuses nothing, except an item whose own `timeout` can't be met although
nothing of its stream is in its way. When the source itself raises, everything read before it is yielded first.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from niruhybrid.errors import DeadlineUnreachableError, NiruError, QueueFullError
from niruhybrid.streaming.core import size_of
from niruhybrid.streaming.engine import Engine
from niruhybrid.streaming.kinds import AnyJob, Item, Kind, Result
from niruhybrid.streaming.long_texts import LongJob
from niruhybrid.windows import Window

__all__ = ("stream", "stream_here")

_TOGETHER = 16  # results that are taken before the reader is told, at the most: waking it has its price
_BREATH = 0.005  # seconds after which a reader lets other tasks of its event loop run
_HELD_BYTES = 4 * 1024 * 1024  # of inputs whose results nobody has taken yet; a single input may have more

_F = TypeVar("_F", "Future[Any]", "asyncio.Future[Any]")


class _Stopped(Exception):  # noqa: N818  # no error: the stream was left
    """The stream was left; its reader is to end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """An input as it was read.

    Attributes:
        raw: what the source gave.
        position: its place in the stream, from 1.
        cost: how much of the stream's window it takes.
    """

    raw: object
    position: int
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class _Begun(Generic[_F]):
    """An input that is being worked on."""

    input: _Input
    job: AnyJob
    future: _F


@dataclass(frozen=True, slots=True, eq=False)
class _Refused:
    """An input that was refused."""

    input: _Input
    error: NiruError


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the source, the number of inputs begun or refused, and the error it ended with."""

    read: int
    error: BaseException | None


class _Shared(Generic[Item, Result, _F]):
    """What both shells decide alike: when an input may begin, how, and what its result is.

    Args:
        engine: what runs the jobs.
        kind: the steps from an input to its result.
        feed: hands in a job; told what to call when a long text has been handed in as a whole.
        wake: makes the reader try again; called where the futures' callbacks are.
        tell: the same, from any thread.
    """

    def __init__(
        self,
        engine: Engine,
        kind: Kind[Item, Result],
        feed: Callable[[AnyJob, Callable[[], object]], _F],
        wake: Callable[[], object],
        tell: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._kind = kind
        self._feed: Callable[[AnyJob, Callable[[], object]], _F] = feed
        self._wake = wake
        self._tell = tell
        self._lock = threading.RLock()  # a future may be done, and its callback called, while its input begins
        self._untaken: dict[_Begun[_F], None] = {}
        self._held = 0  # cost of the inputs whose results were not taken
        self._under_way = 0
        self._handing_in: AnyJob | None = None  # a long text that has windows which are not handed in yet
        self._asked = False  # whether the batcher will tell of room
        self._late = False  # whether an input waits for another of the stream to end
        self._stopped = False
        self.together = min(_TOGETHER, max(1, engine.window // 4))

    def read(self, raw: object, position: int) -> _Input:
        """Return an input with what it costs of the stream's window: its part of the items, or of the bytes."""
        window = self._engine.window
        size = size_of(raw.text if isinstance(raw, Window) else raw)
        return _Input(raw, position, min(window, 1 + size * window // _HELD_BYTES))

    def job(self, given: _Input) -> AnyJob | _Refused:
        """Return what is to be done for an input."""
        try:
            return self._engine.job_of(self._kind, given.raw, given.position)
        except NiruError as err:
            return _Refused(given, err)

    def begin(self, given: _Input, job: AnyJob | _Refused) -> _Begun[_F] | _Refused | None:
        """Hand in an input; return None if it has to wait. Then the reader is woken when it is to try again.

        Raises:
            _Stopped: the stream was left.
        """
        with self._lock:
            if self._stopped:
                raise _Stopped
            self._late = False
            if self._held and self._held + given.cost > self._engine.window:
                return None  # until results are taken
            if isinstance(job, _Refused):
                self._held += given.cost
                return job
            if self._handing_in is not None:
                return None
            return self._hand_in(given, job)

    def _hand_in(self, given: _Input, job: AnyJob) -> _Begun[_F] | _Refused | None:
        while self._may_enter(job):
            self._handing_in = job if isinstance(job, LongJob) else None
            try:
                begun = _Begun(given, job, self._feed(job, self._handed_in))
            except QueueFullError:
                continue  # another was quicker
            except NiruError as err:
                self._handing_in = None
                if isinstance(err, DeadlineUnreachableError) and self._under_way:
                    self._late = True
                    return None
                self._held += given.cost
                return _Refused(given, err)
            self._watch(begun)
            return begun
        return None

    def _watch(self, begun: _Begun[_F]) -> None:
        self._held += begun.input.cost
        self._under_way += 1
        self._untaken[begun] = None
        begun.future.add_done_callback(lambda _: self._ended(begun))

    def _may_enter(self, job: AnyJob) -> bool:
        if isinstance(job, LongJob):
            return True  # its windows wait for room
        when = None if self._asked else self._room_came
        self._asked = True
        if not self._engine.batcher.has_room(job, when, alone=not self._under_way):
            return False
        if when is not None:
            self._asked = False
        return True

    def _room_came(self) -> None:
        self._asked = False  # without the lock: the batcher holds its own
        self._tell()

    def _handed_in(self) -> None:
        self._handing_in = None
        self._tell()

    def _ended(self, begun: _Begun[_F]) -> None:
        with self._lock:
            self._under_way -= 1
            cut_short = self._handing_in is begun.job
            if cut_short:
                self._handing_in = None
            wanted = self._late or not self._under_way or cut_short
        if wanted:
            self._wake()

    def result(self, entry: _Begun[_F] | _Refused) -> Result:
        """Return the result of an input that has ended."""
        given = entry.input
        if isinstance(entry, _Refused):
            return self._kind.failed(given.raw, given.position, entry.error)
        del self._untaken[entry]
        try:
            done = entry.future.result()
        except NiruError as err:
            return self._kind.failed(given.raw, given.position, err)
        return self._kind.result(entry.job, done)

    def taken(self, cost: int) -> None:
        """Take note that results were taken of inputs that cost so much."""
        with self._lock:
            self._held -= cost
        self._wake()

    @property
    def stopped(self) -> bool:
        """Whether the stream was left."""
        return self._stopped

    def stop(self) -> None:
        """Begin nothing more, and take back whatever is still under way."""
        with self._lock:
            self._stopped = True
            left = tuple(self._untaken)
        for begun in left:
            begun.future.cancel()
        self._wake()


async def stream_here(
    engine: Engine,
    kind: Kind[Item, Result],
    source: AsyncIterable[object] | Iterable[object],
    *,
    ordered: bool,
    counted: bool = True,
) -> AsyncIterator[Result]:
    """Yield the results of a source's inputs, on the running event loop.

    Args:
        engine: what runs the jobs.
        kind: the steps from an input to its result.
        source: the inputs.
        ordered: in the order of the inputs; False yields each as it completes.
        counted: whether it counts among `max_concurrent_streams`; False for a batch.

    Raises:
        QueueFullError: too many streams are open.
        BaseException: whatever the source raised, after the results of everything read before.
    """
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop is closed, and the stream with it
            loop.call_soon_threadsafe(news.set)

    if counted:
        engine.open_stream()
    shared = _Shared(engine, kind, engine.feed_here, news.set, tell)
    ready: asyncio.Queue[_Begun[asyncio.Future[Any]] | _Refused | _End] = asyncio.Queue()  # bounded by `_held`
    reader = asyncio.create_task(_read_here(shared, kind, source, news, ready, ordered=ordered))
    reader.set_name("niru-stream-reader")
    try:
        taken, owed, end = 0, 0, None
        while end is None or taken < end.read:
            entry = await ready.get()
            if isinstance(entry, _End):
                end = entry
                continue
            if isinstance(entry, _Begun) and not entry.future.done():
                await asyncio.wait([entry.future])
            taken += 1
            owed += entry.input.cost
            if owed >= shared.together or ready.empty():
                shared.taken(owed)
                owed = 0
            yield shared.result(entry)
        if end.error is not None:
            raise end.error
    finally:
        shared.stop()
        reader.cancel()
        if counted:
            engine.close_stream()
        await asyncio.wait([reader])


async def _read_here(
    shared: "_Shared[Item, Result, asyncio.Future[Any]]",
    kind: Kind[Item, Result],
    source: AsyncIterable[object] | Iterable[object],
    news: asyncio.Event,
    ready: "asyncio.Queue[_Begun[asyncio.Future[Any]] | _Refused | _End]",
    *,
    ordered: bool,
) -> None:
    read, error, breath = 0, None, time.monotonic()
    try:
        async for raw in _each(source):
            given = shared.read(raw, read + 1)
            job = await asyncio.to_thread(shared.job, given) if kind.aside(raw) else shared.job(given)
            news.clear()
            while (begun := shared.begin(given, job)) is None:
                await news.wait()
                news.clear()
            read += 1
            if ordered or isinstance(begun, _Refused):
                ready.put_nowait(begun)
            else:
                begun.future.add_done_callback(_putter(ready.put_nowait, begun))
            if time.monotonic() - breath > _BREATH:
                await asyncio.sleep(0)
                breath = time.monotonic()
    except _Stopped:
        pass
    except BaseException as err:  # handed to the consumer, who raises it
        if shared.stopped and not isinstance(err, Exception):
            raise  # the reader was cancelled
        error = err
    ready.put_nowait(_End(read, error))


async def _each(source: AsyncIterable[object] | Iterable[object]) -> AsyncIterator[object]:
    if isinstance(source, AsyncIterable):
        async for raw in source:
            yield raw
    else:
        for raw in source:
            yield raw


def stream(
    engine: Engine, kind: Kind[Item, Result], source: Iterable[object], *, ordered: bool, counted: bool = True
) -> Iterator[Result]:
    """Yield the results of a source's inputs; the source is read in a thread of its own. Arguments as `stream_here`.

    Raises:
        QueueFullError: too many streams are open.
        BaseException: whatever the source raised, after the results of everything read before.
    """
    if counted:
        engine.open_stream()
    news = threading.Event()
    shared = _Shared(engine, kind, engine.feed, news.set, news.set)
    ready: SimpleQueue[_Begun[Future[Any]] | _Refused | _End] = SimpleQueue()  # bounded by `_held`
    reader = threading.Thread(
        target=_read, args=(shared, source, news, ready, ordered), name="niru-stream-reader", daemon=True
    )
    try:
        reader.start()
        taken, owed, end = 0, 0, None
        while end is None or taken < end.read:
            entry = ready.get()
            if isinstance(entry, _End):
                end = entry
                continue
            if isinstance(entry, _Begun):
                with suppress(CancelledError):
                    entry.future.exception()  # waits until it is done
            taken += 1
            owed += entry.input.cost
            if owed >= shared.together or ready.empty():
                shared.taken(owed)
                owed = 0
            yield shared.result(entry)
        if end.error is not None:
            raise end.error
    finally:
        shared.stop()
        if counted:
            engine.close_stream()


def _read(
    shared: "_Shared[Item, Result, Future[Any]]",
    source: Iterable[object],
    news: threading.Event,
    ready: "SimpleQueue[_Begun[Future[Any]] | _Refused | _End]",
    ordered: bool,
) -> None:
    read, error = 0, None
    try:
        for raw in source:
            given = shared.read(raw, read + 1)
            job = shared.job(given)
            news.clear()
            while (begun := shared.begin(given, job)) is None:
                news.wait()
                news.clear()
            read += 1
            if ordered or isinstance(begun, _Refused):
                ready.put(begun)
            else:
                begun.future.add_done_callback(_putter(ready.put, begun))
    except _Stopped:
        pass
    except BaseException as err:  # noqa: BLE001  # handed to the consumer, who raises it
        error = err
    ready.put(_End(read, error))


def _putter(put: "Callable[[_Begun[_F]], None]", begun: "_Begun[_F]") -> Callable[[object], None]:
    return lambda _: put(begun)

"""A long text through the batcher: its windows as jobs of their own, few at a time, and one result at the end."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from niruhybrid.errors import (
    ClosedError,
    DeadlineExceededError,
    EncoderFailedError,
    NiruError,
    OverloadedError,
    QueueFullError,
)
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.foreign import as_ours
from niruhybrid.streaming.lanes import Job
from niruhybrid.types import Timings, Vector
from niruhybrid.windows import Window, unit_mean

__all__ = ("HasRoom", "LongDone", "LongJob", "LongTexts")

_Step: TypeAlias = Callable[[], None]


class HasRoom(Protocol):
    """Whether there is room for a job; `Batcher.has_room`."""

    def __call__(self, job: Job, when: Callable[[], object] | None, /, *, alone: bool) -> bool:
        """Return whether there is room; if not, have `when` called once there may be."""


@dataclass(frozen=True, slots=True, eq=False)
class LongJob:
    """A text of several windows, handed in as one.

    Attributes:
        payload: the query or document, for who asks.
        windows: all its windows, in order, cut as they are asked for.
        job: makes a window's job; told the seconds that are left, and whether it is the last window.
        timeout: seconds until all of it is given up; None lets each window take its own.
        each: seconds until one window is given up; infinity for never.
        seen: tells, when all are cut, how many tokens the text had; asked in the thread that cuts.
        unread: windows that follow, which are cut only so that their tokens are counted.
    """

    payload: object
    windows: Iterator[Window]
    job: Callable[[Window, float, bool], Job]
    timeout: float | None
    each: float
    seen: Callable[[], int]
    unread: Iterator[Window] = field(default_factory=lambda: iter(()))


class LongDone(NamedTuple):
    """A long text's result.

    Attributes:
        vector: the mean of its windows', of unit length.
        found: the last write's watermark, where something was written.
        timings: from its acceptance; the longest encode and write among its windows.
        tokens_seen: tokens of title and text.
        tokens_used: those of them that were read.
        windows: how many windows were read.
    """

    vector: Vector
    found: int | None
    timings: Timings
    tokens_seen: int
    tokens_used: int
    windows: int


class LongTexts:
    """Runs long texts against a batcher, each a few windows at a time, cut in a thread of its own.

    The next window of a text is handed in when its lane has room for it; of a text that has none under way, as soon as
    the lane is not full.

    Args:
        start: hands a job to the batcher.
        has_room: tells whether there is room for one.
        ahead: windows of one text that may wait or be under way.
    """

    def __init__(self, start: "Callable[[Job], Future[Done]]", has_room: HasRoom, ahead: int) -> None:
        self._desk = _Desk(start, has_room, ahead, self._soon)
        self._lock = threading.Lock()
        self._steps: SimpleQueue[_Step | None] = SimpleQueue()
        self._running = False
        weakref.finalize(self, self._steps.put, None).atexit = False

    def start(self, job: LongJob) -> "Future[LongDone]":
        """Hand in a text from any thread; cancelling the future takes it back.

        Raises:
            OverloadedError, ClosedError: its first window was refused.
        """
        run = _Run(job, self._desk, _nothing)
        run.begin()
        return run.future

    def feed(self, job: LongJob, handed_in: Callable[[], object]) -> "Future[LongDone]":
        """Hand in a text of a stream: its first window waits for room as the others do.

        Args:
            job: the text.
            handed_in: called in another thread when its last window is handed in; not if it ends before.
        """
        run = _Run(job, self._desk, handed_in)
        run.begin_with_room()
        return run.future

    def close(self) -> None:
        """Let the thread end; a text that is still under way starts another."""
        with self._lock:
            if self._running:
                self._running = False
                self._steps.put(None)

    def _soon(self, step: "_Step") -> None:
        """Have a step taken by the thread, after those before it."""
        with self._lock:
            self._steps.put(step)
            if not self._running:
                self._running = True
                threading.Thread(target=_take_steps, args=(self._steps,), name="niru-windows", daemon=True).start()


def _take_steps(steps: "SimpleQueue[_Step | None]") -> None:
    while (step := steps.get()) is not None:
        step()
        del step  # it may hold the last reference to a text


def _nothing() -> None:
    pass


class _Desk(NamedTuple):
    """What every text is run with.

    Attributes:
        start: hands a job to the batcher.
        has_room: tells whether there is room for one.
        ahead: windows of one text that may wait or be under way.
        soon: has a step taken in the thread.
    """

    start: "Callable[[Job], Future[Done]]"
    has_room: HasRoom
    ahead: int
    soon: "Callable[[_Step], None]"


class _Run:
    """One text. After its beginning, everything happens in one thread."""

    def __init__(self, job: LongJob, desk: _Desk, handed_in: Callable[[], object]) -> None:
        self.future: Future[LongDone] = Future()
        self._job = job
        self._desk = desk
        self._soon = desk.soon
        self._handed_in = handed_in
        self._began = time.monotonic()
        self._next: Window | None = next(job.windows)
        self._after: Window | None = next(job.windows, None)
        self._live: set[Future[Done]] = set()
        self._asked = False  # whether it will be told of room
        self._sum: Vector | None = None
        self._first: Vector | None = None
        self._used = 0
        self._windows = 0
        self._found: int | None = None
        self._timings = Timings()
        self._counting = False
        self._seen: int | None = None  # until all is counted

    def begin(self) -> None:
        """Hand in the first window; the others follow in the thread."""
        try:
            if self._next is not None:
                self._hand_in(self._next, self._job_of(self._next))
        except Exception as err:
            if not self._live:
                raise
            self._fail(err)  # the next could not be cut
        self.begin_with_room()

    def begin_with_room(self) -> None:
        """Hand in windows in the thread, as there is room for them."""
        self.future.add_done_callback(self._over)
        self._soon(self._advance)

    def _over(self, future: "Future[LongDone]") -> None:
        if future.cancelled():
            future.set_running_or_notify_cancel()  # those who wait for several futures are told too
            self._drop()
        self._soon(self._drop)  # a window may have been on its way

    def _job_of(self, window: Window) -> Job:
        """Return the job of the next window.

        Raises:
            DeadlineExceededError: there is no time left for it.
        """
        return self._job.job(window, self._time_left(), self._after is None)

    def _hand_in(self, window: Window, job: Job) -> None:
        """Hand in the next window.

        Raises:
            NiruError: it was refused.
        """
        future = self._desk.start(job)
        self._live.add(future)
        self._used += window.used
        self._windows += 1
        self._next, self._after = self._after, None if self._after is None else next(self._job.windows, None)
        if self._next is None:
            self._handed_in()
        future.add_done_callback(lambda done: self._soon(lambda: self._ended(done)))  # last: it may be done already

    def _time_left(self) -> float:
        if self._job.timeout is None:
            return self._job.each
        left = self._began + self._job.timeout - time.monotonic()
        if left <= 0.0:
            raise DeadlineExceededError(
                f"not finished within {self._job.timeout:g} s ({self._windows} windows read): allow more time"
            )
        return left

    def _advance(self) -> None:
        """Hand in windows as far as there is room; when all are, have the text's tokens counted."""
        try:
            while (window := self._next) is not None and len(self._live) < self._desk.ahead and not self.future.done():
                job = self._job_of(window)
                if not self._may_enter(job):
                    break
                with suppress(QueueFullError):  # another was quicker: room is asked for again
                    self._hand_in(window, job)
        except OverloadedError as err:
            if not self._live:  # with others under way, it is tried again when one has ended
                self._fail(err)
        except Exception as err:  # noqa: BLE001  # whatever a tokenizer raises is the text's error, never the thread's end
            self._fail(err)
        if self._next is None and not self._counting:
            self._counting = True
            self._soon(self._count)

    def _may_enter(self, job: Job) -> bool:
        when = None if self._asked else self._room_came
        self._asked = True
        if not self._desk.has_room(job, when, alone=not self._live):
            return False
        if when is not None:
            self._asked = False  # there was no need to ask
        return True

    def _room_came(self) -> None:
        self._asked = False
        self._soon(self._advance)

    def _count(self) -> None:
        """Cut one more of the windows that are not read; when there is none, learn how many tokens there were."""
        if self.future.done():
            return
        try:
            if next(self._job.unread, None) is None:
                self._seen = self._job.seen()
            else:
                self._time_left()
                self._soon(self._count)
        except Exception as err:  # noqa: BLE001  # same
            self._fail(err)
        self._end_if_done()

    def _ended(self, part: "Future[Done]") -> None:
        self._live.discard(part)
        if self.future.done():
            return
        if part.cancelled():
            self._fail(ClosedError("the processor was closed while the text was read"))
            return
        error = part.exception()
        if isinstance(error, NiruError):
            self._fail(error)
            return
        self._learn(part.result())
        self._advance()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._next is not None or self._live or self._seen is None:
            return
        with suppress(InvalidStateError):  # it may have been taken back meanwhile
            self.future.set_result(self._done(self._seen))

    def _learn(self, done: Done) -> None:
        if self._sum is None:
            self._first = self._sum = done.vector
        else:
            self._sum = self._sum + done.vector
        if isinstance(done.found, int):
            self._found = max(done.found, self._found or 0)
        timings = done.timings
        self._timings = Timings(
            queued=self._timings.queued if self._timings.total else timings.queued,
            encode=max(self._timings.encode, timings.encode),
            search=max(self._timings.search, timings.search),
            total=time.monotonic() - self._began,
        )

    def _done(self, seen: int) -> LongDone:
        vector = unit_mean(np.asarray(self._sum), np.asarray(self._first))
        return LongDone(vector, self._found, self._timings, seen, min(self._used, seen), self._windows)

    def _fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(as_ours(error, EncoderFailedError, "cutting the text raised {}: see the cause"))
        self._drop()

    def _drop(self) -> None:
        """Take back what is under way: the text has ended."""
        for part in tuple(self._live):
            part.cancel()

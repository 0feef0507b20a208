"""A long text through the batcher: its windows as jobs of their own, few at a time, and one result at the end."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

import numpy as np

from niruhybrid.errors import ClosedError, DeadlineExceededError, EncoderFailedError, NiruError, OverloadedError
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.foreign import as_ours
from niruhybrid.streaming.lanes import Job
from niruhybrid.types import Timings, Vector
from niruhybrid.windows import Window, unit_mean

__all__ = ("LongDone", "LongJob", "LongTexts")

_SHORTEST_WAIT = 0.005  # seconds

_Step: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class LongJob:
    """A text of several windows, handed in as one.

    Attributes:
        payload: the query or document, for who asks.
        windows: all its windows, in order, cut as they are asked for.
        job: makes a window's job; told the seconds that are left, and whether it is the last window.
        timeout: seconds until all of it is given up; None lets each window take its own.
        each: seconds until one window is given up.
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

    A text that has begun and finds no room tries again when a window of any other text has ended, or else after the
    time that the refusal named.

    Args:
        start: hands a job to the batcher.
        ahead: windows of one text that may wait or be under way.
    """

    def __init__(self, start: "Callable[[Job], Future[Done]]", ahead: int) -> None:
        self._start = start
        self._ahead = ahead
        self._lock = threading.Lock()
        self._steps: SimpleQueue[_Step | None] = SimpleQueue()
        self._waiting: list[tuple[float, _Step]] = []
        self._running = False
        weakref.finalize(self, self._steps.put, None).atexit = False

    def start(self, job: LongJob) -> "Future[LongDone]":
        """Hand in a text from any thread; cancelling the future takes it back.

        Raises:
            OverloadedError, ClosedError: its first window was refused.
        """
        run = _Run(job, self._start, self._ahead, self._soon, self._later)
        run.begin()
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
                thread = threading.Thread(
                    target=_take_steps, args=(self._steps, self._waiting), name="niru-windows", daemon=True
                )
                thread.start()

    def _later(self, step: "_Step", seconds: float) -> None:
        """Have a step taken after the next one, or after `seconds`; to be called by the thread."""
        self._waiting.append((time.monotonic() + max(_SHORTEST_WAIT, seconds), step))


def _take_steps(steps: "SimpleQueue[_Step | None]", waiting: "list[tuple[float, _Step]]") -> None:
    while True:
        due = min((at for at, _ in waiting), default=None)
        try:
            step = steps.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            if step is None:
                return
            step()
        except Empty:
            pass
        again = waiting.copy()
        waiting.clear()
        for _, each in again:
            each()
        again.clear()
        step = None  # it may hold the last reference to a text


class _Run:
    """One text. After its beginning, everything happens in one thread."""

    def __init__(
        self,
        job: LongJob,
        start: "Callable[[Job], Future[Done]]",
        ahead: int,
        soon: "Callable[[_Step], None]",
        later: "Callable[[_Step, float], None]",
    ) -> None:
        self.future: Future[LongDone] = Future()
        self._job = job
        self._start = start
        self._ahead = ahead
        self._soon = soon
        self._later = later
        self._moved = self._began = time.monotonic()
        self._next: Window | None = next(job.windows)
        self._after: Window | None = next(job.windows, None)
        self._live: set[Future[Done]] = set()
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
            self._hand_in()
        except Exception as err:
            if not self._live:
                raise
            self._fail(err)  # the next could not be cut
        self.future.add_done_callback(lambda _: self._soon(self._drop))
        self._soon(self._advance)

    def _hand_in(self) -> None:
        """Hand in the next window.

        Raises:
            NiruError: it was refused, or there is no time left for it.
        """
        window = self._next
        if window is None:
            return
        future = self._start(self._job.job(window, self._time_left(), self._after is None))
        self._live.add(future)
        self._used += window.used
        self._windows += 1
        self._next, self._after = self._after, None if self._after is None else next(self._job.windows, None)
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
            while self._next is not None and len(self._live) < self._ahead and not self.future.done():
                self._hand_in()
        except OverloadedError as err:
            if not self._live:  # with others under way, it is tried again when one has ended
                self._wait_or_fail(err)
        except Exception as err:  # noqa: BLE001  # whatever a tokenizer raises is the text's error, never the thread's end
            self._fail(err)
        if self._next is None and not self._counting:
            self._counting = True
            self._soon(self._count)

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

    def _wait_or_fail(self, err: OverloadedError) -> None:
        if time.monotonic() - self._moved >= self._job.each:
            self._fail(err)
        else:
            self._later(self._advance, err.retry_after)

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
        if self._next is not None or self._live or self._seen is None or self.future.done():
            return
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self._done(self._seen))

    def _learn(self, done: Done) -> None:
        self._moved = time.monotonic()
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
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(as_ours(error, EncoderFailedError, "cutting the text raised {}: see the cause"))
        self._drop()

    def _drop(self) -> None:
        """Take back what is under way: the text has ended."""
        for part in tuple(self._live):
            part.cancel()

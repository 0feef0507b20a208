"""The threads that run the scheduler against an encoder, for callers in any thread and on any event loop.

One worker thread cuts a batch, encodes it and cuts the next, without asking anybody; one alarm thread settles what was
encoded while the next is, ends what is past its deadline and replaces a worker that hangs; a stage thread per lane
searches or writes what was encoded. All sleep until there is something to do. A caller is woken once, when its item
has ended.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from math import inf

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import EncoderFailedError, NiruError
from niruhybrid.forks import forked_error, watch
from niruhybrid.ports import BatchObserver, Encoder
from niruhybrid.streaming.alarm import Alarm
from niruhybrid.streaming.cache import CacheStats, VectorCache
from niruhybrid.streaming.callers import Done, Ending, Outbox, hand_out
from niruhybrid.streaming.cost import estimate_tokens
from niruhybrid.streaming.encodes import Encodes, Raw
from niruhybrid.streaming.foreign import as_ours
from niruhybrid.streaming.lanes import Batch, Job, LaneName
from niruhybrid.streaming.ledger import SchedulerStats
from niruhybrid.streaming.scheduler import Scheduler
from niruhybrid.streaming.stage import Encoded, Finish, Finished, Stage
from niruhybrid.types import Timings, Vector

__all__ = ("Batcher", "Job")

_log = logging.getLogger(__name__)

_RAISED = "the encoder raised {} for this text alone: see the cause"
_QUICK = 0.001  # seconds; an encode that takes less is over before another thread has woken to help


class Batcher:
    """One encoder shared by everybody, in micro-batches.

    Args:
        encoder: called from one worker thread at a time; again from another only after a call has hung.
        config: bounds, batch sizes, shares and timeouts.
        finish: the stage after encoding, for each lane; None where an item is done with its vector.
        observer: is told of every batch.

    Attributes:
        forked: whether this is a child of the process that started the batcher's threads; they are not here.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: StreamingConfig,
        *,
        finish: Mapping[LaneName, Finish] | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self._observer = observer
        self._encodes = Encodes(encoder, config.retry, observer)
        self._config = config
        self._finish = dict(finish or {})
        self._window: int | None = getattr(encoder, "max_tokens", None)
        self._scheduler = Scheduler(config, finishes=bool(self._finish))
        self._lock = threading.Lock()
        self._work_came = threading.Lock()  # released to wake the worker, who alone acquires it
        self._work_came.acquire()
        self._idle = False  # whether the worker sleeps
        self._settling = False  # whether the alarm thread has a batch to settle
        self._cache = VectorCache(config.cache_bytes)
        self._worker: threading.Thread | None = None
        self._alarm = Alarm(self._look)
        self._alarm_thread: threading.Thread | None = None
        self._stages: dict[LaneName, Stage] = {}
        self._closed = False
        self._degraded = False
        self._outbox: Outbox | None = None  # of the event loop that came last
        self._want_room: dict[LaneName, list[Callable[[], object]]] = {"interactive": [], "bulk": []}
        self.forked = False
        watch(self)

    # --- for callers -------------------------------------------------------------------------------------------

    def start(self, job: Job) -> "Future[Done]":
        """Hand in an item from any thread; cancelling the future takes the item back.

        Returns:
            A future that ends with the result, or with the `NiruError` that the item ended with.

        Raises:
            OverloadedError, ClosedError: it was refused.
        """
        future: Future[Done] = Future()
        job.future = future
        self._submit(job)

        def take_back(done: "Future[Done]") -> None:
            if done.cancelled():
                self._cancel(job)
                done.set_running_or_notify_cancel()  # those who wait for several futures are told too

        future.add_done_callback(take_back)
        return future

    def start_here(self, job: Job) -> "asyncio.Future[Done]":
        """Hand in an item from a coroutine, as `start` does; the future belongs to the running event loop."""
        future = self._begin_here(job)
        future.add_done_callback(lambda done: self._cancel(job) if done.cancelled() else None)
        return future

    async def run(self, job: Job) -> Done:
        """Hand in an item and wait for its end, on the running event loop; cancelling takes the item back.

        Raises:
            OverloadedError, ClosedError: it was refused.
            NiruError: it was accepted and ended so.
        """
        future = self._begin_here(job)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(job)
            raise

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked; one that was never used before works here too."""
        self.forked = self._worker is not None or self._lock.locked()
        self._lock = threading.Lock()  # another thread may have taken the old one without having begun

    def refuse_forked(self) -> None:
        """Refuse to work in a child of the process that started the batcher's threads.

        Raises:
            ClosedError: this is one.
        """
        if self.forked:
            raise forked_error("this processor")

    def refuse(self, lane: LaneName, reason: str) -> None:
        """Count an item that was refused before it could be handed in."""
        self.refuse_forked()
        with self._lock:
            self._scheduler.refuse(lane, reason)

    def has_room(self, job: Job, when: Callable[[], object] | None, /, *, alone: bool) -> bool:
        """Whether a stream may hand in an item now; see `Scheduler.room`.

        Args:
            job: the item.
            when: if there is no room, called once, when there may be; under the batcher's lock, in any thread, so it
                only wakes somebody, who asks again. None for no call.
            alone: whether the stream has nothing else under way.
        """
        tokens = self._tokens(job)
        with self._lock:
            if self._scheduler.room(job, tokens, time.monotonic(), alone=alone):
                return True
            if when is not None:
                self._want_room[job.lane].append(when)
            return False

    def stats(self) -> tuple[SchedulerStats, CacheStats]:
        """Return every counter, all as of the same instant."""
        self.refuse_forked()
        with self._lock:
            return self._scheduler.stats(time.monotonic()), self._cache.stats()

    @property
    def degraded(self) -> bool:
        """Whether the last encode hung: true until one returns."""
        return self._degraded

    def abandon(self) -> None:
        """Have the batcher close itself, soon, in a thread of its own; safe to call from a finalizer."""
        self._alarm.ask(self.close)

    def close(self, timeout: float = 0.0) -> None:
        """Refuse new items, end those that wait, let those in flight finish; a second call does no harm.

        Args:
            timeout: seconds to wait for the threads' end.
        """
        if self.forked:
            return
        with self._lock:
            self._closed = True
            self._scheduler.close()
            ended = self._collect()
            self._tell_of_room()
            self._wind_down()
            threads = [each for each in (self._worker, self._alarm_thread, *self._stages.values()) if each is not None]
        hand_out(ended)
        until = time.monotonic() + timeout
        for thread in threads if timeout else ():
            thread.join(max(0.0, until - time.monotonic()))

    # --- at the door -------------------------------------------------------------------------------------------

    def _begin_here(self, job: Job) -> "asyncio.Future[Done]":
        loop = asyncio.get_running_loop()
        outbox = self._outbox
        if outbox is None or outbox.loop is not loop:
            outbox = self._outbox = Outbox(loop)
        job.outbox = outbox
        future = job.future = loop.create_future()
        self._submit(job)
        return future

    def _submit(self, job: Job) -> None:
        self.refuse_forked()
        tokens = self._tokens(job)
        if self._observer is not None:
            job.origin = self._observer.origin()
        with self._lock:
            if self._worker is None:
                self._start_threads()
            if job.vector is None and job.lane == "interactive" and isinstance(job.text, str):
                job.vector = self._cache.get(job.text)
            self._scheduler.offer(job, tokens, time.monotonic())
            if job.vector is None and self._idle:
                self._wake_worker()
            self._alarm.look_by(job.deadline)
            ended = self._collect() if job.session is not None else []  # superseded
            if job.vector is not None:
                ended += self._pass_on([(job, job.vector)], job.accepted_at)
        if ended:
            hand_out(ended)

    def _tokens(self, job: Job) -> int:
        if job.tokens is not None:
            return job.tokens
        return estimate_tokens(job.text if isinstance(job.text, str) else job.text.text, self._window)

    def _cancel(self, job: Job) -> None:
        with self._lock:
            if self._scheduler.cancel(job):
                _release(job)
                self._tell_of_room()

    # --- the worker thread -------------------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._closed:
            return
        for lane, finish in self._finish.items():
            self._stages[lane] = Stage(f"niru-{lane}", finish, self._config, self._hand_back)
        self._alarm_thread = self._alarm.start("niru-alarm")
        self._worker = _started(self._encode_batches, "niru-encoder")

    def _encode_batches(self) -> None:
        batch = self._next_batch()
        while batch is not None:
            raw = self._encodes.encode(batch)
            batch = self._following(raw)
            if batch is None:
                if not self._settle(raw):
                    return  # given up as hung: another worker has taken over
                batch = self._next_batch()

    def _next_batch(self) -> Batch | None:
        """Wait for a batch; None once the batcher is closed and nothing can come any more."""
        while True:
            with self._lock:
                batch = self._take()
                ended = self._collect()
                self._idle = batch is None and not ended
                if self._idle and self._closed and not self._scheduler.busy:
                    return None
            hand_out(ended)
            if batch is not None:
                return batch
            if not ended:
                self._work_came.acquire()

    def _following(self, raw: Raw) -> Batch | None:
        """Take the next batch and leave the last one to the alarm thread, so that the encoder need not wait for it.

        None where that wins nothing: nothing waits, so that a lone query is not handed around; the encoder is as quick
        as the other thread would be; or that one is still busy with the batch before.
        """
        batch = raw.batch
        with self._lock:
            now = batch.returned = time.monotonic()
            late = not self._scheduler.has(batch)
            if late or self._settling or self._closed or now - batch.started < _QUICK:
                return None
            following = self._take()
            if following is not None:
                self._settling = True
                self._alarm.ask(lambda: self._settle_aside(raw))
            return following

    # --- a batch that is back, in the worker's thread or the alarm's -----------------------------------------------

    def _settle(self, raw: Raw) -> bool:
        """Note what became of a batch and tell its callers; False if it was given up meanwhile."""
        batch, outcome = raw.batch, self._encodes.read(raw)
        with self._lock:
            if not self._scheduler.has(batch):
                return False
            now = time.monotonic()
            if isinstance(outcome, BaseException) and self._scheduler.split(batch, outcome, now):
                self._wake_worker()
                self._wind_down()
                return True
            outcomes = (
                [as_ours(outcome, EncoderFailedError, _RAISED)] if isinstance(outcome, BaseException) else outcome
            )
            self._degraded = False
            self._remember(batch, outcomes)
            live = self._scheduler.complete(batch, outcomes, now)
            ended = self._collect() + self._pass_on(live, now)
            self._tell_of_room()
            self._wind_down()
        hand_out(ended)
        return True

    def _settle_aside(self, raw: Raw) -> None:
        try:
            self._settle(raw)
        finally:
            self._settling = False

    def _remember(self, batch: Batch, outcomes: Sequence[Vector | NiruError]) -> None:
        """Keep the vectors of queries: people ask the same things."""
        for work, outcome in zip(batch.works, outcomes, strict=True):
            if work.lane == "interactive" and isinstance(work.text, str) and not isinstance(outcome, NiruError):
                self._cache.put(work.text, outcome)

    # --- after encoding ----------------------------------------------------------------------------------------

    def _pass_on(self, encoded: Sequence[tuple[Job, Vector]], now: float) -> list[Ending]:
        """Give encoded items, under the lock, to the stage of their lane; where there is none, they are done."""
        ended: list[Ending] = []
        if not self._stages:
            for job, vector in encoded:
                self._end(job, _done(job, vector, None, 0.0, now), ended, now)
        for lane, stage in self._stages.items():
            items = [Encoded(job, job.payload, vector) for job, vector in encoded if job.lane == lane]
            if items:
                stage.put(items)
        return ended

    def _hand_back(self, results: Sequence[Finished]) -> None:
        """End items that have been through everything."""
        ended: list[Ending] = []
        with self._lock:
            now = time.monotonic()
            for (job, _, vector), found, seconds in results:
                self._scheduler.finished(job.lane)
                error = found if isinstance(found, NiruError) else None
                self._end(job, error or _done(job, vector, found, seconds, now), ended, now)
            self._tell_of_room()
            if self._scheduler.busy:
                self._wake_worker()  # a lane that paused for its stage may go on
            if self._closed:
                self._alarm.look_now()
        hand_out(ended)

    # --- in the alarm's thread ---------------------------------------------------------------------------------

    def _look(self) -> float | None:
        """Do what is due; return when the next thing will be, infinity for never, None when there is no more to do."""
        with self._lock:
            now = time.monotonic()
            self._scheduler.expire(now)
            for batch in self._scheduler.overdue(now):
                self._replace_worker(batch, now)
            ended = self._collect()
            self._tell_of_room()
            due = self._scheduler.next_due()
            self._alarm.at = inf if due is None else due
            done = due is None and self._closed and not self._scheduler.busy
        hand_out(ended)
        return None if done else self._alarm.at

    def _replace_worker(self, batch: Batch, now: float) -> None:
        self._scheduler.give_up(batch, now)
        self._degraded = True
        _log.warning("encoder_hung texts=%d seconds=%.1f", len(batch.works), now - batch.started)
        self._worker = None if self._closed else _started(self._encode_batches, "niru-encoder")
        self._wind_down()

    # --- under the lock ----------------------------------------------------------------------------------------

    def _take(self) -> Batch | None:
        batch = self._scheduler.take(time.monotonic(), _is_gone)
        if batch is not None:
            self._alarm.look_by(batch.started + self._config.hang_timeout)
            self._tell_of_room()
        return batch

    def _tell_of_room(self) -> None:
        """Wake those who wait for room in a lane that may have some; those who find none ask, and wait, again."""
        for lane, waiting in self._want_room.items():
            if waiting and self._scheduler.roomy(lane, time.monotonic()):
                self._want_room[lane] = []
                for tell in waiting:
                    tell()

    def _wake_worker(self) -> None:
        if self._idle:
            self._idle = False
            self._work_came.release()

    def _end(self, job: Job, outcome: Done | NiruError, ended: list[Ending], now: float) -> None:
        """End an item that has been through everything; nobody is to be told if it has ended otherwise meanwhile."""
        scheduler = self._scheduler
        if scheduler.fail(job, outcome) if isinstance(outcome, NiruError) else scheduler.deliver(job, now):
            ended.append(_ending(job, outcome))

    def _collect(self) -> list[Ending]:
        return [_ending(job, error) for job, error in self._scheduler.collect()]

    def _wind_down(self) -> None:
        """Once closed and with nothing left to encode, let all threads end when they are done."""
        if self._closed and not self._scheduler.busy:
            for stage in self._stages.values():
                stage.close()
            self._alarm.look_now()
            self._wake_worker()


def _started(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_gone(job: Job) -> bool:
    return job.future.cancelled()


def _ending(job: Job, outcome: Done | NiruError) -> Ending:
    if isinstance(outcome, NiruError):
        _release(job)  # else it is still to be made a result
    return job.future, job.outbox, outcome


def _done(job: Job, vector: Vector, found: object, seconds: float, now: float) -> Done:
    taken_at = job.accepted_at if job.taken_at is None else job.taken_at
    queued, total = taken_at - job.accepted_at, now - job.accepted_at
    return Done(vector, found, Timings(queued, job.encoded_in, seconds, total))


def _release(job: Job) -> None:
    """Let go of what an item that came to nothing was about; its deadline may be kept for a while."""
    job.payload = None
    job.text = ""

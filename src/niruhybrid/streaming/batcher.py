"""The threads that run the scheduler against an encoder, for callers in any thread and on any event loop.

One worker thread cuts a batch, encodes it and cuts the next, without asking anybody; a stage thread per lane searches
or writes what was encoded; one alarm thread ends what is past its deadline and replaces a worker that hangs. All sleep
until there is something to do. A caller is woken once, when its item has ended.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from math import inf
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple, TypeAlias, cast

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import EncoderFailedError, EncoderOutputError, NiruError
from niruhybrid.ports import Encoder
from niruhybrid.streaming.cache import CacheStats, VectorCache
from niruhybrid.streaming.callers import Caller, Done, Ending, Outbox, hand_out
from niruhybrid.streaming.cost import estimate_tokens
from niruhybrid.streaming.lanes import Batch, LaneName, Ticket
from niruhybrid.streaming.ledger import SchedulerStats
from niruhybrid.streaming.retrying import with_retries
from niruhybrid.streaming.rows import checked_rows
from niruhybrid.streaming.scheduler import Scheduler
from niruhybrid.streaming.stage import Encoded, Finish, Finished, Stage
from niruhybrid.types import Timings, Vector
from niruhybrid.windows import Window

__all__ = ("Batcher", "Job")

_Call: TypeAlias = Literal["look", "close"] | list[Ending]
_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """An item handed in.

    Attributes:
        payload: what the stage after encoding works on: a query or a document.
        lane: where it waits and is counted.
        text: what is encoded; a window only where the encoder takes windows.
        timeout: seconds from now until it is given up.
        vector: its vector, if it needs no encoding.
        session: a newer job of the same session supersedes it; None for no session.
        tokens: how many tokens the encoder will read; None has them estimated.
    """

    payload: object
    lane: LaneName
    text: str | Window
    timeout: float
    vector: Vector | None = None
    session: str | None = None
    tokens: int | None = None


class Batcher:
    """One encoder shared by everybody, in micro-batches.

    Args:
        encoder: called from one worker thread at a time; again from another only after a call has hung.
        config: bounds, batch sizes, shares and timeouts.
        finish: the stage after encoding, for each lane; None where an item is done with its vector.
    """

    def __init__(
        self, encoder: Encoder, config: StreamingConfig, *, finish: Mapping[LaneName, Finish] | None = None
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._finish = dict(finish or {})
        self._window: int | None = getattr(encoder, "max_tokens", None)
        self._dim: int | None = getattr(encoder, "dimension", None)
        self._scheduler = Scheduler(config, finishes=bool(self._finish))
        self._lock = threading.Lock()
        self._work_came = threading.Condition(self._lock)
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._idle_workers = 0
        self._alarm_at = -inf  # until the alarm thread first sleeps, nobody needs to wake it
        self._cache = VectorCache(config.cache_bytes)
        self._worker: threading.Thread | None = None
        self._alarm: threading.Thread | None = None
        self._stages: dict[LaneName, Stage] = {}
        self._closed = False
        self._degraded = False
        self._outbox: Outbox | None = None  # of the event loop that came last

    # --- for callers -------------------------------------------------------------------------------------------

    def start(self, job: Job) -> "Future[Done]":
        """Hand in an item from any thread; cancelling the future takes the item back.

        Returns:
            A future that ends with the result, or with the `NiruError` that the item ended with.

        Raises:
            OverloadedError, ClosedError: it was refused.
        """
        future: Future[Done] = Future()
        ticket = self._submit(job, Caller(job.payload, future, None))

        def take_back(done: "Future[Done]") -> None:
            if done.cancelled():
                self._cancel(ticket)
                done.set_running_or_notify_cancel()  # those who wait for several futures are told too

        future.add_done_callback(take_back)
        return future

    def start_here(self, job: Job) -> "asyncio.Future[Done]":
        """Hand in an item from a coroutine, as `start` does; the future belongs to the running event loop."""
        ticket, future = self._begin_here(job)
        future.add_done_callback(lambda done: self._cancel(ticket) if done.cancelled() else None)
        return future

    async def run(self, job: Job) -> Done:
        """Hand in an item and wait for its end, on the running event loop; cancelling takes the item back.

        Raises:
            OverloadedError, ClosedError: it was refused.
            NiruError: it was accepted and ended so.
        """
        ticket, future = self._begin_here(job)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(ticket)
            raise

    def refuse(self, lane: LaneName, reason: str) -> None:
        """Count an item that was refused before it could be handed in."""
        with self._lock:
            self._scheduler.refuse(lane, reason)

    def stats(self) -> tuple[SchedulerStats, CacheStats]:
        """Return every counter, all as of the same instant."""
        with self._lock:
            return self._scheduler.stats(time.monotonic()), self._cache.stats()

    @property
    def degraded(self) -> bool:
        """Whether the last encode hung: true until one returns."""
        return self._degraded

    def abandon(self) -> None:
        """Have the batcher close itself, soon, in a thread of its own; safe to call from a finalizer."""
        self._calls.put("close")

    def close(self, timeout: float = 0.0) -> None:
        """Refuse new items, end those that wait, let those in flight finish; a second call does no harm.

        Args:
            timeout: seconds to wait for the threads' end.
        """
        with self._lock:
            self._closed = True
            self._scheduler.close()
            ended = self._collect()
            self._work_came.notify_all()
            self._wind_down()
            threads = [thread for thread in (self._worker, self._alarm, *self._stages.values()) if thread is not None]
        hand_out(ended)
        until = time.monotonic() + timeout
        for thread in threads if timeout else ():
            thread.join(max(0.0, until - time.monotonic()))

    # --- at the door -------------------------------------------------------------------------------------------

    def _begin_here(self, job: Job) -> "tuple[Ticket, asyncio.Future[Done]]":
        loop = asyncio.get_running_loop()
        outbox = self._outbox
        if outbox is None or outbox.loop is not loop:
            outbox = self._outbox = Outbox(loop)
        future: asyncio.Future[Done] = loop.create_future()
        return self._submit(job, Caller(job.payload, future, outbox)), future

    def _submit(self, job: Job, caller: Caller) -> Ticket:
        now = time.monotonic()
        ticket = Ticket(job.lane, now + job.timeout, now, caller, job.session)
        with self._lock:
            self._start_threads()
            vector = job.vector
            if vector is None and job.lane == "interactive" and isinstance(job.text, str):
                vector = self._cache.get(job.text)
            if vector is None:
                self._scheduler.offer(ticket, job.text, self._tokens(job))
                if self._idle_workers:
                    self._work_came.notify()
            else:
                self._scheduler.offer_ready(ticket)
            if ticket.deadline < self._alarm_at:
                self._calls.put("look")
            ended = self._collect()
        if vector is not None:
            self._pass_on([Encoded(ticket, job.payload, vector)])
        hand_out(ended)
        return ticket

    def _tokens(self, job: Job) -> int:
        if job.tokens is not None:
            return job.tokens
        return estimate_tokens(job.text if isinstance(job.text, str) else job.text.text, self._window)

    def _cancel(self, ticket: Ticket) -> None:
        with self._lock:
            self._scheduler.cancel(ticket)
            ticket.payload = None

    # --- the worker thread -------------------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._worker is not None or self._closed:
            return
        for lane, finish in self._finish.items():
            self._stages[lane] = Stage(f"niru-{lane}", finish, self._config, self._hand_back)
        self._alarm = _started(self._keep_time, "niru-alarm")
        self._worker = _started(self._encode_batches, "niru-encoder")

    def _encode_batches(self) -> None:
        ended: list[Ending] | None = []
        while ended is not None and (batch := self._next_batch(ended)) is not None:
            ended = self._settle(batch, self._encode(batch))

    def _next_batch(self, ended: list[Ending]) -> Batch | None:
        """Wait for a batch; None once the batcher is closed.

        Callers of the batch before are told by the alarm thread while this one is encoded: they would only compete
        with it for the interpreter. Without a next batch they are told at once.
        """
        while True:
            with self._lock:
                batch = self._scheduler.take(time.monotonic(), _is_gone)
                ended += self._collect()
                if batch is not None and not self._closed:
                    if batch.started + self._config.hang_timeout < self._alarm_at:
                        self._calls.put("look")
                    if ended:
                        self._calls.put(ended)
                        ended = []
                elif batch is None and not ended:
                    if self._closed:
                        return None
                    self._idle_workers += 1
                    self._work_came.wait()
                    self._idle_workers -= 1
            hand_out(ended)
            ended = []
            if batch is not None:
                return batch

    def _encode(self, batch: Batch) -> list[Vector | EncoderOutputError] | BaseException:
        """Encode a batch; whatever goes wrong is returned, so that no error can end the thread."""
        texts = cast("list[str]", batch.texts)  # windows only where the encoder takes them
        try:
            raw = with_retries(self._config.retry, batch.deadline, lambda: self._encoder.encode(texts))
            rows = checked_rows(raw, len(batch.works), self._dim)
        except BaseException as err:  # noqa: BLE001  # an encoder may raise anything, SystemExit too
            return err
        if self._dim is None:
            self._dim = next((row.size for row in rows if not isinstance(row, NiruError)), None)
        return rows

    def _settle(self, batch: Batch, outcome: list[Vector | EncoderOutputError] | BaseException) -> list[Ending] | None:
        """Note a batch's outcome; return who is to be told what, or None if the batch was given up meanwhile."""
        with self._lock:
            if batch not in self._scheduler.encoding:
                return None
            now = time.monotonic()
            if isinstance(outcome, BaseException) and self._scheduler.split(batch, outcome, now):
                return []
            outcomes = [_as_ours(outcome)] if isinstance(outcome, BaseException) else outcome
            self._degraded = False
            self._remember(batch, outcomes)
            live = self._scheduler.complete(batch, outcomes, now)
            ended = self._collect()
            encoded = [Encoded(ticket, _payload(ticket), vector) for ticket, vector in live]
            if not self._stages:
                ended += self._end([Finished(item, None, 0.0) for item in encoded], now)
        if self._stages:
            self._pass_on(encoded)
        with self._lock:
            self._wind_down()
        return ended

    def _remember(self, batch: Batch, outcomes: Sequence[Vector | NiruError]) -> None:
        """Keep the vectors of queries: people ask the same things."""
        for work, outcome in zip(batch.works, outcomes, strict=True):
            if work.lane == "interactive" and isinstance(work.text, str) and not isinstance(outcome, NiruError):
                self._cache.put(work.text, outcome)

    # --- after encoding ----------------------------------------------------------------------------------------

    def _pass_on(self, encoded: Sequence[Encoded]) -> None:
        """Give encoded items to the stage of their lane; where there is none, they are done."""
        if not self._stages:
            self._hand_back([Finished(item, None, 0.0) for item in encoded])
        for lane, stage in self._stages.items():
            items = [item for item in encoded if item.ticket.lane == lane]
            if items:
                stage.put(items)

    def _hand_back(self, results: Sequence[Finished]) -> None:
        """End items that have been through everything."""
        with self._lock:
            if self._stages:
                for item, _, _ in results:
                    self._scheduler.finished(item.ticket.lane)
            ended = self._end(results, time.monotonic())
            if self._idle_workers:
                self._work_came.notify()  # a lane that paused for its stage may go on
            if self._closed:
                self._calls.put("look")
        hand_out(ended)

    # --- the alarm thread --------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        """End what is past its deadline and give up encodes that hang, until closed and empty."""
        while (due := self._look()) is not None:
            try:
                call = self._calls.get(timeout=None if due == inf else max(0.0, due - time.monotonic()))
            except Empty:
                continue
            if call == "close":
                self.close()
            elif call != "look":
                hand_out(call)
        while not self._calls.empty():
            call = self._calls.get()
            if isinstance(call, list):
                hand_out(call)

    def _look(self) -> float | None:
        """Do what is due; return when the next thing will be, infinity for never, None when there is no more to do."""
        with self._lock:
            now = time.monotonic()
            self._scheduler.expire(now)
            for batch in self._scheduler.overdue(now):
                self._replace_worker(batch, now)
            ended = self._collect()
            due = self._scheduler.next_due()
            self._alarm_at = inf if due is None else due
            done = due is None and self._closed
        hand_out(ended)
        return None if done else self._alarm_at

    def _replace_worker(self, batch: Batch, now: float) -> None:
        self._scheduler.give_up(batch, now)
        self._degraded = True
        _log.warning("encoder_hung texts=%d seconds=%.1f", len(batch.works), now - batch.started)
        self._worker = None if self._closed else _started(self._encode_batches, "niru-encoder")
        self._wind_down()

    # --- under the lock ----------------------------------------------------------------------------------------

    def _end(self, results: Sequence[Finished], now: float) -> list[Ending]:
        ended: list[Ending] = []
        for (ticket, _, vector), found, seconds in results:
            caller = ticket.payload
            if isinstance(found, NiruError):
                done: Done | NiruError = found
                live = self._scheduler.fail(ticket, found)
            else:
                done = Done(vector, found, _timings(ticket, seconds, now))
                live = self._scheduler.deliver(ticket)
            if live and isinstance(caller, Caller):
                ended.append((caller, done))
            ticket.payload = None
        return ended

    def _collect(self) -> list[Ending]:
        ended: list[Ending] = []
        for ticket, error in self._scheduler.collect():
            if isinstance(ticket.payload, Caller):
                ended.append((ticket.payload, error))
            ticket.payload = None
        return ended

    def _wind_down(self) -> None:
        """Once closed and with nothing in the encoder, let the stages and the alarm end when they are empty."""
        if self._closed and not self._scheduler.encoding:
            for stage in self._stages.values():
                stage.close()
            self._calls.put("look")


def _started(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _is_gone(ticket: Ticket) -> bool:
    return isinstance(ticket.payload, Caller) and ticket.payload.future.cancelled()


def _payload(ticket: Ticket) -> object:
    return ticket.payload.payload if isinstance(ticket.payload, Caller) else None


def _timings(ticket: Ticket, finish: float, now: float) -> Timings:
    return Timings(
        queued=ticket.taken_at - ticket.accepted_at,
        encode=ticket.encoded_in,
        search=finish,
        total=now - ticket.accepted_at,
    )


def _as_ours(err: BaseException) -> NiruError:
    if isinstance(err, NiruError):
        return err
    ours = EncoderFailedError(f"the encoder raised {type(err).__name__} for this text alone: see the cause")
    ours.__cause__ = err
    return ours

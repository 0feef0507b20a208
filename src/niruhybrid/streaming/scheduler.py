"""Which texts are encoded next, and which items are refused or given up: pure decisions, `now` is an argument.

Two lanes share one encoder. Interactive texts go first; bulk texts keep their share of encoder time while both wait,
but never two batches in a row. A batch is cut the moment a worker is free. Everything an item can come to is counted,
and at every instant offered = delivered + failed + rejected + dropped + cancelled + waiting + in flight.

The caller holds a lock; nothing here reads a clock, waits or calls back. Items that end by the scheduler's own decision
(deadline, superseded, closed) are handed out by `collect`.
"""

from collections.abc import Callable, Sequence

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, DeadlineExceededError, EncoderHungError, NiruError, SupersededError
from niruhybrid.streaming.admission import Admission
from niruhybrid.streaming.capacity import Capacity
from niruhybrid.streaming.deadlines import Deadlines
from niruhybrid.streaming.lanes import Batch, Ended, Job, Lane, LaneName, Work
from niruhybrid.streaming.ledger import SchedulerStats, count
from niruhybrid.streaming.turns import Turns
from niruhybrid.types import Vector
from niruhybrid.windows import Window

__all__ = ("Scheduler",)

_TRIES = 2  # encodes of a document's text that may hang


class Scheduler:
    """The state of both lanes, and every decision about them.

    Args:
        config: bounds, batch sizes, shares and timeouts.
        finishes: whether encoded items have a further stage (search, write); a lane then pauses while
            more than four batches of it wait for that stage.
    """

    def __init__(self, config: StreamingConfig, *, finishes: bool = False) -> None:
        self._config = config
        self._finishes = finishes
        self._interactive, self._bulk = Lane("interactive"), Lane("bulk")
        self._lanes: dict[LaneName, Lane] = {"interactive": self._interactive, "bulk": self._bulk}
        self._capacity = Capacity(config)
        self._encoding: list[Batch] = []
        self._admission = Admission(config, self._lanes, self._encoding, self._capacity)
        self._turns = Turns(config, self._interactive, self._bulk, self._capacity)
        self._deadlines = Deadlines()
        self._by_text: dict[str | Window, Work] = {}
        self._sessions: dict[str, Job] = {}
        self._ended: list[Ended] = []
        self._order = 0
        self._hung = 0
        self._closed = False

    # --- at the door -------------------------------------------------------------------------------------------

    def offer(self, job: Job, tokens: int, now: float) -> None:
        """Accept an item, or refuse it.

        An item whose text is already waiting or being encoded joins it; a bulk text that a query wants is promoted.
        One that has its vector is in flight at once.

        Args:
            job: the item.
            tokens: estimated tokens of its text.
            now: monotonic seconds.

        Raises:
            ClosedError: the scheduler is closed.
            QueueFullError: the lane has no room, in items or in tokens.
            DeadlineUnreachableError: it can't be met with what is already waiting.
        """
        job.accepted_at = now
        job.deadline = now + job.timeout
        lane = self._lanes[job.lane]
        work = self._by_text.get(job.text) if job.vector is None else None
        self._admit(job, lane, 0 if self._needs_no_encode(job) else tokens)
        lane.ledger.waiting += 1
        if job.vector is not None:
            self._enter_ready(job, lane)
        elif work is None:
            self._order += 1
            work = job.work = self._by_text[job.text] = Work(job.text, tokens, self._order, job.lane, [job])
            lane.add(work)
        else:
            self._join(job, lane, work)
        self._deadlines.add(job)
        if job.session is not None:
            self._supersede(job, job.session)

    def room(self, job: Job, tokens: int, now: float, *, alone: bool) -> bool:
        """Whether a stream may hand in an item now; always, once the scheduler is closed.

        Args:
            job: the item.
            tokens: estimated tokens of its text.
            now: monotonic seconds.
            alone: whether the stream has nothing else under way: then it waits only while the lane is full.
        """
        lane = self._lanes[job.lane]
        if self._closed:
            return True
        if self._admission.full(lane, 0 if self._needs_no_encode(job) else tokens) is not None:
            return False
        return alone or self._admission.room(lane, now)

    def roomy(self, lane: LaneName, now: float) -> bool:
        """Whether streams that wait for room in a lane are to ask again."""
        return self._closed or self._admission.room(self._lanes[lane], now)

    def refuse(self, lane: LaneName, reason: str) -> None:
        """Count an item that was refused before it could be offered."""
        ledger = self._lanes[lane].ledger
        ledger.offered += 1
        count(ledger.rejected, reason)

    def _needs_no_encode(self, job: Job) -> bool:
        return job.vector is not None or job.text in self._by_text

    def _admit(self, job: Job, lane: Lane, tokens: int) -> None:
        lane.ledger.offered += 1
        if lane is self._interactive:
            self._turns.last_query = job.accepted_at
        if self._closed:
            count(lane.ledger.rejected, "closed")
            raise ClosedError("the processor is closed: make a new one")
        refusal = self._admission.refusal(job, lane, tokens)
        if refusal is not None:
            reason, error = refusal
            count(lane.ledger.rejected, reason)
            raise error

    def _enter_ready(self, job: Job, lane: Lane) -> None:
        self._take(job, job.accepted_at)
        lane.ledger.shared += 1
        if self._finishes:
            lane.finishing += 1

    def _join(self, job: Job, lane: Lane, work: Work) -> None:
        work.jobs.append(job)
        job.work = work
        lane.ledger.shared += 1
        if not work.waiting:
            self._take(job, job.accepted_at)
        elif lane is self._interactive and work.lane == "bulk":
            self._bulk.remove(work)
            lane.add(work)

    def _supersede(self, job: Job, session: str) -> None:
        older = self._sessions.get(session)
        self._sessions[session] = job
        if older is not None:
            self._drop(older, "superseded", SupersededError("a newer query of the same session took its place"))

    # --- for a free worker -------------------------------------------------------------------------------------

    def take(self, now: float, gone: Callable[[Job], bool] | None = None) -> Batch | None:
        """Cut the next batch, or return None when nothing can be encoded now.

        Items whose deadline has passed, or can't be met even by this batch, end here and are never encoded.

        Args:
            now: monotonic seconds.
            gone: tells of an item whether its caller has just gone away, and nobody had time to `cancel` it.
        """
        if not (self._interactive.works or self._bulk.works):
            return None
        self.expire(now)
        while (lane := self._turns.next(now)) is not None:
            budget, short = self._turns.budget(lane, now)
            works, reason = lane.cut(self._config.batch_size, budget)
            if gone is not None:
                works = self._still_wanted(works, gone)
            works = self._still_in_time(works, now)
            if works:
                return self._dispatch(lane, works, "time" if short and reason == "tokens" else reason, now)
        return None

    def _still_wanted(self, works: list[Work], gone: Callable[[Job], bool]) -> list[Work]:
        leaving = [job for work in works for job in work.jobs if gone(job)]
        for job in leaving:
            self.cancel(job)
        return [work for work in works if work.jobs] if leaving else works

    def _still_in_time(self, works: list[Work], now: float) -> list[Work]:
        """Drop the items that this batch can't serve in time.

        If none would be left and nothing was learnt of late, the first text tries all the same: a model that has come
        to expect too much must be able to learn.
        """
        longest = max((work.tokens for work in works), default=0)
        done = now + self._capacity.model.at_least(longest * len(works))
        late = [job for work in works for job in work.jobs if job.deadline < done]
        if not late:
            return works
        if self._capacity.stale(now) and len(late) == sum(len(work.jobs) for work in works):
            self._lanes[works[0].lane].put_back(works[1:])
            return works[:1]
        for job in late:
            self._give_up(job, now)
        return [work for work in works if work.jobs]

    def _dispatch(self, lane: Lane, works: list[Work], reason: str, now: float) -> Batch:
        longest = max(work.tokens for work in works)
        batch = Batch(lane.name, works, longest * len(works), now)
        self._encoding.append(batch)
        self._turns.took(lane)
        lane.ledger.dispatched(len(works), sum(work.tokens for work in works), longest, reason)
        for work in works:
            for job in work.jobs:
                self._take(job, now)
        return batch

    # --- when a batch comes back -------------------------------------------------------------------------------

    def complete(self, batch: Batch, outcomes: Sequence[Vector | NiruError], now: float) -> list[tuple[Job, Vector]]:
        """Take note of an encoded batch.

        Args:
            batch: the batch.
            outcomes: for each of its texts a vector, or the error that its items end with.
            now: monotonic seconds.

        Returns:
            The live items of texts with a vector, and it: in flight still, until `deliver` or `fail` ends them. Those
            of texts with an error have ended and are handed out by `collect`.
        """
        seconds = self._returned(batch, now)
        self._capacity.learn(batch.tokens, seconds, now)
        live: list[tuple[Job, Vector]] = []
        for work, outcome in zip(batch.works, outcomes, strict=True):
            self._forget(work)
            if isinstance(outcome, NiruError):
                self._fail_all(work.jobs, outcome)
                continue
            for job in work.jobs:
                job.encoded_in = seconds
                live.append((job, outcome))
        if self._finishes:
            for job, _ in live:
                self._lanes[job.lane].finishing += 1
        return live

    def split(self, batch: Batch, error: BaseException, now: float) -> bool:
        """Let the two halves of a failed batch wait at the head of their lane; a memory error lowers the ceiling.

        Returns:
            False if the batch is a single text, which can't be split: `complete` it with an error.
        """
        if isinstance(error, MemoryError):
            self._capacity.shrink(batch.tokens)
        if len(batch.works) == 1:
            return False
        self._returned(batch, now)
        works = [work for work in batch.works if work.jobs]
        for job in (job for work in works for job in work.jobs):
            self._untake(job)
        middle = (len(works) + 1) // 2
        for part in (works[middle:], works[:middle]):
            if part:
                wanted = any(job.lane == "interactive" for work in part for job in work.jobs)
                self._lanes["interactive" if wanted else batch.lane].add_split(part)
        return True

    def overdue(self, now: float) -> list[Batch]:
        """Return the batches that the encoder has had for `hang_timeout` or longer."""
        limit = self._config.hang_timeout
        return [batch for batch in self._encoding if batch.returned is None and now >= batch.started + limit]

    def give_up(self, batch: Batch, now: float) -> None:
        """End the items of a batch whose encode did not return.

        Documents have another try: their texts wait at the head of the lane, each to be encoded alone, so that one that
        makes the encoder hang takes no others with it. When an encode of it hangs again, a document ends too.
        """
        self._returned(batch, now)
        self._hung += 1
        error = EncoderHungError(
            f"the encoder did not return {len(batch.works)} texts within {self._config.hang_timeout:g} s: "
            "its worker was replaced; try again, or raise `hang_timeout`"
        )
        for work in reversed(batch.works):
            work.hung += 1
            more = work.hung < _TRIES and not self._closed
            again = [job for job in work.jobs if more and job.lane == "bulk"]
            self._fail_all([job for job in work.jobs if job not in again], error)
            if again:
                work.jobs[:] = again
                for job in again:
                    self._untake(job)
                self._bulk.add_split([work])
            else:
                self._forget(work)

    def has(self, batch: Batch) -> bool:
        """Whether a batch is neither completed nor split nor given up."""
        return batch in self._encoding

    @property
    def busy(self) -> bool:
        """Whether any text waits to be encoded, or is being encoded."""
        return bool(self._encoding or self._interactive.works or self._bulk.works)

    def _returned(self, batch: Batch, now: float) -> float:
        self._encoding.remove(batch)
        seconds = (now if batch.returned is None else batch.returned) - batch.started
        self._lanes[batch.lane].ledger.encoded(seconds)
        if batch.lane == "interactive":
            self._capacity.queries_took(seconds, now)
        return seconds

    def _fail_all(self, jobs: Sequence[Job], error: NiruError) -> None:
        for job in jobs:
            self.fail(job, error)
            self._ended.append(Ended(job, error))

    # --- how an item ends --------------------------------------------------------------------------------------

    def deliver(self, job: Job, now: float) -> bool:
        """End an item with its result; False if it has ended otherwise meanwhile."""
        if job.state == "ended":
            return False
        self._admission.took(job, now)
        self._end(job).ledger.delivered += 1
        return True

    def fail(self, job: Job, error: NiruError) -> bool:
        """End an item with an error of its own; False if it has ended otherwise meanwhile."""
        if job.state == "ended":
            return False
        count(self._end(job).ledger.failed, error.code)
        return True

    def cancel(self, job: Job) -> bool:
        """End an item whose caller went away; a text that nobody else wants is not encoded. False if it has ended."""
        if job.state == "ended":
            return False
        self._unqueue(job)
        self._end(job).ledger.cancelled += 1
        return True

    def finished(self, lane: LaneName) -> None:
        """Take note that an item left the stage after encoding, however it ended."""
        self._lanes[lane].finishing -= 1

    def expire(self, now: float) -> None:
        """End every item whose deadline is now or has passed."""
        for job in self._deadlines.due(now):
            self._give_up(job, now)

    def close(self) -> None:
        """Refuse new items, and end all that wait; those in flight end in their own way."""
        self._closed = True
        for job in self._deadlines.live():
            if job.state == "waiting":
                self._drop(job, "closed", ClosedError("the processor was closed while the item waited"))

    def collect(self) -> list[Ended]:
        """Hand out, once, the items that ended by the scheduler's own decision."""
        if not self._ended:
            return []
        ended, self._ended = self._ended, []
        return ended

    def _give_up(self, job: Job, now: float) -> None:
        self._admission.took(job, now)
        self._drop(job, "deadline", _exceeded(job, now))

    def _drop(self, job: Job, reason: str, error: NiruError) -> None:
        self._unqueue(job)
        count(self._end(job).ledger.dropped, reason)
        self._ended.append(Ended(job, error))

    def _unqueue(self, job: Job) -> None:
        work = job.work
        if work is None or job not in work.jobs:
            return
        work.jobs.remove(job)
        if not work.jobs:
            if work.waiting:
                self._lanes[work.lane].remove(work)
            self._forget(work)

    def _end(self, job: Job) -> Lane:
        lane = self._lanes[job.lane]
        if job.state == "waiting":
            lane.ledger.waiting -= 1
        else:
            lane.ledger.in_flight -= 1
        job.state = "ended"
        job.work = None
        if job.session is not None and self._sessions.get(job.session) is job:
            del self._sessions[job.session]
        return lane

    # --- what can be asked ------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when `expire` or `overdue` will next have something to do, in monotonic seconds; None for never."""
        limit = self._config.hang_timeout
        dues = [batch.started + limit for batch in self._encoding if batch.returned is None]
        first = self._deadlines.next()
        if first is not None:
            dues.append(first)
        return min(dues, default=None)

    def stats(self, now: float) -> SchedulerStats:
        """Return every counter, as of now."""
        lanes = {}
        for name, lane in self._lanes.items():
            oldest = lane.oldest_accepted()
            age = 0.0 if oldest is None else max(0.0, now - oldest)
            lanes[name] = lane.ledger.snapshot(lane.tokens, age)
        return SchedulerStats(
            interactive=lanes["interactive"],
            bulk=lanes["bulk"],
            token_ceiling=int(self._capacity.ceiling),
            encoding=len(self._encoding),
            hung=self._hung,
        )

    # --- helpers ----------------------------------------------------------------------------------------------

    def _take(self, job: Job, now: float) -> None:
        job.state = "in_flight"
        ledger = self._lanes[job.lane].ledger
        ledger.took()
        if job.taken_at is None:
            job.taken_at = now
            ledger.waited(now - job.accepted_at)

    def _untake(self, job: Job) -> None:
        job.state = "waiting"
        ledger = self._lanes[job.lane].ledger
        ledger.in_flight -= 1
        ledger.waiting += 1

    def _forget(self, work: Work) -> None:
        if self._by_text.get(work.text) is work:
            del self._by_text[work.text]


def _exceeded(job: Job, now: float) -> DeadlineExceededError:
    waited = now - job.accepted_at
    return DeadlineExceededError(
        f"not finished within {job.timeout:g} s "
        f"(given up after {waited:.3f} s, {job.state}): try again later, or allow more time"
    )

"""Which texts are encoded next, and which items are refused or given up: pure decisions, `now` is an argument.

Two lanes share one encoder. Interactive texts go first; bulk texts keep their share of encoder time while both wait,
but never two batches in a row. A batch is cut the moment a worker is free. Everything an item can come to is counted,
and at every instant offered = delivered + failed + rejected + dropped + cancelled + waiting + in flight.

The caller holds a lock; nothing here reads a clock, waits or calls back. Items that end by the scheduler's own decision
(deadline, superseded, closed) are handed out by `collect`.
"""

import heapq
from collections.abc import Callable, Sequence
from math import ceil

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import (
    ClosedError,
    DeadlineExceededError,
    DeadlineUnreachableError,
    EncoderHungError,
    NiruError,
    OverloadedError,
    QueueFullError,
    SupersededError,
)
from niruhybrid.streaming.cost import CostModel
from niruhybrid.streaming.lanes import Batch, Ended, Lane, LaneName, Ticket, Work
from niruhybrid.streaming.ledger import SchedulerStats, count
from niruhybrid.types import Vector
from niruhybrid.windows import Window

__all__ = ("Scheduler",)

ATTENTION = 1.0
"""Seconds after a query during which bulk batches are kept short, so that the next query waits less."""

MARGIN = 1.05
"""By how much admission exceeds the predicted time: what it lets in should also arrive."""

PLENTY = 10
"""Full batches' time before a deadline that is met without reckoning, while less than a batch waits."""

STALE = 1.0
"""Seconds without a finished batch after which the cost model is no longer believed when it rules everything out."""

_CEILING_STEP = 1.05  # a ceiling lowered by a memory error rises by this with each batch that goes well


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
        self._lanes: dict[LaneName, Lane] = {"interactive": Lane("interactive"), "bulk": Lane("bulk")}
        self._model = CostModel()
        self._by_text: dict[str | Window, Work] = {}
        self._sessions: dict[str, Ticket] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._encoding: list[Batch] = []
        self._compact_above = 64  # entries in `_deadlines` that need no look
        self._ended: list[Ended] = []
        self._ceiling = float(config.max_batch_tokens)
        self._order = 0
        self._credit = 0.0
        self._bulk_was_last = False
        self._last_query = float("-inf")
        self._last_learnt = float("-inf")
        self._hung = 0
        self._dearest = 0.0  # what a full batch should take
        self._closed = False

    # --- at the door -------------------------------------------------------------------------------------------

    def offer(self, ticket: Ticket, text: str | Window, tokens: int) -> None:
        """Accept an item, or refuse it.

        An item whose text is already waiting or being encoded joins it; a bulk text that a query wants is promoted.

        Raises:
            ClosedError: the scheduler is closed.
            QueueFullError: the lane has no room, in items or in tokens.
            DeadlineUnreachableError: it can't be met with what is already waiting.
        """
        now = ticket.accepted_at
        lane = self._lanes[ticket.lane]
        work = self._by_text.get(text)
        self._admit(ticket, lane, 0 if work else tokens, now)
        if work is None:
            work = Work(text, tokens, self._next_order(), ticket.lane)
            self._by_text[text] = work
            lane.add(work)
        else:
            lane.ledger.shared += 1
            if ticket.lane == "interactive" and work.lane == "bulk" and work.waiting:
                self._lanes["bulk"].remove(work)
                lane.add(work)
        work.tickets.append(ticket)
        ticket.work = work
        lane.ledger.waiting += 1
        if not work.waiting:
            self._take(ticket, now)
        self._enter(ticket)

    def offer_ready(self, ticket: Ticket) -> None:
        """Accept an item that has its vector; it is in flight at once.

        Raises:
            ClosedError: the scheduler is closed.
            QueueFullError: the lane has no room.
        """
        now = ticket.accepted_at
        lane = self._lanes[ticket.lane]
        self._admit(ticket, lane, 0, now, predict=False)
        lane.ledger.waiting += 1
        self._take(ticket, now)
        lane.ledger.shared += 1
        if self._finishes:
            lane.finishing += 1
        self._enter(ticket)

    def refuse(self, lane: LaneName, reason: str) -> None:
        """Count an item that was refused before it could be offered."""
        ledger = self._lanes[lane].ledger
        ledger.offered += 1
        count(ledger.rejected, reason)

    def _admit(self, ticket: Ticket, lane: Lane, tokens: int, now: float, *, predict: bool = True) -> None:
        ledger = lane.ledger
        ledger.offered += 1
        if ticket.lane == "interactive":
            self._last_query = now
        refusal = self._refusal(ticket, lane, tokens, now, predict=predict)
        if refusal is not None:
            reason, error = refusal
            count(ledger.rejected, reason)
            raise error

    def _refusal(
        self, ticket: Ticket, lane: Lane, tokens: int, now: float, *, predict: bool
    ) -> tuple[str, NiruError] | None:
        if self._closed:
            return "closed", ClosedError("the processor is closed: make a new one")
        held = lane.ledger.waiting + lane.ledger.in_flight
        limit = self._config.queue_size
        if held >= limit:
            return "queue_full", self._full(lane, f"{held} of {limit} items", "`queue_size`")
        limit = self._config.queue_tokens
        if lane.tokens and lane.tokens + tokens > limit:
            return "queue_full", self._full(lane, f"{lane.tokens} of {limit} tokens", "`queue_tokens`")
        if not predict or not tokens or not (lane.works or self._encoding):
            return None  # an idle encoder always tries: a model that is wrong must be able to learn
        one_batch = lane.works < self._config.batch_size and lane.tokens + tokens <= self._ceiling
        if one_batch and ticket.deadline - now > PLENTY * self._dearest:
            return None  # by far: no need to reckon
        finish = self._predicted_finish(lane, tokens, now)
        if finish <= ticket.deadline:
            return None
        short = finish - ticket.deadline
        return "deadline", DeadlineUnreachableError(
            f"{lane.name} item would finish in {finish - now:.3f} s, its deadline is in {ticket.deadline - now:.3f} s: "
            f"try again in {short:.3f} s or allow it more time",
            retry_after=short,
        )

    def _full(self, lane: Lane, held: str, setting: str) -> OverloadedError:
        wait = self._queue_seconds(lane, 0)
        return QueueFullError(
            f"the {lane.name} lane holds {held}: try again in {wait:.3f} s or raise {setting}", retry_after=wait
        )

    def _enter(self, ticket: Ticket) -> None:
        if ticket.session is not None:
            older = self._sessions.get(ticket.session)
            self._sessions[ticket.session] = ticket
            if older is not None:
                self._drop(older, "superseded", SupersededError("a newer query of the same session took its place"))
        heapq.heappush(self._deadlines, (ticket.deadline, self._next_order(), ticket))
        self._compact()

    # --- for a free worker -------------------------------------------------------------------------------------

    def take(self, now: float, gone: Callable[[Ticket], bool] | None = None) -> Batch | None:
        """Cut the next batch, or return None when nothing can be encoded now.

        Items whose deadline has passed, or can't be met even by this batch, end here and are never encoded.

        Args:
            now: monotonic seconds.
            gone: tells of an item whether its caller has just gone away, and nobody had time to `cancel` it.
        """
        self.expire(now)
        while (lane := self._choose()) is not None:
            most, budget, short = self._limits(lane, now)
            works, reason = lane.cut(most, budget)
            if gone is not None:
                works = self._still_wanted(works, gone)
            works = self._still_in_time(works, now)
            if works:
                return self._dispatch(lane, works, "time" if short and reason == "tokens" else reason, now)
        return None

    def _choose(self) -> Lane | None:
        limit = 4 * self._config.batch_size
        ready = [lane for lane in self._lanes.values() if lane.works and lane.finishing < limit]
        if len(ready) < len(self._lanes):
            self._credit = 0.0
            return ready[0] if ready else None
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        price = max(self._model.seconds(min(bulk.tokens, self._ceiling)), 1e-6)
        if self._credit >= price and not self._bulk_was_last:
            self._credit -= price
            return bulk
        share = self._config.bulk_share
        earned = max(self._model.seconds(min(interactive.tokens, self._ceiling)), 1e-6) * share / (1.0 - share)
        self._credit = min(self._credit + earned, price)
        return interactive

    def _limits(self, lane: Lane, now: float) -> tuple[int, int, bool]:
        budget = int(self._ceiling)
        if lane.name == "interactive" or now - self._last_query > ATTENTION:
            return self._config.batch_size, budget, False
        short = self._model.tokens_within(self._config.bulk_batch_time, budget)
        return self._config.batch_size, short, short < budget

    def _still_wanted(self, works: list[Work], gone: Callable[[Ticket], bool]) -> list[Work]:
        for ticket in [ticket for work in works for ticket in work.tickets if gone(ticket)]:
            self.cancel(ticket)
        return [work for work in works if work.tickets]

    def _still_in_time(self, works: list[Work], now: float) -> list[Work]:
        """Drop the tickets that this batch can't serve in time.

        If none would be left and nothing was learnt of late, the first text tries all the same: a model that has come
        to expect too much must be able to learn.
        """
        longest = max((work.tokens for work in works), default=0)
        done = now + self._model.at_least(longest * len(works))
        late = [ticket for work in works for ticket in work.tickets if ticket.deadline < done]
        if not late:
            return works
        if now - self._last_learnt > STALE and len(late) == sum(len(work.tickets) for work in works):
            for work in reversed(works[1:]):
                self._lanes[work.lane].add(work)
            return works[:1]
        for ticket in late:
            self._drop(ticket, "deadline", _exceeded(ticket, now))
        return [work for work in works if work.tickets]

    def _dispatch(self, lane: Lane, works: list[Work], reason: str, now: float) -> Batch:
        longest = max(work.tokens for work in works)
        batch = Batch(lane.name, works, longest * len(works), now)
        self._encoding.append(batch)
        self._bulk_was_last = lane.name == "bulk"
        lane.ledger.dispatched(len(works), sum(work.tokens for work in works), longest, reason)
        for work in works:
            for ticket in work.tickets:
                self._take(ticket, now)
        return batch

    # --- when a batch comes back -------------------------------------------------------------------------------

    def complete(self, batch: Batch, outcomes: Sequence[Vector | NiruError], now: float) -> list[tuple[Ticket, Vector]]:
        """Take note of an encoded batch.

        Args:
            batch: the batch.
            outcomes: for each of its texts a vector, or the error that its items end with.
            now: monotonic seconds.

        Returns:
            The live tickets of texts with a vector, and it: in flight still, until `deliver` or `fail` ends them. Those
            of texts with an error have ended and are handed out by `collect`.
        """
        seconds = self._returned(batch, now)
        self._model.observe(batch.tokens, seconds)
        self._dearest = max(self._model.seconds(self._ceiling), self._model.seconds(batch.tokens))
        self._last_learnt = now
        self._ceiling = min(self._ceiling * _CEILING_STEP, self._config.max_batch_tokens)
        live: list[tuple[Ticket, Vector]] = []
        for work, outcome in zip(batch.works, outcomes, strict=True):
            self._forget(work)
            for ticket in tuple(work.tickets):
                ticket.encoded_in = seconds
                if isinstance(outcome, NiruError):
                    self.fail(ticket, outcome)
                    self._ended.append(Ended(ticket, outcome))
                else:
                    live.append((ticket, outcome))
                    if self._finishes:
                        self._lanes[ticket.lane].finishing += 1
        return live

    def split(self, batch: Batch, error: BaseException, now: float) -> bool:
        """Let the two halves of a failed batch wait at the head of their lane; a memory error lowers the ceiling.

        Returns:
            False if the batch is a single text, which can't be split: `complete` it with an error.
        """
        if isinstance(error, MemoryError):
            self._ceiling = max(8.0, min(self._ceiling, batch.tokens) / 2)
        if len(batch.works) == 1:
            return False
        self._returned(batch, now)
        works = [work for work in batch.works if work.tickets]
        for ticket in (ticket for work in works for ticket in work.tickets):
            self._untake(ticket)
        middle = (len(works) + 1) // 2
        for part in (works[middle:], works[:middle]):
            if part:
                wanted = any(ticket.lane == "interactive" for work in part for ticket in work.tickets)
                self._lanes["interactive" if wanted else batch.lane].add_split(part)
        return True

    def overdue(self, now: float) -> list[Batch]:
        """Return the batches that the encoder has had for `hang_timeout` or longer."""
        return [batch for batch in self._encoding if now >= batch.started + self._config.hang_timeout]

    def give_up(self, batch: Batch, now: float) -> None:
        """End every item of a batch whose encode did not return."""
        self._returned(batch, now)
        self._hung += 1
        error = EncoderHungError(
            f"the encoder did not return {len(batch.works)} texts within {self._config.hang_timeout:g} s: "
            "its worker was replaced; try again, or raise `hang_timeout`"
        )
        for work in batch.works:
            self._forget(work)
            for ticket in tuple(work.tickets):
                self.fail(ticket, error)
                self._ended.append(Ended(ticket, error))

    @property
    def encoding(self) -> tuple[Batch, ...]:
        """The batches that the encoder has: neither back nor given up."""
        return tuple(self._encoding)

    def _returned(self, batch: Batch, now: float) -> float:
        self._encoding.remove(batch)
        seconds = now - batch.started
        self._lanes[batch.lane].ledger.encoded(seconds)
        return seconds

    # --- how an item ends --------------------------------------------------------------------------------------

    def deliver(self, ticket: Ticket) -> bool:
        """End an item with its result; False if it has ended otherwise meanwhile."""
        if ticket.state == "ended":
            return False
        self._end(ticket)
        self._lanes[ticket.lane].ledger.delivered += 1
        return True

    def fail(self, ticket: Ticket, error: NiruError) -> bool:
        """End an item with an error of its own; False if it has ended otherwise meanwhile."""
        if ticket.state == "ended":
            return False
        self._end(ticket)
        count(self._lanes[ticket.lane].ledger.failed, error.code)
        return True

    def cancel(self, ticket: Ticket) -> bool:
        """End an item whose caller went away; a text that nobody else wants is not encoded. False if it has ended."""
        if ticket.state == "ended":
            return False
        self._unqueue(ticket)
        self._end(ticket)
        self._lanes[ticket.lane].ledger.cancelled += 1
        return True

    def finished(self, lane: LaneName) -> None:
        """Take note that an item left the stage after encoding, however it ended."""
        self._lanes[lane].finishing -= 1

    def expire(self, now: float) -> None:
        """End every item whose deadline is now or has passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = heapq.heappop(self._deadlines)[2]
            if ticket.state != "ended":
                self._drop(ticket, "deadline", _exceeded(ticket, now))

    def close(self) -> None:
        """Refuse new items, and end all that wait; those in flight end in their own way."""
        self._closed = True
        for _, _, ticket in self._deadlines:
            if ticket.state == "waiting":
                self._drop(ticket, "closed", ClosedError("the processor was closed while the item waited"))

    def collect(self) -> list[Ended]:
        """Hand out, once, the items that ended by the scheduler's own decision."""
        if not self._ended:
            return []
        ended, self._ended = self._ended, []
        return ended

    def _drop(self, ticket: Ticket, reason: str, error: NiruError) -> None:
        if ticket.state == "ended":
            return
        self._unqueue(ticket)
        self._end(ticket)
        count(self._lanes[ticket.lane].ledger.dropped, reason)
        self._ended.append(Ended(ticket, error))

    def _unqueue(self, ticket: Ticket) -> None:
        work = ticket.work
        if work is None or ticket not in work.tickets:
            return
        work.tickets.remove(ticket)
        if not work.tickets:
            if work.waiting:
                self._lanes[work.lane].remove(work)
            self._forget(work)

    def _end(self, ticket: Ticket) -> None:
        ledger = self._lanes[ticket.lane].ledger
        if ticket.state == "waiting":
            ledger.waiting -= 1
        else:
            ledger.in_flight -= 1
        ticket.state = "ended"
        ticket.work = None
        if ticket.session is not None and self._sessions.get(ticket.session) is ticket:
            del self._sessions[ticket.session]

    # --- what can be asked ------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when `expire` or `overdue` will next have something to do, in monotonic seconds; None for never."""
        while self._deadlines and self._deadlines[0][2].state == "ended":
            heapq.heappop(self._deadlines)
        dues = [batch.started + self._config.hang_timeout for batch in self._encoding]
        if self._deadlines:
            dues.append(self._deadlines[0][0])
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
            token_ceiling=int(self._ceiling),
            encoding=len(self._encoding),
            hung=self._hung,
        )

    # --- helpers ----------------------------------------------------------------------------------------------

    def _predicted_finish(self, lane: Lane, tokens: int, now: float) -> float:
        running = max(
            (batch.started + self._model.seconds(batch.tokens) - now for batch in self._encoding), default=0.0
        )
        queue = self._queue_seconds(lane, tokens)
        other = self._lanes["bulk" if lane.name == "interactive" else "interactive"]
        if lane.name == "bulk":
            queue += self._queue_seconds(other, 0)
        elif other.works:
            queue /= 1.0 - self._config.bulk_share
        return now + (max(0.0, running) + queue) * MARGIN

    def _queue_seconds(self, lane: Lane, tokens: int) -> float:
        """Return how long a lane's waiting texts, and one of `tokens` more, should take to encode."""
        works, total = lane.works + (tokens > 0), lane.tokens + tokens
        if not works:
            return 0.0
        batches = max(ceil(works / self._config.batch_size), ceil(total / self._ceiling))
        return batches * self._model.seconds(total / batches)

    def _take(self, ticket: Ticket, now: float) -> None:
        ticket.state = "in_flight"
        ticket.taken_at = now
        self._lanes[ticket.lane].ledger.took(now - ticket.accepted_at)

    def _untake(self, ticket: Ticket) -> None:
        ticket.state = "waiting"
        ledger = self._lanes[ticket.lane].ledger
        ledger.in_flight -= 1
        ledger.waiting += 1

    def _forget(self, work: Work) -> None:
        if self._by_text.get(work.text) is work:
            del self._by_text[work.text]

    def _compact(self) -> None:
        """Let go of ended tickets in the heap of deadlines before they outnumber the live ones."""
        if len(self._deadlines) <= self._compact_above:
            return
        live = sum(lane.ledger.waiting + lane.ledger.in_flight for lane in self._lanes.values())
        if len(self._deadlines) > 2 * live + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state != "ended"]
            heapq.heapify(self._deadlines)
        self._compact_above = 2 * live + 64

    def _next_order(self) -> int:
        self._order += 1
        return self._order


def _exceeded(ticket: Ticket, now: float) -> DeadlineExceededError:
    waited = now - ticket.accepted_at
    return DeadlineExceededError(
        f"not finished within {ticket.deadline - ticket.accepted_at:g} s "
        f"(given up after {waited:.3f} s, {ticket.state}): try again later, or allow more time"
    )

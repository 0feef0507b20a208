"""One replica: the project's own scheduler in simulated time, before a core that is busy for as long as a batch costs.

The core does one thing at a time: it encodes a batch, searches for it or writes it, and answers. That is a server on
one core as `benchmarks/load.py` has measured it. While it runs, two promises are held: counters add up whenever they
are looked at, and no query waits behind bulk for longer than two batches.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

from niruhybrid.config import StreamingConfig
from niruhybrid.streaming.lanes import Batch, Job, LaneName
from niruhybrid.streaming.scheduler import Scheduler

from .clock import Clock
from .measured import FULL, Measured

__all__ = ("Cost", "Replica", "Task", "cost_of", "no_backlog", "per_second")

_ROW = np.zeros(1, np.float32)
_LOOK_EVERY = 64  # batches after which the counters are added up
_HAIR = 1e-9  # seconds that sums of floats may be off
_TEXTS = count()  # no text twice: none is shared or cached


@dataclass(frozen=True, slots=True)
class Cost:
    """How long a batch keeps the core.

    Attributes:
        batch: seconds for any batch.
        token: seconds for each padded token.
        query: seconds for each query, beside encoding: search, answer, HTTP.
        document: seconds for each document, beside encoding.
        spread: standard deviation of the whole, as a share of it.
    """

    batch: float
    token: float = 0.0
    query: float = 0.0
    document: float = 0.0
    spread: float = 0.0

    def seconds(self, batch: Batch, chance: random.Random) -> tuple[float, float]:
        """Draw what encoding a batch costs, and what is done with it afterwards."""
        each = self.query if batch.lane == "interactive" else self.document
        drawn = chance.lognormvariate(-(self.spread**2) / 2, self.spread) if self.spread else 1.0
        return (self.batch + self.token * batch.tokens) * drawn, each * len(batch.works) * drawn


def cost_of(measured: Measured, rows: int) -> Cost:
    """Return what batches cost with so many rows in a store that searches as the embedded one does."""
    encoder, server = measured.encoder, measured.server
    return Cost(
        batch=server.batch,
        token=encoder.per_token,
        query=server.own + measured.embedded.search(rows),
        document=1.0 / measured.embedded.low.writes,
        spread=encoder.spread,
    )


def per_second(cost: Cost, query_tokens: int) -> float:
    """Return the queries a second of a core that has nothing else to do, in batches of 32."""
    return FULL / (cost.batch + FULL * (cost.token * query_tokens + cost.query))


@dataclass(slots=True, eq=False)
class Task:
    """Something asked of the fleet, from the caller's first try to its end.

    Attributes:
        lane: `interactive` for a query, `bulk` for a document.
        tokens: of its text.
        timeout: seconds from `asked` until it is of no use any more.
        asked: when it was first asked.
        ended: is told how it ended: `delivered`, `lost` with its replica, or the code of an error; and when.
        tries: how often it was handed to a replica.
        taken: when its last replica began to encode it.
        seen: batches of queries and of documents that its replica had begun when it came.
    """

    lane: LaneName
    tokens: int
    timeout: float
    asked: float
    ended: Callable[["Task", str, float], None]
    tries: int = 0
    taken: float = math.nan
    seen: tuple[int, int] = (0, 0)


def no_backlog(_replica: "Replica") -> None:
    """Have no documents wait."""


class Replica:
    """A scheduler and its core.

    Args:
        clock: simulated time.
        config: the settings of the scheduler.
        cost: what batches cost.
        chance: where costs are drawn from.
        hungry: called when a document has ended, to hand in another.

    Attributes:
        alive: whether it takes and serves anything.
        held: tasks that it has and that have not ended, of both lanes.
        queries: of them queries.
        busy: seconds its core has worked, by lane.
        encoding: of them seconds in the encoder: what `niru_encode_seconds_sum` exports.
    """

    def __init__(
        self,
        clock: Clock,
        config: StreamingConfig,
        cost: Cost,
        chance: random.Random,
        hungry: Callable[["Replica"], None] = no_backlog,
    ) -> None:
        self.alive = True
        self.held: dict[Job, Task] = {}
        self.queries = 0
        self.busy: dict[LaneName, float] = {"interactive": 0.0, "bulk": 0.0}
        self.encoding: dict[LaneName, float] = {"interactive": 0.0, "bulk": 0.0}
        self._clock = clock
        self._scheduler = Scheduler(config)
        self._cost = cost
        self._chance = chance
        self._hungry = hungry
        self._working = False
        self._alarm = math.inf
        self._begun: dict[LaneName, int] = {"interactive": 0, "bulk": 0}
        self._last: LaneName = "interactive"  # lane of the batch before
        self._longest = 0.0  # seconds of the longest batch so far

    def offer(self, task: Task) -> None:
        """Take a task, or refuse it at once.

        Raises:
            OverloadedError: the scheduler refused it.
        """
        now = self._clock.now
        left = task.asked + task.timeout - now
        job = Job(task, task.lane, str(next(_TEXTS)), left)
        self._scheduler.offer(job, task.tokens, now)
        task.seen = (self._begun["interactive"], self._begun["bulk"])
        self.held[job] = task
        if task.lane == "interactive":
            self.queries += 1
        self._watch()
        if not self._working:
            self._work()

    def die(self) -> None:
        """End now, with all that is held: each task is told that it was lost."""
        self.alive = False
        lost = list(self.held.items())
        for job, task in lost:
            self._scheduler.cancel(job)
            self._told(job, task, "lost")
        self.check()

    def check(self) -> None:
        """Hold the counters to promise 2, and to what is held here."""
        stats = self._scheduler.stats(self._clock.now)
        assert stats.balanced, "offered = delivered + failed + rejected + dropped + cancelled + waiting + in flight"
        live = sum(lane.waiting + lane.in_flight for lane in (stats.interactive, stats.bulk))
        assert live == len(self.held), f"{live} items are live in the scheduler, {len(self.held)} have not ended"

    @property
    def waiting(self) -> int:
        """Queries that wait to be encoded: what `niru_waiting{lane="interactive"}` exports."""
        return sum(1 for job in self.held if job.lane == "interactive" and job.state == "waiting")

    # --- the core ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Begin the next batch, if there is one."""
        now = self._clock.now
        self._working = True  # also while documents that have ended make room for others
        batch = self._scheduler.take(now)
        while self._collect() and batch is None:
            batch = self._scheduler.take(now)
        if batch is None:
            self._working = False
            return
        self._begins(batch, now)
        encoding, rest = self._cost.seconds(batch, self._chance)
        self._longest = max(self._longest, encoding + rest)
        self._clock.at(now + encoding, lambda: self._encoded(batch, encoding, rest))

    def _begins(self, batch: Batch, now: float) -> None:
        """Hold a batch to promise 3: documents never go twice while a query waits, which is for two batches at most."""
        if batch.lane == "bulk":
            assert self._last != "bulk" or not self.queries, f"documents went twice while {self.queries} queries waited"
        for job in (job for work in batch.works for job in work.jobs):
            task = self.held[job]
            task.taken = now
            queries, documents = self._begun["interactive"] - task.seen[0], self._begun["bulk"] - task.seen[1]
            if batch.lane == "interactive":
                assert documents <= queries + 1, (
                    f"{documents} batches of documents and {queries} of queries went before"
                )
                assert queries or now - job.accepted_at <= 2 * self._longest + _HAIR, "a query waited for two batches"
        self._begun[batch.lane] += 1
        self._last = batch.lane

    def _encoded(self, batch: Batch, encoding: float, rest: float) -> None:
        """Note when the encoder was done: from that the scheduler learns what batches cost."""
        batch.returned = self._clock.now
        self.encoding[batch.lane] += encoding
        self._clock.at(batch.returned + rest, lambda: self._done(batch, encoding + rest))

    def _done(self, batch: Batch, seconds: float) -> None:
        if not self.alive:
            return
        now = self._clock.now
        self.busy[batch.lane] += seconds
        for job, _ in self._scheduler.complete(batch, [_ROW] * len(batch.works), now):
            if self._scheduler.deliver(job, now):
                self._told(job, self.held[job], "delivered")
        if sum(self._begun.values()) % _LOOK_EVERY == 0:
            self.check()
        self._work()

    # --- ends --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look again when the next deadline passes."""
        due = self._scheduler.next_due()
        if due is not None and due < self._alarm:
            self._alarm = due
            self._clock.at(due, self._expire)

    def _expire(self) -> None:
        self._alarm = math.inf
        if self.alive:
            self._scheduler.expire(self._clock.now)
            self._collect()
            self._watch()

    def _collect(self) -> bool:
        """Tell of the tasks that the scheduler has given up; False if there are none."""
        ended = self._scheduler.collect()
        for job, error in ended:
            self._told(job, self.held[job], error.code)
        return bool(ended)

    def _told(self, job: Job, task: Task, how: str) -> None:
        del self.held[job]
        if job.lane == "interactive":
            self.queries -= 1
        task.ended(task, how, self._clock.now)
        if job.lane == "bulk" and self.alive:
            self._hungry(self)

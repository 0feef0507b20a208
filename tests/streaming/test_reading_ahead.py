"""How far streams read ahead, and what becomes of documents and queries then, in simulated time."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineUnreachableError, OverloadedError
from niruhybrid.streaming.lanes import Batch, Job, LaneName
from niruhybrid.streaming.scheduler import Scheduler
from niruhybrid.types import Vector

ROW: Vector = np.array([1.0, 0.0], np.float32)
SPEED = 38 * 128  # padded tokens a second, as the reference processor encodes passages
CHAPTER = [120] * 26
NOTE = [90]


def reference(batch: Batch, now: float) -> float:  # noqa: ARG001  # others grow slower
    return 0.003 + batch.tokens / SPEED


@dataclass
class Simulation:
    """One encoder, streams of documents that hand in while there is room, and queries at fixed intervals.

    Attributes:
        seconds: what a batch takes.
        documents: the tokens of each window of each document, handed in in order.
        every: seconds between two queries; infinity for none.
    """

    seconds: Callable[[Batch, float], float]
    documents: list[list[int]]
    every: float = inf
    now: float = 0.0
    lost: int = 0
    longest_wait: float = 0.0
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    idle: float = 0.0
    most_waiting: int = 0

    def run(self) -> "Simulation":
        config = StreamingConfig()
        self.scheduler = Scheduler(config)
        windows = deque((at, tokens) for at, document in enumerate(self.documents) for tokens in document)
        total, next_query, count = len(windows), self.every, 0
        bulk: set[Job] = set()
        while len(windows) or bulk:
            while windows and self._hand_in(*windows[0], len(windows), bulk):
                windows.popleft()
            self.most_waiting = max(self.most_waiting, self.scheduler.stats(self.now).bulk.waiting)
            batch = self.scheduler.take(self.now)
            ends = next_query if batch is None else self.now + self.seconds(batch, self.now)
            assert ends < inf, "nothing will happen any more"
            self.idle += 0.0 if batch else ends - self.now
            while next_query <= ends:
                self._ask(count, next_query)
                count, next_query = count + 1, next_query + self.every
            self.now = ends
            for job, _ in self.scheduler.complete(batch, [ROW] * len(batch.works), self.now) if batch else ():
                self.scheduler.deliver(job, self.now)
                self._note(job)
                bulk.discard(job)
            for job, _ in self.scheduler.collect():
                self.lost += job.lane == "bulk"
                bulk.discard(job)
        stats = self.scheduler.stats(self.now)
        assert stats.balanced
        assert stats.bulk.delivered == total - self.lost
        return self

    def _hand_in(self, document: int, tokens: int, left: int, bulk: set[Job]) -> bool:
        job = Job(None, "bulk", f"window {left} of document {document}", inf)
        if not self.scheduler.room(job, tokens, self.now, alone=not bulk):
            return False
        self.scheduler.offer(job, tokens, self.now)
        bulk.add(job)
        return True

    def _ask(self, number: int, now: float) -> None:
        try:
            self.scheduler.offer(Job(None, "interactive", f"query {number}", 30.0), 12, now)
        except OverloadedError:
            self.refused += 1

    def _note(self, job: Job) -> None:
        wait = (job.taken_at or 0.0) - job.accepted_at
        if job.lane == "bulk":
            self.longest_wait = max(self.longest_wait, wait)
        else:
            self.waits.append(wait)


MIXED = [CHAPTER if number % 4 == 0 else NOTE for number in range(120)]


def slower(batch: Batch, now: float) -> float:
    return reference(batch, now) * (1.25 if now > 10 else 1.0)


def stumbling(batch: Batch, now: float) -> float:
    return reference(batch, now) * (40.0 if now % 7.0 < 0.2 else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [reference, slower, stumbling])
@pytest.mark.parametrize("every", [inf, 0.1, 0.01])
@pytest.mark.parametrize("documents", [[NOTE] * 400, MIXED])
def test_no_document_is_given_up_at_any_speed_and_beside_any_queries(
    seconds: Callable[[Batch, float], float], every: float, documents: list[list[int]]
) -> None:
    done = Simulation(seconds, documents, every).run()
    assert done.lost == 0
    assert done.idle == 0.0
    if every == inf and seconds is reference:
        assert done.longest_wait < 6.0  # three seconds ahead, and those of other lengths that overtake
    if seconds is not stumbling:
        assert done.refused == 0
        assert max(done.waits, default=0.0) < 1.0


def test_batches_are_full_although_little_waits() -> None:
    done = Simulation(reference, [NOTE] * 300).run()
    stats = done.scheduler.stats(done.now).bulk.batch
    assert stats.items / stats.batches > 7.5  # eight of 90 tokens are what a batch may have


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_while_nothing_is_known_of_the_encoder_little_is_handed_in(lane: LaneName) -> None:
    assert 8 <= handed_in(Scheduler(StreamingConfig()), lane, 90) <= 150


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_a_lone_quick_query_says_little_about_full_batches(lane: LaneName) -> None:
    scheduler = Scheduler(StreamingConfig())
    learn(scheduler, 12, 0.005)
    assert 8 <= handed_in(scheduler, lane, 90) <= 150


@pytest.mark.parametrize(("lane", "seconds"), [("interactive", 1.0), ("bulk", 3.0)])
def test_so_many_seconds_of_work_are_handed_in(lane: LaneName, seconds: float) -> None:
    scheduler = Scheduler(StreamingConfig())
    learn(scheduler, 768, 768 / SPEED)
    assert handed_in(scheduler, lane, 96) * 96 / SPEED == pytest.approx(seconds, rel=0.2)


def test_queries_take_their_share_of_what_documents_read_ahead() -> None:
    scheduler = Scheduler(StreamingConfig())
    now = 0.0
    learn(scheduler, 768, 768 / SPEED)
    alone = handed_in(scheduler, "bulk", 96)
    scheduler = Scheduler(StreamingConfig())
    learn(scheduler, 768, 768 / SPEED)
    for number in range(40):  # four seconds in which only queries were encoded
        scheduler.offer(Job(None, "interactive", f"q{number}", 30.0), 500, now)
        now = finish(scheduler, now, 0.1)
    assert handed_in(scheduler, "bulk", 96, now) < alone / 2


def test_a_stream_with_nothing_under_way_is_stopped_only_by_a_full_lane() -> None:
    scheduler = Scheduler(StreamingConfig(queue_size=500))
    handed_in(scheduler, "bulk", 90)
    job = Job(None, "bulk", "first", inf)
    assert not scheduler.room(job, 90, 0.0, alone=False)
    assert scheduler.room(job, 90, 0.0, alone=True)
    for number in range(1000):
        other = Job(None, "bulk", f"other {number}", inf)
        if not scheduler.room(other, 90, 0.0, alone=True):
            break
        scheduler.offer(other, 90, 0.0)
    assert scheduler.stats(0.0).bulk.waiting == 500
    assert scheduler.stats(0.0).bulk.rejected == {}


def test_a_burst_of_late_queries_is_forgotten_after_ten_quiet_minutes() -> None:
    scheduler = Scheduler(StreamingConfig())
    learn(scheduler, 12, 0.003)  # so that what a full batch takes is a hopeful guess
    now = 1.0
    for number in range(2000):
        try:
            scheduler.offer(Job(None, "interactive", f"passage {number}", 30.0), 120, now)
        except OverloadedError:
            break
    while (batch := scheduler.take(now)) is not None:
        now += reference(batch, now) * 4  # and all are much later than predicted
        for job, _ in scheduler.complete(batch, [ROW] * len(batch.works), now):
            scheduler.deliver(job, now)
        scheduler.collect()
    now += 600.0
    for number in range(200):  # about half a second of work
        scheduler.offer(Job(None, "interactive", f"question {number}", 5.0), 12, now)
    assert scheduler.stats(now).interactive.waiting == 200


def test_a_cold_model_does_not_let_everything_in() -> None:
    scheduler = Scheduler(StreamingConfig())
    refused = 0
    for number in range(2000):
        try:
            scheduler.offer(Job(None, "interactive", f"passage {number}", 30.0), 120, 0.0)
        except OverloadedError:
            refused += 1
        if number == 0:
            scheduler.take(0.0)
    assert 500 < refused < 1700


def test_queries_of_a_long_batch_do_not_expire_behind_each_other() -> None:
    """A thousand at 80 a second, of which each has three seconds from when it is handed in."""
    scheduler, now, left, waiting, delivered = Scheduler(StreamingConfig()), 0.0, 1000, 0, 0
    while left or waiting:
        while left:
            job = Job(None, "interactive", f"query {left}", 3.0)
            if not scheduler.room(job, 4 + left % 20, now, alone=not waiting):
                break
            try:
                scheduler.offer(job, 4 + left % 20, now)
            except DeadlineUnreachableError:
                assert waiting, "then a stream waits until one of its queries has ended"
                break
            left, waiting = left - 1, waiting + 1
        batch = scheduler.take(now)
        assert batch is not None
        now += len(batch.works) / 80
        for job, _ in scheduler.complete(batch, [ROW] * len(batch.works), now):
            scheduler.deliver(job, now)
            delivered, waiting = delivered + 1, waiting - 1
        assert scheduler.collect() == []
    assert delivered == 1000


def learn(scheduler: Scheduler, tokens: int, seconds: float) -> None:
    """Have a batch of so many tokens measured, long ago."""
    for number in range(6):
        scheduler.offer(Job(None, "bulk", f"lesson {tokens} {number}", inf), tokens, -1000.0)
        finish(scheduler, -1000.0, seconds)


def finish(scheduler: Scheduler, now: float, seconds: float) -> float:
    batch = scheduler.take(now)
    assert batch is not None
    for job, _ in scheduler.complete(batch, [ROW] * len(batch.works), now + seconds):
        scheduler.deliver(job, now + seconds)
    return now + seconds


def handed_in(scheduler: Scheduler, lane: LaneName, tokens: int, now: float = 0.0) -> int:
    """Hand in texts as streams do, as long as there is room; return how many that were."""
    for number in range(20_000):
        job = Job(None, lane, f"text {number}", inf)
        if not scheduler.room(job, tokens, now, alone=False):
            return number
        scheduler.offer(job, tokens, now)
    raise AssertionError("there is always room")

"""The scheduler under any sequence of events: items end once, what was given up is not encoded, counters add up."""

from math import inf

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, EncoderFailedError, OverloadedError
from niruhybrid.streaming.lanes import Batch, Job, LaneName
from niruhybrid.streaming.scheduler import Scheduler
from niruhybrid.types import Vector

ROW: Vector = np.array([1.0, 0.0], np.float32)
LANES: st.SearchStrategy[LaneName] = st.sampled_from(["interactive", "bulk"])
TIMES: st.SearchStrategy[float] = st.sampled_from([*range(1, 10), inf, inf])


class SchedulerMachine(RuleBasedStateMachine):
    """Time moves on an integer grid, so that `now == due` happens all the time."""

    def __init__(self) -> None:
        super().__init__()
        config = StreamingConfig(
            batch_size=3, max_batch_tokens=40, queue_size=6, queue_tokens=120, hang_timeout=7.0, bulk_share=0.25
        )
        self.config = config
        self.scheduler = Scheduler(config, finishes=True)
        self.now = 0
        self.closed = False
        self.live: list[Job] = []
        self.ends: dict[int, str] = {}
        self.offered = self.refused = 0
        self.encoding: list[Batch] = []
        self.finishing: list[Job] = []
        self.kept: list[Job] = []  # so that no id is used twice

    def _end(self, job: Job, how: str) -> None:
        assert id(job) not in self.ends, "ended twice"
        assert job.deadline < inf or "Deadline" not in how, "given up without a deadline"
        self.ends[id(job)] = how
        self.live.remove(job)

    def _collect(self) -> None:
        for job, error in self.scheduler.collect():
            self._end(job, type(error).__name__)

    @rule(
        lane=LANES,
        text=st.sampled_from("abcdefgh"),
        tokens=st.sampled_from([2, 5, 9, 30, 100]),
        timeout=TIMES,
        session=st.sampled_from([None, None, "s", "t"]),
        alone=st.booleans(),
    )
    def offer(
        self, lane: LaneName, text: str, tokens: int, timeout: float, session: str | None, *, alone: bool
    ) -> None:
        job = Job(text, lane, text, timeout, None, session)
        self.offered += 1
        self.kept.append(job)
        room = self.scheduler.room(job, tokens, self.now, alone=alone)
        try:
            self.scheduler.offer(job, tokens, self.now)
        except (OverloadedError, ClosedError) as err:
            self.refused += 1
            closed = isinstance(err, ClosedError)
            assert closed == self.closed  # either outcome is right at some time
            assert closed or timeout < inf or not room, "refused though a stream was told that there is room"
            return
        assert not self.closed, "closed never accepts"
        self.live.append(job)
        self._collect()

    @rule(lane=LANES, timeout=TIMES)
    def offer_ready(self, lane: LaneName, timeout: float) -> None:
        job = Job("ready", lane, "", timeout, ROW)
        self.offered += 1
        self.kept.append(job)
        try:
            self.scheduler.offer(job, 0, self.now)
        except (OverloadedError, ClosedError):
            self.refused += 1
            return
        assert not self.closed, "closed never accepts"
        self.live.append(job)
        self.finishing.append(job)

    @rule()
    def take(self) -> None:
        batch = self.scheduler.take(self.now)
        self._collect()
        if batch is None:
            return
        self.encoding.append(batch)
        assert 1 <= len(batch.works) <= self.config.batch_size
        assert len(set(batch.texts)) == len(batch.texts)
        assert len(batch.works) == 1 or batch.tokens <= self.config.max_batch_tokens
        for work in batch.works:
            assert work.jobs, "encoded for nobody"
            for job in work.jobs:
                assert job in self.live
                assert job.deadline > self.now, "encoded past its deadline"

    @precondition(lambda self: self.encoding)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        batch = self.encoding.pop(data.draw(st.integers(0, len(self.encoding) - 1)))
        outcomes = [ROW if data.draw(st.booleans()) else EncoderFailedError("poison") for _ in batch.works]
        live = self.scheduler.complete(batch, outcomes, self.now)
        self.finishing += [job for job, _ in live]
        assert all(job in self.live for job, _ in live)
        self._collect()

    @precondition(lambda self: self.encoding)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """The encoder is done with a batch; it is settled later, and hangs no more."""
        batch = data.draw(st.sampled_from(self.encoding))
        if batch.returned is None:
            batch.returned = self.now

    @precondition(lambda self: self.encoding)
    @rule(memory=st.booleans())
    def split(self, memory: bool) -> None:
        batch = self.encoding.pop(0)
        if not self.scheduler.split(batch, MemoryError() if memory else ValueError(), self.now):
            assert len(batch.works) == 1
            self.scheduler.complete(batch, [EncoderFailedError("poison")], self.now)
        self._collect()

    @precondition(lambda self: self.finishing)
    @rule(data=st.data(), well=st.booleans())
    def finish(self, data: st.DataObject, well: bool) -> None:
        job = self.finishing.pop(data.draw(st.integers(0, len(self.finishing) - 1)))
        self.scheduler.finished(job.lane)
        ended = self.scheduler.deliver(job, self.now) if well else self.scheduler.fail(job, EncoderFailedError("late"))
        assert ended == (job in self.live)
        if ended:
            self._end(job, "finished")

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.live))
        assert self.scheduler.cancel(job)
        self._end(job, "cancelled")

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.scheduler.expire(self.now)
        for batch in self.scheduler.overdue(self.now):
            assert self.now - batch.started >= self.config.hang_timeout
            assert batch.returned is None, "given up though it is back"
            self.scheduler.give_up(batch, self.now)
            self.encoding.remove(batch)
        self._collect()
        assert all(job.deadline > self.now for job in self.live), "past its deadline and alive"
        due = self.scheduler.next_due()
        assert due is None or due > self.now
        assert due is not None or all(job.deadline == inf for job in self.live)

    @rule()
    def close(self) -> None:
        if len(self.kept) > 12:  # rarely, and late: there is more to see before
            self.closed = True
            self.scheduler.close()
            self._collect()

    @invariant()
    def counters_add_up(self) -> None:
        stats = self.scheduler.stats(self.now)
        assert stats.balanced
        lanes = (stats.interactive, stats.bulk)
        assert sum(lane.offered for lane in lanes) == self.offered
        assert sum(sum(lane.rejected.values()) for lane in lanes) == self.refused
        assert sum(lane.waiting + lane.in_flight for lane in lanes) == len(self.live)
        assert sum(lane.cancelled for lane in lanes) == list(self.ends.values()).count("cancelled")
        assert all(lane.waiting + lane.in_flight <= self.config.queue_size for lane in lanes)
        assert all(min(lane.waiting, lane.in_flight, lane.waiting_tokens) >= 0 for lane in lanes)
        if not any(lane.waiting for lane in lanes):
            assert all(lane.waiting_tokens == 0 for lane in lanes)

    def teardown(self) -> None:
        """Let everything come to its end: then nothing is left."""
        for _ in range(5):
            self.pass_time(4)
        assert all(job.deadline == inf for job in self.live)
        lanes: tuple[LaneName, ...] = ("interactive", "bulk")
        for lane in lanes:
            idle = not any(job.lane == lane and job.state != "ended" for job in self.kept)
            assert not idle or self.scheduler.roomy(lane, self.now)
        for job in tuple(self.live):
            assert self.scheduler.cancel(job)
            self._end(job, "cancelled")
        self.counters_add_up()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

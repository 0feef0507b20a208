"""The scheduler by hand: each rule in a row of its own, and every instant where `now == due`."""

from itertools import pairwise
from math import inf

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import (
    ClosedError,
    DeadlineExceededError,
    DeadlineUnreachableError,
    EncoderFailedError,
    EncoderHungError,
    NiruError,
    QueueFullError,
    SupersededError,
)
from niruhybrid.streaming.capacity import STALE
from niruhybrid.streaming.lanes import Batch, Job, LaneName
from niruhybrid.streaming.scheduler import Scheduler
from niruhybrid.streaming.turns import ATTENTION
from niruhybrid.types import Vector

ROW: Vector = np.array([1.0, 0.0], np.float32)


class Desk:
    """A scheduler with its time told by hand."""

    def __init__(self, *, finishes: bool = False, now: float = 100.0, **settings: object) -> None:
        values: dict[str, object] = {"batch_size": 4, "max_batch_tokens": 64, "processing_timeout": 10.0}
        self.config = StreamingConfig(**{**values, **settings})  # type: ignore[arg-type]  # a row names what it needs
        self.scheduler = Scheduler(self.config, finishes=finishes)
        self.now = now

    def offer(
        self,
        text: str,
        lane: LaneName = "interactive",
        *,
        tokens: int = 4,
        timeout: float | None = None,
        session: str | None = None,
    ) -> Job:
        usual = inf if lane == "bulk" else self.config.processing_timeout
        limit = usual if timeout is None else timeout
        job = Job(text, lane, text, limit, None, session)
        self.scheduler.offer(job, tokens, self.now)
        return job

    def take(self) -> Batch:
        batch = self.scheduler.take(self.now)
        assert batch is not None
        return batch

    def encode(self, batch: Batch, seconds: float = 0.02) -> None:
        """Let a batch come back well, and end its items."""
        self.now += seconds
        for job, _ in self.scheduler.complete(batch, [ROW] * len(batch.works), self.now):
            assert self.scheduler.deliver(job, self.now)

    def ended(self) -> dict[object, type[NiruError]]:
        return {job.payload: type(error) for job, error in self.scheduler.collect()}

    def check(self) -> None:
        stats = self.scheduler.stats(self.now)
        assert stats.interactive.balanced, stats.interactive
        assert stats.bulk.balanced, stats.bulk


def test_a_lone_query_is_taken_at_once() -> None:
    desk = Desk()
    desk.offer("q")
    assert desk.take().texts == ["q"]
    assert desk.scheduler.take(desk.now) is None
    desk.check()


def test_what_gathers_while_the_encoder_is_busy_leaves_together_in_order_and_by_count() -> None:
    desk = Desk()
    for name in "abcde":
        desk.offer(name)
    assert desk.take().texts == ["a", "b", "c", "d"]
    assert desk.take().texts == ["e"]
    released = desk.scheduler.stats(desk.now).interactive.batch.released
    assert released == {"count": 1, "drained": 1}


def test_a_batch_ends_at_the_token_budget() -> None:
    desk = Desk(batch_size=32, max_batch_tokens=64)
    for name in "abcdef":
        desk.offer(name, tokens=16)
    assert desk.take().texts == ["a", "b", "c", "d"]
    assert desk.scheduler.stats(desk.now).interactive.batch.released == {"tokens": 1}


def test_a_text_over_the_budget_goes_alone_and_blocks_nobody() -> None:
    desk = Desk(max_batch_tokens=64)
    desk.offer("long", tokens=5000)
    desk.offer("short")
    assert desk.take().texts == ["long"]
    assert desk.take().texts == ["short"]


def test_texts_of_other_lengths_are_not_padded_together() -> None:
    desk = Desk(max_batch_tokens=2048)
    for name, tokens in {"a": 8, "long": 200, "b": 8, "c": 7, "longer": 220}.items():
        desk.offer(name, tokens=tokens)
    assert desk.take().texts == ["a", "b", "c"]
    assert desk.take().texts == ["long", "longer"]
    waste = desk.scheduler.stats(desk.now).interactive.batch.padding_waste
    assert waste == pytest.approx(1 - (23 + 420) / (24 + 440))


def test_queries_go_before_documents() -> None:
    desk = Desk()
    for number in range(8):
        desk.offer(f"d{number}", "bulk")
    desk.offer("q")
    assert desk.take().texts == ["q"]
    assert desk.take().lane == "bulk"


def test_a_query_waits_for_one_bulk_batch_at_the_most_whatever_the_share() -> None:
    desk = Desk(bulk_share=0.5)
    for number in range(400):
        desk.offer(f"d{number}", "bulk")
        desk.offer(f"q{number}")
    lanes = []
    for _ in range(100):
        batch = desk.take()
        lanes.append(batch.lane)
        desk.encode(batch)
    assert ("bulk", "bulk") not in set(pairwise(lanes))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25])
def test_documents_keep_their_share_under_endless_queries(share: float) -> None:
    desk = Desk(bulk_share=share, max_batch_tokens=1024)
    number = 0
    lanes = []
    for _ in range(400):
        while desk.scheduler.stats(desk.now).interactive.waiting < 8:
            number += 1
            desk.offer(f"q{number}")
            desk.offer(f"d{number}", "bulk")
        batch = desk.take()
        lanes.append(batch.lane)
        desk.encode(batch)
    assert lanes.count("bulk") / len(lanes) == pytest.approx(share, abs=0.02)
    desk.check()


@pytest.mark.parametrize("tokens", [20, 100, 200, 900])
def test_documents_keep_their_share_of_encoder_time_however_long_they_are(tokens: int) -> None:
    desk = Desk(bulk_share=0.1, batch_size=32, max_batch_tokens=768, bulk_batch_time=0.02, processing_timeout=1000.0)
    spent = {"interactive": 0.0, "bulk": 0.0}
    number = 0
    for _ in range(250):
        for _ in range(32):
            number += 1
            desk.offer(f"q{number}", tokens=12)
        for _ in range(64 - desk.scheduler.stats(desk.now).bulk.waiting):
            number += 1
            desk.offer(f"d{number}", "bulk", tokens=tokens)
        batch = desk.take()
        seconds = 0.002 + 0.00014 * batch.tokens
        spent[batch.lane] += seconds
        desk.encode(batch, seconds)
    assert spent["bulk"] / sum(spent.values()) == pytest.approx(0.1, abs=0.01)


def test_bulk_batches_are_short_while_queries_are_about_and_full_otherwise() -> None:
    desk = Desk(batch_size=32, max_batch_tokens=320, bulk_batch_time=0.02)
    for tokens, seconds in ((10, 0.01), (300, 0.15)):  # the model learns: half a millisecond a token
        desk.offer(f"{tokens}", "bulk", tokens=tokens)
        desk.encode(desk.take(), seconds)
    for number in range(100):
        desk.offer(f"d{number}", "bulk", tokens=10)
    full = desk.take()
    assert len(full.works) == 32
    desk.encode(full, 0.15)
    desk.offer("q", tokens=10)
    desk.encode(desk.take(), 0.01)
    short = desk.take()
    assert short.lane == "bulk"
    assert 1 <= len(short.works) <= 4
    assert desk.scheduler.stats(desk.now).bulk.batch.released["time"] == 1
    desk.encode(short, 0.02)
    desk.now += ATTENTION + 0.1
    assert len(desk.take().works) == 32


def test_the_same_text_is_encoded_once_and_answers_everybody() -> None:
    desk = Desk(finishes=True)
    jobs = [desk.offer("same"), desk.offer("same", "bulk"), desk.offer("other")]
    batch = desk.take()
    jobs.append(desk.offer("same"))  # while it is being encoded
    assert batch.texts == ["same", "other"]
    live = desk.scheduler.complete(batch, [ROW, ROW], desk.now)
    assert {id(job) for job, _ in live} == {id(job) for job in jobs}
    assert desk.scheduler.stats(desk.now).interactive.shared == 1
    desk.check()


def test_a_bulk_text_that_a_query_wants_is_promoted() -> None:
    desk = Desk()
    for number in range(8):
        desk.offer(f"d{number}", "bulk")
    desk.offer("d7")
    assert desk.take().texts == ["d7"]
    assert desk.take().texts == ["d0", "d1", "d2", "d3"]


# --- deadlines: every row stands at `now == due` ---------------------------------------------------------------


@pytest.mark.parametrize(("later", "gone"), [(1.0 - 1e-9, False), (1.0, True), (1.0 + 1e-9, True)])
def test_an_item_expires_at_its_deadline_and_is_never_encoded(later: float, gone: bool) -> None:
    desk = Desk(now=0.0)
    desk.offer("q", timeout=1.0)
    desk.now = later
    batch = desk.scheduler.take(desk.now)
    assert (batch is None) == gone
    assert desk.ended() == ({"q": DeadlineExceededError} if gone else {})
    desk.check()


@pytest.mark.parametrize(("later", "gone"), [(1.0 - 1e-9, False), (1.0, True)])
def test_expire_ends_what_is_due(later: float, gone: bool) -> None:
    desk = Desk(now=0.0)
    desk.offer("q", timeout=1.0)
    desk.scheduler.expire(later)
    assert bool(desk.ended()) == gone
    assert desk.scheduler.stats(later).interactive.dropped == ({"deadline": 1} if gone else {})


def test_an_item_in_flight_expires_too_and_its_result_is_left() -> None:
    desk = Desk(now=0.0)
    desk.offer("q", timeout=1.0)
    batch = desk.take()
    desk.scheduler.expire(1.0)
    assert desk.ended() == {"q": DeadlineExceededError}
    assert desk.scheduler.complete(batch, [ROW], 1.5) == []
    desk.check()


def test_the_next_due_is_the_first_deadline_or_hang_and_none_when_idle() -> None:
    desk = Desk(now=0.0, hang_timeout=3.0)
    assert desk.scheduler.next_due() is None
    desk.offer("a", timeout=5.0)
    first = desk.offer("b", timeout=2.0)
    assert desk.scheduler.next_due() == 2.0
    assert desk.scheduler.cancel(first)
    assert desk.scheduler.next_due() == 5.0
    batch = desk.take()
    assert desk.scheduler.next_due() == 3.0
    desk.encode(batch)
    assert desk.scheduler.next_due() is None


def test_what_this_batch_cannot_serve_in_time_is_given_up_before_it_is_encoded() -> None:
    desk = Desk(now=0.0)
    for number in range(12):
        desk.offer(f"lesson {number}")
        desk.encode(desk.take(), 0.2)
    desk.offer("late", timeout=0.1)
    desk.offer("fine", timeout=1.0)
    assert desk.take().texts == ["fine"]
    assert desk.ended() == {"late": DeadlineExceededError}
    desk.check()


def test_one_dear_batch_is_no_reason_to_give_up_those_that_wait() -> None:
    desk = Desk()
    desk.offer("the first of its size")
    first = desk.take()
    desk.offer("next", timeout=0.35)
    desk.encode(first, 0.2)
    assert desk.take().texts == ["next"]


def test_a_model_that_expects_too_much_may_learn_again() -> None:
    desk = Desk(now=0.0)
    desk.offer("lesson")
    desk.encode(desk.take(), 8.0)  # a pause of the machine
    desk.now += STALE + 0.1
    desk.offer("a", timeout=1.0)
    desk.offer("b", timeout=9.0)
    desk.now += 0.5
    assert "b" in desk.take().texts
    only_late = Desk(now=0.0)
    only_late.offer("lesson")
    only_late.encode(only_late.take(), 8.0)
    only_late.now += STALE + 0.1
    only_late.offer("a", timeout=1.0)
    assert only_late.take().texts == ["a"]


def test_texts_that_are_put_back_keep_their_order() -> None:
    desk = Desk(now=0.0, batch_size=8)
    for number in range(8):
        desk.offer(f"lesson {number}")
        desk.encode(desk.take(), 2.0)
    desk.offer("running")
    hung = desk.take()
    for number in range(5):
        desk.offer(f"q{number}", timeout=9.0)
    desk.now += 7.5  # so all five are late by the model, and the model is old
    desk.scheduler.give_up(hung, desk.now)
    first = desk.take()
    assert first.texts == ["q0"]
    desk.offer("young", timeout=9.0)
    desk.encode(first, 0.0)  # far sooner than the model expected
    assert desk.take().texts == ["q1", "q2", "q3", "q4", "young"]


def test_an_item_without_a_deadline_is_never_due() -> None:
    desk = Desk(now=0.0)
    desk.offer("d", "bulk", timeout=inf)
    assert desk.scheduler.next_due() is None
    desk.scheduler.expire(1e12)
    assert desk.ended() == {}
    desk.offer("q", timeout=2.0)
    assert desk.scheduler.next_due() == 2.0
    desk.scheduler.close()
    assert desk.ended() == {"d": ClosedError, "q": ClosedError}
    desk.check()


# --- at the door ---------------------------------------------------------------------------------------------------


def test_a_full_lane_refuses_and_says_when_to_come_back() -> None:
    desk = Desk(queue_size=3)
    for number in range(3):
        desk.offer(f"q{number}")
    with pytest.raises(QueueFullError, match="3 of 3 items") as caught:
        desk.offer("one more")
    assert caught.value.retry_after >= 0.0
    desk.offer("d", "bulk")  # the other lane has room
    assert desk.scheduler.stats(desk.now).interactive.rejected == {"queue_full": 1}
    desk.check()


def test_a_lane_is_bounded_by_tokens_too() -> None:
    desk = Desk(queue_tokens=100)
    desk.offer("huge", tokens=500)  # alone it may exceed the bound: nothing is refused for ever
    with pytest.raises(QueueFullError, match="500 of 100 tokens"):
        desk.offer("q")


def test_an_unreachable_deadline_is_refused_at_the_door() -> None:
    desk = Desk(now=0.0)
    desk.offer("lesson")
    desk.encode(desk.take(), 0.1)
    for number in range(8):
        desk.offer(f"q{number}")  # two batches of 0.1 s
    with pytest.raises(DeadlineUnreachableError, match=r"deadline is in 0\.200 s") as caught:
        desk.offer("hasty", timeout=0.2)
    assert caught.value.retry_after == pytest.approx(0.115, abs=0.01)
    desk.offer("patient", timeout=0.5)
    assert desk.scheduler.stats(desk.now).interactive.rejected == {"deadline": 1}
    desk.check()


def test_admission_counts_the_batch_in_the_encoder_until_it_is_back() -> None:
    desk = Desk(now=0.0)
    desk.offer("lesson")
    desk.encode(desk.take(), 0.1)
    desk.offer("running")
    batch = desk.take()
    with pytest.raises(DeadlineUnreachableError):
        desk.offer("hasty", timeout=0.15)  # 0.1 s for each of the two batches
    batch.returned = desk.now
    assert desk.offer("hasty", timeout=0.15).state == "waiting"


def test_admission_learns_how_much_later_than_reckoned_queries_end_and_forgets_it() -> None:
    desk = Desk(now=0.0)
    desk.offer("lesson")
    desk.encode(desk.take(), 0.1)
    for rounds, after, admitted in ((5, 0.0, True), (30, 0.3, False), (600, 0.0, True)):  # good, slow, good again
        for number in range(rounds):
            for name in "abcde":
                desk.offer(f"{name}{number}", timeout=60.0)
            while (batch := desk.scheduler.take(desk.now)) is not None:
                desk.now += after  # what comes after encoding
                batch.returned = batch.started + 0.1
                desk.encode(batch, 0.1)
        for name in "abcdefgh":
            desk.offer(f"{name} waits", timeout=60.0)
        try:
            desk.offer("hasty", timeout=0.5)
        except DeadlineUnreachableError:
            assert not admitted
        else:
            assert admitted
        while (batch := desk.scheduler.take(desk.now)) is not None:
            desk.encode(batch, 0.1)


def test_an_idle_encoder_always_tries() -> None:
    desk = Desk(now=0.0)
    desk.offer("lesson")
    desk.encode(desk.take(), 5.0)
    desk.now += STALE + 1
    assert desk.offer("hasty", timeout=0.2).state == "waiting"


def test_a_quiet_spell_of_lone_queries_does_not_spoil_the_estimate_for_full_batches() -> None:
    desk = Desk(now=0.0, batch_size=32, max_batch_tokens=1024)
    for number in range(32):
        desk.offer(f"warm{number}")
    desk.encode(desk.take(), 0.02)
    for number in range(60):
        desk.now += 1.0
        desk.offer(f"lone{number}")
        desk.encode(desk.take(), 0.02)
    accepted = 0
    for number in range(800):
        try:
            desk.offer(f"burst{number}", timeout=0.5)
            accepted += 1
        except DeadlineUnreachableError:
            pass
    served = 0
    while (batch := desk.scheduler.take(desk.now)) is not None:
        desk.encode(batch, 0.02)
        served += len(batch.works)
    assert served >= 0.9 * 25 * 32
    assert served == accepted
    desk.check()


def test_a_newer_query_of_a_session_takes_the_place_of_the_older() -> None:
    desk = Desk()
    desk.offer("h", session="s")
    desk.offer("he", session="s")
    desk.offer("other", session="t")
    assert desk.take().texts == ["he", "other"]
    assert desk.ended() == {"h": SupersededError}
    desk.offer("hel", session="s")  # while the older one is being encoded
    assert desk.ended() == {"he": SupersededError}
    assert desk.scheduler.stats(desk.now).interactive.dropped == {"superseded": 2}
    desk.check()


def test_closing_ends_what_waits_and_refuses_the_rest() -> None:
    desk = Desk()
    flying = desk.offer("flying")
    batch = desk.take()
    desk.offer("waiting")
    desk.scheduler.close()
    assert desk.ended() == {"waiting": ClosedError}
    with pytest.raises(ClosedError):
        desk.offer("late")
    desk.encode(batch)
    assert flying.state == "ended"
    stats = desk.scheduler.stats(desk.now).interactive
    assert (stats.delivered, stats.dropped, stats.rejected) == (1, {"closed": 1}, {"closed": 1})
    desk.check()


# --- cancellation --------------------------------------------------------------------------------------------------


def test_a_cancelled_item_is_never_encoded() -> None:
    desk = Desk()
    jobs = [desk.offer(name) for name in "abc"]
    assert desk.scheduler.cancel(jobs[1])
    assert not desk.scheduler.cancel(jobs[1])
    assert desk.take().texts == ["a", "c"]
    assert desk.scheduler.stats(desk.now).interactive.cancelled == 1
    desk.check()


def test_a_text_is_encoded_while_anybody_wants_it() -> None:
    desk = Desk()
    first, second = desk.offer("same"), desk.offer("same")
    desk.scheduler.cancel(first)
    batch = desk.take()
    assert batch.texts == ["same"]
    assert [job for job, _ in desk.scheduler.complete(batch, [ROW], desk.now)] == [second]


def test_cancelling_in_flight_leaves_the_result() -> None:
    desk = Desk()
    job = desk.offer("q")
    batch = desk.take()
    assert desk.scheduler.cancel(job)
    assert desk.scheduler.complete(batch, [ROW], desk.now) == []
    assert not desk.scheduler.deliver(job, desk.now)
    desk.check()


# --- isolation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("culprits", [{0}, {13}, {31}, {3, 4, 30}])
def test_a_batch_that_raises_is_split_until_the_culprits_are_found(culprits: set[int]) -> None:
    desk = Desk(batch_size=32, max_batch_tokens=2048)
    for number in range(32):
        desk.offer(f"{number}")
    bad = {f"{number}" for number in culprits}
    encodes, good = 0, 0
    while (batch := desk.scheduler.take(desk.now)) is not None:
        encodes += 1
        if not bad & set(batch.texts):
            good += len(batch.works)
            desk.encode(batch)
        elif not desk.scheduler.split(batch, ValueError("poison"), desk.now):
            desk.scheduler.complete(batch, [EncoderFailedError("poison")], desk.now)
    assert good == 32 - len(bad)
    assert desk.ended() == dict.fromkeys(bad, EncoderFailedError)
    assert encodes - 1 <= 2 * 5 * len(bad)
    desk.check()


def test_queries_go_before_the_parts_of_a_failed_bulk_batch() -> None:
    desk = Desk()
    for number in range(4):
        desk.offer(f"d{number}", "bulk")
    assert desk.scheduler.split(desk.take(), ValueError("poison"), desk.now)
    desk.offer("q")
    assert desk.take().texts == ["q"]
    assert desk.take().texts == ["d0", "d1"]


def test_items_of_a_split_batch_can_be_cancelled_and_expire() -> None:
    desk = Desk(now=0.0)
    first = desk.offer("a", timeout=5.0)
    desk.offer("b", timeout=1.0)
    desk.offer("c", timeout=5.0)
    assert desk.scheduler.split(desk.take(), ValueError("poison"), 0.5)
    assert desk.scheduler.stats(0.5).interactive.waiting == 3
    assert desk.scheduler.cancel(first)
    desk.scheduler.expire(1.0)
    desk.now = 1.0
    assert desk.take().texts == ["c"]
    desk.check()


def test_a_memory_error_lowers_the_ceiling_and_good_batches_raise_it_again() -> None:
    desk = Desk(batch_size=32, max_batch_tokens=128)
    for number in range(32):
        desk.offer(f"{number}")
    assert desk.scheduler.split(desk.take(), MemoryError(), desk.now)
    assert desk.scheduler.stats(desk.now).token_ceiling == 64
    while (batch := desk.scheduler.take(desk.now)) is not None:
        desk.encode(batch)
    for number in range(20):
        desk.offer(f"more{number}")
        desk.encode(desk.take())
    assert desk.scheduler.stats(desk.now).token_ceiling == 128


@pytest.mark.parametrize(("later", "overdue"), [(3.0 - 1e-9, False), (3.0, True)])
def test_an_encode_hangs_from_hang_timeout_on(later: float, overdue: bool) -> None:
    desk = Desk(now=0.0, hang_timeout=3.0)
    desk.offer("q")
    batch = desk.take()
    assert desk.scheduler.overdue(later) == ([batch] if overdue else [])


def test_a_batch_that_is_back_does_not_hang_and_has_taken_what_it_took() -> None:
    desk = Desk(now=0.0, hang_timeout=3.0)
    desk.offer("q", timeout=9.0)
    batch = desk.take()
    batch.returned = 1.0
    assert desk.scheduler.overdue(5.0) == []
    assert desk.scheduler.next_due() == 9.0
    assert desk.scheduler.busy
    desk.encode(batch, 5.0)
    assert desk.scheduler.stats(desk.now).interactive.batch.encode.sum == 1.0
    assert not desk.scheduler.busy


def test_giving_up_a_hung_batch_ends_its_items_and_the_next_is_taken() -> None:
    desk = Desk()
    desk.offer("stuck")
    desk.scheduler.give_up(desk.take(), desk.now)
    assert desk.ended() == {"stuck": EncoderHungError}
    desk.offer("stuck")  # the same text may be tried again
    assert desk.take().texts == ["stuck"]
    assert desk.scheduler.stats(desk.now).hung == 1
    desk.check()


def test_a_document_of_a_hung_batch_is_encoded_again_alone_and_a_query_is_not() -> None:
    desk = Desk()
    for name in ("a", "b", "c"):
        desk.offer(name, "bulk")
    desk.scheduler.give_up(desk.take(), desk.now)
    assert desk.ended() == {}
    desk.check()
    desk.offer("q")
    first = desk.take()
    assert first.texts == ["q"]
    desk.scheduler.give_up(first, desk.now)
    assert desk.ended() == {"q": EncoderHungError}
    alone = [desk.take() for _ in range(3)]
    assert [batch.texts for batch in alone] == [["a"], ["b"], ["c"]]
    desk.encode(alone[0])
    desk.scheduler.give_up(alone[1], desk.now)  # this one is what makes it hang
    desk.encode(alone[2])
    assert desk.ended() == {"b": EncoderHungError}
    assert desk.scheduler.stats(desk.now).bulk.delivered == 2
    desk.check()


def test_a_closed_scheduler_tries_no_hung_document_again() -> None:
    desk = Desk()
    desk.offer("d", "bulk")
    batch = desk.take()
    desk.scheduler.close()
    desk.scheduler.give_up(batch, desk.now)
    assert desk.ended() == {"d": EncoderHungError}
    desk.check()


def test_a_split_batch_counts_each_wait_once() -> None:
    desk = Desk(batch_size=8)
    for number in range(8):
        desk.offer(f"d{number}", "bulk")
    desk.now += 1.0
    batch: Batch | None = desk.take()
    while batch is not None:
        if len(batch.works) > 1 and "d5" in batch.texts:
            assert desk.scheduler.split(batch, ValueError(), desk.now)
        else:
            desk.encode(batch)
        batch = desk.scheduler.take(desk.now)
    wait = desk.scheduler.stats(desk.now).bulk.wait
    assert wait.count == 8
    assert wait.sum == pytest.approx(8.0)


# --- the stage after encoding --------------------------------------------------------------------------------------


def test_a_lane_whose_stage_is_behind_pauses_and_the_other_goes_on() -> None:
    desk = Desk(finishes=True, batch_size=2)
    flying = []
    for number in range(20):
        desk.offer(f"d{number}", "bulk")
    while (batch := desk.scheduler.take(desk.now)) is not None:
        flying += desk.scheduler.complete(batch, [ROW] * len(batch.works), desk.now)
    assert len(flying) == 8
    desk.offer("q")
    assert desk.take().texts == ["q"]
    for job, _ in flying:
        desk.scheduler.finished("bulk")
        desk.scheduler.deliver(job, desk.now)
    assert desk.take().lane == "bulk"
    desk.check()


def test_an_item_with_a_vector_is_in_flight_at_once() -> None:
    desk = Desk(finishes=True)
    job = Job("ready", "bulk", "", 5.0, ROW)
    desk.scheduler.offer(job, 0, desk.now)
    assert job.state == "in_flight"
    assert desk.scheduler.take(desk.now) is None
    desk.scheduler.finished("bulk")
    assert desk.scheduler.deliver(job, desk.now)
    desk.check()


def test_ended_items_are_not_kept_until_their_deadline() -> None:
    desk = Desk(now=0.0)
    for number in range(10_000):
        desk.offer(f"q{number}", timeout=1000.0)
        desk.encode(desk.take(), 0.0)
    assert len(desk.scheduler._deadlines) <= 66  # the one thing no public name shows


def test_items_in_the_encoder_keep_their_deadline_whatever_comes_and_goes() -> None:
    desk = Desk(now=0.0, queue_size=1000)
    desk.offer("long in the encoder", timeout=5.0)
    desk.take()
    for number in range(200):
        assert desk.scheduler.cancel(desk.offer(f"q{number}", timeout=1000.0))
    desk.scheduler.expire(5.0)
    assert desk.ended() == {"long in the encoder": DeadlineExceededError}


def test_an_item_that_joins_a_text_in_the_encoder_is_in_flight() -> None:
    desk = Desk()
    desk.offer("same")
    desk.take()
    desk.offer("same")
    stats = desk.scheduler.stats(desk.now).interactive
    assert (stats.waiting, stats.in_flight) == (0, 2)


def test_a_text_that_has_been_encoded_is_encoded_again_when_asked_again() -> None:
    desk = Desk()
    for _ in range(2):
        desk.offer("same")
        batch = desk.take()
        assert batch.texts == ["same"]
        desk.encode(batch)

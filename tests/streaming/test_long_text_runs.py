"""What becomes of a long text's windows: when they are handed in, what time they get, and who takes them back."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue

import numpy as np
import pytest

from niruhybrid.errors import DeadlineExceededError, EncoderFailedError, OverloadedError, QueueFullError
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.long_texts import LongJob, LongTexts
from niruhybrid.types import Timings
from niruhybrid.windows import Window
from tests.streaming.conftest import WAIT

VECTOR = np.ones(1, np.float32)
MINUTE = 60.0


class Desk:
    """Takes jobs as a batcher does, and ends them as the test says."""

    def __init__(self) -> None:
        self.handed: SimpleQueue[tuple[Job, Future[Done]]] = SimpleQueue()
        self.refusals: list[OverloadedError] = []
        self.full = False
        self.asked: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def start(self, job: Job) -> "Future[Done]":
        if self.refusals:
            raise self.refusals.pop()
        future: Future[Done] = Future()
        self.handed.put((job, future))
        return future

    def has_room(self, job: Job, when: Callable[[], object] | None, /, *, alone: bool) -> bool:  # noqa: ARG002
        if self.full and when is not None:
            self.asked.put(when)
        return not self.full

    def next(self) -> tuple[Job, "Future[Done]"]:
        return self.handed.get(timeout=WAIT)

    def finish(self, found: object = None) -> Job:
        job, future = self.next()
        future.set_result(Done(VECTOR, found, Timings(queued=1.0, encode=2.0, search=3.0, total=6.0)))
        return job


def windows(count: int) -> Iterator[Window]:
    return (Window(part, part, "x", (part,), (0, 1), (0, 1)) for part in range(count))


def job_of(count: int, timeout: float | None = MINUTE, cut: Callable[[int], Iterator[Window]] = windows) -> LongJob:
    def job(window: Window, left: float, last: bool) -> Job:
        return Job((window.part, last), "bulk", window, left)

    return LongJob("text", cut(count), job, timeout, 2 * MINUTE, lambda: count)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def texts(desk: Desk) -> Iterator[LongTexts]:
    texts = LongTexts(desk.start, desk.has_room, 2)
    yield texts
    texts.close()


def test_each_window_gets_the_time_that_is_left_of_the_texts(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(4))
    left = [desk.finish().timeout for _ in range(4)]
    assert all(later < earlier for earlier, later in zip([MINUTE, *left], left, strict=False))
    assert future.result(WAIT).windows == 4


def test_without_a_time_of_its_own_each_window_gets_that_of_one(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(3, None))
    assert [desk.finish().timeout for _ in range(3)] == [2 * MINUTE] * 3
    assert future.result(WAIT)


def test_a_text_whose_time_is_over_hands_in_no_more(desk: Desk, texts: LongTexts) -> None:
    with pytest.raises(DeadlineExceededError, match="0 windows read"):
        texts.start(job_of(3, 1e-9))
    assert desk.handed.empty()


def test_a_text_that_is_taken_back_takes_back_its_windows(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(9))
    parts = [desk.next()[1] for _ in range(2)]
    assert future.cancel()
    assert all(_cancelled(part) for part in parts)
    assert desk.handed.empty()


def _cancelled(part: "Future[Done]") -> bool:
    told = threading.Event()
    part.add_done_callback(lambda _: told.set())
    return told.wait(WAIT) and part.cancelled()


def test_a_window_that_fails_takes_back_the_others(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(9))
    (_, first), (_, second) = desk.next(), desk.next()
    first.set_exception(EncoderFailedError("no"))
    with pytest.raises(EncoderFailedError):
        future.result(WAIT)
    assert _cancelled(second)
    assert desk.handed.empty()


def test_no_more_windows_are_under_way_than_may_be(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(5))
    held = [desk.next(), desk.next()]
    other = texts.start(job_of(1))
    assert desk.finish().payload == (0, True)  # the thread has been through its steps, and only the other's window came
    assert other.result(WAIT)
    assert desk.handed.empty()
    for _, part in held:
        part.set_result(Done(VECTOR, None, Timings()))
    assert [desk.finish().payload for _ in range(3)] == [(2, False), (3, False), (4, True)]
    assert future.result(WAIT).tokens_used == 5


def test_texts_take_turns_whatever_their_length(desk: Desk, texts: LongTexts) -> None:
    futures = [texts.start(job_of(count)) for count in (20, 10)]
    order = [desk.finish().payload for _ in range(30)]
    assert all(future.result(WAIT) for future in futures)
    assert order.index((9, True)) < 25, "the short one is not to wait for the long one"
    assert order[-1] == (19, True)


def test_a_refused_first_window_is_the_callers_and_a_later_one_is_tried_again(desk: Desk, texts: LongTexts) -> None:
    desk.refusals.append(QueueFullError("full", retry_after=0.0))
    with pytest.raises(QueueFullError):
        texts.start(job_of(2))
    future = texts.start(job_of(3))
    desk.refusals += [QueueFullError("full", retry_after=0.0)] * 3
    assert [desk.finish().payload for _ in range(3)] == [(0, False), (1, False), (2, True)]
    assert future.result(WAIT).windows == 3


def test_a_text_with_nothing_under_way_tries_again_by_itself(desk: Desk) -> None:
    texts = LongTexts(desk.start, desk.has_room, 1)
    future = texts.start(job_of(2))
    desk.refusals.append(QueueFullError("full", retry_after=0.0))
    assert [desk.finish().payload for _ in range(2)] == [(0, False), (1, True)]
    assert future.result(WAIT)
    assert not desk.refusals
    texts.close()


def test_a_text_with_a_window_under_way_waits_for_room(desk: Desk, texts: LongTexts) -> None:
    desk.full = True
    future = texts.start(job_of(3))
    first = desk.next()
    when = desk.asked.get(timeout=WAIT)
    assert desk.handed.empty()
    desk.full = False
    when()
    assert desk.finish().payload == (1, False)
    first[1].set_result(Done(VECTOR, None, Timings()))
    assert desk.finish().payload == (2, True)
    assert future.result(WAIT).windows == 3


def test_a_text_of_a_stream_waits_for_room_with_its_first_window_and_says_when_all_are_handed_in(
    desk: Desk, texts: LongTexts
) -> None:
    handed_in = threading.Event()
    desk.full = True
    future = texts.feed(job_of(2), handed_in.set)
    when = desk.asked.get(timeout=WAIT)
    assert desk.handed.empty()
    desk.full = False
    desk.refusals.append(QueueFullError("full", retry_after=0.0))  # another was quicker: it asks again
    when()
    desk.finish()
    assert handed_in.wait(WAIT)
    desk.finish()
    assert future.result(WAIT).windows == 2


def test_those_who_wait_for_several_futures_are_told_of_a_text_that_is_taken_back(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(9))
    desk.next()
    assert future.cancel()
    done, _ = wait([future], timeout=WAIT)
    assert done == {future}


def test_the_last_write_counts_and_times_are_the_longest(desk: Desk, texts: LongTexts) -> None:
    future = texts.start(job_of(3))
    for watermark in (None, 8, 5):
        desk.finish(watermark)
    done = future.result(WAIT)
    assert done.found == 8
    assert (done.timings.queued, done.timings.encode, done.timings.search) == (1.0, 2.0, 3.0)
    assert 0.0 < done.timings.total < WAIT


def test_a_text_that_cannot_be_cut_fails_and_the_thread_goes_on(desk: Desk, texts: LongTexts) -> None:
    def broken(count: int) -> Iterator[Window]:
        yield from windows(2)
        raise RuntimeError(count)

    future = texts.start(job_of(9, cut=broken))
    with pytest.raises(EncoderFailedError, match="RuntimeError") as caught:
        future.result(WAIT)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert _cancelled(desk.next()[1])
    again = texts.start(job_of(1))
    desk.finish()
    assert again.result(WAIT)


def test_a_closed_desk_of_texts_lets_its_thread_end(desk: Desk) -> None:
    before = set(threading.enumerate())
    texts = LongTexts(desk.start, desk.has_room, 2)
    future = texts.start(job_of(1))
    desk.finish()
    assert future.result(WAIT)
    (thread,) = set(threading.enumerate()) - before
    texts.close()
    thread.join(WAIT)
    assert not thread.is_alive()

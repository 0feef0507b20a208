"""The threads around the scheduler: sharing, isolation, deadlines, hangs, cancellation, and an orderly end."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from math import inf
from random import Random
from typing import Any

import numpy as np
import pytest
import stamina

from niruhybrid.config import RetryPolicy, StreamingConfig
from niruhybrid.errors import (
    ClosedError,
    DeadlineExceededError,
    EncoderFailedError,
    EncoderHungError,
    EncoderOutputError,
    InvalidInputError,
    NiruError,
    QueueFullError,
    StoreError,
    StoreFullError,
    SupersededError,
)
from niruhybrid.ports import Encoder
from niruhybrid.streaming.batcher import Batcher
from niruhybrid.streaming.callers import Done
from niruhybrid.streaming.lanes import Job, LaneName
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector
from tests.streaming.conftest import WAIT, FaultyEncoder, GatedEncoder

Made = Any


def job(text: str, lane: LaneName = "interactive", timeout: float = WAIT, session: str | None = None) -> Job:
    return Job(text, lane, text, timeout, None, session)


@pytest.fixture
def make() -> Iterator[Made]:
    made: list[Batcher] = []

    def build(encoder: Encoder, finish: Any = None, **settings: Any) -> Batcher:
        batcher = Batcher(encoder, StreamingConfig(**settings), finish=finish)
        made.append(batcher)
        return batcher

    yield build
    for batcher in made:
        batcher.close(WAIT)
        lanes, _ = batcher.stats()
        assert lanes.balanced
        assert lanes.interactive.waiting == lanes.interactive.in_flight == 0
        assert lanes.bulk.waiting == lanes.bulk.in_flight == 0


def result(future: "Future[Done]") -> Done:
    return future.result(WAIT)


def test_callers_share_the_batch_that_gathers_while_the_encoder_is_busy(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    first = batcher.start(job("first"))
    gated.await_call()
    others = [batcher.start(job(f"other {number}")) for number in range(5)]
    gated.gate.set()
    for future in (first, *others):
        assert result(future).vector.shape == (8,)
    assert [len(call) for call in gated.calls] == [1, 5]


class Paced(HashEncoder):
    """Takes its time, so that a batch is settled beside the next; a text with `hold` has its call wait for `gate`."""

    def __init__(self) -> None:
        super().__init__(8)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def encode(self, texts: Sequence[str], /) -> Vector:
        self.entered.release()
        if any("hold" in text for text in texts):
            assert self.gate.wait(WAIT)
        rows = super().encode(texts)
        threading.Event().wait(0.003)
        if any("poison" in text for text in texts):
            raise RuntimeError("the model met a text it can't bear")
        return rows[:-1] if any("short" in text for text in texts) else rows


def test_callers_are_told_while_the_next_batch_is_in_the_encoder(make: Made) -> None:
    encoder = Paced()
    batcher = make(encoder, batch_size=1)
    first, second = batcher.start(job("first")), batcher.start(job("hold"))
    assert result(first).vector.shape == (8,)
    assert not second.done()
    third = [batcher.start(job(f"third {number}")) for number in range(8)]
    encoder.gate.set()
    for future in (second, *third):
        assert result(future).vector.shape == (8,)


@pytest.mark.parametrize("bad", ["poison", "short"])
def test_a_batch_settled_beside_the_next_is_split_all_the_same(make: Made, bad: str) -> None:
    encoder = Paced()
    batcher = make(encoder, batch_size=4)
    encoder.gate.set()
    texts = [*(f"{number}" for number in range(3)), f"{bad} 3", *(f"hold {number}" for number in range(4))]
    futures = [batcher.start(job(text)) for text in texts]
    wait(futures, WAIT)
    assert [number for number, future in enumerate(futures) if future.exception() is not None] == [3]


def test_closing_waits_for_a_batch_that_is_settled_beside_the_next(make: Made) -> None:
    encoder = Paced()
    batcher = make(encoder, batch_size=1, finish={"interactive": lambda items: [1] * len(items)})
    first, second = batcher.start(job("first")), batcher.start(job("hold"))
    encoder.entered.acquire(timeout=WAIT)
    encoder.entered.acquire(timeout=WAIT)
    batcher.close()
    encoder.gate.set()
    assert result(first).found == result(second).found == 1
    batcher.close(WAIT)
    assert not any(thread.is_alive() for thread in threading.enumerate() if thread.name.startswith("niru-enc"))


class Unread:
    """Rows that nobody can read before `gate` is open, and then with an error for a batch of several."""

    def __init__(self, rows: Vector, gate: threading.Event) -> None:
        self._rows = rows
        self._gate = gate

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Vector:
        assert self._gate.wait(WAIT)
        if len(self._rows) > 1:
            raise RuntimeError("the rows are on a device that is gone")
        return self._rows


class Lazy(Paced):
    """Gives `Unread` rows for texts with `late`."""

    def __init__(self) -> None:
        super().__init__()
        self.readable = threading.Event()
        self.may_go_on = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Any:
        if any("late" in text for text in texts):
            assert self.may_go_on.wait(WAIT)
        rows = super().encode(texts)
        return Unread(rows, self.readable) if any("late" in text for text in texts) else rows


def set_a_late_batch_aside(batcher: Batcher, encoder: Lazy) -> "list[Future[Done]]":
    """Have a batch of two wait in the alarm thread to be read, while the worker goes on and then has nothing to do."""
    opener = batcher.start(job("hold"))
    encoder.entered.acquire(timeout=WAIT)
    late = [batcher.start(job("late 1")), batcher.start(job("late 2"))]
    other = batcher.start(job("other"))
    encoder.gate.set()
    result(opener)
    settled = threading.Event()
    batcher._alarm.ask(settled.set)  # no public name tells that the alarm thread is free again
    assert settled.wait(WAIT)
    encoder.may_go_on.set()
    result(other)
    assert not any(future.done() for future in late)
    return late


def test_the_worker_wakes_for_the_parts_of_a_batch_that_was_split_beside_it(make: Made) -> None:
    encoder = Lazy()
    batcher = make(encoder, batch_size=2)
    late = set_a_late_batch_aside(batcher, encoder)
    encoder.readable.set()
    for future in late:
        assert result(future).vector.shape == (8,)


def test_closing_leaves_the_worker_for_the_parts_of_a_batch_that_is_still_to_be_split(make: Made) -> None:
    encoder = Lazy()
    batcher = make(encoder, batch_size=2, finish={"interactive": lambda items: [1] * len(items)})
    late = set_a_late_batch_aside(batcher, encoder)
    batcher.close()
    encoder.readable.set()
    for future in late:
        assert result(future).found == 1
    batcher.close(WAIT)
    assert not any(thread.name == "niru-encoder" and thread.is_alive() for thread in threading.enumerate())


def test_vectors_are_each_callers_own_and_read_only(make: Made) -> None:
    batcher = make(HashEncoder(8))
    one, two = (result(batcher.start(job(text))).vector for text in ("a", "b"))
    assert one.dtype == np.float32
    assert one.base is None
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1.0
    assert np.linalg.norm(two) == pytest.approx(1.0, abs=1e-6)


def test_an_encoder_that_does_not_normalise_is_normalised(make: Made) -> None:
    class Long:
        def encode(self, texts: list[str], /) -> list[list[int]]:
            return [[3, 4] for _ in texts]

    vector = result(make(Long()).start(job("a"))).vector
    assert vector.tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("bad", "error"),
    [("poison", EncoderFailedError), ("nan", EncoderOutputError), ("zero", EncoderOutputError), ("short", NiruError)],
)
@pytest.mark.parametrize("place", [0, 15, 31])
def test_a_bad_item_fails_alone(
    make: Made, faulty: FaultyEncoder, bad: str, error: type[NiruError], place: int
) -> None:
    class Both(GatedEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            super().encode(texts)
            return faulty.encode(texts)

    encoder = Both()
    batcher = make(encoder)
    encoder.hold()
    lone = batcher.start(job("lone"))
    encoder.await_call()
    texts = [bad if number == place else f"text {number}" for number in range(32)]
    futures = [batcher.start(job(text)) for text in texts]
    encoder.gate.set()
    wait([lone, *futures], WAIT)
    errors = [future.exception() for future in futures]
    assert isinstance(errors[place], error)
    assert [number for number, each in enumerate(errors) if each is not None] == [place]
    assert result(batcher.start(job("the next"))).vector is not None


def test_the_cause_of_an_encoders_error_is_kept(make: Made, faulty: FaultyEncoder) -> None:
    with pytest.raises(EncoderFailedError, match="RuntimeError") as caught:
        result(make(faulty).start(job("poison")))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_expires_waiting_ends_in_time_and_is_never_encoded(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    first = batcher.start(job("first"))
    gated.await_call()
    late = batcher.start(job("late", timeout=0.02))
    with pytest.raises(DeadlineExceededError):
        result(late)
    gated.gate.set()
    result(first)
    assert ("late",) not in gated.calls


def test_an_item_in_the_encoder_ends_at_its_deadline_too(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    with pytest.raises(DeadlineExceededError):
        result(batcher.start(job("q", timeout=0.02)))
    gated.gate.set()


def test_a_hung_encode_is_given_up_its_worker_replaced_and_health_says_so(make: Made) -> None:
    release = threading.Event()

    class HangsOnce(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            if "hang" in texts:
                assert release.wait(WAIT)
            return super().encode(texts)

    batcher = make(HangsOnce(), hang_timeout=0.02)
    with pytest.raises(EncoderHungError):
        result(batcher.start(job("hang")))
    assert batcher.degraded
    result(batcher.start(job("the next")))
    assert not batcher.degraded
    release.set()
    assert batcher.stats()[0].hung == 1


def test_an_encoder_that_ends_its_thread_is_an_error_of_the_item(make: Made) -> None:
    class Dies(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            if "die" in texts:
                raise SystemExit
            return super().encode(texts)

    batcher = make(Dies())
    with pytest.raises(EncoderFailedError):
        result(batcher.start(job("die")))
    result(batcher.start(job("the next")))


def test_a_cancelled_item_is_not_encoded(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    first = batcher.start(job("first"))
    gated.await_call()
    doomed = batcher.start(job("doomed"))
    kept = batcher.start(job("kept"))
    assert doomed.cancel()
    gated.gate.set()
    wait([first, kept], WAIT)
    assert gated.calls == [("first",), ("kept",)]
    assert batcher.stats()[0].interactive.cancelled == 1


def test_a_cancelled_task_takes_its_item_back(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)

    async def main() -> None:
        gated.hold()
        first = batcher.start_here(job("first"))
        await asyncio.to_thread(gated.await_call)
        doomed = asyncio.ensure_future(batcher.start_here(job("doomed")))
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        gated.gate.set()
        await first

    asyncio.run(main())
    assert gated.calls == [("first",)]
    assert batcher.stats()[0].interactive.cancelled == 1


def test_a_newer_query_of_a_session_supersedes_the_older(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    first = batcher.start(job("first"))
    gated.await_call()
    older = batcher.start(job("he", session="s"))
    newer = batcher.start(job("hello", session="s"))
    with pytest.raises(SupersededError):
        result(older)
    gated.gate.set()
    wait([first], WAIT)
    result(newer)
    assert all("he" not in call for call in gated.calls)


def test_the_same_query_is_answered_from_the_cache(make: Made) -> None:
    encoder = HashEncoder(8)
    batcher = make(encoder)
    once, again = result(batcher.start(job("q"))), result(batcher.start(job("q")))
    assert again.vector is once.vector
    assert len(encoder.calls) == 1
    assert batcher.stats()[1].hits == 1


def test_documents_do_not_fill_the_cache_of_queries(make: Made) -> None:
    batcher = make(HashEncoder(8))
    result(batcher.start(job("d", "bulk")))
    assert batcher.stats()[1].entries == 0


def test_a_full_lane_refuses(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated, queue_size=2)
    gated.hold()
    futures = [batcher.start(job(f"{number}")) for number in range(2)]
    with pytest.raises(QueueFullError):
        batcher.start(job("one more"))
    gated.gate.set()
    wait(futures, WAIT)


def test_closing_ends_what_waits_and_lets_what_flies_arrive(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()
    flying = batcher.start(job("flying"))
    gated.await_call()
    waiting = batcher.start(job("waiting"))
    batcher.close()
    with pytest.raises(ClosedError):
        result(waiting)
    with pytest.raises(ClosedError):
        batcher.start(job("late"))
    gated.gate.set()
    assert result(flying).vector is not None


def test_a_loop_that_is_gone_harms_nobody(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated)
    gated.hold()

    async def leave() -> None:
        batcher.start_here(job("left behind"))
        await asyncio.to_thread(gated.await_call)

    asyncio.run(leave())
    other = batcher.start(job("other"))
    gated.gate.set()
    assert result(other).vector.shape == (8,)


def test_one_batcher_serves_threads_and_event_loops_together(make: Made) -> None:
    batcher = make(HashEncoder(8))

    def in_thread(number: int) -> int:
        return result(batcher.start(job(f"thread {number}"))).vector.size

    async def on_loop() -> list[Done]:
        return list(await asyncio.gather(*(batcher.start_here(job(f"task {number}")) for number in range(50))))

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, on_loop()) for _ in range(2)]
        threads = [pool.submit(in_thread, number) for number in range(50)]
        assert all(each.result(WAIT) == 8 for each in threads)
        assert all(len(each.result(WAIT)) == 50 for each in loops)


# --- the stage after encoding --------------------------------------------------------------------------------------


def test_the_stage_gets_payloads_with_vectors_and_gives_what_it_found(make: Made) -> None:
    def find(items: Sequence[tuple[object, Vector]]) -> list[object]:
        return [f"found {payload}" for payload, _ in items]

    done = result(make(HashEncoder(8), finish={"interactive": find, "bulk": find}).start(job("q")))
    assert done.found == "found q"


def test_the_stage_isolates_a_bad_item_but_not_its_own_failure(make: Made, gated: GatedEncoder) -> None:
    def write(items: Sequence[tuple[object, Vector]]) -> list[object]:
        calls.append(len(items))
        if any(payload == "full" for payload, _ in items):
            raise StoreFullError("the disk is full: make room")
        if any(payload == "bad" for payload, _ in items):
            raise InvalidInputError("bad: do better")
        return [1] * len(items)

    calls: list[int] = []
    batcher = make(gated, finish={"interactive": write, "bulk": write})

    def together(*texts: str) -> list[BaseException | None]:
        gated.hold()
        lone = batcher.start(job("lone"))
        gated.await_call()
        futures = [batcher.start(job(text, "bulk")) for text in texts]
        gated.gate.set()
        wait([lone, *futures], WAIT)
        return [future.exception(WAIT) for future in futures]

    errors = together("a1", "bad", "c1")
    assert [type(error) for error in errors] == [type(None), InvalidInputError, type(None)]
    errors = together("a2", "full", "c2")
    assert [type(error) for error in errors] == [StoreFullError] * 3


def test_a_stage_that_returns_short_fails_its_items_and_lives(make: Made) -> None:
    batcher = make(HashEncoder(8), finish={"interactive": lambda _: [], "bulk": lambda items: [1] * len(items)})
    with pytest.raises(StoreError, match="0 results for 1 items"):
        result(batcher.start(job("q")))
    assert result(batcher.start(job("d", "bulk"))).found == 1


def test_a_ready_vector_skips_the_encoder(make: Made, gated: GatedEncoder) -> None:
    batcher = make(gated, finish={"interactive": lambda _: [], "bulk": lambda items: [7] * len(items)})
    vector = np.ones(8, np.float32) / np.float32(np.sqrt(8))
    assert result(batcher.start(Job("d", "bulk", "", WAIT, vector))).found == 7
    assert gated.calls == []


# --- everything at once --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("pace", [0.0, 0.002])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_faults_cancellations_and_hangs_leave_no_future_pending_and_counters_equal(
    make: Made, seed: int, pace: float
) -> None:
    release = threading.Event()
    never = threading.Event()

    class Chaotic(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            never.wait(pace)  # what encoding takes: only batches of a slow encoder are settled beside the next
            joined = " ".join(texts)
            if "hang" in joined:
                assert release.wait(WAIT)
            if "poison" in joined:
                raise RuntimeError("poison")
            if "memory" in joined and len(texts) > 4:
                raise MemoryError
            rows = super().encode(texts)
            return rows[:-1] if "short" in joined and len(texts) > 1 else rows

    def write(items: Sequence[tuple[object, Vector]]) -> list[object]:
        if any("unwritable" in str(payload) for payload, _ in items):
            raise InvalidInputError("unwritable")
        return [1] * len(items)

    batcher = make(
        Chaotic(8), finish={"interactive": write, "bulk": write}, hang_timeout=0.05, queue_size=500, batch_size=8
    )
    random = Random(seed)
    words = ["plain"] * 60 + ["poison", "memory", "short", "unwritable", "plain plain plain plain plain"]
    futures: list[Future[Done]] = []
    lock = threading.Lock()

    def submit(number: int) -> None:
        with lock:
            word = "hang" if number == 333 else random.choice(words)
            lane: LaneName = random.choice(["interactive", "bulk"])
            cancel, timeout = random.random() < 0.3, random.choice([0.01, WAIT, WAIT, inf if lane == "bulk" else WAIT])
            session = random.choice([None, None, "s"])
        try:
            future = batcher.start(job(f"{word} {number % 700}", lane, timeout, session))
        except NiruError:
            return
        if cancel:
            future.cancel()
        with lock:
            futures.append(future)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(submit, range(3000)))
    release.set()
    done, pending = wait(futures, 2 * WAIT)
    assert not pending
    assert all(future.cancelled() or isinstance(future.exception(), NiruError | None) for future in done)
    assert result(batcher.start(job("the next"))).vector is not None
    lanes, _ = batcher.stats()
    assert lanes.balanced
    assert lanes.interactive.offered + lanes.bulk.offered == 3001


def test_an_abandoned_batcher_ends_its_threads() -> None:
    batcher = Batcher(HashEncoder(8), StreamingConfig())
    result(batcher.start(job("q")))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("niru-")]
    assert threads
    gone = weakref.ref(batcher)
    batcher.abandon()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    del batcher
    gc.collect()
    assert gone() is None


# --- errors that pass ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3, cap=True)
    yield
    stamina.set_testing(False)


@pytest.mark.usefixtures("no_waiting")
def test_an_error_that_passes_is_not_the_callers_concern(make: Made) -> None:
    class Remote(HashEncoder):
        failures = 2

        def encode(self, texts: Sequence[str], /) -> Vector:
            if self.failures:
                self.failures -= 1
                raise ConnectionResetError("the line was cut")
            return super().encode(texts)

    def write(items: Sequence[tuple[object, Vector]]) -> list[object]:
        calls.append(len(items))
        if len(calls) < 3:
            raise TimeoutError("the store is slow today")
        return [1] * len(items)

    calls: list[int] = []
    batcher = make(Remote(8), finish={"interactive": write, "bulk": write})
    assert result(batcher.start(job("d", "bulk"))).found == 1
    assert len(calls) == 3


@pytest.mark.usefixtures("no_waiting")
def test_an_error_that_does_not_pass_ends_after_the_last_try(make: Made) -> None:
    class Down(HashEncoder):
        tries = 0

        def encode(self, texts: Sequence[str], /) -> Vector:
            self.tries += 1
            raise ConnectionRefusedError(f"nobody listens for {len(texts)}")

    encoder = Down(8)
    with pytest.raises(EncoderFailedError, match="ConnectionRefusedError"):
        result(make(encoder, retry=RetryPolicy(attempts=2)).start(job("q")))
    assert encoder.tries == 2


@pytest.mark.usefixtures("no_waiting")
def test_bad_input_is_not_tried_again(make: Made) -> None:
    class Strict(HashEncoder):
        tries = 0

        def encode(self, texts: Sequence[str], /) -> Vector:
            self.tries += 1
            raise ValueError(f"{len(texts)} texts I won't have")

    encoder = Strict(8)
    with pytest.raises(EncoderFailedError):
        result(make(encoder).start(job("q")))
    assert encoder.tries == 1


def test_nothing_is_tried_again_past_the_deadline(make: Made) -> None:
    class Down(HashEncoder):
        tries = 0

        def encode(self, texts: Sequence[str], /) -> Vector:
            self.tries += 1
            raise ConnectionRefusedError(f"nobody listens for {len(texts)}")

    encoder = Down(8)
    batcher = make(encoder, retry=RetryPolicy(attempts=100, wait_initial=5.0, wait_max=5.0))
    with pytest.raises(NiruError):
        result(batcher.start(job("q", timeout=0.05)))
    batcher.close(WAIT)
    assert encoder.tries == 1

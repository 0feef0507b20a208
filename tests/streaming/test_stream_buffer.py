import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, InvalidIdError, InvalidInputError, InvalidSettingError, QueueFullError
from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer, StreamBuffer
from niruhybrid.types import BufferStats, StreamItem

PATIENT = 30.0  # seconds a test would wait for what ought to happen at once


def numbers(batch: list[StreamItem]) -> list[Any]:
    return [item.data for item in batch]


def adds_up(stats: BufferStats) -> bool:
    lost = sum(stats.dropped.values()) + sum(stats.rejected.values())
    return stats.offered == stats.delivered + lost + stats.size


class Plain:
    """The two buffers behind one face, so that one set of tests serves both."""

    def __init__(self, buffer: StreamBuffer | AsyncStreamBuffer, run: Callable[[Any], Any]) -> None:
        self.buffer = buffer
        self._run = run

    def add(self, *args: Any, **kwargs: Any) -> None:
        self._finish(self.buffer.add(*args, **kwargs))

    def add_many(self, items: Iterable[tuple[str, Any]]) -> None:
        self._finish(self.buffer.add_many(items))

    def get_batch(self, *args: Any, **kwargs: Any) -> list[StreamItem]:
        batch: list[StreamItem] = self._finish(self.buffer.get_batch(*args, **kwargs))
        return batch

    def batches(self) -> list[list[StreamItem]]:
        if isinstance(self.buffer, StreamBuffer):
            return list(self.buffer)
        return asyncio.run(_all(self.buffer))

    def _finish(self, outcome: Any) -> Any:
        return self._run(outcome) if inspect.iscoroutine(outcome) else outcome


async def _all(buffer: AsyncStreamBuffer) -> list[list[StreamItem]]:
    return [batch async for batch in buffer]


@pytest.fixture(params=[StreamBuffer, AsyncStreamBuffer])
def make(request: pytest.FixtureRequest) -> Callable[..., Plain]:
    """Build either buffer; each call on it runs in an event loop of its own."""

    def build(*args: Any, **kwargs: Any) -> Plain:
        return Plain(request.param(*args, **kwargs), asyncio.run)

    return build


def test_items_come_out_in_order_as_they_went_in(make: Callable[..., Plain]) -> None:
    both = make(batch_size=3)
    both.add("a", 1)
    both.add(item_id="b", data=2, metadata={"k": 1})
    both.add("c", 3)
    batch = both.get_batch(timeout=PATIENT)
    assert [(item.item_id, item.data, dict(item.metadata)) for item in batch] == [
        ("a", 1, {}),
        ("b", 2, {"k": 1}),
        ("c", 3, {}),
    ]
    assert [item.added_at for item in batch] == sorted(item.added_at for item in batch)


def test_a_full_batch_is_returned_at_once_and_no_more_than_asked_for(make: Callable[..., Plain]) -> None:
    both = make(batch_size=4)
    for number in range(9):
        both.add("x", number)
    assert numbers(both.get_batch(timeout=PATIENT)) == [0, 1, 2, 3]
    assert numbers(both.get_batch(2, PATIENT)) == [4, 5]
    assert numbers(both.get_batch(timeout=0)) == [6, 7, 8]
    assert both.get_batch(timeout=0) == []


def test_waiting_ends_when_the_oldest_has_waited_long_enough(make: Callable[..., Plain]) -> None:
    both = make(timeout=0.015)
    both.add("x", 1)
    [item] = both.get_batch()
    assert 0.015 <= time.monotonic() - item.added_at < PATIENT


def test_an_empty_buffer_is_waited_on_for_the_timeout(make: Callable[..., Plain]) -> None:
    both = make(timeout=PATIENT)
    began = time.monotonic()
    assert both.get_batch(timeout=0.015) == []
    assert 0.015 <= time.monotonic() - began < PATIENT


def test_after_close_the_rest_is_delivered_at_once_and_nothing_is_accepted(make: Callable[..., Plain]) -> None:
    both = make(timeout=PATIENT, batch_size=2)
    for number in range(3):
        both.add("x", number)
    both.buffer.close()
    both.buffer.close()
    assert both.buffer.closed
    with pytest.raises(ClosedError):
        both.add("x", 3)
    assert numbers(both.get_batch(8)) == [0, 1, 2]
    assert both.get_batch() == []
    assert both.batches() == []


def test_iteration_yields_batches_until_closed_and_drained(make: Callable[..., Plain]) -> None:
    both = make(timeout=0, batch_size=2)
    for number in range(5):
        both.add("x", number)
    both.buffer.close()
    assert [numbers(batch) for batch in both.batches()] == [[0, 1], [2, 3], [4]]


def test_drop_oldest_is_the_default_and_is_reported(make: Callable[..., Plain]) -> None:
    lost: list[tuple[Any, str]] = []
    both = make(2, on_drop=lambda item, reason: lost.append((item.data, reason)))
    for number in range(5):
        both.add("x", number)
    stats = both.buffer.stats()
    assert lost == [(0, "drop_oldest"), (1, "drop_oldest"), (2, "drop_oldest")]
    assert numbers(both.get_batch(timeout=0)) == [3, 4]
    assert (stats.offered, stats.accepted, stats.size, stats.dropped) == (5, 5, 2, {"drop_oldest": 3})
    assert stats.drop_rate == pytest.approx(0.6)
    assert stats.peak == stats.capacity == 2


def test_drop_newest_keeps_what_was_there(make: Callable[..., Plain]) -> None:
    lost: list[tuple[Any, str]] = []
    both = make(2, overflow="drop_newest", on_drop=lambda item, reason: lost.append((item.data, reason)))
    for number in range(3):
        both.add("x", number)
    assert lost == [(2, "drop_newest")]
    assert numbers(both.get_batch(timeout=0)) == [0, 1]
    assert both.buffer.stats().accepted == 2
    assert adds_up(both.buffer.stats())


def test_error_refuses_what_does_not_fit(make: Callable[..., Plain]) -> None:
    both = make(1, overflow="error")
    both.add("x", 0)
    with pytest.raises(QueueFullError, match="buffer holds 1 of 1 items"):
        both.add("x", 1)
    assert both.buffer.stats().rejected == {"full": 1}
    assert numbers(both.get_batch(timeout=0)) == [0]


def test_block_gives_up_after_its_timeout(make: Callable[..., Plain]) -> None:
    both = make(1, overflow="block")
    both.add("x", 0)
    with pytest.raises(QueueFullError, match=r"no room within 0.02 s"):
        both.add("x", 1, timeout=0.02)
    assert both.buffer.stats().rejected == {"full": 1}
    assert numbers(both.get_batch(timeout=0)) == [0]


def test_bytes_bound_counts_data_and_metadata(make: Callable[..., Plain]) -> None:
    both = make(max_bytes=10, overflow="error")
    both.add("x", {"text": "abcd"}, {"note": "efg"})
    assert both.buffer.stats().size_bytes == 7
    with pytest.raises(QueueFullError, match="7 of 10 bytes"):
        both.add("x", "hijk")
    with pytest.raises(InvalidInputError, match="item has 11 bytes of 10"):
        both.add("x", "0123456789a")
    assert len(both.buffer) == 1


def test_on_drop_may_raise_without_harm(make: Callable[..., Plain], caplog: pytest.LogCaptureFixture) -> None:
    def fail(item: StreamItem, reason: str) -> None:
        raise RuntimeError(item, reason)

    both = make(1, on_drop=fail)
    with caplog.at_level(logging.ERROR):
        both.add("x", 0)
        both.add("x", 1)
    assert numbers(both.get_batch(timeout=0)) == [1]
    assert "on_drop_failed" in caplog.text


def test_on_drop_may_use_the_buffer(make: Callable[..., Plain]) -> None:
    seen: list[tuple[Any, str, int]] = []

    def look(item: StreamItem, reason: str) -> None:
        seen.append((item.data, reason, both.buffer.stats().size))

    both: Plain = make(1, on_drop=look)
    both.add("x", 0)
    both.add("x", 1)
    assert seen == [(0, "drop_oldest", 1)]


def test_arguments_win_over_config_and_config_over_defaults(make: Callable[..., Plain]) -> None:
    config = StreamingConfig(buffer_size=7, batch_size=2, overflow="error", buffer_bytes=100)
    stats = make(5, config=config).buffer.stats()
    assert (stats.capacity, stats.capacity_bytes) == (5, 100)
    both = make(config=config)
    for number in range(7):
        both.add("x", number)
    with pytest.raises(QueueFullError):
        both.add("x", 7)
    assert len(both.get_batch(timeout=PATIENT)) == 2
    assert make().buffer.stats().capacity == 1000


@pytest.mark.parametrize(
    "wrong",
    [
        {"buffer_size": 0},
        {"buffer_size": 1.5},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"batch_size": 0},
        {"overflow": "spill"},
        {"max_bytes": 0},
    ],
)
def test_a_setting_out_of_range_is_refused(make: Callable[..., Plain], wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match=str(*wrong.values())):
        make(**wrong)


@pytest.mark.parametrize("wrong", [{"max_items": 0}, {"max_items": True}, {"timeout": -1}, {"timeout": float("nan")}])
def test_a_bad_argument_takes_nothing(make: Callable[..., Plain], wrong: dict[str, Any]) -> None:
    both = make()
    both.add("x", 0)
    with pytest.raises(InvalidSettingError):
        both.get_batch(**wrong)
    assert len(both.buffer) == 1


def test_add_many_adds_in_order_under_the_same_policy(make: Callable[..., Plain]) -> None:
    both = make(50, batch_size=8)
    both.add_many(("x", number) for number in range(70))
    assert numbers(both.get_batch(70, timeout=0)) == list(range(20, 70))
    assert both.buffer.stats().dropped == {"drop_oldest": 20}


def test_add_many_ends_where_an_add_would_raise(make: Callable[..., Plain]) -> None:
    both = make(10, batch_size=8, overflow="error")
    with pytest.raises(QueueFullError):
        both.add_many(("x", number) for number in range(20))
    assert numbers(both.get_batch(20, timeout=0)) == list(range(10))
    assert both.buffer.stats().rejected == {"full": 1}


def test_add_many_keeps_to_the_byte_bound_and_to_close(make: Callable[..., Plain]) -> None:
    both = make(max_bytes=5, overflow="drop_newest")
    both.add_many([("x", "abc"), ("x", "def"), ("x", "g")])
    assert numbers(both.get_batch(timeout=0)) == ["abc", "g"]
    both.buffer.close()
    with pytest.raises(ClosedError):
        both.add_many([("x", "h")])


# --- threads


def test_a_context_manager_closes() -> None:
    with StreamBuffer() as buffer:
        buffer.add("x", 0)
    assert buffer.closed


def test_many_threads_lose_and_repeat_nothing() -> None:
    buffer = StreamBuffer(16, timeout=0.001, batch_size=5, overflow="block")
    producers, each = 4, 500

    def produce(who: int) -> None:
        for number in range(each):
            buffer.add(str(who), (who, number))

    def consume() -> list[list[StreamItem]]:
        return list(buffer)

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume) for _ in range(3)]
        for producer in [pool.submit(produce, who) for who in range(producers)]:
            producer.result(PATIENT)
        buffer.close()
        taken = [consumer.result(PATIENT) for consumer in consumers]
    items = [item.data for batches in taken for batch in batches for item in batch]
    assert sorted(items) == [(who, number) for who in range(producers) for number in range(each)]
    for batches in taken:
        for who in range(producers):
            seen = [number for batch in batches for sender, number in numbers(batch) if sender == who]
            assert seen == sorted(seen)
    stats = buffer.stats()
    assert adds_up(stats)
    assert (stats.delivered, stats.peak <= 16) == (producers * each, True)


def test_a_waiting_thread_is_woken_by_a_full_batch() -> None:
    buffer = StreamBuffer(timeout=PATIENT, batch_size=2)
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(buffer.get_batch)
        buffer.add("x", 0)
        buffer.add("x", 1)
        assert numbers(batch.result(PATIENT)) == [0, 1]


def test_iteration_in_a_thread_yields_a_lone_item() -> None:
    buffer = StreamBuffer(timeout=0.001)
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(next, buffer)
        buffer.add("x", 0)
        assert numbers(batch.result(PATIENT)) == [0]


def test_close_wakes_threads_that_wait_for_items_and_for_room() -> None:
    buffer = StreamBuffer(1, timeout=PATIENT, batch_size=1, overflow="block")
    empty = StreamBuffer(timeout=PATIENT)
    buffer.add("x", 0)
    with ThreadPoolExecutor(3) as pool:
        adding = pool.submit(buffer.add, "x", 1)
        taking = pool.submit(empty.get_batch)
        iterating = pool.submit(list, empty)
        buffer.close()
        empty.close()
        assert isinstance(adding.exception(PATIENT), ClosedError)
        assert taking.result(PATIENT) == []
        assert iterating.result(PATIENT) == []
    assert adds_up(buffer.stats())
    assert buffer.stats().rejected == {"closed": 1}


def test_a_blocked_thread_goes_on_when_there_is_room() -> None:
    buffer = StreamBuffer(1, overflow="block", batch_size=1)
    buffer.add("x", 0)
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(buffer.add, "x", 1)
        assert numbers(buffer.get_batch()) == [0]
        assert numbers(buffer.get_batch(timeout=PATIENT)) == [1]
        assert adding.result(PATIENT) is None


# --- asyncio


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, PATIENT))


async def until_parked() -> None:
    """Let every other task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_add_many_wakes_the_taker_and_waits_for_room() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(8, timeout=PATIENT, batch_size=4, overflow="block")
        taking = asyncio.create_task(_all(buffer))
        await until_parked()
        await buffer.add_many(("x", number) for number in range(100))
        buffer.close()
        assert [number for batch in await taking for number in numbers(batch)] == list(range(100))

    run(main())


def test_cancelled_get_batch_takes_nothing() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(timeout=PATIENT, batch_size=2)
        waiting = asyncio.create_task(buffer.get_batch())
        await until_parked()
        await buffer.add("x", 0)
        await buffer.add("x", 1)  # wakes it; the cancellation arrives before it has run
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert numbers(await buffer.get_batch()) == [0, 1]

    run(main())


def test_a_cancelled_taker_hands_its_wake_on() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(timeout=PATIENT, batch_size=2)
        first = asyncio.create_task(buffer.get_batch())
        second = asyncio.create_task(buffer.get_batch())
        await until_parked()
        await buffer.add("x", 0)
        await buffer.add("x", 1)
        first.cancel()
        assert numbers(await second) == [0, 1]

    run(main())


def test_cancelled_add_adds_nothing_even_when_room_has_just_come() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(1, overflow="block", batch_size=1)
        await buffer.add("x", 0)
        early, late, last = (asyncio.create_task(buffer.add("x", number)) for number in (1, 2, 3))
        await until_parked()
        early.cancel()
        await until_parked()
        assert numbers(await buffer.get_batch()) == [0]  # lets the second in, which has not run yet
        late.cancel()
        await asyncio.wait([early, late])
        assert (early.cancelled(), late.cancelled()) == (True, True)
        assert numbers(await buffer.get_batch()) == [3]
        await last
        stats = buffer.stats()
        assert stats.rejected == {"cancelled": 2}
        assert adds_up(stats)

    run(main())


def test_adding_does_not_suspend_while_there_is_room() -> None:
    adding = AsyncStreamBuffer(1).add("x", 0)
    with pytest.raises(StopIteration):
        adding.send(None)


def test_adding_in_a_tight_loop_leaves_the_taker_its_chance() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(4, timeout=PATIENT, batch_size=4)

        async def take() -> int:
            return sum([len(await buffer.get_batch()) for _ in range(25)])

        taking = asyncio.create_task(take())
        for number in range(100):
            await buffer.add("x", number)
        assert await taking == 100
        assert buffer.stats().dropped == {}

    run(main())


def test_many_tasks_lose_and_repeat_nothing() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(8, timeout=0.001, batch_size=3, overflow="block")

        async def produce(who: int) -> None:
            for number in range(100):
                await buffer.add(str(who), (who, number))

        taking = [asyncio.create_task(_all(buffer)) for _ in range(3)]
        await asyncio.gather(*(produce(who) for who in range(4)))
        buffer.close()
        items = [item.data for batches in await asyncio.gather(*taking) for batch in batches for item in batch]
        assert sorted(items) == [(who, number) for who in range(4) for number in range(100)]
        assert adds_up(buffer.stats())

    run(main())


def test_threads_feed_a_loop_without_loss() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(16, timeout=0.001, batch_size=5, overflow="block")

        def produce(who: int) -> None:
            for number in range(300):
                buffer.add_from_thread(str(who), (who, number))

        taking = asyncio.create_task(_all(buffer))
        await asyncio.gather(*(asyncio.to_thread(produce, who) for who in range(3)))
        buffer.close()
        items = [item.data for batch in await taking for item in batch]
        assert sorted(items) == [(who, number) for who in range(3) for number in range(300)]

    run(main())


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0
        self.timers = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # passed on as they are
        self.wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # same
        self.timers += 1
        return super().call_at(*args, **kwargs)


def test_a_loop_is_woken_once_a_batch_and_needs_no_timer_while_idle() -> None:
    loop = CountingLoop()
    buffer = AsyncStreamBuffer(timeout=PATIENT, batch_size=32)

    async def main() -> None:
        taking = asyncio.create_task(buffer.get_batch(timeout=PATIENT))
        idle = asyncio.create_task(anext(AsyncStreamBuffer()))
        await until_parked()
        assert loop.timers == 1
        idle.cancel()

        def feed() -> None:
            for number in range(32):
                buffer.add_from_thread("x", number)

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert numbers(await taking) == list(range(32))
        feeder.join()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
        wakes = loop.wakes
    assert wakes == 1


def test_iteration_over_an_idle_buffer_yields_a_lone_item() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(timeout=0.001)
        taking = asyncio.create_task(anext(buffer))
        await until_parked()
        await buffer.add("x", 0)
        assert numbers(await taking) == [0]

    run(main())


def test_add_from_thread_never_blocks_an_event_loop() -> None:
    async def main() -> None:
        buffer = AsyncStreamBuffer(1, overflow="block")
        buffer.add_from_thread("x", 0)
        with pytest.raises(QueueFullError):
            buffer.add_from_thread("x", 1)

    run(main())


def test_one_buffer_serves_successive_loops() -> None:
    buffer = AsyncStreamBuffer(2, timeout=0.001, overflow="block")

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(buffer.get_batch(timeout=PATIENT), 0.001)

    asyncio.run(give_up())
    asyncio.run(buffer.add("x", 0))
    asyncio.run(buffer.add("x", 1))
    assert numbers(asyncio.run(buffer.get_batch())) == [0, 1]


def test_a_waiter_whose_loop_is_gone_does_not_disturb_the_others() -> None:
    buffer = AsyncStreamBuffer(timeout=PATIENT, batch_size=1)
    loop = asyncio.new_event_loop()
    abandoned = buffer.get_batch()
    loop.call_soon(abandoned.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(buffer.add_from_thread, "x", 0).result(PATIENT)
    abandoned.close()
    assert numbers(asyncio.run(buffer.get_batch())) == [0]


def test_an_async_context_manager_closes() -> None:
    async def main() -> None:
        async with AsyncStreamBuffer() as buffer:
            await buffer.add("x", 0)
        assert buffer.closed

    run(main())


@pytest.mark.parametrize("item_id", [None, 7, b"q1", ["q1"]])
def test_an_id_that_is_not_a_string_is_refused_and_nothing_is_added(item_id: Any) -> None:
    buffer = StreamBuffer()
    with pytest.raises(InvalidIdError, match="give a string"):
        buffer.add(item_id=item_id, data={"text": "Query text"})
    assert buffer.stats().offered == 0

"""How fast do items get from a producer to a consumer that takes them in batches, without any loss?

One job for all: 100,000 items, an id and its data, given one by one, through room for 1024; a full buffer makes the
producer wait; the consumer takes up to 32 at a time (elsewhere: one `get`, then `get_nowait` until 32 or empty).
Three settings: between threads, within an event loop, from a thread into a loop. Each run checks that every item
arrived, once and in order. Contenders take turns in shuffled order, so that what the machine does meanwhile falls on
all alike. The rows called `add_many` are ours too, given the items in bulk: the others have no such call, so they are
no like-for-like comparison.

    python -m pip install -r benchmarks/requirements-buffers.in
    python benchmarks/buffers.py [--repeats 7] [--items 100000]
"""

import argparse
import asyncio
import gc
import queue
import random
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import culsans
import janus
from _report import machine, write

from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer, StreamBuffer

CAPACITY = 1024
BATCH = 32
SLOW = 20  # contenders that need a round trip through the loop per item get this fraction of the items

Pair = tuple[str, int]
Run = Callable[[list[Pair]], list[int]]


def _in_threads(produce: Callable[[list[Pair]], None], take: Callable[[], list[int]], items: list[Pair]) -> list[int]:
    received: list[int] = []
    producer = threading.Thread(target=produce, args=(items,))
    producer.start()
    while len(received) < len(items):
        received += take()
    producer.join()
    return received


async def _in_loop(
    produce: Coroutine[Any, Any, None], take: Callable[[], Awaitable[list[int]]], count: int
) -> list[int]:
    received: list[int] = []
    producer = asyncio.create_task(produce)
    while len(received) < count:
        received += await take()
    await producer
    return received


async def _from_thread(
    produce: Callable[[list[Pair]], None], take: Callable[[], Awaitable[list[int]]], items: list[Pair]
) -> list[int]:
    received: list[int] = []
    producer = threading.Thread(target=produce, args=(items,))
    producer.start()
    while len(received) < len(items):
        received += await take()
    await asyncio.to_thread(producer.join)
    return received


def _sync_taker(source: Any) -> Callable[[], list[int]]:
    def take() -> list[int]:
        batch = [source.get()[1]]
        try:
            while len(batch) < BATCH:
                batch.append(source.get_nowait()[1])
        except queue.Empty:
            pass
        return batch

    return take


def _async_taker(source: Any, empty: type[Exception] = asyncio.QueueEmpty) -> Callable[[], Awaitable[list[int]]]:
    async def take() -> list[int]:
        batch = [(await source.get())[1]]
        try:
            while len(batch) < BATCH:
                batch.append(source.get_nowait()[1])
        except empty:
            pass
        return batch

    return take


def _sync_putter(sink: Any) -> Callable[[list[Pair]], None]:
    def produce(items: list[Pair]) -> None:
        for item_id, data in items:
            sink.put((item_id, data))

    return produce


async def _async_putter(sink: Any, items: list[Pair]) -> None:
    for item_id, data in items:
        await sink.put((item_id, data))


# --- between threads


def threads_niruhybrid(items: list[Pair]) -> list[int]:
    buffer = StreamBuffer(CAPACITY, batch_size=BATCH, overflow="block")

    def produce(items: list[Pair]) -> None:
        for item_id, data in items:
            buffer.add(item_id, data)

    return _in_threads(produce, lambda: [item.data for item in buffer.get_batch()], items)


def threads_niruhybrid_many(items: list[Pair]) -> list[int]:
    buffer = StreamBuffer(CAPACITY, batch_size=BATCH, overflow="block")
    return _in_threads(buffer.add_many, lambda: [item.data for item in buffer.get_batch()], items)


def threads_queue(items: list[Pair]) -> list[int]:
    shared: queue.Queue[Pair] = queue.Queue(CAPACITY)
    return _in_threads(_sync_putter(shared), _sync_taker(shared), items)


def threads_janus(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: janus.Queue[Pair] = janus.Queue(CAPACITY)
        received = await asyncio.to_thread(_in_threads, _sync_putter(shared.sync_q), _sync_taker(shared.sync_q), items)
        await shared.aclose()
        return received

    return asyncio.run(main())


def threads_culsans(items: list[Pair]) -> list[int]:
    shared: culsans.Queue[Pair] = culsans.Queue(CAPACITY)
    return _in_threads(_sync_putter(shared.sync_q), _sync_taker(shared.sync_q), items)


# --- within a loop


def loop_niruhybrid(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        buffer = AsyncStreamBuffer(CAPACITY, batch_size=BATCH, overflow="block")

        async def produce() -> None:
            for item_id, data in items:
                await buffer.add(item_id, data)

        async def take() -> list[int]:
            return [item.data for item in await buffer.get_batch()]

        return await _in_loop(produce(), take, len(items))

    return asyncio.run(main())


def loop_niruhybrid_many(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        buffer = AsyncStreamBuffer(CAPACITY, batch_size=BATCH, overflow="block")

        async def take() -> list[int]:
            return [item.data for item in await buffer.get_batch()]

        return await _in_loop(buffer.add_many(items), take, len(items))

    return asyncio.run(main())


def loop_asyncio(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: asyncio.Queue[Pair] = asyncio.Queue(CAPACITY)
        return await _in_loop(_async_putter(shared, items), _async_taker(shared), len(items))

    return asyncio.run(main())


def loop_janus(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: janus.Queue[Pair] = janus.Queue(CAPACITY)
        received = await _in_loop(_async_putter(shared.async_q, items), _async_taker(shared.async_q), len(items))
        await shared.aclose()
        return received

    return asyncio.run(main())


def loop_culsans(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: culsans.Queue[Pair] = culsans.Queue(CAPACITY)
        return await _in_loop(_async_putter(shared.async_q, items), _async_taker(shared.async_q), len(items))

    return asyncio.run(main())


def _anyio_taker(receiver: Any) -> Callable[[], Awaitable[list[int]]]:
    async def take() -> list[int]:
        batch = [(await receiver.receive())[1]]
        try:
            while len(batch) < BATCH:
                batch.append(receiver.receive_nowait()[1])
        except anyio.WouldBlock:
            pass
        return batch

    return take


def loop_anyio(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        sender, receiver = anyio.create_memory_object_stream[Pair](CAPACITY)
        with sender, receiver:

            async def produce() -> None:
                for item_id, data in items:
                    await sender.send((item_id, data))

            return await _in_loop(produce(), _anyio_taker(receiver), len(items))

    return asyncio.run(main())


# --- from a thread into a loop


def into_niruhybrid(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        buffer = AsyncStreamBuffer(CAPACITY, batch_size=BATCH, overflow="block")

        def produce(items: list[Pair]) -> None:
            for item_id, data in items:
                buffer.add_from_thread(item_id, data)

        async def take() -> list[int]:
            return [item.data for item in await buffer.get_batch()]

        return await _from_thread(produce, take, items)

    return asyncio.run(main())


def into_janus(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: janus.Queue[Pair] = janus.Queue(CAPACITY)
        received = await _from_thread(_sync_putter(shared.sync_q), _async_taker(shared.async_q), items)
        await shared.aclose()
        return received

    return asyncio.run(main())


def into_culsans(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: culsans.Queue[Pair] = culsans.Queue(CAPACITY)
        return await _from_thread(_sync_putter(shared.sync_q), _async_taker(shared.async_q), items)

    return asyncio.run(main())


def into_asyncio(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        shared: asyncio.Queue[Pair] = asyncio.Queue(CAPACITY)
        loop = asyncio.get_running_loop()

        def produce(items: list[Pair]) -> None:
            for item_id, data in items:
                asyncio.run_coroutine_threadsafe(shared.put((item_id, data)), loop).result()

        return await _from_thread(produce, _async_taker(shared), items)

    return asyncio.run(main())


def into_anyio(items: list[Pair]) -> list[int]:
    async def main() -> list[int]:
        sender, receiver = anyio.create_memory_object_stream[Pair](CAPACITY)
        loop = asyncio.get_running_loop()

        def produce(items: list[Pair]) -> None:
            for item_id, data in items:
                asyncio.run_coroutine_threadsafe(sender.send((item_id, data)), loop).result()

        with sender, receiver:
            return await _from_thread(produce, _anyio_taker(receiver), items)

    return asyncio.run(main())


JOBS: dict[str, dict[str, Run]] = {
    "threads": {
        "niruhybrid": threads_niruhybrid,
        "  add_many": threads_niruhybrid_many,
        "queue.Queue": threads_queue,
        "janus": threads_janus,
        "culsans": threads_culsans,
    },
    "loop": {
        "niruhybrid": loop_niruhybrid,
        "  add_many": loop_niruhybrid_many,
        "asyncio.Queue": loop_asyncio,
        "janus": loop_janus,
        "culsans": loop_culsans,
        "anyio": loop_anyio,
    },
    "thread to loop": {
        "niruhybrid": into_niruhybrid,
        "asyncio.Queue": into_asyncio,
        "janus": into_janus,
        "culsans": into_culsans,
        "anyio": into_anyio,
    },
}
NEEDS_ROUND_TRIP = {into_asyncio, into_anyio}


def _rate(run: Run, items: list[Pair]) -> float:
    """Return items per second of one run, whose outcome is checked."""
    gc.collect()
    began = time.perf_counter()
    received = run(items)
    seconds = time.perf_counter() - began
    assert received == [data for _, data in items], "items were lost, repeated or out of order"
    return len(items) / seconds


def measure(count: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    items = [(f"item-{i}", i) for i in range(count)]
    fewer = items[: count // SLOW]
    rates: dict[str, dict[str, list[float]]] = {job: {name: [] for name in runs} for job, runs in JOBS.items()}
    turns = [(job, name, run) for job, runs in JOBS.items() for name, run in runs.items()]
    for _, _, run in turns:
        _rate(run, fewer)
    for _ in range(repeats):
        random.shuffle(turns)
        for job, name, run in turns:
            rates[job][name].append(_rate(run, fewer if run in NEEDS_ROUND_TRIP else items))
    return rates


def show(rates: dict[str, dict[str, list[float]]]) -> None:
    print(f"{'job':<16}{'contender':<16}{'median/s':>12}{'lowest':>12}{'highest':>12}{'ours is':>9}")
    for job, runs in rates.items():
        ours = statistics.median(runs["niruhybrid"])
        for name, values in sorted(runs.items(), key=lambda pair: -statistics.median(pair[1])):
            middle = statistics.median(values)
            print(
                f"{job:<16}{name:<16}{middle:>12,.0f}{min(values):>12,.0f}{max(values):>12,.0f}{ours / middle:>8.2f}x"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    rates = measure(given.items, given.repeats)
    show(rates)
    report = {
        "question": "items per second from one producer to one consumer in batches, nothing lost",
        "items": given.items,
        "items_by_round_trip": given.items // SLOW,
        "capacity": CAPACITY,
        "batch": BATCH,
        "machine": machine(("anyio", "culsans", "aiologic", "janus")),
        "items_per_second": rates,
    }
    write("buffers", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

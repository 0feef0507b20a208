"""Streams: slowed down where they would be refused, bounded in what they hold, and at an end when they are left."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineExceededError, DeadlineUnreachableError, EncoderHungError
from niruhybrid.streaming.engine import StreamStats
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.testing import HashEncoder
from niruhybrid.types import DataResult, Document, Vector
from niruhybrid.windows import Tokens
from tests.streaming.conftest import WAIT, GatedEncoder, WindowedEncoder
from tests.streaming.test_stream_processor import ListStore

LONG = "a sentence with a few words. " * 200
SMALL = {"chunk_size": 24, "overlap_size": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("timeout", "refused"), [(None, False), (1.0, True)])
def test_a_lone_document_beside_a_heavy_stream_waits_unless_it_names_a_time(
    gated: Any, timeout: float | None, refused: bool
) -> None:
    config = StreamingConfig(batch_size=4, processing_timeout=1.0)
    with StreamProcessor(gated, config=config) as processor:
        gated.hold()
        opener = threading.Timer(0.2, gated.gate.set)  # so a batch is reckoned with as much
        opener.start()
        processor.process_data("lesson", "a batch takes a while")
        gated.hold()
        full = threading.Event()

        def many() -> Iterator[Document]:
            for number in range(40):
                if number == 16:  # as many as a stream hands in while the encoder's speed is little known
                    full.set()
                yield Document(f"d{number}", f"document number {number}", timeout=60.0)

        heavy = threading.Thread(target=lambda: processor.process_data_batch(many()))
        heavy.start()
        assert full.wait(10)
        found: list[DataResult] = []
        lone = [Document("lone", "a lone document", timeout=timeout)]
        other = threading.Thread(target=lambda: found.extend(processor.process_data_stream(lone)))
        other.start()
        other.join(0.05 if not refused else 5)
        gated.gate.set()
        other.join(10)
        heavy.join(10)
        [result] = found
        assert isinstance(result.error, DeadlineUnreachableError) == refused
        assert refused or result.error is None


# --- slowed down, not refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a short document", LONG])
def test_the_first_document_of_a_stream_waits_for_a_full_lane(text: str) -> None:
    gated = GatedEncoder()
    config = StreamingConfig(queue_size=2, batch_size=1, **SMALL)  # type: ignore[arg-type]  # sizes
    with StreamProcessor(gated, config=config) as processor:
        gated.hold()
        others = [
            threading.Thread(target=processor.process_data, args=(f"other {number}", f"other {number}"))
            for number in range(2)
        ]
        for other in others:
            other.start()
        gated.await_call()
        for _ in range(10_000):  # the second one comes soon after
            if processor.stats().data.waiting:
                break
            threading.Event().wait(0.001)
        found: list[DataResult] = []
        reads = threading.Event()

        def source() -> Iterator[dict[str, str]]:
            yield {"id": "first", "text": text}
            reads.set()

        taker = threading.Thread(target=lambda: found.extend(processor.process_data_stream(source())))
        taker.start()
        assert not found
        gated.gate.set()
        for each in (taker, *others):
            each.join(WAIT)
        assert [result.error for result in found] == [None]
        assert processor.stats().data.rejected == {}


def test_batches_are_not_counted_as_streams() -> None:
    with StreamProcessor(HashEncoder(8), config=StreamingConfig(max_concurrent_streams=1)) as processor:
        stream = processor.process_query_stream(iter(["a", "b"]))
        next(stream)
        assert [result.text for result in processor.process_query_batch(["c", "d"])] == ["c", "d"]
        assert all(result.ok for result in processor.process_data_batch(["e", "f"]))
        assert len(processor.embed(["g"])) == 1
        assert processor.stats().open_streams == 1
        assert [result.text for result in stream] == ["b"]


@pytest.mark.slow
def test_documents_that_hang_with_another_are_stored_and_only_that_one_fails() -> None:
    release = threading.Event()

    class Hangs(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            assert not any("stuck" in text for text in texts) or release.wait(WAIT)
            return super().encode(texts)

    store: Any = ListStore()
    with StreamProcessor(Hangs(8), store=store, config=StreamingConfig(hang_timeout=0.5)) as processor:
        texts = [f"document {number}" for number in range(20)]
        results = processor.process_data_batch([*texts[:10], "stuck", *texts[10:]])
        release.set()
    errors = [result.error for result in results if result.error is not None]
    assert [type(error) for error in errors] == [EncoderHungError]
    assert results[10].error is errors[0]
    assert store.count() == 20


# --- bounded in what they hold ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [None, 80_000.0])
def test_of_large_documents_few_are_held_at_a_time(timeout: float | None) -> None:
    class Blind:
        dimension = 2

        def encode(self, texts: Sequence[str]) -> Vector:
            return np.ones((len(texts), 2), np.float32)

    found: list[DataResult] = []
    ahead: list[int] = []

    def source() -> Iterator[Document]:
        for number in range(60):
            ahead.append(number - len(found))
            yield Document(f"d{number}", f"word{number} " * 50_000, timeout=timeout)  # 400 kB

    config = StreamingConfig(long_text="truncate")  # so that each is one item, which the lane has room for
    encoder: Any = Blind()
    with StreamProcessor(encoder, config=config) as processor:
        for result in processor.process_data_stream(source()):
            found.append(result)  # noqa: PERF402  # each as it comes
    assert all(result.ok for result in found)
    assert max(ahead) < 15


def test_windows_of_a_long_document_go_before_the_next_document_of_its_stream() -> None:
    gated = GatedEncoder()
    read: list[str] = []

    def source() -> Iterator[dict[str, str]]:
        for number in range(50):
            read.append(f"d{number}")
            yield {"id": f"d{number}", "text": f"number {number} " + LONG}

    config = StreamingConfig(batch_size=2, max_batch_tokens=64, **SMALL)  # type: ignore[arg-type]  # sizes
    with StreamProcessor(gated, config=config) as processor:
        gated.hold()
        stream = processor.process_data_stream(source())
        taker = threading.Thread(target=next, args=(stream,))
        taker.start()
        gated.await_call()
        assert len(read) <= 2
        gated.gate.set()
        taker.join(WAIT)
        stream.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.slow
def test_of_many_texts_to_embed_few_wait_at_a_time(gated: GatedEncoder) -> None:
    async def main() -> tuple[int, int]:
        async with AsyncStreamProcessor(gated) as processor:
            gated.hold()
            texts = [f"text number {number} " + "with some more words " * 20 for number in range(1000)]
            embedding = asyncio.ensure_future(processor.embed(texts))
            await asyncio.to_thread(gated.await_call)
            asked = asyncio.ensure_future(processor.process_query("q", "a question beside it"))
            while processor.stats().queries.offered < 20:  # noqa: ASYNC110  # nobody is told of what only waits
                await asyncio.sleep(0)
            waiting = processor.stats().queries.waiting
            gated.gate.set()
            assert (await asked).ok
            return waiting, len(await embedding)

    waiting, found = asyncio.run(main())
    assert waiting < 200
    assert found == 1000


def test_long_texts_to_embed_are_tokenized_off_the_event_loop() -> None:
    class Notes(WindowedEncoder):
        def __init__(self) -> None:
            super().__init__(8)
            self.threads: set[int] = set()

        def tokenize(self, text: str, /) -> Tokens:
            self.threads.add(threading.get_ident())
            return super().tokenize(text)

    encoder = Notes()

    async def main() -> int:
        async with AsyncStreamProcessor(encoder) as processor:
            assert len(await processor.embed([f"{number} {LONG[:400]}" for number in range(3)])) == 3
        return threading.get_ident()

    assert asyncio.run(main()) not in encoder.threads


def test_all_texts_to_embed_share_a_timeout_that_is_given(gated: GatedEncoder) -> None:
    with StreamProcessor(gated) as processor:
        gated.hold()
        with pytest.raises(DeadlineExceededError):
            processor.embed([f"text {number}" for number in range(500)], timeout=0.05)
        gated.gate.set()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_streams_of_all_kinds_share_a_small_lane_and_all_end(seed: int) -> None:
    """No wake-up is lost: whoever waits for room is told when there is some."""
    random = Random(seed)
    settings: dict[str, Any] = {"queue_size": random.choice([3, 12, 60]), "batch_size": random.choice([1, 4])}
    config = StreamingConfig(queue_tokens=random.choice([60, 4000]), max_batch_tokens=64, **settings, **SMALL)  # type: ignore[arg-type]  # sizes
    lost: list[object] = []

    def items(name: str, count: int) -> list[dict[str, Any]]:
        kinds: list[dict[str, Any]] = [{}, {"timeout": 60.0}, {"embedding": np.ones(8, np.float32)}]
        texts = ["short", "a few more words than that", LONG[: random.randrange(300, 2000)]]
        return [
            {"id": f"{name}-{at % 7}", "text": f"{name} {at} {random.choice(texts)}", **random.choice(kinds)}
            for at in range(count)
        ]

    store: Any = ListStore()
    processor = StreamProcessor(HashEncoder(8), store=store, config=config)
    asynchronous = AsyncStreamProcessor(HashEncoder(8), store=store, config=config)

    def in_a_thread(name: str, given: list[dict[str, Any]], leave: int, ordered: bool) -> None:
        stream: Any = processor.process_data_stream(given, ordered=ordered)
        for at, result in enumerate(stream):
            if result.error is not None:
                lost.append((name, result.error))
            if at == leave:
                stream.close()

    async def on_a_loop(given: list[dict[str, Any]], leave: int, ordered: bool) -> None:
        stream: Any = asynchronous.process_data_stream(given, ordered=ordered)
        at = 0
        async for result in stream:
            if result.error is not None:
                lost.append(result.error)
            if at == leave:
                await stream.aclose()
            at += 1

    async def all_on_a_loop(given: list[tuple[list[dict[str, Any]], int, bool]]) -> None:
        await asyncio.gather(
            *(on_a_loop(*each) for each in given), asynchronous.embed([f"text {at} {LONG[:300]}" for at in range(40)])
        )

    def plan(name: str) -> tuple[list[dict[str, Any]], int, bool]:
        return items(name, 30), random.choice([2, 10, 99, 99]), random.random() < 0.5

    threads = [threading.Thread(target=in_a_thread, args=(f"t{at}", *plan(f"t{at}")), daemon=True) for at in range(12)]
    plans = [plan(f"a{at}") for at in range(12)]
    threads.append(threading.Thread(target=lambda: asyncio.run(all_on_a_loop(plans)), daemon=True))
    threads.append(threading.Thread(target=lambda: processor.embed([f"text {at}" for at in range(200)]), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * WAIT)
        assert not thread.is_alive()
    assert lost == []
    asyncio.run(asynchronous.aclose())
    for each in (processor, asynchronous):
        assert each.stats().lanes.balanced
        assert each.stats().open_streams == 0
        assert each.stats().data.waiting == 0
    processor.close()


# --- at an end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_a_source_raises_in_a_thread_reaches_the_consumer(error: type[BaseException]) -> None:
    def source() -> Iterator[str]:
        yield "one"
        raise error

    seen: list[str] = []

    def take() -> None:
        try:
            seen.extend(result.text for result in processor.process_query_stream(source()))
        except error:
            seen.append("raised")

    with StreamProcessor(HashEncoder(8)) as processor:
        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        taker.join(WAIT)
        assert seen == ["one", "raised"]
        assert processor.stats().open_streams == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_whatever_a_source_raises_on_an_event_loop_reaches_the_consumer(error: type[BaseException]) -> None:
    async def source() -> AsyncIterator[str]:
        yield "one"
        raise error

    async def main() -> list[str]:
        seen: list[str] = []
        async with AsyncStreamProcessor(HashEncoder(8)) as processor:
            try:
                async for result in processor.process_query_stream(source()):
                    seen.append(result.text)  # noqa: PERF401  # what came before the error counts
            except error:
                seen.append("raised")
            assert processor.stats().open_streams == 0
        return seen

    assert asyncio.run(asyncio.wait_for(main(), WAIT)) == ["one", "raised"]


def test_a_stream_that_is_left_hands_in_nothing_more(gated: GatedEncoder) -> None:
    store: Any = ListStore()
    config = StreamingConfig(queue_size=4, batch_size=2)
    with StreamProcessor(gated, store=store, config=config) as processor:
        stream = processor.process_data_stream(
            {"id": f"d{number}", "text": f"document {number}"} for number in range(99)
        )
        assert next(stream).ok
        gated.hold()
        taker = threading.Thread(target=lambda: [next(stream) for _ in range(20)])  # until the encoder holds it up
        taker.start()
        while gated.entered.acquire(timeout=0.05):
            pass
        gated.gate.set()
        taker.join(WAIT)
        stream.close()  # type: ignore[attr-defined]  # it is a generator
        left = processor.stats().data
        _reader_ends()
        assert processor.stats().data.offered == left.offered
        assert processor.process_data("after", "another").ok  # what was in the encoder has been written by now
        kept = store.count()
    assert processor.stats().data.delivered == kept


def test_a_stream_of_long_documents_that_is_left_ends_its_reader_and_lets_go_of_its_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[dict[str, str]]:
        try:
            for number in range(1000):
                yield {"id": f"d{number}", "text": f"number {number} {LONG}"}
        finally:
            closed.set()

    config = StreamingConfig(queue_size=8, **SMALL)  # type: ignore[arg-type]  # sizes
    with StreamProcessor(HashEncoder(8), config=config) as processor:
        stream = processor.process_data_stream(source())
        assert next(stream).ok
        stream.close()  # type: ignore[attr-defined]  # it is a generator
        _reader_ends()
        del stream
        gc.collect()
        assert closed.wait(WAIT)
        assert processor.stats().open_streams == 0


def test_a_stream_on_an_event_loop_that_is_left_hands_in_nothing_more() -> None:
    async def main() -> tuple[StreamStats, StreamStats]:
        async with AsyncStreamProcessor(HashEncoder(8), config=StreamingConfig(queue_size=8, **SMALL)) as processor:  # type: ignore[arg-type]  # sizes
            stream: Any = processor.process_data_stream(
                {"id": f"d{number}", "text": f"number {number} {LONG}"} for number in range(1000)
            )
            assert (await anext(stream)).ok
            await stream.aclose()
            left = processor.stats()
            await processor.process_data("after", "another")
            return left, processor.stats()

    left, later = asyncio.run(main())
    assert left.open_streams == 0
    assert later.data.offered <= left.data.offered + 2  # a window may have been on its way


def _reader_ends() -> None:
    for thread in threading.enumerate():
        if thread.name == "niru-stream-reader":
            thread.join(WAIT)
            assert not thread.is_alive()

"""Both processors, held to one contract; then what is each one's own."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import (
    ClosedError,
    DeadlineExceededError,
    EncoderFailedError,
    InvalidIdError,
    InvalidInputError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
    QueueFullError,
    StoreFullError,
)
from niruhybrid.streaming.engine import StreamStats
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.testing import HashEncoder
from niruhybrid.types import (
    DataResult,
    Document,
    Hit,
    IndexEntry,
    Query,
    QueryResult,
    SearchRequest,
    SearchResponse,
    Vector,
)
from tests.streaming.conftest import WAIT, FaultyEncoder, GatedEncoder

SMALL: dict[str, Any] = {"chunk_size": 24, "overlap_size": 4}


class ListStore:
    """The least that can be called a store: finds by shared terms."""

    def __init__(self) -> None:
        self.entries: dict[str, IndexEntry] = {}
        self.batches: list[int] = []
        self.full = False

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        if self.full:
            raise StoreFullError("the disk is full: make room")
        self.entries |= {entry.document.id: entry for entry in entries}
        self.batches.append(len(entries))
        return len(self.batches)

    def delete(self, ids: Sequence[str], /) -> tuple[int, int]:
        return sum(self.entries.pop(each, None) is not None for each in ids), len(self.batches)

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        return [self.entries[each].document if each in self.entries else None for each in ids]

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        return [SearchResponse(tuple(self._hits(request))[: request.top_k], len(self.batches)) for request in requests]

    def _hits(self, request: SearchRequest) -> Iterator[Hit]:
        found = [entry for entry in self.entries.values() if set(request.terms) & set(entry.terms)]
        for rank, entry in enumerate(found, 1):
            yield Hit(entry.document.id, rank, 1.0 / rank, entry.document.text, entry.document.title)

    def count(self) -> int:
        return len(self.entries)

    def ids(self) -> Iterable[str]:
        return list(self.entries)

    def close(self) -> None:
        self.entries.clear()


class Synchronous:
    """The thread-side processor, as the contract calls it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.processor = StreamProcessor(*args, **settings)

    def query(self, *args: Any, **more: Any) -> QueryResult:
        return self.processor.process_query(*args, **more)

    def queries(self, queries: Iterable[object]) -> list[QueryResult]:
        return self.processor.process_query_batch(queries)

    def query_stream(self, queries: Iterable[object], *, ordered: bool = True) -> list[QueryResult]:
        return list(self.processor.process_query_stream(queries, ordered=ordered))

    def data(self, *args: Any, **more: Any) -> DataResult:
        return self.processor.process_data(*args, **more)

    def data_stream(self, items: Iterable[object]) -> list[DataResult]:
        return list(self.processor.process_data_stream(items))

    def stats(self) -> StreamStats:
        return self.processor.stats()

    def close(self) -> None:
        self.processor.close()


class Asynchronous:
    """The event-loop-side processor, each call on a loop of its own."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.processor = AsyncStreamProcessor(*args, **settings)

    def query(self, *args: Any, **more: Any) -> QueryResult:
        return asyncio.run(self.processor.process_query(*args, **more))

    def queries(self, queries: Iterable[object]) -> list[QueryResult]:
        return asyncio.run(self.processor.process_query_batch(queries))

    def query_stream(self, queries: Iterable[object], *, ordered: bool = True) -> list[QueryResult]:
        async def main() -> list[QueryResult]:
            return [each async for each in self.processor.process_query_stream(_later(queries), ordered=ordered)]

        return asyncio.run(main())

    def data(self, *args: Any, **more: Any) -> DataResult:
        return asyncio.run(self.processor.process_data(*args, **more))

    def data_stream(self, items: Iterable[object]) -> list[DataResult]:
        async def main() -> list[DataResult]:
            return [each async for each in self.processor.process_data_stream(items)]

        return asyncio.run(main())

    def stats(self) -> StreamStats:
        return self.processor.stats()

    def close(self) -> None:
        asyncio.run(self.processor.aclose())


async def _later(items: Iterable[object]) -> AsyncIterator[object]:
    for item in items:
        await asyncio.sleep(0)
        yield item


Either = Synchronous | Asynchronous
Make = Callable[..., Either]


@pytest.fixture(params=[Synchronous, Asynchronous])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Either] = []

    def build(encoder: object = None, **settings: Any) -> Either:
        made.append(request.param(encoder or HashEncoder(), **settings))
        return made[-1]

    yield build
    for each in made:
        each.close()
        assert each.stats().lanes.balanced
        assert each.stats().open_streams == 0


# --- the contract --------------------------------------------------------------------------------------------------


def test_a_query_comes_back_with_its_vector_and_where_its_time_went(make: Make) -> None:
    result = make().query("q1", "what is asked", metadata={"from": "me"})
    assert (result.id, result.text, result.ok, result.hits) == ("q1", "what is asked", True, ())
    assert result.vector is not None
    assert np.linalg.norm(result.vector) == pytest.approx(1.0, abs=1e-6)
    assert dict(result.metadata) == {"from": "me"}
    timings = result.timings
    assert 0 <= timings.queued + timings.encode + timings.search <= timings.total
    assert result.to_dict()["vector"] == result.vector.tolist()
    assert repr(result).startswith("QueryResult(id='q1', text='what is asked', vector=<float32 (64,)>")


def test_a_batch_answers_in_order_and_one_bad_query_leaves_the_others_alone(make: Make, faulty: FaultyEncoder) -> None:
    results = make(faulty).queries([{"id": "q1", "text": "one"}, "", "poison", Query("q4", "four"), 5, {"text": "six"}])
    assert [result.id for result in results] == ["q1", "2", "3", "q4", "5", "6"]
    errors = [type(result.error) for result in results]
    nothing = type(None)
    assert errors == [nothing, InvalidTextError, EncoderFailedError, nothing, InvalidInputError, nothing]


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        ({"text": "x", "topk": 3}, InvalidInputError, "unknown keys topk: use id, text, top_k"),
        ({"id": "x"}, InvalidTextError, "`text` is missing"),
        ({"id": "", "text": "x"}, InvalidIdError, "id has 0 characters"),
        ({"id": "a\nb", "text": "x"}, InvalidIdError, "control"),
        ({"text": "x", "top_k": 0}, InvalidSettingError, "`top_k` is 0"),
        ({"text": "x", "timeout": -1}, InvalidSettingError, "`timeout` is -1"),
        ({"text": "x", "timeout": float("nan")}, InvalidSettingError, "`timeout` is nan"),
        ("\ud800", InvalidTextError, "unpaired surrogate at character 0"),
        ("x" * 101, InvalidTextError, "101 characters of 100 allowed"),
        (b"bytes", InvalidInputError, "bytes"),
        (None, InvalidInputError, "NoneType"),
    ],
)
def test_bad_input_is_refused_by_value_and_remedy(make: Make, raw: object, error: type[Exception], words: str) -> None:
    processor = make(config=StreamingConfig(max_text_chars=100))
    (result,) = processor.queries([raw])
    assert type(result.error) is error
    assert words in str(result.error)
    assert processor.stats().queries.rejected == {"invalid": 1}


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ({"id": "d", "text": "", "embedding": [float("nan")] * 64}, InvalidVectorError),
        ({"id": "d", "embedding": [1.0] * 63}, InvalidVectorError),
        ({"id": "d", "embedding": [0.0] * 64}, InvalidVectorError),
        ({"id": "d", "embedding": [[1.0]]}, InvalidVectorError),
        ({"id": "d", "embedding": "no numbers"}, InvalidVectorError),
        ({"id": "d", "text": "   "}, InvalidTextError),
        ({"id": "d", "text": 7}, InvalidTextError),
        ({"id": "d", "text": "x", "metadata": [1]}, InvalidInputError),
        ({"id": "d", "text": "x", "metadata": {"k": object()}}, InvalidInputError),
    ],
)
def test_bad_data_is_refused_and_nothing_is_written(make: Make, raw: object, error: type[Exception]) -> None:
    store = ListStore()
    good, bad = make(store=store).data_stream(["good", raw])
    assert good.ok
    assert isinstance(bad.error, error)
    assert store.count() == 1


def test_an_encoder_without_encode_is_refused(make: Make) -> None:
    with pytest.raises(InvalidSettingError, match="object without `encode`"):
        make(object())


def test_a_stream_keeps_the_order_of_its_inputs(make: Make) -> None:
    results = make(batch_size=4).query_stream(f"query {'long ' * (number % 9)}{number}" for number in range(300))
    assert [result.id for result in results] == [str(number + 1) for number in range(300)]
    assert all(result.ok for result in results)


def test_an_unordered_stream_gives_every_result_once(make: Make) -> None:
    results = make(batch_size=4).query_stream((f"q {'long ' * (n % 9)}{n}" for n in range(300)), ordered=False)
    assert sorted(int(result.id) for result in results) == list(range(1, 301))


def test_a_source_that_raises_ends_the_stream_after_what_was_read(make: Make) -> None:
    def source() -> Iterator[object]:
        yield from ("one", "two")
        raise OSError("the line went dead")

    processor = make()
    seen: list[str] = []
    if isinstance(processor, Synchronous):
        stream = processor.processor.process_query_stream(source())
        with pytest.raises(OSError, match="went dead"):
            seen.extend(result.text for result in stream)
    else:

        async def main() -> None:
            async for result in processor.processor.process_query_stream(_later(source())):
                seen.append(result.text)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(OSError, match="went dead"):
            asyncio.run(main())
    assert seen == ["one", "two"]


def test_data_is_searchable_when_its_result_is_there(make: Make) -> None:
    processor = make(store=ListStore())
    assert processor.data("d1", "the quick brown fox", title="Animals").watermark == 1
    result = processor.query("q", "a fox?", top_k=3)
    assert [hit.id for hit in result.hits] == ["d1"]
    assert result.watermark == 1
    assert [hit.id for hit in processor.query("q", "animals").hits] == ["d1"]


def test_data_is_written_in_micro_batches(make: Make, gated: GatedEncoder) -> None:
    gathered = threading.Event()

    def source() -> Iterator[str]:
        for number in range(100):
            yield f"document {number}"
        gathered.set()

    store = ListStore()
    processor = make(gated, store=store, batch_size=16)
    gated.hold()
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(processor.data_stream, source())
        assert gathered.wait(WAIT)
        gated.gate.set()
        assert all(result.ok for result in results.result(WAIT))
    assert store.count() == 100
    assert max(store.batches) == 16


def test_the_same_text_without_an_id_is_kept_once(make: Make) -> None:
    store = ListStore()
    first, second = make(store=store).data_stream(["same", "same"])
    assert first.id == second.id
    assert store.count() == 1


def test_ready_vectors_are_not_encoded(make: Make) -> None:
    encoder = HashEncoder(4)
    store = ListStore()
    result = make(encoder, store=store).data("d", embedding=np.array([0.0, 3.0, 0.0, 4.0]))
    assert encoder.calls == []
    assert store.entries["d"].vector.tolist() == pytest.approx([0.0, 0.6, 0.0, 0.8])
    assert result.vector is not None


def test_a_full_store_is_the_items_error(make: Make) -> None:
    store = ListStore()
    store.full = True
    processor = make(store=store)
    with pytest.raises(StoreFullError):
        processor.data("d", "text")
    assert processor.stats().data.failed == {"store_full": 1}


def test_a_deadline_of_ones_own(make: Make, gated: GatedEncoder) -> None:
    processor = make(gated)
    gated.hold()
    with pytest.raises(DeadlineExceededError, match=r"within 0\.02 s"):
        processor.query("q", "late", timeout=0.02)
    gated.gate.set()


def test_documents_without_a_deadline_of_their_own_are_stored_however_late(make: Make, gated: GatedEncoder) -> None:
    store = ListStore()
    processor = make(gated, store=store, config=StreamingConfig(processing_timeout=0.02, **SMALL))
    gated.hold()
    opener = threading.Timer(0.1, gated.gate.set)
    opener.start()
    long = "a sentence of some words. " * 40
    results = processor.data_stream([{"id": "a", "text": "short"}, {"id": "b", "text": long}, {"id": "c", "text": "x"}])
    assert [result.error for result in results] == [None] * 3
    gated.hold()
    opener = threading.Timer(0.1, gated.gate.set)
    opener.start()
    assert processor.data("d", "a single one").ok
    assert store.count() == 4
    opener.join()


def test_closed_is_closed(make: Make) -> None:
    processor = make()
    processor.query("q", "text")
    processor.close()
    processor.close()
    with pytest.raises(ClosedError):
        processor.query("q", "text")


def test_a_foreign_encoder_that_returns_lists_is_accepted(make: Make) -> None:
    class Foreign:
        def encode(self, texts: list[str]) -> list[list[float]]:
            return [[float(len(text)), 1.0] for text in texts]

    assert make(Foreign()).query("q", "abc").ok


# --- streams end early, are bounded, share the encoder --------------------------------------------------------------


def test_a_stream_reads_no_further_ahead_than_the_bounds(gated: GatedEncoder) -> None:
    read: list[int] = []

    def source() -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield f"query {number}"

    with StreamProcessor(gated, config=StreamingConfig(buffer_size=20)) as processor:
        stream = processor.process_query_stream(source())
        gated.hold()
        taker = threading.Thread(target=next, args=(stream,))
        taker.start()
        gated.await_call()
        gated.gate.set()
        taker.join(WAIT)
        assert len(read) <= 22
        stream.close()  # type: ignore[attr-defined]  # it is a generator
        assert len(read) <= 23


def test_leaving_a_stream_takes_back_what_it_had_begun() -> None:
    gate = threading.Event()

    class StopsAfterTheFirst(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            assert texts == ["query 0"] or gate.wait(WAIT)
            return super().encode(texts)

    async def main() -> StreamStats:
        async with AsyncStreamProcessor(StopsAfterTheFirst(), batch_size=1) as processor:
            stream = processor.process_query_stream(_later(f"query {number}" for number in range(50)))
            first = await anext(stream)
            assert first.ok
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
            gate.set()
            return processor.stats()

    stats = asyncio.run(main())
    assert stats.queries.waiting == 0
    assert stats.queries.cancelled >= 1
    assert stats.open_streams == 0


def test_a_slow_source_does_not_hold_back_what_is_done() -> None:
    go_on = threading.Event()

    def source() -> Iterator[str]:
        yield "first"
        assert go_on.wait(WAIT)
        yield "second"

    with StreamProcessor(HashEncoder()) as processor:
        stream = processor.process_query_stream(source())
        assert next(stream).text == "first"
        go_on.set()
        assert next(stream).text == "second"


def test_more_streams_than_allowed_are_refused() -> None:
    with StreamProcessor(HashEncoder(), config=StreamingConfig(max_concurrent_streams=1)) as processor:
        stream = processor.process_query_stream(iter(["a", "b"]))
        next(stream)
        with pytest.raises(QueueFullError, match="1 of 1 streams are open"):
            next(processor.process_query_stream(["c"]))
        assert [result.text for result in stream] == ["b"]
        assert next(processor.process_query_stream(["c"])).ok


def test_a_stream_into_a_full_lane_slows_down_and_loses_nothing() -> None:
    with StreamProcessor(HashEncoder(), config=StreamingConfig(queue_size=4)) as processor:
        results = list(processor.process_data_stream(f"document {number}" for number in range(100)))
        assert all(result.ok for result in results)


def test_many_threads_share_one_processor() -> None:
    with StreamProcessor(HashEncoder()) as processor, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: processor.process_query(str(number), f"text {number}"), range(200)))
    assert [result.id for result in results] == [str(number) for number in range(200)]


def test_bare_use_ends_its_threads_when_it_is_gone() -> None:
    before = set(threading.enumerate())
    processor = StreamProcessor(HashEncoder())
    processor.process_query("q", "text")
    threads = set(threading.enumerate()) - before
    assert threads
    del processor
    gc.collect()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_the_event_loop_is_not_blocked_by_a_slow_encoder(gated: GatedEncoder) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with AsyncStreamProcessor(gated) as processor:
            gated.hold()
            query = asyncio.ensure_future(processor.process_query("q", "text"))
            await asyncio.to_thread(gated.await_call)
            passed = []
            for _ in range(20):  # the least counts: other processes may take the processor away
                start = loop.time()
                await asyncio.sleep(0)
                passed.append(loop.time() - start)
            assert not query.done()
            gated.gate.set()
            await query
            return min(passed)

    assert asyncio.run(main()) < 0.02


def test_a_text_that_was_cut_says_so_in_its_result(make: Make) -> None:
    class Narrow(HashEncoder):
        max_tokens = 4

        def count_tokens(self, texts: list[str], /) -> list[int]:
            return [len(text.split()) for text in texts]

    processor = make(Narrow(), store=ListStore(), config=StreamingConfig(long_text="truncate"))
    assert processor.query("q", "one two three four").notes == ()
    (note,) = processor.query("q", "one two three four five").notes
    assert note.startswith("truncated: only the first 4 tokens were encoded")
    result = processor.data("d", "one two three four five")
    assert (result.notes, result.tokens_seen, result.tokens_used, result.windows) == ((note,), 5, 4, 1)
    assert processor.data("d", "one two three four", title="and five").notes == (note,)
    assert processor.data("d", "one two three four five", embedding=np.ones(64)).notes == ()

"""Texts longer than a window, whole or still growing, through both processors."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import (
    DeadlineExceededError,
    EncoderFailedError,
    InvalidIdError,
    InvalidSettingError,
    InvalidTextError,
    StoreFullError,
)
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.testing import HashEncoder
from niruhybrid.types import DataResult, Document, IndexEntry, PassageResult, SearchRequest, SearchResponse, Vector
from niruhybrid.windows import Tokens
from tests.streaming.conftest import WAIT, FaultyEncoder, GatedEncoder, WindowedEncoder

Processor = StreamProcessor | AsyncStreamProcessor
Make = Callable[..., Any]
SENTENCES = [f"Sentence {number} has a few words of its own, as they all do." for number in range(40)]
LONG = " ".join(SENTENCES)
SMALL = {"chunk_size": 24, "overlap_size": 4}


class PassageStore:
    """Keeps passages as `IndexEntry` says, and every call."""

    def __init__(self) -> None:
        self.calls: list[list[IndexEntry]] = []
        self.parts: dict[str, list[IndexEntry]] = {}
        self.full = False

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        if self.full:
            raise StoreFullError("the disk is full: make room")
        for entry in entries:
            kept = self.parts.setdefault(entry.document.id, [])
            assert entry.part <= len(kept), "a part without the one before"
            kept[entry.part :] = [entry]
        self.calls.append(list(entries))
        return len(self.calls)

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        return [SearchResponse((), len(self.calls)) for _ in requests]

    def text(self, name: str) -> str:
        return "".join(entry.document.text for entry in self.parts[name])


class Driver:
    """A processor of either kind, called in the same way."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def data(self, *args: Any, **more: Any) -> DataResult:
        if isinstance(self.processor, AsyncStreamProcessor):
            return asyncio.run(self.processor.process_data(*args, **more))
        return self.processor.process_data(*args, **more)

    def batch(self, items: Iterable[object]) -> list[DataResult]:
        if isinstance(self.processor, AsyncStreamProcessor):
            return asyncio.run(self.processor.process_data_batch(items))
        return self.processor.process_data_batch(items)

    def embed(self, texts: list[str]) -> list[Vector]:
        if isinstance(self.processor, AsyncStreamProcessor):
            return asyncio.run(self.processor.embed(texts))
        return self.processor.embed(texts)

    def text(self, *args: Any, into: list[PassageResult] | None = None, **more: Any) -> list[PassageResult]:
        found: list[PassageResult] = [] if into is None else into
        processor = self.processor
        if isinstance(processor, AsyncStreamProcessor):

            async def main() -> None:
                async for each in processor.process_text_stream(*args, **more):
                    found.append(each)  # noqa: PERF401  # what came before an error counts

            asyncio.run(main())
        else:
            for each in processor.process_text_stream(*args, **more):
                found.append(each)  # noqa: PERF402  # same
        return found

    def close(self) -> None:
        if isinstance(self.processor, AsyncStreamProcessor):
            asyncio.run(self.processor.aclose())
        else:
            self.processor.close()
        assert self.processor.stats().lanes.balanced
        assert self.processor.stats().open_streams == 0


@pytest.fixture(params=[StreamProcessor, AsyncStreamProcessor])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Driver] = []

    def build(encoder: Any = None, *, store: Any = None, **settings: Any) -> Driver:
        config = StreamingConfig(**(SMALL | settings))
        made.append(Driver(request.param(encoder or WindowedEncoder(8), store=store, config=config)))
        return made[-1]

    yield build
    for each in made:
        each.close()


# --- whole texts ---------------------------------------------------------------------------------------------------


def test_a_long_document_is_written_in_all_its_parts_at_once(make: Make) -> None:
    store: Any = PassageStore()
    result = make(store=store).data("d", LONG, title="Words", metadata={"a": 1})
    (entries,) = store.calls
    assert [entry.part for entry in entries] == list(range(result.windows))
    assert store.text("d") == LONG
    assert all(LONG.startswith(entry.document.text, entry.start) for entry in entries)
    assert all(dict(entry.document.metadata) == {"a": 1} for entry in entries)
    assert all("word" in entry.terms for entry in entries)
    assert sum(entry.document.text.rstrip().endswith(".") for entry in entries) > 30
    tokens = len(WindowedEncoder().tokenize("Words " + LONG).ids)
    assert (result.tokens_seen, result.tokens_used, result.windows, result.notes) == (tokens, tokens, 39, ())
    assert result.watermark == 1
    mean = np.sum([entry.vector for entry in entries], axis=0)
    np.testing.assert_allclose(result.vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert result.to_dict()["windows"] == 39


def test_a_text_that_fits_is_one_window_and_says_so(make: Make) -> None:
    store: Any = PassageStore()
    result = make(store=store).data("d", SENTENCES[0])
    assert (result.windows, result.tokens_seen, result.tokens_used) == (1, 15, 15)
    assert [(entry.part, entry.start, entry.document.text) for entry in store.calls[0]] == [(0, 0, SENTENCES[0])]


@pytest.mark.parametrize("mode", ["windows", "late"])
def test_encoders_that_do_not_tell_of_tokens_get_title_and_passage(make: Make, mode: str) -> None:
    encoder, store = HashEncoder(8), PassageStore()
    result = make(encoder, store=store, long_text=mode).data("d", LONG, title="Words")
    assert store.text("d") == LONG
    assert (result.tokens_seen, result.tokens_used) == (None, None)
    given = [text for call in encoder.calls for text in call]
    assert sorted(given) == sorted(f"Words\n{entry.document.text}" for entry in store.parts["d"])


def test_a_document_that_brings_its_vector_is_read_in_no_window(make: Make) -> None:
    result = make().data("d", LONG, embedding=np.ones(8, np.float32))
    assert (result.windows, result.tokens_seen, result.tokens_used, result.notes) == (0, None, None, ())


def test_a_document_that_fails_is_reported_by_its_id(make: Make) -> None:
    first, second = make().batch([{"id": "a", "text": ""}, {"id": "b", "text": "text"}])
    assert (first.id, isinstance(first.error, InvalidTextError), second.id, second.error) == ("a", True, "b", None)


def test_the_mean_is_one_entry(make: Make) -> None:
    store: Any = PassageStore()
    result = make(store=store, long_text="mean").data("d", LONG)
    ((entry,),) = store.calls
    assert (entry.document.text, entry.part) == (LONG, 0)
    np.testing.assert_allclose(entry.vector, result.vector, atol=1e-5)
    assert result.windows == 39


def test_error_refuses_what_is_longer_than_the_encoder_reads(make: Make) -> None:
    store: Any = PassageStore()
    processor = make(store=store, long_text="error")
    assert processor.data("d", " ".join(SENTENCES[:2])).windows == 1
    with pytest.raises(InvalidTextError, match="longer than the encoder reads"):
        processor.data("e", " ".join(SENTENCES[:3]))
    with pytest.raises(InvalidTextError, match="title is longer"):
        processor.data("f", "short", title="word " * 17)
    assert list(store.parts) == ["d"]
    assert processor.processor.stats().data.rejected == {"invalid": 2}


def test_without_a_store_a_long_text_is_encoded(make: Make) -> None:
    result = make().data("d", LONG)
    assert (result.windows, result.watermark) == (39, None)


def test_a_window_that_fails_is_the_error_of_its_document_alone(make: Make, faulty: FaultyEncoder) -> None:
    store: Any = PassageStore()
    bad = LONG.replace("Sentence 33", "poison")
    first, second, third = make(faulty, store=store).batch(
        [{"id": "a", "text": LONG}, {"id": "b", "text": bad}, {"id": "c", "text": LONG + " End."}]
    )
    assert (first.error, third.error) == (None, None)
    assert isinstance(second.error, EncoderFailedError)
    assert sorted(store.parts) == ["a", "c"]
    assert store.text("c") == LONG + " End."


@pytest.mark.parametrize("place", [0, 700, 2000])
@pytest.mark.parametrize("mode", ["windows", "truncate"])
def test_a_text_that_the_tokenizer_cannot_bear_is_an_error_alone(make: Make, mode: str, place: int) -> None:
    class Picky(WindowedEncoder):
        def tokenize(self, text: str, /) -> Tokens:
            if "poison" in text:
                raise RuntimeError("no tokens")
            return super().tokenize(text)

    store: Any = PassageStore()
    bad = LONG[:place] + " poison " + LONG[place:]
    first, second, third = make(Picky(8), store=store, long_text=mode).batch([LONG, bad, LONG + " End."])
    assert (first.error, third.error) == (None, None)
    assert isinstance(second.error, EncoderFailedError)
    assert isinstance(second.error.__cause__, RuntimeError)
    assert len(store.parts) == 2


def test_a_full_store_is_the_documents_error(make: Make) -> None:
    store: Any = PassageStore()
    store.full = True
    processor = make(store=store)
    with pytest.raises(StoreFullError):
        processor.data("d", LONG)
    store.full = False
    assert processor.data("d", LONG).ok
    assert store.text("d") == LONG


def test_a_document_of_more_windows_than_the_lane_holds_goes_through(make: Make) -> None:
    store: Any = PassageStore()
    processor = make(store=store, queue_size=4, batch_size=2)
    results = processor.batch({"id": str(number), "text": f"{number} {LONG}"} for number in range(4))
    assert [result.error for result in results] == [None] * 4
    assert store.text("3") == "3 " + LONG


def test_a_deadline_is_for_all_of_a_document(make: Make, gated: GatedEncoder) -> None:
    processor = make(gated, batch_size=1)
    gated.hold()
    with pytest.raises(DeadlineExceededError):
        processor.data("d", LONG, timeout=0.05)
    gated.gate.set()


@pytest.mark.parametrize("mode", ["windows", "truncate"])
@pytest.mark.parametrize("text", ["short", LONG])
def test_a_documents_own_time_is_kept_to_in_every_mode(make: Make, gated: GatedEncoder, mode: str, text: str) -> None:
    processor = make(gated, long_text=mode)
    gated.hold()
    with pytest.raises(DeadlineExceededError):
        processor.data("d", text, timeout=0.05)
    gated.gate.set()


@pytest.mark.parametrize("mode", ["windows", "truncate", "mean"])
def test_a_text_of_more_characters_than_are_allowed_is_refused(make: Make, mode: str) -> None:
    processor = make(long_text=mode, max_text_chars=20)
    assert processor.data("d", "x" * 14, title="Title").ok
    with pytest.raises(InvalidTextError, match="21 characters of 20 allowed"):
        processor.data("d", "x" * 15, title="Title")


def test_windows_keep_to_the_budget_of_tokens(make: Make) -> None:
    encoder = WindowedEncoder(8)
    make(encoder, max_batch_tokens=80).data("d", LONG)
    assert max(len(call) for call in encoder.calls) <= 80 // 20


def test_a_document_that_is_taken_back_ends_its_windows(gated: GatedEncoder) -> None:
    async def main() -> None:
        store: Any = PassageStore()
        config = StreamingConfig(chunk_size=24, overlap_size=4, batch_size=2)
        async with AsyncStreamProcessor(gated, store=store, config=config) as processor:
            gated.hold()
            task = asyncio.create_task(processor.process_data("d", LONG))
            await asyncio.to_thread(gated.await_call)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gated.gate.set()
            assert (await processor.process_data("e", "short")).ok
            assert list(store.parts) == ["e"]
            assert processor.stats().lanes.balanced

    asyncio.run(main())


def test_a_long_text_is_embedded_by_its_mean(make: Make) -> None:
    processor = make()
    short, long = processor.embed(["short", LONG])
    np.testing.assert_allclose(short, HashEncoder(8).encode(["short"])[0], atol=1e-6)
    stats = processor.processor.stats()
    assert (stats.queries.offered, stats.data.offered) == (40, 0)
    np.testing.assert_allclose(long, processor.data("d", LONG).vector, atol=1e-5)


# --- growing texts -------------------------------------------------------------------------------------------------


def test_a_growing_text_is_written_passage_by_passage(make: Make) -> None:
    store: Any = PassageStore()
    processor = make(store=store)
    processor.data("d", "what was there before " * 30)
    results = processor.text(
        "d", [LONG[at : at + 7] for at in range(0, len(LONG), 7)], title="Words", metadata={"a": 1}
    )
    assert store.text("d") == LONG == "".join(result.text for result in results)
    assert [result.part for result in results] == list(range(39))
    assert [result.span[0] for result in results] == [0, *(result.span[1] for result in results[:-1])]
    assert all(result.watermark for result in results)
    assert results[-1].tokens_seen == results[-1].tokens_used == len(WindowedEncoder().tokenize("Words " + LONG).ids)
    assert results[0].to_dict()["span"] == [0, len(results[0].text)]
    whole = make().data("d", LONG, title="Words")
    assert whole.windows == len(results)


def test_of_a_growing_text_an_estimate_of_its_tokens_is_not_told(make: Make) -> None:
    results = make(HashEncoder(8)).text("d", [LONG])
    assert {(result.tokens_seen, result.tokens_used) for result in results} == {(None, None)}


@pytest.mark.parametrize("kind", [StreamProcessor, AsyncStreamProcessor])
@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 3000), max_size=30))
def test_bytes_cut_anywhere_are_the_same_text(kind: type[Processor], cuts: list[int]) -> None:
    data = ("Emoji 👩‍🚀 and e\u0301, 東京。Привет! " * 20).encode()
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    store: Any = PassageStore()
    driver = Driver(kind(WindowedEncoder(8), store=store, config=StreamingConfig(chunk_size=24, overlap_size=4)))
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert "".join(result.text for result in driver.text("d", pieces)) == data.decode() == store.text("d")
    driver.close()


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (b"\xff", "no UTF-8"),
        (b"\xe2\x82", "begins a character that is not ended"),
        ("\ud800", "surrogate"),
        (7, "int"),
    ],
)
def test_what_is_no_text_is_refused_and_what_came_before_is_kept(make: Make, last: Any, words: str) -> None:
    store: Any = PassageStore()
    results: list[PassageResult] = []
    with pytest.raises(InvalidTextError, match=words):
        make(store=store).text("d", [LONG.encode(), last], into=results)
    assert len(results) == 38
    assert store.text("d") == "".join(result.text for result in results)


def test_invalid_bytes_are_refused_by_their_place(make: Make) -> None:
    with pytest.raises(InvalidTextError, match="byte 3 of the text is no UTF-8"):
        make().text("d", ["€".encode(), b"\xe2\x82", b"x"])[0]
    with pytest.raises(InvalidTextError, match="byte 3 of the text begins a character"):
        make().text("d", [b"abc\xe2", "text"])


@pytest.mark.parametrize("pieces", [[], [""], [" ", b"\n"]])
def test_an_empty_text_is_refused(make: Make, pieces: list[Any]) -> None:
    with pytest.raises(InvalidTextError, match="empty"):
        make().text("d", pieces)


def test_a_growing_text_needs_an_id_and_a_mode_that_can_grow(make: Make) -> None:
    with pytest.raises(InvalidIdError):
        make().text("", ["text"])
    with pytest.raises(InvalidSettingError, match="'mean'"):
        make(long_text="mean").text("d", ["text"])


def test_a_passage_that_fails_ends_the_text_and_those_before_are_kept(make: Make, faulty: FaultyEncoder) -> None:
    store: Any = PassageStore()
    results: list[PassageResult] = []
    with pytest.raises(EncoderFailedError):
        make(faulty, store=store).text("d", [LONG.replace("Sentence 33", "poison")], into=results)
    assert store.text("d") == "".join(result.text for result in results)
    assert "Sentence 31" in store.text("d")
    assert "Sentence 34" not in store.text("d")


def test_a_passage_is_searchable_while_the_text_still_grows() -> None:
    async def main() -> None:
        store: Any = PassageStore()
        told = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            yield LONG
            await asyncio.wait_for(told.wait(), WAIT)
            yield " The end."

        config = StreamingConfig(chunk_size=24, overlap_size=4)
        async with AsyncStreamProcessor(WindowedEncoder(8), store=store, config=config) as processor:
            async for result in processor.process_text_stream("d", pieces()):
                assert store.parts["d"][result.part].document.text == result.text
                told.set()
        assert store.text("d") == LONG + " The end."

    asyncio.run(main())


def test_a_growing_text_is_read_no_further_ahead_than_the_bounds(gated: GatedEncoder) -> None:
    gated.hold()
    read = 0
    entered = threading.Event()

    def pieces() -> Iterator[str]:
        nonlocal read
        for _ in range(200):
            read += 1
            yield LONG
        entered.set()

    config = StreamingConfig(chunk_size=24, overlap_size=4, batch_size=2)
    with StreamProcessor(gated, config=config) as processor:
        results = processor.process_text_stream("d", pieces())
        reader = threading.Thread(target=lambda: next(results), daemon=True)
        reader.start()
        gated.await_call()
        gated.gate.set()
        reader.join(WAIT)
        assert read < 20
        assert not entered.is_set()
        results.close()  # type: ignore[attr-defined]  # a generator
    assert processor.stats().lanes.balanced


def test_a_passage_has_no_deadline_however_long_it_takes(make: Make, gated: GatedEncoder) -> None:
    gated.hold()
    opener = threading.Timer(0.1, gated.gate.set)
    opener.start()
    results = make(gated, processing_timeout=0.02).text("d", [LONG])
    assert results
    assert all(result.error is None for result in results)
    opener.join()


def test_a_growing_text_that_is_left_is_closed_at_once() -> None:
    async def main() -> None:
        async with AsyncStreamProcessor(
            WindowedEncoder(8), config=StreamingConfig(chunk_size=24, overlap_size=4)
        ) as processor:
            results: Any = processor.process_text_stream("d", [LONG])
            await anext(results)
            assert processor.stats().open_streams == 1
            await results.aclose()
            assert processor.stats().open_streams == 0

    asyncio.run(main())


def test_a_text_of_its_own_document_id_replaces_all_of_it() -> None:
    store: Any = PassageStore()
    with StreamProcessor(WindowedEncoder(8), store=store, config=StreamingConfig(chunk_size=24, overlap_size=4)) as one:
        one.process_data("d", LONG)
        assert [result.part for result in one.process_text_stream("d", ["short"])] == [0]
    assert store.text("d") == "short"
    assert isinstance(store.parts["d"][0].document, Document)

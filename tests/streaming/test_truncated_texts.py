"""Texts of which the beginning alone is read, and huge ones: exact counts, and an event loop that is not held up."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import DeadlineExceededError, EncoderFailedError
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.testing import HashEncoder
from niruhybrid.types import DataResult, PassageResult, QueryResult, Vector
from niruhybrid.windows import Tokens, Window
from tests.streaming.conftest import WAIT, WindowedEncoder

WORDS = "Sentence of a few words of its own. "  # 9 tokens
HUGE = WORDS * 3000
CUT = StreamingConfig(long_text="truncate", chunk_size=24, overlap_size=4)


class Recorder(WindowedEncoder):
    """Notes how much text it is given at once, and in which thread."""

    def __init__(self) -> None:
        super().__init__(8)
        self.given: list[tuple[int, int]] = []

    def tokenize(self, text: str, /) -> Tokens:
        self.given.append((threading.get_ident(), len(text)))
        return super().tokenize(text)

    def encode(self, texts: Sequence[str | Window], /) -> Vector:
        self.given += [(threading.get_ident(), len(text)) for text in texts if isinstance(text, str)]
        return super().encode(texts)

    def in_thread(self, ident: int) -> int:
        return sum(size for thread, size in self.given if thread == ident)


class Counter(HashEncoder):
    """Can count tokens, and no more."""

    max_tokens = 4

    def __init__(self) -> None:
        super().__init__(8)
        self.counted_in: set[int] = set()

    def count_tokens(self, texts: list[str], /) -> list[int]:
        self.counted_in.add(threading.get_ident())
        return [len(text.split()) for text in texts]


@pytest.fixture
def steady() -> Iterator[None]:
    """Keep the collector, whose pauses grow with the whole suite, out of what is timed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def watched(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result, and the seconds of work that the event loop's thread did at a stretch at the most."""
    task, longest, last = asyncio.ensure_future(work()), 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    return await task, longest


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("kind", ["document", "query"])
def test_a_huge_text_that_is_cut_does_not_hold_up_the_event_loop(kind: str) -> None:
    encoder = Recorder()

    async def main() -> tuple[DataResult | QueryResult, float]:
        async with AsyncStreamProcessor(encoder, config=CUT) as processor:
            await processor.process_data("warm", "up")
            if kind == "query":
                return await watched(lambda: processor.process_query("q", HUGE))
            return await watched(lambda: processor.process_data("d", HUGE, title="Words"))

    result, longest = asyncio.run(main())
    assert result.notes[0].startswith("truncated: only the first 3")
    assert longest < 0.02
    assert max(size for _, size in encoder.given) <= 8192
    assert encoder.in_thread(threading.get_ident()) <= 8192


@pytest.mark.usefixtures("steady")
def test_a_huge_piece_of_a_growing_text_does_not_hold_up_the_event_loop() -> None:
    async def main() -> tuple[list[PassageResult], float]:
        config = StreamingConfig(chunk_size=100_000)  # all of it is one window: nothing is handed in on the way
        async with AsyncStreamProcessor(HashEncoder(8), config=config) as processor:

            async def read() -> list[PassageResult]:
                return [result async for result in processor.process_text_stream("d", [HUGE])]

            return await watched(read)

    (result,), longest = asyncio.run(main())
    assert result.text == HUGE
    assert longest < 0.02


def test_what_is_read_and_what_is_left_are_counted_exactly() -> None:
    with StreamProcessor(Recorder(), config=CUT) as processor:
        result = processor.process_data("d", HUGE, title="Words")
        assert (result.windows, result.tokens_seen, result.tokens_used) == (1, 27_001, 32)
        (note,) = result.notes
        assert note.startswith("truncated: only the first 32 tokens were encoded")
        for words, used, notes in ((32, 32, 0), (33, 32, 1), (31, 31, 0)):
            result = processor.process_data("d", "word " * words)
            assert (result.tokens_seen, result.tokens_used, len(result.notes)) == (words, used, notes)


@pytest.mark.parametrize(
    ("text", "notes"), [("!" * 32, 0), ("!" * 33, 1), ("!" * 34, 1), ("!" * 60, 1), ("two words", 0)]
)
def test_a_text_is_noted_as_cut_from_the_first_token_that_is_not_read(text: str, notes: int) -> None:
    with StreamProcessor(WindowedEncoder(8), config=CUT) as processor:
        result = processor.process_data("d", text)
        tokens = len(WindowedEncoder().tokenize(text).ids)
        assert (result.tokens_seen, result.tokens_used, len(result.notes)) == (tokens, min(32, tokens), notes)
        assert len(processor.process_query("q", text).notes) == notes


def test_a_short_text_of_many_bytes_may_be_cut() -> None:
    class Bytes(HashEncoder):
        max_tokens = 12

        def count_tokens(self, texts: list[str], /) -> list[int]:
            return [len(text.encode()) for text in texts]

    with StreamProcessor(Bytes(8), config=CUT) as processor:
        result = processor.process_data("d", "👩‍🚀👩‍🚀")
        assert (result.tokens_seen, result.tokens_used, len(result.notes)) == (22, 12, 1)
        assert len(processor.process_query("q", "👩‍🚀👩‍🚀").notes) == 1


@pytest.mark.parametrize("title", ["", "Words"])
def test_what_is_cut_has_the_vector_of_what_was_read(title: str) -> None:
    encoder = WindowedEncoder(8)
    with StreamProcessor(encoder, config=CUT) as processor:
        vector = processor.process_data("d", HUGE, title=title).vector
    assert vector is not None
    ids = encoder.tokenize(title + " " + HUGE[:999]).ids[:32]
    np.testing.assert_allclose(vector, HashEncoder(8).encode([str(tuple(ids))])[0], atol=1e-6)


def test_of_a_title_longer_than_the_encoder_reads_nothing_else_is_read() -> None:
    with StreamProcessor(WindowedEncoder(8), config=CUT) as processor:
        result = processor.process_data("d", "text", title="word " * 40)
    assert (result.tokens_seen, result.tokens_used, len(result.notes)) == (41, 32, 1)


def test_a_title_that_is_not_read_in_full_is_told() -> None:
    config = StreamingConfig(chunk_size=24, overlap_size=4)
    with StreamProcessor(WindowedEncoder(8), config=config) as processor:
        result = processor.process_data("d", "text", title="word " * 20)
        assert (result.windows, result.tokens_seen, result.tokens_used) == (1, 21, 17)
        assert result.notes == ("truncated: 4 tokens of the title were not encoded; shorten it",)
        assert processor.process_data("d", "text", title="word " * 16).notes == ()


def test_a_text_of_long_words_says_how_far_it_was_read() -> None:
    words = ("w" * 200 + " ") * 20  # fewer tokens than the encoder reads, in more characters than it is given
    with StreamProcessor(WindowedEncoder(8), config=CUT) as processor:
        (note,) = processor.process_query("q", words).notes
        assert note.startswith("truncated: only the first ")
        assert "characters" in note
        result = processor.process_data("d", words)
        assert (result.tokens_seen, len(result.notes)) == (20, 1)
        assert 0 < (result.tokens_used or 0) < 20


def test_a_text_that_begins_with_much_white_space_is_read_from_its_first_word() -> None:
    with StreamProcessor(WindowedEncoder(8), config=CUT) as processor:
        vectors = [processor.process_query("q", text).vector for text in (" " * 3000 + "word", "word")]
    np.testing.assert_allclose(np.array(vectors[0]), np.array(vectors[1]), atol=1e-6)


def test_an_encoder_that_only_counts_is_asked_off_the_event_loop() -> None:
    encoder = Counter()

    async def main() -> DataResult:
        async with AsyncStreamProcessor(encoder, config=CUT) as processor:
            short = await processor.process_data("e", "two words")
            assert (short.tokens_seen, short.tokens_used, short.notes) == (2, 2, ())
            encoder.counted_in.clear()
            return await processor.process_data("d", "one two three", title="four five")

    result = asyncio.run(main())
    assert (result.tokens_seen, result.tokens_used) == (5, 4)
    assert encoder.counted_in
    assert threading.get_ident() not in encoder.counted_in
    assert encoder.calls[-1] == ("four five\none two three",)


def test_an_encoder_that_fails_to_count_is_the_texts_error_alone() -> None:
    class Broken(Counter):
        def count_tokens(self, texts: list[str], /) -> list[int]:
            if "poison" in texts[0]:
                raise RuntimeError("no count")
            return super().count_tokens(texts)

    with StreamProcessor(Broken(), config=CUT) as processor:
        with pytest.raises(EncoderFailedError, match="RuntimeError"):
            processor.process_data("d", "poison in the text")
        assert processor.process_data("e", "one two three four five").tokens_seen == 5


def test_counting_keeps_to_the_texts_deadline() -> None:
    class Stuck(WindowedEncoder):
        over = threading.Event()

        def tokenize(self, text: str, /) -> Tokens:
            if "last" in text:
                self.over.wait(WAIT)
            return super().tokenize(text)

    encoder = Stuck(8)
    passed = threading.Timer(0.1, encoder.over.set)
    with StreamProcessor(encoder, config=CUT) as processor:
        passed.start()
        with pytest.raises(DeadlineExceededError):
            processor.process_data("d", WORDS * 100 + "last " + WORDS * 100, timeout=0.05)
    passed.join()

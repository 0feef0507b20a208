"""A text that still grows, through the pipeline and its store: what users see of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, InvalidIdError, InvalidSettingError, InvalidTextError
from niruhybrid.generation.extractive import ExtractiveGenerator
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Hit, PassageResult, Query

WAIT = 30.0  # seconds
SMALL = StreamingConfig(chunk_size=24, overlap_size=4)
TALK = "".join(f"Item {number} is about the {word} of the {word}s. " for number, word in enumerate(["budget"] * 20))
MIXED = "Ünïcödé, 東京タワー。 Привет, мир! 👩‍🚀👍🏽 e\u0301 שלום ภาษาไทย os.path 1,000.5 \u200bend.\n" * 12


def with_pipeline(scenario: Callable[[Pipeline], Awaitable[Any]], config: StreamingConfig = SMALL) -> Any:
    async def main() -> Any:
        async with (
            asyncio.timeout(WAIT),
            Pipeline(HashEncoder(), EmbeddedStore(), ExtractiveGenerator(), streaming=config) as pipeline,
        ):
            return await scenario(pipeline)

    return asyncio.run(main())


async def read(pipeline: Pipeline, pieces: Any, **more: Any) -> list[PassageResult]:
    return [passage async for passage in pipeline.process_text_stream("talk", pieces, **more)]


async def text_of(pipeline: Pipeline, name: str = "talk") -> str | None:
    [document] = await pipeline.get([name])
    return None if document is None else document.text


async def found(pipeline: Pipeline, words: str) -> tuple[Hit, ...]:
    return (await pipeline.search(Query("q", words))).hits


def test_a_passage_is_found_with_its_span_before_the_text_has_ended() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        found_it = asyncio.Event()
        spoken = TALK + "Then the zeppelin came down on the lawn. " + TALK

        async def pieces() -> AsyncIterator[str]:
            for at in range(0, len(spoken), 37):
                yield spoken[at : at + 37]
            await found_it.wait()
            yield "The walrus spoke last."

        async for passage in pipeline.process_text_stream("talk", pieces(), title="Meeting", metadata={"room": 7}):
            if "zeppelin" in passage.text:
                first, *_ = hits = await found(pipeline, "zeppelin")
                assert [hit.id for hit in hits] == ["talk"]
                assert (first.span, first.text) == (passage.span, passage.text)
                assert spoken[slice(*first.span)] == first.text
                assert (first.title, dict(first.metadata)) == ("Meeting", {"room": 7})
                assert spoken.startswith(await text_of(pipeline) or "-")
                assert "walrus" not in (await found(pipeline, "walrus"))[0].text
                found_it.set()
        assert found_it.is_set()
        assert await text_of(pipeline) == spoken + "The walrus spoke last."
        assert "walrus" in (await found(pipeline, "walrus"))[0].text

    with_pipeline(scenario)


def test_passages_tell_where_they_are_and_when_they_can_be_found() -> None:
    async def scenario(pipeline: Pipeline) -> list[PassageResult]:
        passages = await read(pipeline, [TALK])
        assert (await pipeline.search(Query("q", "budget"))).watermark == passages[-1].watermark
        return passages

    passages = with_pipeline(scenario)
    assert [passage.part for passage in passages] == list(range(len(passages)))
    assert [TALK[slice(*passage.span)] for passage in passages] == [passage.text for passage in passages]
    marks = [passage.watermark for passage in passages]
    assert marks == sorted(marks)
    shown = repr(passages[0])
    assert "Item 0 is about" in shown
    assert len(shown) < 250
    assert passages[0].to_dict()["span"] == list(passages[0].span)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 5000), max_size=40))
def test_bytes_of_mixed_scripts_cut_anywhere_are_the_text_and_its_passages(cuts: list[int]) -> None:
    data = MIXED.encode()
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})

    async def scenario(pipeline: Pipeline) -> list[tuple[int, int]]:
        passages = await read(pipeline, [data[start:end] for start, end in pairwise(places)])
        assert await text_of(pipeline) == MIXED
        assert all(MIXED[slice(*hit.span)] == hit.text for hit in await found(pipeline, "東京タワー"))
        return [passage.span for passage in passages]

    async def whole(pipeline: Pipeline) -> list[tuple[int, int]]:
        return [passage.span for passage in await read(pipeline, [MIXED])]

    assert with_pipeline(scenario) == with_pipeline(whole)


def test_an_emoji_cut_between_its_bytes_and_between_its_code_points_stays_whole() -> None:
    async def scenario(pipeline: Pipeline) -> str | None:
        family = "👨‍👩‍👧‍👦"
        await read(pipeline, [b"We are ", *(bytes([byte]) for byte in family.encode()), " a ", *family])
        return await text_of(pipeline)

    assert with_pipeline(scenario) == "We are 👨‍👩‍👧‍👦 a 👨‍👩‍👧‍👦"


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([TALK.encode(), b"caf\xe9 "], f"byte {len(TALK) + 3} of the text is no UTF-8"),
        ([TALK.encode() + b"\xf0\x9f", b"\x98"], f"byte {len(TALK)} of the text begins a character"),
        ([TALK, "\ud83d"], "surrogate"),
        ([TALK, None], "NoneType"),
    ],
)
def test_what_is_no_text_is_refused_and_what_came_before_can_be_found(pieces: list[Any], words: str) -> None:
    async def scenario(pipeline: Pipeline) -> None:
        with pytest.raises(InvalidTextError, match=words):
            await read(pipeline, pieces)
        kept = await text_of(pipeline)
        assert kept
        assert TALK.startswith(kept)
        assert (await found(pipeline, "budget"))[0].id == "talk"

    with_pipeline(scenario)


def test_a_source_that_fails_is_heard_and_what_came_before_can_be_found() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield TALK
        raise ConnectionError("the microphone is gone")

    async def scenario(pipeline: Pipeline) -> None:
        with pytest.raises(ConnectionError, match="microphone"):
            await read(pipeline, pieces())
        assert (await found(pipeline, "budget"))[0].id == "talk"
        assert (await pipeline.stats()).processor["open_streams"] == 0

    with_pipeline(scenario)


@pytest.mark.parametrize("pieces", [[], [""], [b""], [" \n", b"\t"]])
def test_an_empty_text_is_refused_and_takes_nothing_away(pieces: list[Any]) -> None:
    async def scenario(pipeline: Pipeline) -> str | None:
        await read(pipeline, ["what was there"])
        with pytest.raises(InvalidTextError, match="empty"):
            await read(pipeline, pieces)
        return await text_of(pipeline)

    assert with_pipeline(scenario) == "what was there"


@pytest.mark.parametrize("text", ["a", "é", "👍", "東"])
def test_one_token_is_one_passage(text: str) -> None:
    async def scenario(pipeline: Pipeline) -> list[PassageResult]:
        return await read(pipeline, [text.encode()])

    assert [(each.part, each.text, each.span) for each in with_pipeline(scenario)] == [(0, text, (0, 1))]


@pytest.mark.slow
def test_a_million_characters_without_a_space_are_read_and_can_be_found() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        end = 0
        async for passage in pipeline.process_text_stream("talk", ("x" * 10_000 for _ in range(100))):
            assert passage.span[0] == end
            assert len(passage.text) < 5_000
            end = passage.span[1]
        assert end == 1_000_000
        [hit] = await found(pipeline, "x" * 1_000)
        assert set(hit.text) == {"x"}

    with_pipeline(scenario, StreamingConfig())


def test_an_overlap_of_a_window_or_more_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="`overlap_size` is 24: give a whole number from 0 to 23"):
        StreamingConfig(chunk_size=24, overlap_size=24)
    with pytest.raises(InvalidSettingError, match="`overlap_size` is 25"):
        StreamingConfig(chunk_size=24, overlap_size=25)
    widest = with_pipeline(lambda pipeline: read(pipeline, [TALK]), StreamingConfig(chunk_size=24, overlap_size=23))
    assert "".join(passage.text for passage in widest) == TALK


def test_it_takes_the_place_of_a_document_and_a_document_takes_its_place() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        long = Document("talk", TALK)
        assert [result.error async for result in pipeline.ingest([long])] == [None]
        await read(pipeline, ["The zeppelin landed."])
        assert await text_of(pipeline) == "The zeppelin landed."
        assert (await pipeline.stats()).documents == 1
        assert [result.error async for result in pipeline.ingest([long])] == [None]
        assert await text_of(pipeline) == TALK
        assert all("zeppelin" not in hit.text for hit in await found(pipeline, "zeppelin"))

    with_pipeline(scenario)


def test_who_stops_listening_ends_the_text_and_keeps_what_was_written() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        closed = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            try:
                while True:
                    yield TALK
            finally:
                closed.set()

        passages: Any = pipeline.process_text_stream("talk", pieces())
        first = await anext(passages)
        await passages.aclose()
        await closed.wait()
        assert (await text_of(pipeline) or "").startswith(first.text)
        assert (await pipeline.stats()).processor["open_streams"] == 0

    with_pipeline(scenario)


def test_unusable_arguments_and_a_closed_pipeline_refuse_at_once() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        with pytest.raises(InvalidIdError):
            pipeline.process_text_stream("", ["text"])
        await pipeline.aclose()
        with pytest.raises(ClosedError):
            pipeline.process_text_stream("talk", ["text"])

    with_pipeline(scenario)
    with pytest.raises(InvalidSettingError, match="'truncate'"):
        with_pipeline(lambda pipeline: read(pipeline, ["text"]), StreamingConfig(long_text="truncate"))

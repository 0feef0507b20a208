import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import ClosedError, DeadlineExceededError, EncoderError, GenerationError
from niruhybrid.ingest import IngestReport, ingest_new
from niruhybrid.pipeline import Pipeline
from niruhybrid.ports import Encoder, Generator
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Hit, Query, StreamEvent, Token
from tests.servers.postgres import PostgresServer

DOCUMENTS = [
    Document("json", "encodes and decodes JSON", "json"),
    Document("heap", "a priority queue", metadata={"p": 1}),
]
QUERY = Query("q1", "priority queue", top_k=1)


class Says:
    """Yields the given tokens; raises the exceptions among them."""

    def __init__(self, *tokens: str | Exception) -> None:
        self.tokens = tokens
        self.closed = False

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            for token in self.tokens:
                if isinstance(token, Exception):
                    raise token
                yield Token(token, hits[0].id if hits else None)
        finally:
            self.closed = True


class Waits:
    """Yields one token, then nothing more; tells when it waits, and that it was closed."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.closed = False

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            yield Token("a")
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True


def with_pipeline(
    scenario: Callable[[Pipeline], Awaitable[Any]],
    generator: Generator | None = None,
    encoder: Encoder | None = None,
    streaming: StreamingConfig | None = None,
) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(10):
            parts = (encoder or HashEncoder(), EmbeddedStore(), generator or Says("yes"))
            async with Pipeline(*parts, streaming=streaming) as pipeline:
                assert [result.error async for result in pipeline.ingest(DOCUMENTS)] == [None, None]
                return await scenario(pipeline)

    return asyncio.run(main())


async def answer(pipeline: Pipeline, query: Query = QUERY) -> list[StreamEvent]:
    return [event async for event in pipeline.stream(query)]


def test_sources_come_first_then_the_answer_then_done() -> None:
    events = with_pipeline(answer, Says("a ", "b"))
    assert [event.event for event in events] == ["sources", "token", "token", "done"]
    sources, first, _, done = (event.data for event in events)
    assert sources["query_id"] == done["query_id"] == "q1"
    assert [hit["id"] for hit in sources["hits"]] == ["heap"]
    assert sources["hits"][0]["metadata"] == {"p": 1}
    assert sources["watermark"] > 0
    assert "metadata" not in sources
    assert first == {"text": "a ", "source": "heap"}
    assert done["finish_reason"] == "stop"
    timings = done["timings"]
    assert timings["total"] >= timings["encode"] + timings["search"] + timings["generate"]


def test_metadata_of_the_query_comes_back() -> None:
    events = with_pipeline(lambda pipeline: answer(pipeline, Query("q", "queue", metadata={"a": [1]})))
    assert events[0].data["metadata"] == {"a": [1]}


@pytest.mark.parametrize(("said", "partial"), [((), False), (("a ",), True), (("",), False)])
def test_a_generator_that_raises_ends_its_answer_with_an_error(said: tuple[str, ...], *, partial: bool) -> None:
    generator = Says(*said, GenerationError("the model is gone: look"))
    events = with_pipeline(answer, generator)
    assert events[0].event == "sources"
    assert events[-1].event == "error"
    assert events[-1].data == {
        "query_id": "q1",
        "code": "generation_failed",
        "detail": "the model is gone: look",
        "partial": partial,
    }
    assert len(events) == 2 + sum(bool(text) for text in said)


def test_what_a_generator_raises_by_mistake_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    events = with_pipeline(answer, Says("a", ValueError("inner")))
    assert events[-1].data["code"] == "generation_failed"
    assert "inner" not in str(events[-1].data)
    assert "generation_failed" in caplog.text


class Failing(HashEncoder):
    def encode(self, texts: Sequence[str], /) -> Any:
        if "bad" in texts:
            raise ValueError("can't")
        return super().encode(texts)


def test_what_fails_before_the_first_event_is_raised() -> None:
    async def scenario(pipeline: Pipeline) -> dict[str, int]:
        with pytest.raises(EncoderError):
            await anext(pipeline.stream(Query("q", "bad")))
        return dict((await pipeline.stats()).answers)

    assert with_pipeline(scenario, encoder=Failing()) == {"done": 0, "error": 1, "cancelled": 0}


def test_closing_the_iterator_stops_the_generation() -> None:
    generator = Waits()

    async def scenario(pipeline: Pipeline) -> dict[str, Any]:
        events = pipeline.stream(QUERY)
        assert [(await anext(events)).event, (await anext(events)).event] == ["sources", "token"]
        assert (await pipeline.stats()).open_answers == 1
        await events.aclose()
        assert generator.closed
        return (await pipeline.stats()).to_dict()

    stats = with_pipeline(scenario, generator)
    assert stats["open_answers"] == 0
    assert stats["answers"] == {"done": 0, "error": 0, "cancelled": 1}


def test_cancelling_the_reader_stops_the_generation() -> None:
    generator = Waits()

    async def scenario(pipeline: Pipeline) -> None:
        reading = asyncio.ensure_future(answer(pipeline))
        await generator.waiting.wait()
        assert not generator.closed
        reading.cancel()
        await asyncio.wait([reading])

    with_pipeline(scenario, generator)
    assert generator.closed


@pytest.mark.parametrize(
    ("query", "streaming"),
    [
        (Query("q", "queue", timeout=0.05), StreamingConfig()),
        (Query("q", "queue"), StreamingConfig(processing_timeout=0.05)),
    ],
)
def test_an_answer_that_takes_too_long_ends_with_an_error(query: Query, streaming: StreamingConfig) -> None:
    generator = Waits()
    events = with_pipeline(lambda pipeline: answer(pipeline, query), generator, streaming=streaming)
    assert [event.event for event in events] == ["sources", "token", "error"]
    assert events[-1].data["code"] == DeadlineExceededError.code
    assert events[-1].data["partial"] is True
    assert generator.closed


def test_what_is_acknowledged_is_found_and_what_is_deleted_is_not() -> None:
    async def scenario(pipeline: Pipeline) -> list[str]:
        (result,) = [result async for result in pipeline.ingest([{"id": "new", "text": "priority queue"}])]
        assert result.watermark is not None
        events = await answer(pipeline)
        assert events[0].data["hits"][0]["id"] == "new"
        assert events[0].data["watermark"] >= result.watermark
        removed, _ = await pipeline.delete(["new", "unknown"])
        assert removed == 1
        assert await pipeline.get(["new"]) == [None]
        return [hit["id"] for hit in (await answer(pipeline))[0].data["hits"]]

    assert with_pipeline(scenario) == ["heap"]


def test_closing_twice_is_once_and_then_everything_is_refused() -> None:
    async def scenario(pipeline: Pipeline) -> None:
        assert pipeline.ready().ready
        await asyncio.gather(pipeline.aclose(), pipeline.aclose())
        await pipeline.aclose()
        assert (pipeline.ready().ready, pipeline.ready().reasons) == (False, ("closed",))
        with pytest.raises(ClosedError):
            await anext(pipeline.stream(QUERY))
        with pytest.raises(ClosedError):
            pipeline.ingest([])
        with pytest.raises(ClosedError):
            await pipeline.stats()

    with_pipeline(scenario)


def test_open_takes_the_parts_it_is_given() -> None:
    async def scenario() -> list[StreamEvent]:
        parts: dict[str, Any] = {"encoder": HashEncoder(), "store": EmbeddedStore(), "generator": Says("yes")}
        async with await Pipeline.open(**parts) as pipeline:
            return await answer(pipeline)

    assert [event.event for event in asyncio.run(scenario())] == ["sources", "token", "done"]


def test_open_makes_the_store_that_a_path_names(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"

    async def run(store: str | Path) -> list[str]:
        async with await Pipeline.open(encoder=HashEncoder(), store=store) as pipeline:
            assert [result.ok async for result in pipeline.ingest([Document("a", "river")])] == [True]
            return [hit.id for hit in (await pipeline.search(Query("q", "river"))).hits]

    assert asyncio.run(run(path)) == asyncio.run(run(str(path))) == ["a"]
    assert path.is_file()


@pytest.mark.integration
@pytest.mark.slow
def test_a_pipeline_on_a_server_hears_of_what_another_one_adds(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()

    async def run() -> None:
        async with (
            await Pipeline.open(encoder=HashEncoder(), store=url) as one,
            await Pipeline.open(encoder=HashEncoder(), store=url) as other,
        ):
            heard = await other.subscribe(Query("q", "river"), min_score=0.5)
            [added] = [result async for result in one.ingest([Document("a", "river")])]
            match = await anext(heard)
            assert (match.hit.id, match.watermark) == ("a", added.watermark)
            [hit] = (await other.search(Query("q", "river", min_watermark=match.watermark))).hits
            assert hit.id == "a"

    asyncio.run(run())


def test_ingest_skips_what_is_there_and_stores_what_has_changed() -> None:
    documents = [*DOCUMENTS, Document("csv", "reads tables")]
    changed = [
        Document("json", "another text", "json"),
        Document("heap", "a priority queue", metadata={"p": 2}),
        Document("csv", "reads tables", "a title"),
    ]

    async def scenario(pipeline: Pipeline) -> list[IngestReport]:
        seen: list[IngestReport] = []
        reports = [await ingest_new(pipeline, run, on_progress=seen.append) for run in (documents, documents, changed)]
        assert seen[-1] == reports[-1]
        return reports

    reports = with_pipeline(scenario)
    assert [(report.stored, report.unchanged) for report in reports] == [(1, 2), (0, 3), (3, 0)]


def test_ingest_counts_failures_and_goes_on() -> None:
    documents = [Document(f"d{number}", "bad" if number % 2 else "good") for number in range(300)]
    report = with_pipeline(lambda pipeline: ingest_new(pipeline, documents), encoder=Failing())
    assert (report.stored, report.failed) == (150, 150)
    assert len(report.failures) == 100

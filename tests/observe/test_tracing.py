"""Spans, as a collector sees them, of a real server and of a pipeline alone."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
import requests

from niruhybrid.config import ObserveConfig, ServerConfig
from niruhybrid.errors import EncoderFailedError, InvalidSettingError
from niruhybrid.observe.tracing import Tracing, open_tracing
from niruhybrid.pipeline import Pipeline
from niruhybrid.ports import Encoder, Generator
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Query
from tests.server.conftest import FirstSentences, HangingGenerator, Server

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra `otel`")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
export = pytest.importorskip("opentelemetry.sdk.trace.export")

QUESTION = "Which module is the priority queue of my secret?"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collected:
    """Spans that have ended."""

    def __init__(self) -> None:
        self._exporter = memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[Any]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> Any:
        [span] = [span for span in self.spans if span.name == name]
        return span

    def pipeline(self, *, generator: Generator | None = None, encoder: Encoder | None = None) -> Pipeline:
        encoder, generator = encoder or HashEncoder(), generator or FirstSentences()
        return Pipeline(encoder, EmbeddedStore(), generator, tracing=Tracing(self.provider))


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture
def served(collected: Collected) -> Iterator[Server]:
    server = Server(collected.pipeline, ServerConfig(port=0))
    server.start(wait=True)
    yield server
    server.stop()


def milliseconds_outside(inner: Any, outer: Any) -> float:
    """Return by how much a span reaches out of another."""
    return float(max(outer.start_time - inner.start_time, inner.end_time - outer.end_time)) / 1e6


@pytest.mark.integration
@pytest.mark.slow
def test_a_query_over_http_is_one_trace_and_its_batch_names_it(served: Server, collected: Collected) -> None:
    stored = requests.post(f"{served.url}/stream/data", json={"id": "heap", "text": "heapq is a queue."}, timeout=10)
    assert stored.ok
    answer = requests.post(f"{served.url}/stream/query", json={"query": QUESTION}, headers=HEADERS, timeout=10)
    assert "event: done" in answer.text
    served.stop()

    asked, query = collected.named("POST /stream/query"), collected.named("niru.query")
    assert (format(asked.context.trace_id, "032x"), format(asked.parent.span_id, "016x")) == (TRACE, PARENT)
    assert asked.kind.name == "SERVER"
    assert asked.attributes["http.route"] == "/stream/query"
    assert asked.attributes["http.response.status_code"] == 200
    assert list(asked.attributes["http.response.header.x-request-id"]) == [answer.headers["x-request-id"]]
    assert query.parent.span_id == asked.context.span_id
    parts = [span for span in collected.spans if span.parent and span.parent.span_id == query.context.span_id]
    assert [span.name for span in parts] == ["niru.wait", "niru.encode", "niru.search", "niru.generate"]
    assert max(milliseconds_outside(part, query) for part in parts) < 2
    assert query.attributes["niru.query.ending"] == "done"
    assert collected.named("niru.search").attributes["db.response.returned_rows"] == 1
    assert list(collected.named("niru.generate").attributes["gen_ai.response.finish_reasons"]) == ["stop"]

    bulk, single = [span for span in collected.spans if span.name == "niru.encode_batch"]
    assert (bulk.attributes["niru.lane"], single.attributes["niru.lane"]) == ("bulk", "interactive")
    assert single.attributes["niru.batch.texts"] == 1
    assert [link.context.span_id for link in single.links] == [query.context.span_id]
    assert [link.context.span_id for link in bulk.links] == [collected.named("POST /stream/data").context.span_id]
    assert single.parent is None


@pytest.mark.integration
@pytest.mark.slow
def test_no_span_tells_what_was_asked_stored_or_named(served: Server, collected: Collected) -> None:
    texts = [{"id": f"secret-{number}", "text": f"A secret of number {number}."} for number in range(5)]
    assert requests.post(f"{served.url}/stream/data", json=texts, timeout=10).ok
    body = {"query": QUESTION, "filter": {"eq": {"secret": "secret"}}, "metadata": {"secret": "secret"}, "id": "secret"}
    assert requests.post(f"{served.url}/stream/query", json=body, timeout=10).ok
    assert requests.post(f"{served.url}/query", json={"query": QUESTION}, timeout=10).ok
    assert requests.get(f"{served.url}/data/secret-1?secret=1", timeout=10).ok
    assert requests.get(f"{served.url}/secret", timeout=10).status_code == 404
    assert requests.post(
        f"{served.url}/stream/query", json={"query": QUESTION, "top_k": "secret"}, timeout=10
    ).status_code
    served.stop()
    assert len(collected.spans) > 10
    told = [span.to_json() for span in collected.spans]
    assert [text for text in told if "secret" in text] == []
    assert {"POST /query", "GET"} <= {span.name for span in collected.spans}


def test_attributes_are_those_of_the_conventions_or_our_own(collected: Collected) -> None:
    from opentelemetry.semconv._incubating.attributes import db_attributes, gen_ai_attributes
    from opentelemetry.semconv.attributes import error_attributes, http_attributes, url_attributes

    modules = (db_attributes, gen_ai_attributes, error_attributes, http_attributes, url_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}

    async def main() -> None:
        async with collected.pipeline() as pipeline:
            async for _ in pipeline.stream(Query("q", QUESTION)):
                pass

    asyncio.run(main())
    trace = Tracing(collected.provider).request("GET", "http", {})
    trace.end("/x", 503, "r-1")
    used = {key for span in collected.spans for key in span.attributes}
    templated = {key.removesuffix(".x-request-id") for key in used if not key.startswith("niru.")}
    assert len(templated) >= 8
    assert templated - known == set()


def test_a_search_that_fails_tells_its_class_and_no_message(collected: Collected) -> None:
    class Broken:
        def encode(self, texts: list[str], /) -> Any:
            raise ValueError(texts[0])

    async def main() -> None:
        async with collected.pipeline(encoder=Broken()) as pipeline:
            for ask in (
                lambda: anext(pipeline.stream(Query("q", QUESTION))),
                lambda: pipeline.search(Query("q", QUESTION)),
            ):
                with pytest.raises(EncoderFailedError):
                    await ask()

    asyncio.run(main())
    queries = [span for span in collected.spans if span.name == "niru.query"]
    assert [span.attributes["error.type"] for span in queries] == [EncoderFailedError.code] * 2
    assert [span.status.status_code.name for span in queries] == ["ERROR"] * 2
    assert {span.status.description for span in collected.spans} == {None}
    assert [span.events for span in collected.spans if span.events] == []
    assert all(
        span.attributes["error.type"] == "encoder_failed"
        for span in collected.spans
        if span.name == "niru.encode_batch"
    )


def test_an_answer_that_is_left_ends_as_cancelled_and_its_model_is_under_generate(collected: Collected) -> None:
    from opentelemetry import trace

    under: list[Any] = []

    class Noting(HangingGenerator):
        async def generate(self, *given: Any) -> Any:
            under.append(trace.get_current_span().get_span_context().span_id)
            async for token in super().generate(*given):
                yield token

    async def main() -> None:
        async with collected.pipeline(generator=Noting()) as pipeline:
            async with aclosing(pipeline.stream(Query("q", QUESTION))) as events:
                assert [(await anext(events)).event, (await anext(events)).event] == ["sources", "token"]
            assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())
    assert collected.named("niru.query").attributes["niru.query.ending"] == "cancelled"
    assert under == [collected.named("niru.generate").context.span_id]


def test_a_query_whose_vector_is_kept_has_no_encode(collected: Collected) -> None:
    async def main() -> None:
        async with collected.pipeline() as pipeline:
            for _ in range(2):
                assert (await pipeline.search(Query("q", QUESTION))).ok

    asyncio.run(main())
    assert [span.attributes["niru.query.cached"] for span in collected.spans if span.name == "niru.query"] == [
        False,
        True,
    ]
    assert len([span for span in collected.spans if span.name == "niru.encode"]) == 1


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    code = (
        "import sys; from niruhybrid.config import ObserveConfig; from niruhybrid.observe import tracing;"
        "print(tracing.open_tracing(ObserveConfig()), [name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None []\n", "")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidSettingError, match=r"niruhybrid\[otel\]"):
        open_tracing(ObserveConfig(traces="otlp"))


def test_where_spans_go_is_one_of_three() -> None:
    with pytest.raises(InvalidSettingError, match="off, otlp, provider"):
        ObserveConfig(traces="nowhere")  # type: ignore[arg-type]  # what a file may say
    assert isinstance(open_tracing(ObserveConfig(traces="provider")), Tracing)


def test_an_observer_that_fails_harms_no_query(collected: Collected, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Tracing):
        def encoded(self, *_given: Any, **_named: Any) -> None:
            raise ValueError(QUESTION)

    async def main() -> None:
        tracing = Failing(collected.provider)
        async with Pipeline(HashEncoder(), EmbeddedStore(), FirstSentences(), tracing=tracing) as pipeline:
            assert (await pipeline.search(Query("q", QUESTION))).ok

    asyncio.run(main())
    assert "observer_failed" in caplog.text

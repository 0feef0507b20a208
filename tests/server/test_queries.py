"""Plain queries, many at once, and progressive ones, over a real server."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import requests

from niruhybrid.errors import GenerationError
from niruhybrid.pipeline import Pipeline
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Hit, Query, Token, Vector

pytestmark = pytest.mark.integration

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_a_plain_query_is_one_object(serving: Callable[..., Any]) -> None:
    asked = {"query": "priority queue", "top_k": 1, "id": "q", "metadata": {"a": 1}}
    answer = requests.post(f"{serving().url}/query", json=asked, timeout=10).json()
    assert (answer["query_id"], answer["hits"][0]["id"], answer["metadata"]) == ("q", "heap", {"a": 1})
    assert answer["answer"] == "The heapq module is a priority queue. "
    assert answer["finish_reason"] == "stop"
    assert set(answer["timings"]) == {"queued", "encode", "search", "generate", "total"}


def test_hits_alone_need_no_generator(serving: Callable[..., Any]) -> None:
    asked = {"query": "priority queue", "answer": False, "filter": {"eq": {"page": 3}}, "mode": "lexical"}
    answer = requests.post(f"{serving().url}/query", json=asked, timeout=10).json()
    assert [hit["id"] for hit in answer["hits"]] == ["heap"]
    assert "answer" not in answer


class Breaks:
    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        yield Token("so far ")
        raise GenerationError("at /secret: look")


def test_an_answer_that_breaks_off_is_an_error_and_never_half_an_object(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    url = serving(lambda: make_pipeline(Breaks())).url
    answer = requests.post(f"{url}/query", json={"query": "json"}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (502, "generation_failed")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("filter", {"near": 1}), ("filter", 3), ("mode", "psychic"), ("min_watermark", -1), ("answer", "yes")],
)
def test_what_a_query_can_not_mean_is_refused(serving: Callable[..., Any], field: str, value: object) -> None:
    answer = requests.post(f"{serving().url}/query", json={"query": "json", field: value}, timeout=10)
    assert answer.status_code == 422


def test_many_queries_are_answered_each_with_the_number_of_its_line(serving: Callable[..., Any]) -> None:
    lines: list[Any] = [{"query": "json", "id": f"q{number}", "top_k": 1} for number in range(1, 201)]
    lines[9] = {"top_k": 1, "id": "no query"}
    lines[19] = "json"
    body = "\n".join(json.dumps(line) for line in lines).replace('"json"\n', "{\n", 1)
    answer = requests.post(f"{serving().url}/stream/queries", data=body, headers=NDJSON, timeout=30)
    *results, summary = [json.loads(line) for line in answer.text.splitlines()]
    assert summary == {"line": 0, "done": True, "answered": 198, "failed": 2}
    assert sorted(result["line"] for result in results) == list(range(1, 201))
    by_line = {result["line"]: result for result in results}
    assert by_line[10]["error"]["code"] == "invalid_input"
    assert by_line[10]["query_id"] == "no query"
    assert by_line[20]["error"]["code"] == "malformed_json"
    assert all(by_line[number]["query_id"] == f"q{number}" for number in range(1, 201) if number not in {10, 20})
    assert by_line[1]["answer"]


class Gated(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        assert "queue" not in texts[0] or self.go.wait(10)
        return super().encode(texts)


def test_a_progressive_query_shows_what_the_words_find_while_the_encoder_works(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    encoder = Gated()
    server = serving(lambda: make_pipeline(encoder=encoder))
    asked = {"query": "priority queue", "progressive": True, "top_k": 2}
    with requests.post(f"{server.url}/stream/query", json=asked, stream=True, timeout=10) as answer:
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
        head, name, data = next(lines), next(lines), next(lines)
        assert head.endswith(":1")
        assert name == "event: provisional"
        assert [hit["id"] for hit in json.loads(data.removeprefix("data: "))["hits"]] == ["heap"]
        encoder.go.set()
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert (names[0], names[-1], names.count("sources")) == ("sources", "done", 1)
    assert server.stats()["answers"]["done"] == 1


def test_a_query_goes_by_words_or_meaning_or_filter_also_in_a_query_string(serving: Callable[..., Any]) -> None:
    url = serving().url
    asked = {"query": "module", "filter": '{"exists": "page"}', "mode": "lexical", "progressive": "true"}
    answer = requests.get(f"{url}/stream/query", params=asked, timeout=10)
    assert '"id":"heap"' in answer.text
    assert '"id":"csv"' not in answer.text
    assert requests.get(f"{url}/stream/query", params={"query": "x", "filter": "{"}, timeout=10).status_code == 422

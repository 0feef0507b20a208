"""Bodies of lines whose client is silent, and lines that fail alone: over a real server."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
import requests

from niruhybrid.config import StreamingConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.server import bulk
from niruhybrid.server.backend import Backend
from niruhybrid.server.sending import json_bytes
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Query, QueryResult, SearchRequest, SearchResponse, Vector

SOON = 20.0  # seconds for what takes a fraction of one where nothing else runs
PATHS = {"/stream/data": {"text": "a document"}, "/stream/queries": {"query": "a document", "answer": False}}
ASYNC = pytest.mark.parametrize("path", PATHS)


def sending(server: Any, path: str, *, slowly: float = SOON) -> socket.socket:
    """Return a connection on which a body of lines has begun."""
    client = socket.create_connection((server.host, server.port), timeout=slowly)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    return client


def send(client: socket.socket, line: bytes) -> None:
    client.sendall(b"%x\r\n%b\r\n" % (len(line), line))


def line_of(path: str) -> bytes:
    return orjson.dumps(PATHS[path]) + b"\n"


def begun(client: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer


@pytest.mark.integration
@ASYNC
@pytest.mark.parametrize("part", [b"", b'{"te'], ids=["nothing", "half a line"])
def test_a_body_without_a_line_is_refused_after_a_while(serving: Callable[..., Any], path: str, part: bytes) -> None:
    server = serving(idle_timeout=0.1)
    with sending(server, path) as client:
        if part:
            send(client, part)
        answer = begun(client)
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert json.loads(answer.read())["code"] == "request_timeout"
    assert server.stats()["open_streams"] == 0


@pytest.mark.integration
@ASYNC
def test_a_body_that_falls_silent_ends_with_a_true_line(serving: Callable[..., Any], path: str) -> None:
    server = serving(idle_timeout=0.3)
    with sending(server, path) as client:
        send(client, line_of(path))
        answer = begun(client)
        assert json.loads(answer.readline())["line"] == 1
        last = json.loads(answer.readline())
        assert (last["line"], last["error"]["code"]) == (0, "request_timeout")
        assert answer.readline() == b""
    assert server.stats()["open_streams"] == 0


@pytest.mark.integration
@pytest.mark.slow
@ASYNC
def test_a_blank_line_now_and_then_keeps_a_body_open(serving: Callable[..., Any], path: str) -> None:
    server = serving(idle_timeout=2.0)
    with sending(server, path, slowly=0.25) as client:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            send(client, b"\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(SOON)
        send(client, line_of(path))
        answer = begun(client)
        assert "error" not in json.loads(answer.readline())


@pytest.mark.integration
@ASYNC
def test_a_line_that_comes_a_few_bytes_at_a_time_gains_no_time(serving: Callable[..., Any], path: str) -> None:
    server = serving(idle_timeout=0.3)
    with sending(server, path, slowly=0.02) as client:
        answer = b""
        for _ in range(int(SOON / 0.02)):
            send(client, b"[")
            try:
                answer = client.recv(65_536)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


class Gated(HashEncoder):
    """Encodes documents only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        assert "document" not in texts[0] or self.go.wait(SOON)
        return super().encode(texts)


@pytest.mark.integration
@ASYNC
@pytest.mark.parametrize("whole", [False, True], ids=["while sending", "all sent"])
def test_blank_lines_say_that_something_is_under_way(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], path: str, *, whole: bool
) -> None:
    encoder = Gated()
    server = serving(lambda: make_pipeline(encoder=encoder), keep_alive=0.05, idle_timeout=0.05)
    with sending(server, path) as client:
        send(client, line_of(path))
        if whole:
            client.sendall(b"0\r\n\r\n")
        answer = begun(client)
        assert [answer.readline() for _ in range(5)] == [b"\n"] * 5
        encoder.go.set()
        lines = [json.loads(line) for line in answer if line.strip()]
    assert (lines[0]["line"], "error" in lines[0]) == (1, False)
    assert lines[-1]["line"] == 0
    assert ("done" in lines[-1]) == whole  # else it fell silent after its answer


@pytest.mark.integration
@ASYNC
def test_nothing_is_sent_to_a_client_that_waits_for_nothing(serving: Callable[..., Any], path: str) -> None:
    server = serving(keep_alive=0.02)
    with sending(server, path, slowly=0.2) as client, pytest.raises(TimeoutError):
        client.recv(1)


@pytest.mark.integration
def test_bodies_of_lines_are_streams_like_all_others(serving: Callable[..., Any]) -> None:
    server = serving(max_streams=2)
    with ExitStack() as stack:
        for path in PATHS:
            stack.enter_context(sending(server, path))
        deadline = time.monotonic() + SOON
        while server.stats()["open_streams"] < 2:
            assert time.monotonic() < deadline
        for path in PATHS:
            with sending(server, path) as client:
                assert begun(client).status == 503
        refused = requests.post(f"{server.url}/stream/query", json={"query": "json"}, timeout=SOON)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    while server.stats()["open_streams"]:
        assert time.monotonic() < deadline + SOON
    assert requests.post(f"{server.url}/stream/query", json={"query": "json"}, timeout=SOON).ok


@pytest.mark.integration
@pytest.mark.slow
def test_writers_that_are_silent_keep_nobody_from_writing(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    server = serving(lambda: make_pipeline(streaming=StreamingConfig(max_concurrent_streams=1)))
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(sending(server, "/stream/data"))
        assert requests.post(f"{server.url}/stream/data", json={"id": "a", "text": "a document"}, timeout=SOON).ok
        client = stack.enter_context(sending(server, "/stream/data"))
        send(client, b'{"id": "b", "text": "a document"}\n')
        answer = begun(client)
        assert json.loads(answer.readline())["id"] == "b"
        deadline = time.monotonic() + SOON
        while server.stats()["processor"]["open_streams"]:  # after a pause it gives its place to others
            assert time.monotonic() < deadline
        assert requests.post(f"{server.url}/stream/data", json={"id": "c", "text": "a document"}, timeout=SOON).ok
        for number in (2, 3):
            send(client, b'{"id": "d%d", "text": "a document"}\n' % number)
            found = json.loads(answer.readline())
            assert (found["line"], found["id"]) == (number, f"d{number}")
        client.sendall(b"0\r\n\r\n")
        assert json.loads(answer.readline())["stored"] == 3
    assert server.stats()["documents"] == 3 + 5


@pytest.mark.integration
@pytest.mark.slow
def test_many_lines_at_once_are_all_taken(serving: Callable[..., Any]) -> None:
    server = serving()
    body = b"".join(b'{"id": "%d", "text": "t"}\n' % number for number in range(3000)) + b'{"id": "last", "text": "t"}'
    answer = requests.post(
        f"{server.url}/stream/data", data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=60
    )
    assert json.loads(answer.text.splitlines()[-1])["stored"] == 3001


class RustPanic(BaseException):
    """What libraries in Rust raise when they fail inside: no `Exception`."""


class Treacherous:
    """A backend, of which each query fails as its text says."""

    def __init__(self) -> None:
        self.searching = asyncio.Event()

    async def search(self, query: Query) -> QueryResult:
        match query.text:
            case "cancelled":
                raise asyncio.CancelledError
            case "panic":
                raise RustPanic
            case "fault":
                raise ZeroDivisionError
            case "never":
                self.searching.set()
                await asyncio.Event().wait()
        return QueryResult(query.id, query.text, metadata={"a": object()} if query.text == "unsendable" else {})


async def _numbered(*texts: str) -> AsyncIterator[tuple[int, Any]]:
    for number, text in enumerate(texts, start=1):
        yield number, {"query": text, "id": f"q{number}", "answer": False}


async def _lines(backend: Treacherous, *texts: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(SOON):
        found = bulk.results(cast("Backend", backend), _numbered(*texts), 100)
        return [orjson.loads(line) async for line in found]


@pytest.mark.parametrize("failing", ["cancelled", "panic", "fault"])
def test_whatever_a_query_raises_its_line_fails_alone(failing: str) -> None:
    *lines, summary = asyncio.run(_lines(Treacherous(), "good", failing, "good"))
    assert summary == {"line": 0, "done": True, "answered": 2, "failed": 1}
    (failed,) = [line for line in lines if "error" in line]
    assert (failed["line"], failed["query_id"], failed["error"]["code"]) == (2, "q2", "internal")


def test_a_stream_of_queries_that_is_cancelled_ends_and_nothing_of_it_counts_as_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancel() -> None:
        backend = Treacherous()
        answering = asyncio.ensure_future(_lines(backend, "never", "never"))
        async with asyncio.timeout(SOON):
            await backend.searching.wait()
            answering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answering
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())
    assert not caplog.records


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_metadata_that_can_not_be_sent_is_left_out_and_named() -> None:
    good = {"id": "good", "metadata": {"page": 3}}
    value = {"query_id": "q", "hits": [good, {"id": "bad", "metadata": deep(300)}], "metadata": {"a": 1}}
    found = orjson.loads(json_bytes(value))
    assert found["hits"] == [good, {"id": "bad", "metadata": {}}]
    assert found["metadata"] == {"a": 1}
    assert "'bad'" in found["notes"][0]
    assert orjson.loads(json_bytes({"hit": {"id": "x", "metadata": deep(300)}}))["hit"]["metadata"] == {}
    assert orjson.loads(json_bytes({"id": "x", "metadata": deep(300)}))["metadata"] == {}
    at_the_brink = {"hits": [{"id": "x", "metadata": deep(251)}], "metadata": deep(253)}
    assert orjson.loads(json_bytes(at_the_brink))["hits"][0]["id"] == "x"
    with pytest.raises(TypeError):
        json_bytes({"hits": object()})


class Poisoned(EmbeddedStore):
    """A store of which one document has metadata that was nested too deeply before that was refused."""

    def search(self, requests: Sequence[SearchRequest], /) -> list[SearchResponse]:
        return [
            replace(found, hits=tuple(self._with_poison(hit) for hit in found.hits))
            for found in super().search(requests)
        ]

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        found = super().get(ids)
        for document in found:
            if document is not None and document.id == "poison":
                object.__setattr__(document, "metadata", deep(300))
        return found

    @staticmethod
    def _with_poison(hit: Any) -> Any:
        return replace(hit, metadata=deep(300)) if hit.id == "poison" else hit


@pytest.mark.integration
def test_a_document_that_can_not_be_sent_whole_spoils_no_answer(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    generator = make_pipeline()._generator
    server = serving(lambda: Pipeline(HashEncoder(), Poisoned(), generator))
    documents = [{"id": name, "text": "green tea"} for name in ("good", "poison")]
    assert requests.post(f"{server.url}/stream/data", json=documents, timeout=SOON).ok
    asked = {"query": "green tea"}
    answers = [
        requests.post(f"{server.url}/query", json=asked | {"answer": wanted}, timeout=SOON) for wanted in (True, False)
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert {hit["id"] for hit in answer.json()["hits"]} == {"good", "poison"}
        assert "'poison'" in answer.json()["notes"][0]
    streamed = requests.post(f"{server.url}/stream/query", json=asked, timeout=SOON).text
    assert "event: done" in streamed
    lines = requests.post(
        f"{server.url}/stream/queries",
        data=orjson.dumps(asked),
        headers={"Content-Type": "application/x-ndjson"},
        timeout=SOON,
    )
    assert json.loads(lines.text.splitlines()[-1])["answered"] == 1
    assert requests.get(f"{server.url}/data/poison", timeout=SOON).json()["text"] == "green tea"
    assert requests.get(f"{server.url}/data/good", timeout=SOON).ok

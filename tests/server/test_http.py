"""A real server on loopback, with the clients people use."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
import requests

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import EncoderFailedError, StoreError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server import run
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Hit, Query, Token, Vector

pytestmark = pytest.mark.integration

PROMPT = 0.05
"""Seconds within which everything of a client that left is freed."""


def frames(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream, names and data."""
    parsed = []
    for frame in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if line and not line.startswith(":"))
        if fields:
            parsed.append((fields["event"], orjson.loads(fields["data"])))
    return parsed


def test_the_guides_curl_command_works(serving: Callable[..., Any]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = f"{serving().url}/stream/query"
    body = '{"query": "Your question", "top_k": 5}'
    command = [curl, "-sS", "-i", "-X", "POST", url, "-H", "Content-Type: application/json", "-d", body]
    output = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout  # our own words
    head, _, stream = output.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "content-type: text/event-stream; charset=utf-8" in head.lower()
    events = frames(stream)
    assert [name for name, _ in events] == ["sources", "token", "token", "token", "done"]
    assert len(events[0][1]["hits"]) == 3


def test_the_guides_python_client_works(serving: Callable[..., Any]) -> None:
    response = requests.post(f"{serving().url}/stream/query", json={"query": "Your question"}, stream=True, timeout=10)
    lines = [line.decode("utf-8") for line in response.iter_lines() if line]
    assert response.status_code == 200
    assert lines[1] == "event: sources"
    assert lines[-2] == "event: done"


def test_an_answer_has_the_agreed_shape(serving: Callable[..., Any]) -> None:
    body = {"query": "priority queue", "top_k": 1, "id": "mine", "metadata": {"a": [1]}, "timeout": 9, "session": "s"}
    events = frames(requests.post(f"{serving().url}/stream/query", json=body, timeout=10).text)
    sources, done = events[0][1], events[-1][1]
    assert sources["query_id"] == done["query_id"] == "mine"
    assert sources["metadata"] == {"a": [1]}
    (hit,) = sources["hits"]
    assert set(hit) == {"id", "rank", "score", "text", "title", "metadata", "span"}
    assert (hit["id"], hit["rank"], hit["metadata"]) == ("heap", 1, {"page": 3})
    assert sources["watermark"] >= 1
    assert "".join(data["text"] for name, data in events if name == "token") == "The heapq module is a priority queue. "
    assert done["finish_reason"] == "stop"
    timings = done["timings"]
    assert set(timings) == {"queued", "encode", "search", "generate", "total"}
    assert 0 <= timings["encode"] <= timings["total"]


def test_event_ids_count_from_one_within_a_stream(serving: Callable[..., Any]) -> None:
    url = f"{serving().url}/stream/query"
    text = [requests.post(url, json={"query": "json"}, timeout=10).text for _ in range(2)]
    ids = [[line[4:].split(":") for line in answer.split("\n") if line.startswith("id: ")] for answer in text]
    assert [number for _, number in ids[0]] == [str(number) for number in range(1, len(ids[0]) + 1)]
    assert len({stream for stream, _ in ids[0]}) == 1
    assert ids[0][0][0] != ids[1][0][0]


def test_a_query_string_asks_the_same(serving: Callable[..., Any]) -> None:
    url = f"{serving().url}/stream/query"
    answer = requests.get(url, params={"query": "priorité queue", "top_k": "2", "timeout": "5"}, timeout=10)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert len(frames(answer.text)[0][1]["hits"]) == 2


REFUSED: list[tuple[bytes, int, str]] = [
    (b"", 400, "malformed_json"),
    (b"{", 400, "malformed_json"),
    (b"{'query': 'x'}", 400, "malformed_json"),
    (b'{"query": "\xff"}', 400, "malformed_json"),
    (b'{"query": "\\ud800"}', 400, "malformed_json"),
    (b'{"query": "x", "timeout": NaN}', 400, "malformed_json"),
    (b'{"query": "x", "metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", 400, "malformed_json"),
    (b"[" * 5000 + b"]" * 5000, 400, "malformed_json"),
    (b"[]", 422, "invalid_input"),
    (b'"query"', 422, "invalid_input"),
    (b"{}", 422, "invalid_input"),
    (b'{"query": ""}', 422, "invalid_input"),
    (b'{"query": " \\n "}', 422, "invalid_text"),
    (b'{"query": "' + b"x" * 9000 + b'"}', 422, "invalid_text"),
    (b'{"query": 5}', 422, "invalid_input"),
    (b'{"query": null}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": 0}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": 1001}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": 99999999999999999999999}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": "5"}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": 2.5}', 422, "invalid_input"),
    (b'{"query": "x", "top_k": true}', 422, "invalid_input"),
    (b'{"query": "x", "timeout": 0}', 422, "invalid_input"),
    (b'{"query": "x", "timeout": 1e300}', 422, "invalid_input"),
    (b'{"query": "x", "id": ""}', 422, "invalid_input"),
    (b'{"query": "x", "id": "a\\nb"}', 422, "invalid_id"),
    (b'{"query": "x", "session": "a\\u0000b"}', 422, "invalid_id"),
    (b'{"query": "x", "metadata": [1]}', 422, "invalid_input"),
    (b'{"query": "x", "unknown": 1}', 422, "invalid_input"),
]


def test_what_cannot_be_used_is_refused_with_a_true_status(serving: Callable[..., Any]) -> None:
    server = serving()
    with requests.Session() as session:
        for body, status, code in REFUSED:
            answer = session.post(
                f"{server.url}/stream/query", data=body, headers={"Content-Type": "application/json"}, timeout=10
            )
            assert (answer.status_code, answer.json()["code"]) == (status, code), body[:60]
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
    assert server.stats()["answers"] == {"done": 0, "error": 0, "cancelled": 0}


def test_unknown_fields_are_named_and_values_are_not_repeated(serving: Callable[..., Any]) -> None:
    body = {"query": "hush hush", "topk": 3, "top_k": "secret"}
    problem = requests.post(f"{serving().url}/stream/query", json=body, timeout=10).json()
    assert {error["field"] for error in problem["errors"]} == {"topk", "top_k"}
    assert "hush" not in str(problem)
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("?query=", 422),
        ("?query=x&top_k=many", 422),
        ("?query=x&query=y", 422),
        ("?query=x&nonsense=1", 422),
        ("?query=x&metadata=1", 422),
        ("?query=%ff", 400),
        ("?query=x" + "&a=1" * 30, 400),
    ],
)
def test_a_query_string_is_checked_as_well(serving: Callable[..., Any], query: str, status: int) -> None:
    answer = requests.get(f"{serving().url}/stream/query{query}", timeout=10)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_json_by_its_own_account_is_refused(serving: Callable[..., Any], media_type: str) -> None:
    answer = requests.post(
        f"{serving().url}/stream/query", data=b'{"query": "x"}', headers={"Content-Type": media_type}, timeout=10
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_large_body_is_refused_while_it_arrives(serving: Callable[..., Any]) -> None:
    server = serving(max_body_bytes=1000)
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1000
            yield b" " * 1000

    with httpx.Client() as client:
        headers = {"Content-Type": "application/json"}
        declared = client.post(f"{server.url}/stream/query", content=b" " * 2000, headers=headers)
        assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")
        try:
            chunked = client.post(f"{server.url}/stream/query", content=pieces(), headers=headers)
        except httpx.TransportError:
            pass  # it was still sending when the server closed the connection
        else:
            assert chunked.status_code == 413
        fits = client.post(f"{server.url}/stream/query", content=b'{"query": "x"}' + b" " * 986, headers=headers)
        assert fits.status_code == 200


def test_a_body_that_does_not_arrive_is_not_waited_for(serving: Callable[..., Any]) -> None:
    server = serving(send_timeout=0.1)
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(
            b"POST /stream/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 90\r\n\r\n{"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/healthz/", 404, "not_found"),
        ("DELETE", "/stream/query", 405, "method_not_allowed"),
    ],
)
def test_unknown_paths_and_methods_are_problems_too(
    serving: Callable[..., Any], method: str, path: str, status: int, code: str
) -> None:
    answer = requests.request(method, serving().url + path, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"


class FailingEncoder(HashEncoder):
    def encode(self, texts: Sequence[str], /) -> Any:
        raise EncoderFailedError(f"no encoding of {texts!r} at /secret: look")


def test_a_failing_encoder_is_a_status_and_tells_no_internals(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    server = serving(lambda: make_pipeline(encoder=FailingEncoder()))
    answer = requests.post(f"{server.url}/stream/query", json={"query": "hush hush"}, timeout=10)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "hush" not in answer.text
    assert "secret" not in answer.text
    assert server.stats()["answers"]["error"] == 1


class BreakingGenerator:
    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        yield Token("one ")
        yield Token("two ")
        raise StoreError("secret: look")


def test_a_generator_that_breaks_off_loses_no_token_and_says_so(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    server = serving(lambda: make_pipeline(BreakingGenerator()))
    answer = requests.post(f"{server.url}/stream/query", json={"query": "json"}, timeout=10)
    events = frames(answer.text)
    assert [name for name, _ in events] == ["sources", "token", "token", "error"]
    assert (events[-1][1]["code"], events[-1][1]["partial"]) == ("store_error", True)
    assert "secret" not in answer.text


def ask(server: Any, *, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect((server.host, server.port))
    body = b'{"query": "json"}'
    head = "POST /stream/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


@pytest.mark.parametrize("abort", [False, True], ids=["closes", "resets"])
def test_a_client_that_leaves_frees_everything_at_once(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], hanging: Any, *, abort: bool
) -> None:
    server = serving(lambda: make_pipeline(hanging), grace=0.0)
    tries = 0

    def seconds_until_free() -> float:
        nonlocal tries
        tries += 1
        client = ask(server)
        assert hanging.waiting.wait(10)
        if abort:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        left = time.monotonic()
        client.close()
        assert hanging.closed.wait(10)
        taken = time.monotonic() - left
        stats = server.stats()
        assert (stats["open_streams"], stats["open_answers"], stats["answers"]["cancelled"]) == (0, 0, tries)
        hanging.waiting.clear()
        hanging.closed.clear()
        return taken

    # measured again where other processes kept the machine busy
    assert any(seconds_until_free() < PROMPT for _ in range(20))


class SlowEncoder(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Any:
        self.entered.set()
        assert self.go.wait(10)
        return super().encode(texts)


def test_a_client_that_leaves_before_the_first_event_is_forgotten(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    encoder = SlowEncoder()
    server = serving(lambda: make_pipeline(encoder=encoder))
    client = ask(server)
    assert encoder.entered.wait(10)
    client.close()
    deadline = time.monotonic() + 10
    while (stats := server.stats())["open_streams"]:
        assert time.monotonic() < deadline
    encoder.go.set()
    assert stats["answers"]["cancelled"] == 1


class EndlessGenerator:
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.made = 0

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            while True:
                self.made += 1
                yield Token("x" * 10_000)
        finally:
            self.closed.set()


@pytest.mark.slow
def test_a_reader_that_stalls_holds_neither_memory_nor_the_answer_nor_others(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    generator = EndlessGenerator()
    server = serving(lambda: make_pipeline(generator), send_timeout=0.5, grace=0.0)
    with ask(server, receive_buffer=4096):
        assert requests.get(f"{server.url}/healthz", timeout=10).ok
        assert generator.closed.wait(10)
        assert server.stats()["open_streams"] == 0
    assert generator.made < 2000


def test_streams_are_bounded_and_the_next_is_told_when_to_come_back(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], hanging: Any
) -> None:
    server = serving(lambda: make_pipeline(hanging), max_streams=1)
    with ask(server):
        assert hanging.waiting.wait(10)
        refused = requests.post(f"{server.url}/stream/query", json={"query": "json"}, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1


def test_open_streams_end_with_a_true_event_at_shutdown(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline], hanging: Any
) -> None:
    server = serving(lambda: make_pipeline(hanging))
    with requests.post(f"{server.url}/stream/query", json={"query": "json"}, stream=True, timeout=10) as answer:
        assert hanging.waiting.wait(10)
        server.stop()
        name, problem = frames(answer.text)[-1]
    assert (name, problem["code"], problem["partial"]) == ("error", "shutting_down", True)
    assert server.failure is None


def test_it_listens_while_the_model_loads_and_says_that_it_is_not_ready(
    serving: Callable[..., Any], opening: Any
) -> None:
    server = serving(opening, wait=False)
    assert requests.get(f"{server.url}/healthz", timeout=10).json() == {"status": "ok"}
    for method, path in (("GET", "/readyz"), ("GET", "/stats"), ("POST", "/stream/query")):
        answer = requests.request(method, server.url + path, json={"query": "x"}, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (503, "starting")
        assert int(answer.headers["retry-after"]) >= 1
    opening.go.set()
    assert server.opened.wait(10)
    assert requests.get(f"{server.url}/readyz", timeout=10).json() == {"status": "ready"}


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_responses_say_when_they_were_made(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    with requests.Session() as client:
        url = f"{serving().url}/healthz"
        for second in (1_800_000_000, 1_800_000_007):
            monkeypatch.setattr(run, "time", SimpleNamespace(time=lambda second=second: second + 0.9))
            answer = client.get(url, headers={"Connection": connection}, timeout=10)
            assert parsedate_to_datetime(answer.headers["date"]).timestamp() == second


def test_prometheus_reads_what_stats_shows(serving: Callable[..., Any]) -> None:
    server = serving()
    requests.post(f"{server.url}/stream/query", json={"query": "JSON"}, timeout=10)
    answer = requests.get(f"{server.url}/metrics", timeout=10)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "niru_documents 3.0" in answer.text.splitlines()
    assert 'niru_items_ended_total{how="delivered",lane="interactive",reason=""} 1.0' in answer.text.splitlines()


def test_a_hung_encoder_is_degraded_until_it_returns(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    release = threading.Event()

    class HangsOnce(HashEncoder):
        def encode(self, texts: Sequence[str], /) -> Vector:
            assert "hang" not in texts or release.wait(10)
            return super().encode(texts)

    server = serving(lambda: make_pipeline(encoder=HangsOnce(), streaming=StreamingConfig(hang_timeout=0.05)))
    assert requests.post(f"{server.url}/stream/query", json={"query": "hang"}, timeout=10).status_code == 503
    degraded = requests.get(f"{server.url}/readyz", timeout=10)
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert requests.post(f"{server.url}/stream/query", json={"query": "next"}, timeout=10).status_code == 200
    assert requests.get(f"{server.url}/readyz", timeout=10).json() == {"status": "ready"}
    release.set()


def test_a_failed_start_ends_the_server_with_its_cause(serving: Callable[..., Any]) -> None:
    def fails() -> Pipeline:
        raise StoreError("the store is gone: look")

    server = serving(fails, wait=False)
    assert server.opened.wait(10)
    server.stop()
    assert isinstance(server.failure, StoreError)


def test_stats_count_documents_and_answers(serving: Callable[..., Any]) -> None:
    server = serving()
    requests.post(f"{server.url}/stream/query", json={"query": "json"}, timeout=10)
    stats = server.stats()
    assert stats["documents"] == 3
    assert stats["answers"] == {"done": 1, "error": 0, "cancelled": 0}


def test_no_query_text_in_the_logs(serving: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = serving()
    requests.post(f"{server.url}/stream/query", json={"query": "hush hush"}, timeout=10)
    requests.get(f"{server.url}/stream/query", params={"query": "hush hush"}, timeout=10)
    server.stop()
    assert "hush" not in caplog.text


def test_the_documentation_is_whole_and_loads_nothing_from_elsewhere(serving: Callable[..., Any]) -> None:
    url = serving().url
    page = requests.get(f"{url}/docs", timeout=10)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "http:" not in page.text
    assert "https:" not in page.text
    document = requests.get(f"{url}/openapi.json", timeout=10).json()
    for path in document["paths"]:
        assert path in page.text
    assert 'id="queue_full"' in page.text


def test_the_description_is_true_to_the_server(serving: Callable[..., Any]) -> None:
    url = serving().url
    document = requests.get(f"{url}/openapi.json", timeout=10).json()
    post = document["paths"]["/stream/query"]["post"]
    assert list(post["responses"]["200"]["content"]) == ["text/event-stream"]
    assert {status for status in post["responses"] if status != "200"} >= {"400", "413", "422", "429", "503", "504"}
    for path, operations in document["paths"].items():
        kinds = ["application/json"] if path.startswith("/v1/") else []
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == [*kinds, "application/problem+json"]
    references = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert references <= set(document["components"]["schemas"])
    assert "query" in post["requestBody"]["content"]["application/json"]["schema"]["required"]


@pytest.mark.parametrize("clients", [32])
def test_many_clients_each_get_their_own_whole_answer(serving: Callable[..., Any], clients: int) -> None:
    server = serving()
    answers: dict[int, list[tuple[str, dict[str, Any]]]] = {}

    def one(number: int) -> None:
        body = {"query": "json module", "id": f"q{number}", "top_k": 2}
        answers[number] = frames(requests.post(f"{server.url}/stream/query", json=body, timeout=20).text)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(clients):
        assert [name for name, _ in answers[number]] == ["sources", "token", "token", "done"]
        assert answers[number][0][1]["query_id"] == f"q{number}"

"""Data in, over a real server: while it is still being sent, with what is wrong with it, and by id."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.config import StreamingConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.ndjson import LineCutter
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector

NDJSON = {"Content-Type": "application/x-ndjson"}


@given(st.lists(st.binary(max_size=8)), st.lists(st.integers(0, 30)), st.integers(1, 6))
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], cuts: list[int], most: int) -> None:
    body = b"\n".join(lines)
    expected = [
        (number, line.strip() if len(line) <= most else None)
        for number, line in enumerate(body.split(b"\n"), start=1)
        if line.strip() or len(line) > most
    ]
    cutter, found, at = LineCutter(most), [], 0
    for cut in cuts:
        found += cutter.feed(body[at : at + cut])
        at += cut
    found += cutter.feed(body[at:])
    assert [*found, *cutter.end()] == expected


CHUNKED_POST = (
    b"POST /stream/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def body_of(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def lines_of(answer: requests.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.integration
def test_lines_are_acknowledged_and_searchable(serving: Callable[..., Any]) -> None:
    url = serving().url
    body = body_of({"id": "a", "text": "zebras have stripes"}, "a plain text", {"id": "b", "text": "lions have manes"})
    answer = requests.post(f"{url}/stream/data", data=body, headers=NDJSON, timeout=10)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *acknowledged, summary = lines_of(answer)
    assert [line["line"] for line in acknowledged] == [1, 2, 3]
    assert [line["id"] for line in acknowledged][::2] == ["a", "b"]
    assert summary == {"line": 0, "done": True, "stored": 3, "failed": 0, "watermark": acknowledged[-1]["watermark"]}
    asked = {"query": "zebras", "top_k": 1, "min_watermark": summary["watermark"]}
    assert requests.post(f"{url}/query", json=asked, timeout=10).json()["hits"][0]["id"] == "a"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("body", "stored"),
    [(b'{"text": "one"}', 1), (b'[{"text": "one"}, "two"]', 2), (b"[]", 0), (b'"one"', 1)],
)
def test_a_document_or_an_array_is_taken_too(serving: Callable[..., Any], body: bytes, stored: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{serving().url}/stream/data", data=body, headers=headers, timeout=10)
    assert lines_of(answer)[-1]["stored"] == stored


@pytest.mark.integration
def test_bad_lines_are_reported_by_number_and_passed_over(serving: Callable[..., Any]) -> None:
    url = serving(max_line_bytes=200).url
    lines = [
        b'{"id": "good", "text": "zebras"}',
        b"not json",
        b"",
        b'{"id": "no-text"}',
        b'{"text": "' + b"x" * 300 + b'"}',
        b'{"id": "../../etc/passwd", "text": "only a name"}',
        b'{"id": "a\\u0000b", "text": "x"}',
        b'{"text": "x", "nonsense": 1}',
        b"17",
        b'{"id": "last", "text": "lions"}',
    ]
    answer = requests.post(f"{url}/stream/data", data=b"\n".join(lines), headers=NDJSON, timeout=10)
    found = {line["line"]: line.get("error", {}).get("code", line.get("id")) for line in lines_of(answer)[:-1]}
    assert found == {
        1: "good",
        2: "malformed_json",
        4: "invalid_text",
        5: "line_too_long",
        6: "../../etc/passwd",
        7: "invalid_id",
        8: "invalid_input",
        9: "invalid_input",
        10: "last",
    }
    assert lines_of(answer)[-1] | {"watermark": 0} == {
        "line": 0, "done": True, "stored": 3, "failed": 6, "watermark": 0,
    }  # fmt: skip


@pytest.mark.integration
def test_acknowledgements_come_while_lines_are_still_being_sent(serving: Callable[..., Any]) -> None:
    server = serving()
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(CHUNKED_POST)
        answer = http.client.HTTPResponse(client)
        for number in range(1, 4):
            line = body_of({"id": f"d{number}", "text": f"document {number}"})
            client.sendall(b"%x\r\n%b\r\n" % (len(line), line))
            if number == 1:
                answer.begin()
            acknowledged = json.loads(answer.readline())
            assert (acknowledged["line"], acknowledged["id"]) == (number, f"d{number}")
            assert requests.get(f"{server.url}/data/d{number}", timeout=10).json()["text"] == f"document {number}"
        client.sendall(b"0\r\n\r\n")
        assert json.loads(answer.readline())["stored"] == 3
        assert answer.readline() == b""


class Gated(HashEncoder):
    """Encodes documents only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        assert "document" not in texts[0] or self.go.wait(10)
        return super().encode(texts)


@pytest.mark.integration
def test_a_sender_is_slowed_to_the_speed_of_the_encoder(
    serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]
) -> None:
    encoder = Gated()
    streaming = StreamingConfig(batch_size=4, buffer_size=16)
    server = serving(lambda: make_pipeline(encoder=encoder, streaming=streaming))
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for number in range(400):
            sent += 1
            yield body_of({"id": str(number), "text": "document " + "x" * 20_000})
            if sent == 380:
                encoder.go.set()  # never reached while the encoder waits: 400 are far more than the sockets hold

    answers: list[requests.Response] = []
    sender = threading.Thread(
        target=lambda: answers.append(
            requests.post(f"{server.url}/stream/data", data=pieces(), headers=NDJSON, timeout=30)
        )
    )
    sender.start()
    last = -1
    while sent != last:
        last = sent
        sender.join(0.3)
    assert sent < 380
    encoder.go.set()
    sender.join(30)
    assert lines_of(answers[0])[-1]["stored"] == 400


@pytest.mark.integration
def test_what_was_acknowledged_is_kept_when_the_sender_leaves(serving: Callable[..., Any]) -> None:
    server = serving()
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(CHUNKED_POST)
        line = body_of({"id": "kept", "text": "zebras"})
        client.sendall(b"%x\r\n%b\r\n20\r\n{" % (len(line), line))
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert json.loads(answer.readline())["id"] == "kept"
        answer.close()
    assert requests.get(f"{server.url}/data/kept", timeout=10).ok
    deadline = time.monotonic() + 10
    while server.stats()["processor"]["open_streams"]:
        assert time.monotonic() < deadline


@pytest.mark.integration
def test_a_stream_of_data_ends_with_a_true_line_at_shutdown(serving: Callable[..., Any]) -> None:
    server = serving()
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(CHUNKED_POST)
        line = body_of({"id": "kept", "text": "zebras"})
        client.sendall(b"%x\r\n%b\r\n" % (len(line), line))
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert json.loads(answer.readline())["id"] == "kept"
        server.stop()
        last = json.loads(answer.readline())
        assert (last["line"], last["error"]["code"]) == (0, "shutting_down")
        answer.close()


@pytest.mark.integration
def test_a_document_is_read_and_removed_by_its_id(serving: Callable[..., Any]) -> None:
    url = serving().url
    assert requests.get(f"{url}/data/heap", timeout=10).json() == {
        "id": "heap",
        "text": "The heapq module is a priority queue. It works on lists.",
        "title": "heapq",
        "metadata": {"page": 3},
    }
    removed = requests.delete(f"{url}/data/heap", timeout=10).json()
    assert removed["id"] == "heap"
    for method in ("GET", "DELETE"):
        gone = requests.request(method, f"{url}/data/heap", timeout=10)
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    hits = requests.post(f"{url}/query", json={"query": "priority queue", "answer": False}, timeout=10).json()["hits"]
    assert "heap" not in [hit["id"] for hit in hits]


@pytest.mark.integration
def test_an_id_may_have_slashes_and_spaces(serving: Callable[..., Any]) -> None:
    url = serving().url
    requests.post(f"{url}/stream/data", data=body_of({"id": "a/b c?d", "text": "x y"}), headers=NDJSON, timeout=10)
    assert requests.get(f"{url}/data/a%2Fb%20c%3Fd", timeout=10).json()["text"] == "x y"
    assert requests.get(f"{url}/data/a/b%20c%3Fd", timeout=10).json()["text"] == "x y"

"""Both clients against a server that is scripted byte by byte."""

import asyncio
import base64
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Protocol

import numpy as np
import orjson
import pytest

from niruhybrid import AsyncClient, Client
from niruhybrid.client.events import AnswerEvent, Done, Dropped, Sources
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import (
    AccessDeniedError,
    ClosedError,
    DeadlineExceededError,
    InvalidSettingError,
    InvalidTextError,
    OverloadedError,
    QueueFullError,
    StoreFullError,
    StreamLostError,
    UnreachableError,
)
from niruhybrid.types import Document, Hit, Match, Token
from tests.client.wire import CUT, Handler, Received, Reply, ScriptedServer, frame, in_order, scripted_servers

pytestmark = pytest.mark.integration

QUICK = RetryPolicy(4, 0.001, 0.002, on=(ConnectionError, OverloadedError))
SSE = {"Content-Type": "text/event-stream"}


class Driver(Protocol):
    """Calls a method of one of the clients and collects what it yields or returns."""

    def __call__(self, url: str, method: str, *args: Any, **settings: Any) -> Any: ...


def drive_blocking(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **named: Any) -> Any:
    with Client(url, **{"retry": QUICK, **(client or {})}) as asking:
        result = getattr(asking, method)(*args, **named)
        return list(result) if isinstance(result, Iterator) else result


def drive_tasks(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **named: Any) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(20), AsyncClient(url, **{"retry": QUICK, **(client or {})}) as asking:
            result = getattr(asking, method)(*args, **named)
            return [each async for each in result] if isinstance(result, AsyncIterator) else await result

    return asyncio.run(main())


@pytest.fixture(params=[drive_blocking, drive_tasks], ids=["threads", "tasks"])
def drive(request: pytest.FixtureRequest) -> Driver:
    driver: Driver = request.param
    return driver


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], ScriptedServer]]:
    with scripted_servers() as start:
        yield start


Serve = Callable[[Handler], ScriptedServer]


HIT = {"id": "d1", "rank": 1, "score": 0.5, "text": "t", "title": "T", "metadata": {"a": 1}, "span": [0, 1]}
FRAMES = [
    frame(1, "sources", {"query_id": "q1", "hits": [HIT], "watermark": 3, "notes": ["n"]}),
    frame(2, "token", {"text": "Niru ", "source": "d1"}),
    frame(3, "token", {"text": "\u00e9."}),
    frame(4, "done", {"query_id": "q1", "finish_reason": "length", "timings": {"total": 0.1}, "notes": ["cut"]}),
]
CLEAN: list[AnswerEvent] = [
    Sources("q1", (Hit("d1", 1, 0.5, "t", "T", {"a": 1}, (0, 1)),), 3, ("n",)),
    Token("Niru ", "d1"),
    Token("\u00e9."),
    Done("q1", "length", {"total": 0.1}, ("cut",)),
]
WHOLE = Reply(FRAMES, headers=SSE)


def kept(request: Received) -> bytes:
    """Return what follows the last event the client has."""
    last = int(request.headers.get("last-event-id", "s:0").removeprefix("s:"))
    return b"".join(FRAMES[last:])


def test_an_answer_comes_as_typed_events(serve: Serve, drive: Driver) -> None:
    server = serve(in_order(WHOLE))
    assert drive(server.url, "stream", "Why?", top_k=3, client={"api_key": "k-1"}) == CLEAN
    [request] = server.requests
    asked = orjson.loads(request.body)
    assert (request.method, request.path) == ("POST", "/stream/query")
    assert request.headers["authorization"] == "Bearer k-1"
    assert request.headers["accept"] == "text/event-stream"
    assert (asked["query"], asked["top_k"]) == ("Why?", 3)
    assert set(asked) == {"query", "top_k", "id"}


@pytest.mark.parametrize("ends", [True, False], ids=["closed", "cut"])
def test_a_cut_after_any_byte_changes_nothing(serve: Serve, drive: Driver, ends: bool) -> None:
    body = b": keep-alive\n\n" + b"".join(FRAMES)
    cuts = list(range(0, len(body), 23))

    def reply(request: Received) -> Reply:
        if len(server.requests) % 2 == 0:
            return Reply((kept(request),), headers=SSE)
        return Reply((body[: cuts[len(server.requests) // 2]],), headers=SSE, ends=ends)

    server = serve(reply)
    for _ in cuts:
        assert drive(server.url, "stream", "Why?") == CLEAN
    for first, second in zip(server.requests[::2], server.requests[1::2], strict=True):
        assert first.body == second.body
        assert first.headers.get("last-event-id") is None


def test_a_connection_for_each_event_changes_nothing(serve: Serve, drive: Driver) -> None:
    def grudging(request: Received) -> Reply:
        return Reply((kept(request)[: len(FRAMES[0]) + 3],), headers=SSE, ends=False)

    server = serve(grudging)
    assert drive(server.url, "stream", "Why?") == CLEAN
    assert len(server.requests) > 1


def test_a_server_that_restarts_or_is_busy_is_tried_again(serve: Serve, drive: Driver) -> None:
    busy = Reply((b'{"code": "queue_full", "detail": "d", "retry_after": 0}',), 429, {"Retry-After": "0"})
    starting = Reply((b'{"code": "starting", "detail": "d"}',), 503)
    assert drive(serve(in_order(CUT, busy, starting, WHOLE)).url, "stream", "Why?") == CLEAN
    assert (
        drive(
            serve(in_order(Reply(FRAMES[:2], headers=SSE), CUT, starting, Reply(FRAMES[2:], headers=SSE))).url,
            "stream",
            "Why?",
        )
        == CLEAN
    )


def test_a_stale_stream_is_lost_with_its_partial_text(serve: Serve, drive: Driver) -> None:
    stale = Reply((frame(1, "stale", {"code": "stale", "detail": "d"}, "stale"),), headers=SSE)
    with pytest.raises(StreamLostError) as caught:
        drive(serve(in_order(Reply(FRAMES[:2], headers=SSE), stale, WHOLE)).url, "stream", "Why?")
    assert (caught.value.partial, caught.value.last_event_id) == ("Niru ", "s:2")


def test_a_server_that_is_not_there_is_unreachable(serve: Serve, drive: Driver) -> None:
    server = serve(in_order(CUT))
    with pytest.raises(UnreachableError):
        drive(server.url, "stream", "Why?")
    assert len(server.requests) == 4


def test_a_refusal_is_the_librarys_own_error(serve: Serve, drive: Driver) -> None:
    problem = b'{"code": "invalid_text", "detail": "query is empty: give some text", "status": 422}'
    server = serve(in_order(Reply((problem,), 422, {"Content-Type": "application/problem+json"})))
    with pytest.raises(InvalidTextError, match="query is empty: give some text"):
        drive(server.url, "stream", " ")
    with pytest.raises(AccessDeniedError):
        drive(serve(in_order(Reply((b'{"code": "unauthorized", "detail": "k"}',), 401))).url, "stats")
    with pytest.raises(InvalidSettingError, match="base_url"):
        drive("localhost:8000", "stats")


def test_a_password_in_the_url_is_sent_and_never_logged(
    serve: Serve, drive: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(in_order(Reply((b'{"documents": 3}',))))
    url = server.url.replace("://", "://user:s3cret@")
    with caplog.at_level(logging.DEBUG):
        assert drive(url, "stats", client={"api_key": "k-1"}) == {"documents": 3}
    [request] = server.requests
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"user:s3cret"
    assert request.headers["x-api-key"] == "k-1"
    assert "/stats" in caplog.text
    assert "s3cret" not in caplog.text


def test_silence_counts_as_a_cut(serve: Serve, drive: Driver) -> None:
    never = threading.Event()
    server = serve(in_order(Reply((*FRAMES[:2], never), headers=SSE), Reply(FRAMES[2:], headers=SSE)))
    assert drive(server.url, "stream", "Why?", client={"silence_timeout": 0.2}) == CLEAN
    never.set()


def test_an_answer_has_a_deadline(serve: Serve, drive: Driver) -> None:
    never = threading.Event()
    server = serve(in_order(Reply((FRAMES[0], never), headers=SSE)))
    with pytest.raises((DeadlineExceededError, StreamLostError)):
        drive(server.url, "stream", "Why?", client={"answer_timeout": 0.2})
    never.set()


def test_a_plain_query_and_counters(serve: Serve, drive: Driver) -> None:
    found = {"query_id": "q1", "hits": [HIT], "watermark": 3, "timings": {"total": 0.5}}
    server = serve(in_order(CUT, Reply((orjson.dumps(found),))))
    result = drive(server.url, "query", "Why?", filter={"eq": {"a": 1}})
    assert (result.id, result.text, result.hits[0].id, result.timings.total) == ("q1", "Why?", "d1", 0.5)
    assert orjson.loads(server.requests[-1].body) == {
        "query": "Why?",
        "filter": {"eq": {"a": 1}},
        "answer": False,
    }
    assert drive(serve(in_order(Reply((b'{"documents": 3}',)))).url, "stats") == {"documents": 3}
    assert drive(serve(in_order(Reply((b'{"status": "ready"}',)))).url, "health") == {"status": "ready"}
    with pytest.raises(UnreachableError, match="no server of this library"):
        drive(serve(in_order(Reply((b"<html>",)))).url, "stats")


def test_vectors_come_in_the_order_of_the_texts(serve: Serve, drive: Driver) -> None:
    rows = [np.array([1, 2], np.float32), np.array([3, 4], np.float32)]
    data = [{"index": number, "embedding": base64.b64encode(rows[number].tobytes()).decode()} for number in (1, 0)]
    got = drive(serve(in_order(Reply((orjson.dumps({"data": data}),)))).url, "embed", ["a", "b"])
    assert [row.tolist() for row in got] == [[1, 2], [3, 4]]


def test_a_standing_query_goes_on_where_it_was(serve: Serve, drive: Driver) -> None:
    frames = [
        frame(1, "subscribed", {"query_id": "w"}),
        frame(2, "match", {"query_id": "w", "hit": HIT, "watermark": 4}),
        frame(3, "dropped", {"count": 2}),
        frame(4, "match", {"query_id": "w", "hit": HIT, "watermark": 9}),
        frame(5, "error", {"code": "shutting_down", "detail": "d", "status": 503}),
    ]
    server = serve(in_order(Reply(frames[:2], headers=SSE, ends=False), Reply(frames[2:4], headers=SSE), CUT))
    got: list[Any] = []
    with Client(server.url, retry=QUICK) as client, pytest.raises(StreamLostError):
        got.extend(client.subscribe("news", min_score=0.5))
    assert orjson.loads(server.requests[0].body) == {"query": "news", "min_score": 0.5}
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "s:2", *["s:4"] * 3]
    whole = serve(in_order(Reply(frames, headers=SSE)))
    with pytest.raises(OverloadedError):
        drive(whole.url, "subscribe", "news", per_minute=5)
    hit = CLEAN[0].hits[0] if isinstance(CLEAN[0], Sources) else None
    assert hit is not None
    assert got == [Match("w", hit, 4), Dropped(2), Match("w", hit, 9)]


def acknowledged(request: Received, most: int = 1000) -> bytes:
    """Return an acknowledgement for each line, `most` at the most; a bad one for the text `bad`."""
    lines = request.body.splitlines()
    acks = [
        {"line": number, "id": orjson.loads(line).get("id", "made-up"), "watermark": number}
        for number, line in enumerate(lines, 1)
    ]
    for ack, line in zip(acks, lines, strict=True):
        if orjson.loads(line)["text"] == "bad":
            ack |= {"watermark": None, "error": {"code": "invalid_text", "detail": "bad text", "status": 422}}
            del ack["id"]
    summary = [{"line": 0, "done": True, "stored": len(acks), "failed": 0, "watermark": 9}] if most > len(acks) else []
    return b"".join(orjson.dumps(ack) + b"\n" for ack in [*acks[:most], *summary])


DOCUMENTS = [Document(f"d{number}", f"text {number}", metadata={"n": number}) for number in range(10)]


def test_documents_are_acknowledged_one_by_one(serve: Serve, drive: Driver) -> None:
    server = serve(lambda request: Reply((acknowledged(request),)))
    items: Iterable[object] = [*DOCUMENTS[:3], "text", {"id": "m", "text": "bad"}, 5, {"text": object()}]
    results = drive(server.url, "ingest", items, batch=2)
    assert sorted((each.id, each.ok) for each in results) == sorted(
        [("d0", True), ("d1", True), ("d2", True), ("made-up", True), ("m", False), ("", False), ("", False)]
    )
    assert {type(each.error) for each in results if each.id == "m"} == {InvalidTextError}
    assert all(len(request.body.splitlines()) <= 2 for request in server.requests)
    sent = orjson.loads(server.requests[0].body.splitlines()[0])
    assert sent == {"id": "d0", "text": "text 0", "title": "", "metadata": {"n": 0}}


@pytest.mark.parametrize("got_through", [0, 1, 3])
def test_what_was_not_acknowledged_is_sent_again(serve: Serve, drive: Driver, got_through: int) -> None:
    def reply(request: Received) -> Reply:
        if len(server.requests) > 1:
            return Reply((acknowledged(request),))
        return Reply((acknowledged(request, got_through), b'{"line": 4, "id'), ends=False)

    server = serve(reply)
    results = drive(server.url, "ingest", DOCUMENTS, batch=5)
    assert [each.id for each in results] == [document.id for document in DOCUMENTS]
    again = [orjson.loads(line)["id"] for line in server.requests[1].body.splitlines()]
    assert again[: 5 - got_through] == [document.id for document in DOCUMENTS[got_through:5]]


def test_what_the_server_ends_a_request_with_is_waited_out_or_raised(serve: Serve, drive: Driver) -> None:
    def ending(problem: bytes) -> Handler:
        def reply(request: Received) -> Reply:
            broken = acknowledged(request, 1) + b'{"line": 0, "error": ' + problem + b"}\n"
            return Reply((broken if len(server.requests) == 1 else acknowledged(request),))

        return reply

    server = serve(ending(b'{"code": "shutting_down", "detail": "d", "status": 503, "retry_after": 0}'))
    assert [each.ok for each in drive(server.url, "ingest", DOCUMENTS[:3])] == [True] * 3
    server = serve(ending(b'{"code": "store_full", "detail": "the disk is full", "status": 507}'))
    with pytest.raises(StoreFullError, match="the disk is full"):
        drive(server.url, "ingest", DOCUMENTS[:3])


def paced(parts: Iterable[bytes], seconds: float) -> tuple[bytes | threading.Event, ...]:
    """Return the parts of a reply with so many seconds before each."""
    waits: list[bytes | threading.Event] = []
    for number, part in enumerate(parts, 1):
        go = threading.Event()
        threading.Timer(seconds * number, go.set).start()
        waits += [go, part]
    return tuple(waits)


@pytest.mark.slow
def test_blank_lines_keep_a_batch_alive_however_long_it_takes(serve: Serve, drive: Driver) -> None:
    server = serve(lambda request: Reply(paced([b"\n"] * 12 + [acknowledged(request)], 0.1)))
    patience = {"silence_timeout": 1.0, "answer_timeout": 1.0}
    results = drive(server.url, "ingest", [{"id": "book", "text": "long"}], client=patience)
    assert [(each.id, each.ok) for each in results] == [("book", True)]
    assert len(server.requests) == 1


def refused(line: int, name: str, code: str = "queue_full") -> bytes:
    error = {"code": code, "detail": "d", "status": 429, "retry_after": 0}
    return orjson.dumps({"line": line, "id": name, "error": error}) + b"\n"


def kept_line(line: int, name: str, watermark: int) -> bytes:
    return orjson.dumps({"line": line, "id": name, "watermark": watermark}) + b"\n"


def test_what_fails_for_a_passing_reason_is_sent_again_and_nothing_else(serve: Serve, drive: Driver) -> None:
    first = (
        kept_line(1, "d0", 1) + refused(2, "d1") + refused(3, "d2", "encoder_hung") + refused(4, "d3", "invalid_text")
    )
    second = refused(1, "d1", "deadline_exceeded") + kept_line(2, "d2", 2)
    server = serve(in_order(Reply((first,)), Reply((second,)), Reply((kept_line(1, "d1", 3),))))
    results = drive(server.url, "ingest", DOCUMENTS[:4])
    assert sorted((each.id, each.watermark, each.ok) for each in results if each.ok) == [
        ("d0", 1, True), ("d1", 3, True), ("d2", 2, True),
    ]  # fmt: skip
    assert [(each.id, type(each.error)) for each in results if not each.ok] == [("d3", InvalidTextError)]
    sent = [[orjson.loads(line)["id"] for line in request.body.splitlines()] for request in server.requests]
    assert sent == [["d0", "d1", "d2", "d3"], ["d1", "d2"], ["d1"]]


def test_what_never_passes_is_reported_after_its_tries(serve: Serve, drive: Driver) -> None:
    def reply(request: Received) -> Reply:
        names = [orjson.loads(line)["id"] for line in request.body.splitlines()]
        return Reply(
            (b"".join(refused(n, name) if name == "d1" else kept_line(n, name, n) for n, name in enumerate(names, 1)),)
        )

    server = serve(reply)
    results = drive(server.url, "ingest", DOCUMENTS[:3])
    assert {each.id: each.ok for each in results} == {"d0": True, "d1": False, "d2": True}
    assert [type(each.error) for each in results if not each.ok] == [QueueFullError]
    assert len(server.requests) == QUICK.attempts
    timed = serve(lambda _request: Reply((refused(1, "t", "deadline_exceeded"),)))
    [result] = drive(timed.url, "ingest", [{"id": "t", "text": "text", "timeout": 0.5}])
    assert isinstance(result.error, DeadlineExceededError)
    assert len(timed.requests) == 1


def test_an_older_version_is_not_sent_again_after_a_newer_one_was_stored(serve: Serve, drive: Driver) -> None:
    answers = refused(1, "a") + kept_line(2, "b", 1) + kept_line(3, "a", 2)
    server = serve(in_order(Reply((answers,))))
    results = drive(server.url, "ingest", [{"id": name, "text": text} for name, text in ("a1", "b1", "a2")])
    assert [(each.id, each.watermark) for each in results] == [("b", 1), ("a", 2), ("a", 2)]
    assert len(server.requests) == 1


def test_a_large_document_is_sent_alone(serve: Serve, drive: Driver) -> None:
    server = serve(lambda request: Reply((acknowledged(request),)))
    sizes = {"small": 10, "large": 300_000, "also small": 10, "middle": 60_000}
    results = drive(server.url, "ingest", [{"id": name, "text": "x" * size} for name, size in sizes.items()])
    assert [each.id for each in results] == list(sizes)
    sent = [[orjson.loads(line)["id"] for line in request.body.splitlines()] for request in server.requests]
    assert sent == [["small"], ["large"], ["also small", "middle"]]


def test_the_source_is_read_no_further_ahead_than_a_batch(serve: Serve) -> None:
    server, read = serve(lambda request: Reply((acknowledged(request),))), list[int]()

    def source() -> Iterator[Document]:
        for number, document in enumerate(DOCUMENTS, 1):
            read.append(number)
            yield document

    with Client(server.url, retry=QUICK) as client:
        seen = [(each.id, len(read)) for each in client.ingest(source(), batch=2)]
    assert [ahead - 1 - number for number, (_, ahead) in enumerate(seen)] == [1, 0] * 5


def test_a_live_source_is_not_kept_waiting_for_a_full_batch(serve: Serve) -> None:
    server = serve(lambda request: Reply((acknowledged(request),)))

    async def main() -> None:
        go = asyncio.Event()

        async def live() -> AsyncIterator[str]:
            yield "first"
            await go.wait()
            yield "second"
            raise RuntimeError("the source broke")

        async with asyncio.timeout(10), AsyncClient(server.url) as client, aclosing(client.ingest(live())) as results:
            assert (await anext(results)).ok
            go.set()
            assert (await anext(results)).ok
            with pytest.raises(RuntimeError, match="the source broke"):
                await anext(results)

    asyncio.run(main())


def test_a_reader_that_leaves_early_ends_its_reading_of_the_source(serve: Serve) -> None:
    server = serve(lambda request: Reply((acknowledged(request),)))

    async def main() -> bool:
        closed = asyncio.Event()

        async def endless() -> AsyncIterator[str]:
            try:
                while True:
                    await asyncio.sleep(0)
                    yield "text"
            finally:
                closed.set()

        async with asyncio.timeout(10), AsyncClient(server.url) as client:
            async with aclosing(client.ingest(endless(), batch=3)) as results:
                assert (await anext(results)).ok
            await asyncio.sleep(0)
            await asyncio.get_running_loop().shutdown_asyncgens()
            return closed.is_set()

    assert asyncio.run(main())


def test_closing_an_answer_closes_its_connection(serve: Serve) -> None:
    go, left = threading.Event(), threading.Event()

    def handler(_request: Received) -> Reply:
        return Reply((FRAMES[0], go, *[b": " + b"x" * 60_000 + b"\n"] * 200), headers=SSE)

    server = serve(handler)
    server.when_left = left.set
    with Client(server.url, retry=QUICK) as client:
        events = client.stream("Why?")
        assert next(events) == CLEAN[0]
        events.close()
        go.set()
        assert left.wait(10)


def test_a_closed_client_says_so(serve: Serve) -> None:
    server = serve(in_order(CUT))
    client = Client(server.url)
    client.close()
    with pytest.raises(ClosedError):
        client.stats()


def test_closing_a_client_ends_its_waits(serve: Serve) -> None:
    asked = threading.Event()

    def busy(_request: Received) -> Reply:
        asked.set()
        return Reply((b'{"code": "queue_full", "detail": "d", "retry_after": 25}',), 429)

    client, caught = Client(serve(busy).url), list[BaseException]()

    def ask() -> None:
        try:
            client.stats()
        except ClosedError as err:
            caught.append(err)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    client.close()
    thread.join(10)
    assert not thread.is_alive()

"""The event stream as an ASGI response: no sockets, a fake `receive` and `send`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.config import ServerConfig
from niruhybrid.errors import DeadlineExceededError, EncoderFailedError, OverloadedError, QueueFullError
from niruhybrid.server.sse import EventStreamResponse
from niruhybrid.server.streams import Stream, Streams, render
from niruhybrid.types import StreamEvent

Events = AsyncGenerator[StreamEvent, None]

SOURCES = StreamEvent("sources", {"query_id": "q1", "hits": [], "watermark": 0})
DONE = StreamEvent("done", {"query_id": "q1", "finish_reason": "stop", "timings": {}})


class Client:
    """The other end: keeps what is sent, leaves when told to, takes nothing while `blocked`."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.told = asyncio.Event()  # that it has left
        self.sending = asyncio.Event()
        self.blocked: asyncio.Event | None = None
        self.got = asyncio.Condition()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        self.told.set()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sending.set()
        if self.blocked is not None:
            await self.blocked.wait()
        self.messages.append(message)
        async with self.got:
            self.got.notify_all()

    async def until(self, fragment: bytes) -> None:
        async with self.got:
            await self.got.wait_for(lambda: fragment in self.body)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def complete(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", True)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [parsed(frame) for frame in self.body.split(b"\n\n") if frame and not frame.startswith(b":")]


def parsed(frame: bytes) -> tuple[str, dict[str, Any]]:
    fields = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
    assert set(fields) == {b"id", b"event", b"data"}
    return fields[b"event"].decode(), orjson.loads(fields[b"data"])


class Serving:
    """One stream and its place, with the readers that a test lets in."""

    def __init__(self, events: Events, *, stream_id: str = "s", **settings: Any) -> None:
        defaults: dict[str, Any] = {"keep_alive": 60.0, "send_timeout": 60.0, "grace": 0.0}
        self.config = ServerConfig(**defaults | settings)
        self.streams = Streams(self.config)
        self.stream: Stream = self.streams.start(events, "me", stream_id)

    async def to(self, client: "Client", after: int = 0) -> None:
        response = EventStreamResponse(self.stream, self.streams, send_timeout=self.config.send_timeout, after=after)
        await response({"type": "http"}, client.receive, client.send)


def run(scenario: Callable[[Client], Awaitable[None]]) -> Client:
    async def main() -> Client:
        client = Client()
        async with asyncio.timeout(5):
            await scenario(client)
        return client

    return asyncio.run(main())


def served(events: Events, **settings: Any) -> Client:
    return run(lambda client: Serving(events, **settings).to(client))


async def given_events(*events: StreamEvent | Exception) -> Events:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


def token(text: str) -> StreamEvent:
    return StreamEvent("token", {"text": text})


@given(st.text(), st.text())
def test_no_text_can_forge_a_field(text: str, key: str) -> None:
    try:
        frame = render("s", 7, "token", {"text": text, key or "k": "\r\ndata: {}\n\nevent: done"})
    except TypeError:  # an unpaired surrogate
        return
    assert frame.endswith(b"\n\n")
    lines = frame[:-2].splitlines()
    assert [line.split(b":")[0] for line in lines] == [b"id", b"event", b"data"]
    assert orjson.loads(lines[2][6:])["text"] == text or key == "text"


def test_events_are_numbered_from_one_and_all_sent() -> None:
    client = served(given_events(SOURCES, token("a"), token("b"), DONE))
    assert client.status == 200
    assert client.body.startswith(b"id: s:1\nevent: sources\n")
    assert b"id: s:4\nevent: done\n" in client.body
    assert [name for name, _ in client.events()] == ["sources", "token", "token", "done"]
    assert client.complete


def test_headers_keep_caches_and_proxies_from_holding_events_back() -> None:
    headers = served(given_events(SOURCES, DONE)).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-length" not in headers


def test_an_error_before_the_first_event_has_its_own_status() -> None:
    client = served(given_events(QueueFullError("10 of 10 wait: retry later", retry_after=2.1)))
    assert client.status == 429
    assert client.headers["content-type"] == "application/problem+json"
    assert client.headers["retry-after"] == "3"
    assert orjson.loads(client.body)["code"] == "queue_full"


def test_a_first_event_that_is_not_json_is_an_error_of_the_server() -> None:
    assert served(given_events(StreamEvent("sources", {"hits": object()}), DONE)).status == 500


@pytest.mark.parametrize("raised", [ValueError("secret"), EncoderFailedError("secret: look"), token("\ud800")])
def test_no_event_is_lost_when_the_generator_raises_right_after_it(raised: Exception | StreamEvent) -> None:
    client = served(given_events(SOURCES, token("a"), token("b"), raised, DONE))
    assert [name for name, _ in client.events()] == ["sources", "token", "token", "error"]
    problem = client.events()[-1][1]
    assert problem["status"] == 500
    assert problem["partial"] is True
    assert problem["query_id"] == "q1"
    assert b"secret" not in client.body
    assert client.complete


def test_partial_is_false_when_no_part_of_the_answer_was_given() -> None:
    client = served(given_events(SOURCES, DeadlineExceededError("5 s have passed: raise `timeout`")))
    assert client.events()[-1][1]["partial"] is False
    assert client.events()[-1][1]["code"] == "deadline_exceeded"


def test_an_answer_that_just_stops_ends_with_an_error() -> None:
    client = served(given_events(SOURCES, token("a")))
    assert [name for name, _ in client.events()] == ["sources", "token", "error"]


def test_an_answer_that_is_cancelled_inside_ends_with_an_error() -> None:
    async def events() -> Events:
        yield SOURCES
        raise asyncio.CancelledError

    assert [name for name, _ in served(events()).events()] == ["sources", "error"]


def test_nothing_follows_the_terminal_event_nor_is_asked_for() -> None:
    asked_for_more = asyncio.Event()

    async def events() -> Events:
        yield SOURCES
        yield DONE
        asked_for_more.set()
        yield DONE

    client = served(events())
    assert [name for name, _ in client.events()] == ["sources", "done"]
    assert not asked_for_more.is_set()


def test_a_client_that_leaves_while_it_is_sent_to_is_not_waited_for() -> None:
    go, closed = asyncio.Event(), asyncio.Event()

    async def events() -> Events:
        try:
            yield SOURCES
            await go.wait()
            yield token("a")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def scenario(client: Client) -> None:
        serving = asyncio.ensure_future(Serving(events()).to(client))
        await client.until(b"event: sources")
        client.blocked = asyncio.Event()
        client.sending.clear()
        go.set()
        await client.sending.wait()
        client.left.set()
        await client.told.wait()
        client.blocked.set()
        await serving
        assert await asyncio.wait_for(closed.wait(), 1)

    run(scenario)


def test_the_error_event_of_a_pipeline_becomes_a_problem_without_internals() -> None:
    error = {"query_id": "q1", "code": "generation_failed", "detail": "at /secret", "partial": True}
    client = served(given_events(SOURCES, StreamEvent("error", error)))
    problem = client.events()[-1][1]
    assert problem["status"] == 502
    assert problem["type"] == "/docs#generation_failed"
    assert problem["partial"] is True
    assert b"secret" not in client.body


def test_sources_leave_before_the_answer_is_ready() -> None:
    go = asyncio.Event()

    async def events() -> Events:
        yield SOURCES
        await go.wait()
        yield DONE

    async def scenario(client: Client) -> None:
        serving = asyncio.ensure_future(Serving(events()).to(client))
        await client.until(b"event: sources")
        assert b"done" not in client.body
        go.set()
        await serving

    run(scenario)


def test_silence_is_filled_with_comments() -> None:
    go = asyncio.Event()

    async def events() -> Events:
        yield SOURCES
        await go.wait()
        yield DONE

    async def scenario(client: Client) -> None:
        serving = asyncio.ensure_future(Serving(events(), keep_alive=0.01).to(client))
        await client.until(b": keep-alive\n\n: keep-alive\n\n")
        go.set()
        await serving

    assert [name for name, _ in run(scenario).events()] == ["sources", "done"]


@pytest.mark.parametrize("yielded", [0, 1, 2])
def test_a_client_that_leaves_closes_the_answer_at_once(yielded: int) -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    async def events() -> Events:
        try:
            for event in (SOURCES, token("a"))[:yielded]:
                yield event
            reached.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def scenario(client: Client) -> None:
        place = Serving(events())
        serving = asyncio.ensure_future(place.to(client))
        await reached.wait()
        assert place.streams.open == 1
        client.left.set()
        await serving
        await asyncio.wait_for(closed.wait(), 1)
        assert (place.streams.open, place.streams.kept) == (0, 0)

    run(scenario)


def test_a_reader_that_stalls_is_given_up_and_never_seen_as_complete() -> None:
    closed = asyncio.Event()
    made = 0

    async def events() -> Events:
        nonlocal made
        try:
            yield SOURCES
            while True:
                made += 1
                yield token("x" * 1000)
        finally:
            closed.set()

    async def scenario(client: Client) -> None:
        serving = asyncio.ensure_future(Serving(events(), send_timeout=0.05).to(client))
        await client.until(b"event: sources")
        client.blocked = asyncio.Event()
        await serving
        await asyncio.wait_for(closed.wait(), 1)

    client = run(scenario)
    assert not client.complete
    assert made < 1000  # the answer waited for the reader


def test_a_slow_reader_gets_everything_while_little_waits_in_memory() -> None:
    async def events() -> Events:
        yield SOURCES
        for number in range(500):
            yield token(f"{number:01000d}")
        yield DONE

    assert len(served(events()).events()) == 502


def test_a_stopped_stream_ends_with_the_reason() -> None:
    closed = asyncio.Event()

    async def events() -> Events:
        try:
            yield SOURCES
            yield token("a")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def scenario(client: Client) -> None:
        place = Serving(events())
        serving = asyncio.ensure_future(place.to(client))
        await client.until(b"event: token")
        place.streams.end_all(QueueFullError("full: retry later"))
        place.streams.end_all(QueueFullError("again: retry later"))
        await serving
        await place.streams.aclose()
        assert closed.is_set()

    assert [name for name, _ in run(scenario).events()] == ["sources", "token", "error"]


def test_a_stream_stopped_before_its_first_event_is_refused() -> None:
    started = asyncio.Event()

    async def events() -> Events:
        started.set()
        await asyncio.Event().wait()
        yield SOURCES

    async def scenario(client: Client) -> None:
        place = Serving(events())
        serving = asyncio.ensure_future(place.to(client))
        await started.wait()
        place.streams.end_all(QueueFullError("full: retry later"))
        await serving
        await place.streams.aclose()

    assert run(scenario).status == 429


@given(st.integers(0, 6), st.sampled_from(["done", "stop", "raise"]))
def test_every_stream_has_its_sources_first_and_one_end(tokens: int, ending: str) -> None:
    endings: dict[str, tuple[StreamEvent | Exception, ...]] = {"done": (DONE,), "stop": (), "raise": (OSError(),)}
    names = [name for name, _ in served(given_events(SOURCES, *[token("t")] * tokens, *endings[ending])).events()]
    assert names == ["sources", *["token"] * tokens, "done" if ending == "done" else "error"]


def test_a_reader_that_a_faster_one_left_behind_is_told() -> None:
    go = asyncio.Event()

    async def events() -> Events:
        yield SOURCES
        await go.wait()
        for number in range(100):
            yield token(str(number))
        yield DONE

    async def scenario(client: Client) -> None:
        fast = Client()
        place = Serving(events(), log_events=16)
        slow = asyncio.ensure_future(place.to(client))
        await client.until(b"event: sources")
        client.blocked = asyncio.Event()
        reading = asyncio.ensure_future(place.to(fast))
        go.set()
        await reading
        assert len(fast.events()) == 102
        client.blocked.set()
        await slow

    names = [name for name, _ in run(scenario).events()]
    assert (names[0], names[-1]) == ("sources", "stale")
    assert "done" not in names


def test_streams_are_bounded_by_those_that_are_read_or_may_be() -> None:
    async def endless() -> Events:
        yield SOURCES
        await asyncio.Event().wait()

    async def scenario(client: Client) -> None:
        place = Serving(endless(), max_streams=1, grace=30.0)
        serving = asyncio.ensure_future(place.to(client))
        await client.until(b"event: sources")
        with pytest.raises(OverloadedError):
            place.streams.start(given_events(SOURCES, DONE), "me")
        client.left.set()
        await serving
        with pytest.raises(OverloadedError):
            place.streams.start(given_events(SOURCES, DONE), "me")
        await place.streams.aclose()
        place.streams.start(given_events(SOURCES, DONE), "me")
        await place.streams.aclose()

    assert [name for name, _ in run(scenario).events()] == ["sources"]

"""Answers through an OpenAI-compatible endpoint: a real server on loopback that speaks the protocol, and breaks it."""

import asyncio
import base64
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

import orjson
import pytest

from niruhybrid.config import GenerationConfig, RetryPolicy
from niruhybrid.errors import GenerationError, InvalidSettingError
from niruhybrid.generation.extractive import NO_ANSWER
from niruhybrid.generation.openai import OpenAIGenerator
from niruhybrid.pipeline import Pipeline
from niruhybrid.settings import load_settings
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Finish, Hit, Query, Token
from tests.client.wire import CUT, Handler, Reply, ScriptedServer, in_order, scripted_servers

pytest.importorskip("openai", reason="needs the extra `openai`")
pytestmark = pytest.mark.integration

QUERY = Query("q1", "Which module reads JSON?")
HITS = (Hit("json", 1, 0.9, "The json module reads JSON.", "json"), Hit("csv", 2, 0.5, "The csv module reads tables."))
SSE = {"Content-Type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(body | more) + b"\n\n"


def answer(*parts: bytes | threading.Event, ends: bool = True) -> Reply:
    return Reply(parts, headers=SSE, ends=ends)


GOOD = answer(chunk(""), chunk("It is json"), chunk(" [1"), chunk("]."), chunk(finish="stop"), DONE)
GOOD_TOKENS = [Token("It is json"), Token(" "), Token("[1]", "json"), Token("."), Finish()]


@pytest.fixture
def endpoint() -> Iterator[Callable[[Handler], ScriptedServer]]:
    with scripted_servers() as start:
        yield start


Start = Callable[[Handler], ScriptedServer]


def config(server: ScriptedServer, **settings: Any) -> GenerationConfig:
    defaults: dict[str, Any] = {"first_token_timeout": 5.0, "retry": RetryPolicy(3, 0.001, 0.002)}
    return GenerationConfig(base_url=f"{server.url}/v1", model="m", **defaults | settings)


async def collected(tokens: AsyncGenerator[Token | Finish, None], into: list[Token | Finish]) -> None:
    async for token in tokens:
        into.append(token)  # noqa: PERF401  # what came before an error is kept


def run(task: Callable[[OpenAIGenerator], Coroutine[Any, Any, None]], settings: GenerationConfig, **key: Any) -> None:
    async def main() -> None:
        generator = OpenAIGenerator(settings, **key)
        try:
            async with asyncio.timeout(15):
                await task(generator)
        finally:
            await generator.aclose()

    asyncio.run(main())


def tokens(settings: GenerationConfig, **key: Any) -> list[Token | Finish]:
    got: list[Token | Finish] = []
    run(lambda generator: collected(generator.generate(QUERY, HITS), got), settings, **key)
    return got


def broken(settings: GenerationConfig, match: str) -> list[Token | Finish]:
    """Return what came before the error."""
    got: list[Token | Finish] = []
    with pytest.raises(GenerationError, match=match):
        run(lambda generator: collected(generator.generate(QUERY, HITS), got), settings)
    return got


def test_an_answer_comes_in_pieces_with_its_citations(endpoint: Start) -> None:
    server = endpoint(in_order(GOOD))
    assert tokens(config(server), api_key="sesame") == GOOD_TOKENS
    [request] = server.requests
    asked = orjson.loads(request.body)
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sesame"
    assert (asked["model"], asked["stream"], asked["max_tokens"]) == ("m", True, 1024)
    assert "Which module reads JSON?" in asked["messages"][-1]["content"]
    assert '<source number="2">' in asked["messages"][-1]["content"]


def test_no_key_and_nothing_from_the_environment_is_sent(endpoint: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    server = endpoint(in_order(GOOD))
    assert tokens(config(server)) == GOOD_TOKENS
    assert "secret" not in str(server.requests[0].headers)
    assert "authorization" not in server.requests[0].headers


def test_without_hits_the_model_is_not_asked(endpoint: Start) -> None:
    server, got = endpoint(in_order(GOOD)), list[Token | Finish]()
    run(lambda generator: collected(generator.generate(QUERY, ()), got), config(server))
    assert got == [Token(NO_ANSWER)]
    assert server.requests == []


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_why_an_answer_ends_is_said(endpoint: Start, reason: str) -> None:
    got = tokens(config(endpoint(in_order(answer(chunk("It"), chunk(finish=reason), DONE)))))
    assert got == [Token("It"), Finish(reason)]  # type: ignore[arg-type]  # one of them


def test_text_and_finish_may_share_a_chunk_and_the_end_mark_may_be_missing(endpoint: Start) -> None:
    assert tokens(config(endpoint(in_order(answer(chunk("It.", "stop")))))) == [Token("It."), Finish()]


def test_what_was_left_out_and_what_cites_nothing_is_noted(endpoint: Start) -> None:
    server = endpoint(in_order(answer(chunk("See [2]."), chunk(finish="stop"), DONE)))
    got = tokens(config(server, context_tokens=30))
    assert got[:-1] == [Token("See [2].")]
    assert got[-1] == Finish(
        "stop",
        ("1 of 2 sources were left out to fit `context_tokens`", "the answer cites [2]; there are 1 sources"),
    )


BUSY = Reply((b'{"error": {"message": "slow down"}}',), 429, {"Content-Type": "application/json", "Retry-After": "0"})
FAILED = Reply((b"oh",), 500)


@pytest.mark.parametrize(
    "first",
    [
        CUT,
        BUSY,
        FAILED,
        answer(ends=False),
        answer(chunk(""), ends=False),
        answer(b'data: {"cho', ends=False),
        answer(chunk("")),
        answer(b"data: {not json}\n\n"),
        answer(b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'),
    ],
    ids=["refused", "429", "500", "no chunk", "no text", "half a chunk", "quiet end", "not json", "error in stream"],
)
def test_what_fails_before_the_first_text_is_tried_again_whole(endpoint: Start, first: Reply) -> None:
    server = endpoint(in_order(first, GOOD))
    assert tokens(config(server)) == GOOD_TOKENS
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (answer(chunk("It is"), chunk(" [1"), ends=False), "APIConnectionError"),
        (answer(chunk("It is"), chunk(" [1"), b'data: {"choi', ends=False), "APIConnectionError"),
        (answer(chunk("It is"), chunk(" [1")), "EndedEarly"),
        (answer(chunk("It is"), chunk(" [1"), DONE), "EndedEarly"),
        (answer(chunk("It is"), chunk(" [1"), b'data: {"error": {"message": "x", "code": 500}}\n\n'), "status 500"),
        (answer(chunk("It is"), chunk(" [1"), b"data: {]\n\n"), "JSONDecodeError"),
        (answer(chunk("It is"), chunk(" [1"), chunk(finish="tool_calls"), DONE), "tool_calls"),
    ],
    ids=["cut", "cut in a chunk", "quiet end", "end mark only", "error", "not json", "no answer"],
)
def test_what_breaks_after_the_first_text_is_an_error_and_never_tried_again(
    endpoint: Start, then: Reply, told: str
) -> None:
    server = endpoint(in_order(then, GOOD))
    got = broken(config(server), told)
    assert "".join(token.text for token in got if isinstance(token, Token)) == "It is [1"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_will_not_pass_is_not_tried_again(endpoint: Start, status: int) -> None:
    server = endpoint(in_order(Reply((b'{"error": {"message": "no"}}',), status), GOOD))
    assert broken(config(server), f"status {status}") == []
    assert len(server.requests) == 1


def test_tries_are_counted(endpoint: Start) -> None:
    server = endpoint(in_order(FAILED))
    assert broken(config(server), "status 500") == []
    assert len(server.requests) == 3


def test_no_try_waits_longer_than_there_is_time(endpoint: Start) -> None:
    server, began = endpoint(in_order(Reply((), 429, {"Retry-After": "60"}), GOOD)), time.monotonic()
    assert broken(config(server, first_token_timeout=10.0), "status 429") == []
    assert time.monotonic() - began < 5
    assert len(server.requests) == 1


def test_an_empty_answer_is_an_error(endpoint: Start) -> None:
    assert broken(config(endpoint(in_order(answer(chunk(finish="stop"), DONE)))), "empty answer") == []


def test_the_first_text_has_a_deadline(endpoint: Start) -> None:
    never = threading.Event()
    server = endpoint(in_order(answer(chunk(""), never)))
    assert broken(config(server, first_token_timeout=0.1), "first_token_timeout") == []
    never.set()


def test_each_further_piece_has_a_deadline(endpoint: Start) -> None:
    never = threading.Event()
    server = endpoint(in_order(answer(chunk("It"), never)))
    assert broken(config(server, token_timeout=0.1), "token_timeout") == [Token("It")]
    never.set()


def test_closing_the_answer_closes_the_connection(endpoint: Start) -> None:
    go = threading.Event()
    server = endpoint(in_order(answer(chunk("It"), go, *[chunk("x" * 60_000)] * 200)))

    async def leave(generator: OpenAIGenerator) -> None:
        answering = generator.generate(QUERY, HITS)
        assert await anext(answering) == Token("It")
        await answering.aclose()
        go.set()

    run(leave, config(server))
    assert len(server.requests) == 1


def test_settings_choose_the_generator_and_a_break_is_told_as_partial(endpoint: Start) -> None:
    server = endpoint(in_order(answer(chunk("It is"), ends=False)))
    settings = load_settings(environ={"NIRU_GENERATION_BASE_URL": f"{server.url}/v1", "NIRU_GENERATION_MODEL": "m"})

    async def main() -> None:
        async with await Pipeline.open(settings, encoder=HashEncoder()) as pipeline:
            assert [each.ok async for each in pipeline.ingest(["The json module reads JSON."])] == [True]
            events = [event async for event in pipeline.stream(QUERY)]
        assert [event.event for event in events] == ["sources", "token", "error"]
        assert events[-1].data["partial"] is True
        assert events[-1].data["code"] == "generation_failed"

    asyncio.run(main())


def test_done_says_why_it_ended(endpoint: Start) -> None:
    server = endpoint(in_order(answer(chunk("It is [3]"), chunk(finish="length"), DONE)))

    async def main() -> None:
        pipeline = await Pipeline.open(encoder=HashEncoder(), generator=OpenAIGenerator(config(server)))
        async with pipeline:
            assert [each.ok async for each in pipeline.ingest(["The json module reads JSON."])] == [True]
            *_, done = [event async for event in pipeline.stream(QUERY)]
        assert done.event == "done"
        assert done.data["finish_reason"] == "length"
        assert done.data["notes"] == ["the answer cites [3]; there are 1 sources"]

    asyncio.run(main())


def test_a_password_in_the_url_is_sent_and_never_logged(endpoint: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = endpoint(in_order(GOOD))
    url = server.url.replace("://", "://user:s3cret@") + "/v1"
    with caplog.at_level(logging.DEBUG):
        assert tokens(GenerationConfig(base_url=url, model="m")) == GOOD_TOKENS
    [request] = server.requests
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"user:s3cret"
    assert "/v1/chat/completions" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_key_that_is_not_set_is_refused_at_the_start() -> None:
    settings = load_settings(
        environ={},
        arguments={"generation.base_url": "http://h/v1", "generation.model": "m", "generation.api_key_env": "NO_KEY"},
    )
    with pytest.raises(InvalidSettingError, match="NO_KEY"):
        asyncio.run(Pipeline.open(settings, encoder=HashEncoder()))

"""OpenAI's paths, through the official client and by hand, against a real server."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest

from niruhybrid.errors import GenerationError, QueueFullError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.openai_shapes import error_of
from niruhybrid.server.problems import details
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Finish, Hit, Query, Token

openai = pytest.importorskip("openai", reason="needs the package openai")
pytestmark = pytest.mark.integration

QUESTION: Any = [{"role": "user", "content": "Which module is a priority queue?"}]


class Cited:
    """An answer that cites the first hit, ends for a reason, or breaks off after its first piece."""

    def __init__(self, *, reason: Any = "stop", breaks: Exception | None = None) -> None:
        self._reason = reason
        self._breaks = breaks

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token | Finish]:  # noqa: ARG002  # the port
        yield Token("It is heapq ")
        if self._breaks is not None:
            raise self._breaks
        yield Token("[1]", hits[0].id)
        yield Token(".")
        yield Finish(self._reason, ("2 of 3 sources were left out",) if self._reason == "length" else ())


@pytest.fixture
def serve(serving: Callable[..., Any], make_pipeline: Callable[..., Pipeline]) -> Callable[..., Any]:
    def start(*, settings: dict[str, Any] | None = None, **parts: Any) -> Any:
        return serving(lambda: make_pipeline(**parts), **(settings or {}))

    return start


Connect = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make official clients, and close them at the end."""
    clients: list[Any] = []

    def start(server: Any, **settings: Any) -> Any:
        defaults = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 10}
        clients.append(openai.OpenAI(**defaults | settings))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def client(serve: Callable[..., Any], connect: Connect) -> Any:
    return connect(serve(generator=Cited()))


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["niruhybrid", "niruhybrid-embedding"]
    assert client.models.retrieve("niruhybrid").owned_by == "niruhybrid"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.body["message"] == "there is no such model: see /v1/models"


def test_embeddings_are_those_of_the_encoder(client: Any) -> None:
    texts = ["The json module", "a priority queue"]
    wanted = HashEncoder().encode(texts)
    for settings in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"dimensions": 64}):
        answer = client.embeddings.create(model="text-embedding-3-small", input=texts, **settings)
        rows = [
            np.frombuffer(base64.b64decode(row.embedding), "<f4") if isinstance(row.embedding, str) else row.embedding
            for row in answer.data
        ]
        np.testing.assert_allclose(rows, wanted, atol=1e-6)
        assert [row.index for row in answer.data] == [0, 1]
        assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("niruhybrid-embedding", 6, 6)
    one = client.embeddings.create(model="m", input=texts[0])
    np.testing.assert_allclose([one.data[0].embedding], wanted[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"input": ""}, None),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", " "]}, None),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_can_not_be_encoded_is_refused_clearly(client: Any, arguments: dict[str, Any], param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="m", **arguments)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code.startswith("invalid_")


def test_an_answer_comes_whole_with_sources_and_citations(client: Any) -> None:
    answer = client.chat.completions.create(
        model="gpt-9",
        messages=[{"role": "system", "content": "Be rude."}, *QUESTION],
        temperature=0.5,
        user="u",
        extra_body={"top_k": 2},
    )
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "It is heapq [1].")
    assert (choice.finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "niruhybrid")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens == 6 + 4
    assert len(answer.sources) == 2
    assert answer.sources[0]["id"] == "heap"
    assert answer.citations == [{"start": 12, "end": 15, "source": "heap"}]
    assert answer.notes == ["`temperature` has no effect here", "only the last user message was read"]


def test_the_last_user_message_is_the_question_and_may_come_in_parts(client: Any) -> None:
    parts = [{"type": "text", "text": "Which module reads"}, {"type": "text", "text": "tables?"}]
    messages = [*QUESTION, {"role": "assistant", "content": "heapq"}, {"role": "user", "content": parts}]
    answer = client.chat.completions.create(model="m", messages=messages, extra_body={"top_k": 1})
    assert [source["id"] for source in answer.sources] == ["csv"]


def test_an_answer_comes_in_chunks(client: Any) -> None:
    stream = client.chat.completions.create(
        model="m", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks[:-2]] == ["", "It is heapq ", "[1]", "."]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].sources[0]["id"] == "heap"
    assert chunks[2].citations == [{"start": 12, "end": 15, "source": "heap"}]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, None, "stop"]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 4)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_whole_stream_ends_with_its_mark(serve: Callable[..., Any]) -> None:
    answer = httpx2.post(
        f"{serve(generator=Cited()).url}/v1/chat/completions", json={"messages": QUESTION, "stream": True}
    )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.endswith("}\n\ndata: [DONE]\n\n")
    assert answer.text.count("[DONE]") == 1


def test_the_async_client_works_too(serve: Callable[..., Any]) -> None:
    server = serve(generator=Cited())

    async def main() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(main()) == "It is heapq [1]."


def test_why_an_answer_ends_is_passed_on(serve: Callable[..., Any], connect: Connect) -> None:
    client = connect(serve(generator=Cited(reason="length")))
    answer = client.chat.completions.create(model="m", messages=QUESTION)
    assert (answer.choices[0].finish_reason, answer.notes) == ("length", ["2 of 3 sources were left out"])
    *_, last = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    assert (last.choices[0].finish_reason, last.notes) == ("length", ["2 of 3 sources were left out"])


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": QUESTION, "n": 2}, "n"),
        ({"messages": QUESTION, "tool_choice": "required", "tools": []}, "tool_choice"),
        ({"messages": QUESTION, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": QUESTION, "extra_body": {"filter": {"like": 1}}}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_answered_is_refused_clearly(
    client: Any, arguments: dict[str, Any], param: str | None, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", stream=stream, **arguments)
    assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_starting_says_when_to_come_back(
    serving: Callable[..., Any], opening: Any, connect: Connect, stream: bool
) -> None:
    client = connect(serving(opening, wait=False))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="m", messages=QUESTION, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (503, "starting")
    assert caught.value.response.headers["retry-after"] == "1"


def test_an_overload_is_a_rate_limit() -> None:
    status, body = error_of(details(QueueFullError("10 of 10 wait: retry later")))
    assert status == 429
    assert body["error"]["type"] == "rate_limit_error"
    assert body["error"]["code"] == "queue_full"


def test_a_question_has_its_bound(serve: Callable[..., Any], connect: Connect) -> None:
    client = connect(serve(settings={"max_query_chars": 40}))
    with pytest.raises(openai.BadRequestError, match="41 characters of 40"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 41}])


@pytest.mark.parametrize("error", [GenerationError("secret: x"), ValueError("secret")])
def test_an_answer_that_breaks_off_never_looks_complete(
    serve: Callable[..., Any], connect: Connect, error: Exception
) -> None:
    server = serve(generator=Cited(breaks=error))
    client = connect(server)
    stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "It is heapq "]
    with pytest.raises(openai.APIError, match="broke off") as caught:
        next(stream)
    assert caught.value.code == "generation_failed"
    with pytest.raises(openai.InternalServerError) as whole:
        client.chat.completions.create(model="m", messages=QUESTION)
    assert whole.value.status_code == 502
    body = {"messages": QUESTION, "stream": True}
    raw = httpx2.post(f"{server.url}/v1/chat/completions", json=body).text
    assert "[DONE]" not in raw
    assert "secret" not in raw
    assert orjson.loads(raw.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b" " * 2000, {"Content-Type": "application/json"}, 413),
    ],
)
@pytest.mark.parametrize("path", ["embeddings", "chat/completions"])
def test_a_body_that_can_not_be_read_is_refused_in_their_shape(
    serve: Callable[..., Any], path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = httpx2.post(f"{serve(settings={'max_body_bytes': 1000}).url}/v1/{path}", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_client_that_leaves_stops_the_answer(serve: Callable[..., Any], connect: Connect, hanging: Any) -> None:
    client = connect(serve(generator=hanging, settings={"keep_alive": 0.01}))
    stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    assert next(stream).choices[0].delta.role == "assistant"
    assert next(stream).choices[0].delta.content == "so far "
    assert hanging.waiting.wait(5)
    stream.close()
    assert hanging.closed.wait(5)


def test_a_client_that_leaves_before_a_whole_answer_stops_it(
    serve: Callable[..., Any], connect: Connect, hanging: Any
) -> None:
    client = connect(serve(generator=hanging), timeout=0.3)

    def ask() -> None:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="m", messages=QUESTION)

    asking = threading.Thread(target=ask)
    asking.start()
    assert hanging.waiting.wait(5)
    assert hanging.closed.wait(5)
    asking.join(5)
    assert not asking.is_alive()


def test_silence_is_filled_with_comments(serve: Callable[..., Any], hanging: Any) -> None:
    server = serve(generator=hanging, settings={"keep_alive": 0.01})
    body = {"messages": QUESTION, "stream": True}
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        seen = b""
        for data in answer.iter_raw():
            seen += data
            if seen.count(b": keep-alive\n\n") > 2:
                break
    assert b"so far" in seen
    assert hanging.closed.wait(5)


def test_our_own_client_embeds_through_it(serve: Callable[..., Any]) -> None:
    from niruhybrid import Client

    texts = ["one text", "another"]
    with Client(serve().url) as client:
        np.testing.assert_allclose(client.embed(texts), HashEncoder().encode(texts), atol=1e-6)


def test_a_stream_that_is_open_when_the_server_stops_ends_with_a_true_chunk(
    serve: Callable[..., Any], hanging: Any
) -> None:
    server = serve(generator=hanging)
    body = {"model": "niruhybrid", "messages": QUESTION, "stream": True}
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=10) as answer:
        lines = answer.iter_lines()
        heard = [next(lines)]
        assert hanging.waiting.wait(5)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        heard += list(lines)
    stopper.join(15)
    assert hanging.closed.is_set()
    last = [line for line in heard if line][-1]
    assert orjson.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert "data: [DONE]" not in heard

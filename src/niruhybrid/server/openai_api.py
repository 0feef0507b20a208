"""The paths of OpenAI's API, so that its clients work unchanged: embeddings, answers as chat completions, models."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from niruhybrid.errors import NiruError, OverloadedError
from niruhybrid.server import bodies, problems
from niruhybrid.server import openai_shapes as shapes
from niruhybrid.server.backend import Backend
from niruhybrid.server.gate import Gate
from niruhybrid.server.openai_stream import ChunkStreamResponse
from niruhybrid.server.problems import RequestError
from niruhybrid.server.routing import answered, left
from niruhybrid.types import Query

__all__ = ("router",)


def router(gate: Gate) -> APIRouter:
    """Return the paths below `/v1`; their errors are of OpenAI's shape, with the statuses that its clients know."""
    paths = APIRouter(prefix="/v1", tags=["openai"])
    _add_models(paths)
    _add_embeddings(paths, gate)
    _add_chat(paths, gate)
    return paths


def _add_models(paths: APIRouter) -> None:
    @paths.get("/models", summary="List the models", response_class=Response, responses=_documented("The models."))
    async def get_models() -> Response:
        """List the two names that stand for this server: one answers, one encodes."""
        return answered(shapes.model_list())

    @paths.get(
        "/models/{name}",  # noqa: FAST003  # the endpoint takes the request
        summary="Describe a model",
        response_class=Response,
        responses=_documented("The model.", 404),
        openapi_extra={"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]},
    )
    async def get_model(request: Request) -> Response:
        """Describe a model."""
        try:
            return answered(shapes.model_of(request.path_params["name"]))
        except RequestError as err:
            return _refusal(err)


def _add_embeddings(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/embeddings",
        summary="Encode texts",
        response_class=Response,
        responses=_documented("The vectors, in the texts' order.", 400, 408, 413, 415, 500, 503, 504),
        openapi_extra=_body_of(shapes.EmbeddingRequest),
    )
    async def post_embeddings(request: Request) -> Response:
        """Encode texts, as floats or as base64 of little-endian float32. Tokens are counted as the encoder does."""

        async def answer() -> Response:
            pipeline = gate.pipeline()
            asked, _ = shapes.checked(shapes.EmbeddingRequest, await bodies.in_body(request, gate.config))
            texts = asked.texts()
            vectors = await _unless_gone(request, pipeline.embed(texts))
            return answered(shapes.embeddings(vectors, asked, await pipeline.count_tokens(texts)))

        return await _guarded(answer)


def _add_chat(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/chat/completions",
        summary="Answer the last user message from the index",
        response_class=Response,
        responses=_documented(
            "The answer, with `sources` and `citations`; with `stream`, in chunks that end with `data: [DONE]`.",
            *(400, 408, 413, 415, 500, 502, 503, 504),
            media_types=("application/json", "text/event-stream"),
        ),
        openapi_extra=_body_of(shapes.ChatRequest),
    )
    async def post_chat(request: Request) -> Response:
        """Answer a question from the index. The conversation before it, and what steers a model, have no effect.

        `citations` say which characters of the content come from which of the `sources`. A stream that fails ends with
        a chunk that has `error`, and without `[DONE]`.
        """

        async def answer() -> Response:
            pipeline = gate.pipeline()
            asked, passed_over = shapes.checked(shapes.ChatRequest, await bodies.in_body(request, gate.config))
            chat = shapes.Chat(f"chatcmpl-{uuid.uuid4().hex}", shapes.notes_on(asked, passed_over))
            query = shapes.question_of(asked, chat.id, max_chars=gate.config.max_query_chars)
            if not asked.stream:
                return answered(await _unless_gone(request, _whole(pipeline, query, chat)))
            if gate.open_streams >= gate.config.max_streams:
                raise OverloadedError("too many streams are open: try again, or raise `max_streams`", retry_after=1)
            counted = bool((asked.stream_options or {}).get("include_usage"))
            return ChunkStreamResponse(
                _chunks(pipeline, query, chat, counted=counted),
                refused=_refusal,
                keep_alive=gate.config.keep_alive,
                send_timeout=gate.config.send_timeout,
                registry=gate.chats,
            )

        return await _guarded(answer)


async def _whole(pipeline: Backend, query: Query, chat: shapes.Chat) -> dict[str, Any]:
    async with aclosing(pipeline.stream(query)) as events:
        async for event in events:
            chat.take(event.event, event.data)
    return chat.whole(await _usage(pipeline, query, chat))


async def _chunks(pipeline: Backend, query: Query, chat: shapes.Chat, *, counted: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(pipeline.stream(query)) as events:
        async for event in events:
            chunk = chat.take(event.event, event.data)
            if chunk is not None:
                yield shapes.framed(chunk)
    if counted:
        yield shapes.framed(chat.counted(await _usage(pipeline, query, chat)))
    yield shapes.DONE


async def _usage(pipeline: Backend, query: Query, chat: shapes.Chat) -> dict[str, int]:
    """Count the question and the answer, as the encoder does: how a model behind it counts is not known here."""
    asked, written = await pipeline.count_tokens([query.text]), await pipeline.count_tokens([chat.text])
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


async def _guarded(answer: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await answer()
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except (NiruError, RequestError) as err:
        return _refusal(err)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what `work` returns; cancel it when the client leaves.

    Raises:
        ClientDisconnect: it has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


def _refusal(error: Exception) -> Response:
    """Return an error as OpenAI's clients know it; faults of the server are logged as everywhere."""
    answer = problems.response(error)
    status, body = shapes.error_of(orjson.loads(answer.body))
    kept = {name: value for name, value in answer.headers.items() if name not in {"content-type", "content-length"}}
    return Response(orjson.dumps(body), status_code=status, headers=kept, media_type="application/json")


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def _documented(
    description: str, *statuses: int, media_types: tuple[str, ...] = ("application/json",)
) -> dict[int | str, dict[str, Any]]:
    """Describe responses; what is refused before the path is looked at is a problem object here as everywhere."""
    good = {"description": description, "content": {kind: {"schema": {}} for kind in media_types}}
    shapes_of = {
        "application/json": {"schema": shapes.ERROR_SHAPE},
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    }
    refused = {"description": "Why not.", "content": shapes_of}
    return {200: good, **dict.fromkeys(sorted({401, 403, 429, *statuses}), refused)}

"""The paths: read, check, hand to the pipeline, answer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from niruhybrid.errors import NiruError
from niruhybrid.observe import prometheus
from niruhybrid.server import docs, problems, schemas
from niruhybrid.server.gate import Gate
from niruhybrid.server.problems import RequestError

__all__ = ("router",)

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_QUERY_STRING_FIELDS = 20
_REFUSALS = (400, 408, 413, 415, 422, 429, 500, 503, 504)


def router(gate: Gate, describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the server's paths.

    Args:
        gate: what the paths are served from.
        describe: returns the OpenAPI description of the whole application.
    """
    paths = APIRouter()
    _add_query(paths, gate)
    _add_operations(paths, gate)
    _add_documentation(paths, describe)
    return paths


def _add_query(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/stream/query",
        tags=["query"],
        summary="Ask; the answer is a stream of events",
        response_class=Response,
        responses={200: schemas.EVENT_STREAM, **schemas.problem_responses(*_REFUSALS)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schemas.QueryRequest.model_json_schema()}},
            }
        },
    )
    async def post_query(request: Request) -> Response:
        """Answer a question with its sources first, then the answer piece by piece."""
        return await _guarded(_asked_in_body, request, gate)

    @paths.get(
        "/stream/query",
        tags=["query"],
        summary="Ask with a query string, as a browser's EventSource does",
        response_class=Response,
        responses={
            200: schemas.EVENT_STREAM,
            204: {"description": "A repeated request that would go on after `Last-Event-ID`; it stops an EventSource."},
            **schemas.problem_responses(400, 422, 429, 500, 503, 504),
        },
        openapi_extra={"parameters": schemas.query_parameters()},
    )
    async def get_query(request: Request) -> Response:
        """Answer as POST does. A stream that broke off is not started again by itself: its answer would repeat."""
        if "last-event-id" in request.headers:
            return Response(status_code=204, headers=_HEADERS)
        return await _guarded(_asked_in_url, request, gate)


def _add_operations(paths: APIRouter, gate: Gate) -> None:
    @paths.get("/healthz", tags=["operations"], response_class=Response, responses=_json("The process is alive."))
    async def healthz() -> Response:
        """Say that the process is alive, whatever else it can or can't do."""
        return _answer({"status": "ok"})

    @paths.get(
        "/readyz",
        tags=["operations"],
        response_class=Response,
        responses=_json("Queries are taken.") | schemas.problem_responses(503),
    )
    async def readyz() -> Response:
        """Say whether queries are taken (`degraded`: with trouble); while documents are being added, they are."""
        try:
            readiness = gate.pipeline().ready()
        except (NiruError, RequestError) as err:
            return problems.response(err)
        if readiness.degraded:
            return _answer({"status": "degraded", "reasons": list(readiness.reasons)})
        return _answer({"status": "ready"})

    @paths.get(
        "/stats",
        tags=["operations"],
        response_class=Response,
        responses=_json("Counters.") | schemas.problem_responses(503),
    )
    async def stats() -> Response:
        """Return the counters of the server and its pipeline."""
        try:
            counters = (await gate.pipeline().stats()).to_dict()
        except (NiruError, RequestError) as err:
            return problems.response(err)
        return _answer(counters | {"open_streams": gate.open_streams})

    @paths.get(
        "/metrics",
        tags=["operations"],
        response_class=Response,
        responses={
            200: {"description": "The same counters for Prometheus.", "content": {"text/plain": {}}},
            **schemas.problem_responses(503),
        },
    )
    async def metrics() -> Response:
        """Return the counters in Prometheus' exposition format."""
        try:
            counters = (await gate.pipeline().stats()).to_dict()
        except (NiruError, RequestError) as err:
            return problems.response(err)
        return Response(prometheus.exposition(counters), media_type=prometheus.CONTENT_TYPE, headers=_HEADERS)


def _add_documentation(paths: APIRouter, describe: Callable[[], dict[str, Any]]) -> None:
    @paths.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _answer(describe())

    @paths.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return Response(docs.page(describe()), media_type="text/html", headers=docs.HEADERS)


async def _guarded(asked: "Callable[[Request, Gate], Any]", request: Request, gate: Gate) -> Response:
    try:
        gate.pipeline()  # refuse before reading
        values, strict = await asked(request, gate)
        query = schemas.query_from(values, strict=strict, max_chars=gate.config.max_query_chars)
        return gate.answer(query)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except (NiruError, RequestError) as err:
        return problems.response(err)


async def _asked_in_body(request: Request, gate: Gate) -> tuple[Mapping[str, Any], bool]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError("unsupported_media_type", "send JSON, with the header `Content-Type: application/json`")
    try:
        async with asyncio.timeout(gate.config.send_timeout):
            body = await _body(request, gate.config.max_body_bytes)
    except TimeoutError as err:
        raise RequestError("request_timeout", "the body did not arrive in time: send it faster") from err
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise RequestError("malformed_json", f"line {err.lineno}, column {err.colno}: {err.msg}") from err
    if not isinstance(values, dict):
        raise RequestError("invalid_input", "the body is not a JSON object: send one with the field `query`")
    return values, True


async def _body(request: Request, most: int) -> bytes:
    """Return the whole body, refusing as soon as it is known to be over `most` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> RequestError:
    detail = f"the body is over {most} bytes: send less, or raise `max_body_bytes`"
    return RequestError("body_too_large", detail, headers={"Connection": "close"})


async def _asked_in_url(request: Request, _gate: Gate) -> tuple[Mapping[str, Any], bool]:
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_QUERY_STRING_FIELDS,
        )
    except (ValueError, UnicodeError) as err:
        raise RequestError("malformed_request", "the query string is not UTF-8 in percent-encoding: encode it") from err
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RequestError("invalid_input", "the query string has a parameter twice: send each once")
    if "metadata" in values:
        raise RequestError("invalid_input", "`metadata` can't be sent in a query string: use POST")
    return values, False


def _json(description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}}


def _answer(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json", headers=_HEADERS)

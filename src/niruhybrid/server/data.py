"""The paths of generated data: taken while it is still being sent, read and removed by id."""

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.server import openapi, problems
from niruhybrid.server.backend import Backend
from niruhybrid.server.gate import Gate, require_write
from niruhybrid.server.ndjson import PAUSE, LineRequest, rendered
from niruhybrid.server.problems import RequestError
from niruhybrid.server.routing import LeanRoute, answered, described
from niruhybrid.types import DataResult, Document
from niruhybrid.types.checks import checked_id

__all__ = ("reading", "router")

logger = logging.getLogger(__name__)


def router(gate: Gate) -> APIRouter:
    """Return the paths of data."""
    paths = APIRouter(route_class=LeanRoute)
    _add_stream(paths, gate)
    _add_single(paths, gate)
    return paths


def _add_stream(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/stream/data",
        tags=["data"],
        summary="Add documents; each is acknowledged when it is searchable and kept",
        response_class=Response,
        responses={
            **openapi.ACKNOWLEDGEMENTS,
            **openapi.problem_responses(400, 401, 403, 408, 413, 415, 429, 500, 503),
        },
        openapi_extra=openapi.DATA_BODY,
    )
    async def post_data(request: Request) -> Response:
        """Take documents as lines of JSON while they are being sent, or one document or an array of them as JSON.

        A document is a string, or an object with `text` and perhaps `id`, `title`, `metadata`, `embedding` and
        `timeout`. Lines are acknowledged by their number as micro-batches commit. One that can't be used is reported
        and passed over. What was acknowledged is kept, whatever becomes of the connection.
        """
        require_write(request)
        pipeline = gate.pipeline()
        return await gate.lines(request, lambda body: _acknowledged(pipeline, body))


async def _acknowledged(pipeline: Backend, body: LineRequest) -> AsyncGenerator[bytes, None]:
    """Store what comes; yield an acknowledgement for each line, in their order, and a summary.

    The pipeline's stream is open only while something is under way: a client that pauses keeps nobody from writing.
    """
    pending: deque[tuple[int, RequestError | None]] = deque()
    stored = failed = watermark = 0
    while await body.more():
        results = pipeline.ingest(_noted(body.values(PAUSE), pending.append))
        try:
            async for result in results:
                number, refusal = pending.popleft()
                if refusal is None and result.error is None:
                    stored += 1
                    watermark = result.watermark or watermark
                else:
                    failed += 1
                yield _line(number, result, refusal)
        finally:
            if isinstance(results, AsyncGenerator):
                await results.aclose()
    yield rendered({"line": 0, "done": True, "stored": stored, "failed": failed, "watermark": watermark})


async def _noted(
    values: AsyncIterator[tuple[int, Any]], note: Callable[[tuple[int, RequestError | None]], None]
) -> AsyncIterator[Any]:
    """Yield what the lines say, having noted their numbers; in place of one that can't be read, None, which is none."""
    async for number, value in values:
        refusal = value if isinstance(value, RequestError) else None
        note((number, refusal))
        yield value if refusal is None else None


def _line(number: int, result: DataResult, refusal: RequestError | None) -> bytes:
    """Return the acknowledgement of one line; what can't be sent is an error of that line."""
    try:
        return rendered(_acknowledgement(number, result, refusal))
    except TypeError as err:
        logger.exception("line_failed")
        return rendered({"line": number, "error": problems.details(err)})


def _acknowledgement(number: int, result: DataResult, refusal: RequestError | None) -> dict[str, Any]:
    error = refusal or result.error
    if error is not None:
        known = {} if refusal is not None else {"id": result.id}
        return {"line": number, **known, "error": problems.details(error)}
    return {"line": number, "id": result.id, "watermark": result.watermark, **reading(result)}


def reading(result: DataResult) -> dict[str, Any]:
    """Return in how many windows a document was read, and what of it, as far as that is known."""
    known = {
        "windows": result.windows or None,
        "tokens_seen": result.tokens_seen,
        "tokens_used": result.tokens_used,
        "notes": list(result.notes) or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _add_single(paths: APIRouter, gate: Gate) -> None:
    @paths.get(
        "/data/{data_id:path}",  # noqa: FAST003  # the endpoint takes the request
        tags=["data"],
        summary="Read a document",
        response_class=Response,
        responses=described("The document.", "Document") | openapi.problem_responses(401, 403, 404, 422, 429, 503),
        openapi_extra={"parameters": [openapi.DATA_ID]},
    )
    async def get_data(request: Request) -> Response:
        """Return a document by its id."""
        data_id = checked_id(request.path_params["data_id"])
        [document] = await gate.pipeline().get([data_id])
        if document is None:
            raise _unknown()
        return answered(_shown(document))

    @paths.delete(
        "/data/{data_id:path}",  # noqa: FAST003  # the endpoint takes the request
        tags=["data"],
        summary="Remove a document",
        response_class=Response,
        responses=described("It is removed.", "Removed") | openapi.problem_responses(401, 403, 404, 422, 429, 503, 507),
        openapi_extra={"parameters": [openapi.DATA_ID]},
    )
    async def delete_data(request: Request) -> Response:
        """Remove a document by its id; the next query does not find it."""
        require_write(request)
        data_id = checked_id(request.path_params["data_id"])
        removed, watermark = await gate.pipeline().delete([data_id])
        if not removed:
            raise _unknown()
        return answered({"id": data_id, "watermark": watermark})


def _shown(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "text": document.text,
        "title": document.title,
        "metadata": dict(document.metadata),
    }


def _unknown() -> RequestError:
    return RequestError("not_found", "there is no document with this id")

"""The paths of queries: asked in a body or a query string, answered as a stream of events or as one JSON object."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.server import bodies, bulk, openapi, schemas
from niruhybrid.server.gate import Gate, owner_of
from niruhybrid.server.routing import LeanRoute, answered, described

__all__ = ("router",)

_STREAMED = (400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504)


def router(gate: Gate) -> APIRouter:
    """Return the paths of queries."""
    paths = APIRouter(route_class=LeanRoute)
    _add_streamed(paths, gate)
    _add_resumed(paths, gate)
    _add_plain(paths, gate)
    return paths


def _add_streamed(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/stream/query",
        tags=["query"],
        summary="Ask; the answer is a stream of events",
        response_class=Response,
        responses={**openapi.EVENT_STREAM, **openapi.problem_responses(*_STREAMED)},
        openapi_extra=openapi.json_body(schemas.StreamRequest) | {"parameters": [openapi.LAST_EVENT_ID]},
    )
    async def post_query(request: Request) -> Response:
        """Answer a question with its sources first, then the answer piece by piece.

        With `Last-Event-ID` nothing is asked again: the answer goes on where it broke off.
        """
        gate.pipeline()  # refuse before reading
        asked = schemas.asked(schemas.StreamRequest, await bodies.in_body(request, gate.config), strict=True)
        query = schemas.query_of(asked, max_chars=gate.config.max_query_chars, owner=owner_of(request))
        return _resumed(request, gate) or gate.answer(query, owner_of(request), progressive=asked.progressive)

    @paths.get(
        "/stream/query",
        tags=["query"],
        summary="Ask with a query string, as a browser's EventSource does",
        response_class=Response,
        responses={**openapi.EVENT_STREAM, **openapi.problem_responses(400, 401, 403, 409, 422, 429, 500, 503, 504)},
        openapi_extra={"parameters": [*openapi.query_parameters(schemas.StreamRequest), openapi.LAST_EVENT_ID]},
    )
    async def get_query(request: Request) -> Response:
        """Answer as POST does. An EventSource that reconnects goes on where it was."""
        gate.pipeline()
        values = bodies.in_url(request)
        asked = schemas.asked(schemas.StreamRequest, schemas.from_url(values), strict=False)
        query = schemas.query_of(asked, max_chars=gate.config.max_query_chars, owner=owner_of(request))
        return _resumed(request, gate) or gate.answer(query, owner_of(request), progressive=asked.progressive)


def _add_resumed(paths: APIRouter, gate: Gate) -> None:
    @paths.get(
        "/streams/{stream_id}",  # noqa: FAST003  # the endpoint takes the request
        tags=["query"],
        summary="Read a stream again, from the start or after an event",
        response_class=Response,
        responses={**openapi.EVENT_STREAM, **openapi.problem_responses(401, 403, 429, 503)},
        openapi_extra={"parameters": [openapi.STREAM_ID, openapi.LAST_EVENT_ID]},
    )
    async def get_stream(request: Request) -> Response:
        """Go on with a stream that broke off, or follow it beside another reader."""
        stream_id: str = request.path_params["stream_id"]
        last = request.headers.get("last-event-id") or f"{stream_id}:0"
        return gate.resume(last, owner_of(request), stream_id)


def _add_plain(paths: APIRouter, gate: Gate) -> None:
    @paths.post(
        "/query",
        tags=["query"],
        summary="Ask; the answer is one JSON object",
        response_class=Response,
        responses=described("Hits and answer.", "Result") | openapi.problem_responses(*_STREAMED, 502),
        openapi_extra=openapi.json_body(schemas.PlainRequest),
    )
    async def post_plain(request: Request) -> Response:
        """Answer a question as a whole. An answer that breaks off is an error, never part of one."""
        pipeline = gate.pipeline()
        asked = schemas.asked(schemas.PlainRequest, await bodies.in_body(request, gate.config), strict=True)
        found = await bulk.result_of(pipeline, asked, gate.config.max_query_chars, owner_of(request))
        return answered(found)

    @paths.post(
        "/stream/queries",
        tags=["query"],
        summary="Ask many questions, each answered as soon as it can be",
        response_class=Response,
        responses={**openapi.RESULTS, **openapi.problem_responses(400, 401, 403, 408, 413, 415, 429, 500, 503)},
        openapi_extra=openapi.QUERIES_BODY,
    )
    async def post_queries(request: Request) -> Response:
        """Take questions as lines of JSON, each as `POST /query` does, and answer them in lines of JSON.

        Results come as they are ready and name the number of their line. A line that can't be used is reported and
        passed over. No more is read than can be worked on.
        """
        pipeline = gate.pipeline()
        owner = owner_of(request)
        return await gate.lines(
            request, lambda body: bulk.results(pipeline, body.values(), gate.config.max_query_chars, owner)
        )


def _resumed(request: Request, gate: Gate) -> Response | None:
    last = request.headers.get("last-event-id")
    return gate.resume(last, owner_of(request)) if last else None

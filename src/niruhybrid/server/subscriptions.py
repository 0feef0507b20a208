"""The path of standing queries: told of what arrives and matches, for as long as one listens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.server import bodies, openapi, schemas
from niruhybrid.server.backend import Backend
from niruhybrid.server.gate import Gate, owner_of
from niruhybrid.server.routing import LeanRoute
from niruhybrid.types import Query, StreamEvent

__all__ = ("news", "router")


def router(gate: Gate) -> APIRouter:
    """Return the paths of standing queries."""
    paths = APIRouter(route_class=LeanRoute)

    @paths.post(
        "/stream/subscribe",
        tags=["query"],
        summary="Be told of documents that match, as they arrive",
        response_class=Response,
        responses={
            **openapi.NEWS_STREAM,
            **openapi.problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra=openapi.json_body(schemas.SubscribeRequest) | {"parameters": [openapi.LAST_EVENT_ID]},
    )
    async def post_subscribe(request: Request) -> Response:
        """Send an event for each document that matches and has just become searchable.

        With the `Last-Event-ID` of a subscription that is still kept, go on with that one.
        """
        gate.pipeline()
        asked = schemas.asked(schemas.SubscribeRequest, await bodies.in_body(request, gate.config), strict=True)
        return _subscribed(request, gate, asked)

    @paths.get(
        "/stream/subscribe",
        tags=["query"],
        summary="Be told of documents that match, as a browser's EventSource asks",
        response_class=Response,
        responses={**openapi.NEWS_STREAM, **openapi.problem_responses(400, 401, 403, 422, 429, 500, 503)},
        openapi_extra={"parameters": [*openapi.query_parameters(schemas.SubscribeRequest), openapi.LAST_EVENT_ID]},
    )
    async def get_subscribe(request: Request) -> Response:
        """Answer as POST does. An EventSource that comes back too late begins anew; `subscribed` says from where."""
        gate.pipeline()
        asked = schemas.asked(schemas.SubscribeRequest, schemas.from_url(bodies.in_url(request)), strict=False)
        return _subscribed(request, gate, asked)

    return paths


def _subscribed(request: Request, gate: Gate, asked: schemas.SubscribeRequest) -> Response:
    query = schemas.query_of(asked, max_chars=gate.config.max_query_chars)
    owner = owner_of(request)
    if gate.can_resume(request):
        return gate.resume(request.headers["last-event-id"], owner)
    return gate.subscribe(news(gate.pipeline(), query, asked), owner)


async def news(pipeline: Backend, query: Query, asked: schemas.SubscribeRequest) -> AsyncGenerator[StreamEvent, None]:
    """Yield the events of a standing query: `subscribed`, then any number of `match` and `dropped`.

    Raises:
        NiruError: as `Pipeline.subscribe` does.
    """
    subscription = await pipeline.subscribe(query, min_score=asked.min_score, per_minute=asked.cap)
    async with aclosing(subscription):
        yield StreamEvent("subscribed", {"query_id": query.id, "watermark": await pipeline.watermark()})
        told = 0
        async for match in subscription:
            if (dropped := subscription.dropped) > told:
                yield StreamEvent("dropped", {"query_id": query.id, "count": dropped - told})
                told = dropped
            yield StreamEvent("match", match.to_dict())

"""The path of standing queries: told of what arrives and matches, for as long as one listens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.pipeline import Pipeline
from niruhybrid.server import bodies, schemas
from niruhybrid.server.gate import Gate, owner_of
from niruhybrid.server.routing import LeanRoute
from niruhybrid.types import StreamEvent

__all__ = ("router",)


def router(gate: Gate) -> APIRouter:
    """Return the paths of standing queries."""
    paths = APIRouter(route_class=LeanRoute)

    @paths.post(
        "/stream/subscribe",
        tags=["query"],
        summary="Be told of documents that match, as they arrive",
        response_class=Response,
        responses={
            **schemas.NEWS_STREAM,
            **schemas.problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra=schemas.json_body(schemas.SubscribeRequest) | {"parameters": [schemas.LAST_EVENT_ID]},
    )
    async def post_subscribe(request: Request) -> Response:
        """Send an event for each document that matches and has just become searchable.

        With the `Last-Event-ID` of a subscription that is still kept, go on with that one.
        """
        asked = None
        if not gate.can_resume(request):
            gate.pipeline()
            asked = schemas.asked(schemas.SubscribeRequest, await bodies.in_body(request, gate.config), strict=True)
        return _subscribed(request, gate, asked)

    @paths.get(
        "/stream/subscribe",
        tags=["query"],
        summary="Be told of documents that match, as a browser's EventSource asks",
        response_class=Response,
        responses={**schemas.NEWS_STREAM, **schemas.problem_responses(400, 401, 403, 422, 429, 500, 503)},
        openapi_extra={"parameters": [*schemas.query_parameters(schemas.SubscribeRequest), schemas.LAST_EVENT_ID]},
    )
    async def get_subscribe(request: Request) -> Response:
        """Answer as POST does. An EventSource that comes back too late begins anew; `subscribed` says from where."""
        asked = None
        if not gate.can_resume(request):
            gate.pipeline()
            values = schemas.from_url(bodies.in_url(request))
            asked = schemas.asked(schemas.SubscribeRequest, values, strict=False)
        return _subscribed(request, gate, asked)

    return paths


def _subscribed(request: Request, gate: Gate, asked: schemas.SubscribeRequest | None) -> Response:
    owner = owner_of(request)
    if asked is None:
        return gate.resume(request.headers["last-event-id"], owner)
    schemas.standing_of(asked)  # refuse before anything is encoded
    return gate.subscribe(_news(gate.pipeline(), asked, gate.config.max_query_chars), owner)


async def _news(
    pipeline: Pipeline, asked: schemas.SubscribeRequest, max_chars: int
) -> AsyncGenerator[StreamEvent, None]:
    query = schemas.query_of(asked, max_chars=max_chars)
    subscription = await pipeline.subscribe(query, min_score=asked.min_score, per_minute=asked.per_minute)
    async with aclosing(subscription):
        yield StreamEvent("subscribed", {"query_id": query.id, "watermark": await pipeline.watermark()})
        told = 0
        async for match in subscription:
            if (dropped := subscription.dropped) > told:
                yield StreamEvent("dropped", {"query_id": query.id, "count": dropped - told})
                told = dropped
            yield StreamEvent("match", match.to_dict())

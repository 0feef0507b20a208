"""Paths that take a request and return a response: described to the framework in full, served without its detours."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from niruhybrid.server import problems
from niruhybrid.server.sending import json_bytes

__all__ = ("EVENT_STREAM_HEADERS", "HEADERS", "KEEP_ALIVE", "LeanRoute", "answered", "described", "left", "straight")

EVENT_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment of an event stream."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Endpoint = Callable[[Request], Awaitable[Response]]


class LeanRoute(APIRoute):
    """A path whose endpoint is `async (Request) -> Response`.

    What the endpoint refuses, by raising, becomes a problem response. The framework takes part in the description
    only: its parsing, checking and clean-up stacks cost more than all that is done here.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = _served(endpoint)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the path is asked for."""
        match, found = Route.matches(self, scope)
        found["route"] = self
        return match, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or say that the method is not for this path."""
        await Route.handle(self, scope, receive, send)

    def served(self) -> ASGIApp:
        """Return what serves a request of which it is known that it is for this path."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["route"] = self
            await self.app(scope, receive, send)

        return app


def straight(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], ASGIApp]:
    """Return, by method and path, what serves the lean routes that have no parameter in their path.

    A request for one of these needs no router to find its way.
    """
    lean = [route for route in routes if isinstance(route, LeanRoute) and not route.param_convertors]
    return {(method, route.path): route.served() for route in lean for method in route.methods or ()}


def _served(endpoint: Endpoint) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await endpoint(Request(scope, receive, send))
        except ClientDisconnect:
            return  # nobody reads it
        except Exception as err:  # noqa: BLE001  # whatever it is, the client is told with a true status
            response = problems.response(err)
        await response(scope, receive, send)

    return app


async def left(receive: Receive) -> None:
    """Return when the client has left; what it may still send is passed over."""
    while (await receive())["type"] != "http.disconnect":
        pass


def answered(value: Mapping[str, Any], status: int = 200) -> Response:
    """Return `value` as a JSON response; see `json_bytes`."""
    return Response(json_bytes(value), status_code=status, media_type="application/json", headers=HEADERS)


def described(description: str, schema: str | None = None) -> dict[int | str, dict[str, Any]]:
    """Return how a JSON response is documented.

    Args:
        description: what it says.
        schema: the name of its shape among the components; None for any object.
    """
    shape = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {200: {"description": description, "content": {"application/json": {"schema": shape}}}}

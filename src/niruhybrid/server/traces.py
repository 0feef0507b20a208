"""A span for each request, where spans are wanted; it ends with the last byte of the response."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from niruhybrid.observe.tracing import Tracing

__all__ = ("Traces",)


class Traces:
    """Middleware: has what a request begins belong to its span, and that to the one that its `traceparent` names.

    Args:
        app: what serves.
        tracing: returns where spans go, or None.
    """

    def __init__(self, app: ASGIApp, tracing: Callable[[], Tracing | None]) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        tracing = self._tracing() if scope["type"] == "http" else None
        if tracing is None:
            await self._app(scope, receive, send)
            return
        trace = tracing.request(scope["method"], scope["scheme"], Headers(scope=scope))
        status, request_id = 0, None

        async def noted(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = Headers(raw=message["headers"]).get("x-request-id")
            await send(message)

        try:
            with trace.active():
                await self._app(scope, receive, noted)
        finally:
            trace.end(getattr(scope.get("route"), "path", ""), status, request_id)

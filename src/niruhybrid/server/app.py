"""The application: a pipeline behind HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from niruhybrid.config import ServerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server import (
    answers,
    console,
    data,
    live,
    openai_api,
    openapi,
    operations,
    problems,
    routing,
    subscriptions,
)
from niruhybrid.server.backend import Backend
from niruhybrid.server.front import Front, configured_keys
from niruhybrid.server.gate import Gate
from niruhybrid.server.shared_log import SharedLog
from niruhybrid.server.traces import Traces
from niruhybrid.settings import library_version

__all__ = ("create_app",)

_DESCRIPTION = (
    "Real-time retrieval: every answer is a stream of events, sources first. "
    "Whatever goes wrong before the first event is a problem response (RFC 9457) with a true status."
)


def create_app(
    pipeline: Pipeline | Callable[[], Awaitable[Backend]],
    config: ServerConfig | None = None,
    *,
    open_log: Callable[[], Awaitable[SharedLog]] | None = None,
) -> FastAPI:
    """Return an ASGI application that serves `pipeline`, and closes it at shutdown.

    It listens while the pipeline is still being opened: `/healthz` is then well, the other paths answer 503.

    Args:
        pipeline: a running pipeline, or a function that opens one.
        config: what is taken from whom. Its `host` says whether others can reach the server, and so need API keys.
        open_log: opens the log in which servers share their answers, so that each can go on with those of the others;
            None keeps them in this process.

    Raises:
        InvalidSettingError: the API keys can't be used, or are needed.
    """
    configured_keys(config or ServerConfig())  # refuse now, not at the first request
    gate = Gate(_opener(pipeline), config or ServerConfig(), open_log)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        gate.open()
        try:
            yield
        finally:
            await gate.aclose()

    app = _Application(
        title="NiruHybrid",
        version=library_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_problem, Exception: _fault},
    )
    app.state.gate = gate
    rooms = (
        answers.router(gate),
        data.router(gate),
        subscriptions.router(gate),
        operations.router(gate, lambda: openapi.openapi(app, gate.config.max_query_chars)),
        live.router(gate),
        console.router(),
    )
    for paths in rooms:
        app.router.routes.extend(paths.routes)  # as they are: an included router's would be wrapped again
    app.include_router(openai_api.router(gate))
    front = Front(gate.config)

    def traced(served: ASGIApp) -> ASGIApp:
        return Traces(front.before(served), lambda: gate.tracing)

    app.add_middleware(traced)
    app.straight = {where: traced(served) for where, served in routing.straight(app.router.routes).items()}
    return app


class _Application(FastAPI):
    """The framework's application, and a short way to plain paths while nothing was put before them.

    Attributes:
        straight: what serves a path, by method and path.
    """

    straight: Mapping[tuple[str, str], ASGIApp]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        way = None
        if scope["type"] == "http" and len(self.user_middleware) == 1:
            way = self.straight.get((scope["method"], scope["path"]))
        await (super().__call__ if way is None else way)(scope, receive, send)


def _opener(pipeline: Pipeline | Callable[[], Awaitable[Backend]]) -> Callable[[], Awaitable[Backend]]:
    if not isinstance(pipeline, Pipeline):
        return pipeline

    async def ready() -> Backend:
        return pipeline

    return ready


async def _http_problem(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses, an unknown path say, as a problem too."""
    if not isinstance(error, HTTPException):
        return problems.response(error)
    detail = f"{request.method} is not served here: see /docs"
    headers = {**(error.headers or {})}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problems.response(problems.of_status(error.status_code, detail, headers))


def _methods(request: Request) -> set[str]:
    """Return the methods that are served where a request went."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()
    }


async def _fault(_request: Request, error: Exception) -> Response:
    return problems.response(error)

"""The paths for those who run the server: alive, ready, counters; and its description, for people and machines."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from niruhybrid.observe import prometheus
from niruhybrid.server import docs, openapi
from niruhybrid.server.gate import Gate
from niruhybrid.server.routing import HEADERS, LeanRoute, answered, described

__all__ = ("router",)


def router(gate: Gate, describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the paths of operations.

    Args:
        gate: what the counters are read from.
        describe: returns the OpenAPI description of the whole application.
    """
    paths = APIRouter(route_class=LeanRoute)
    _add_health(paths, gate)
    _add_counters(paths, gate)
    _add_documentation(paths, functools.cache(describe))
    return paths


def _add_health(paths: APIRouter, gate: Gate) -> None:
    @paths.get("/healthz", tags=["operations"], response_class=Response, responses=described("The process is alive."))
    async def healthz(_request: Request) -> Response:
        """Say that the process is alive, whatever else it can or can't do."""
        return answered({"status": "ok"})

    @paths.get(
        "/readyz",
        tags=["operations"],
        response_class=Response,
        responses=described("Queries are taken.") | openapi.problem_responses(503),
    )
    async def readyz(_request: Request) -> Response:
        """Say whether queries are taken (`degraded`: with trouble); while documents are being added, they are."""
        readiness = gate.pipeline().ready()
        if readiness.degraded:
            return answered({"status": "degraded", "reasons": list(readiness.reasons)})
        return answered({"status": "ready"})


def _add_counters(paths: APIRouter, gate: Gate) -> None:
    @paths.get(
        "/stats",
        tags=["operations"],
        response_class=Response,
        responses=described("Counters.") | openapi.problem_responses(401, 403, 429, 503),
    )
    async def stats(_request: Request) -> Response:
        """Return the counters of the server and its pipeline."""
        return answered(await gate.counters())

    @paths.get(
        "/metrics",
        tags=["operations"],
        response_class=Response,
        responses={
            200: {"description": "The same counters for Prometheus.", "content": {"text/plain": {}}},
            **openapi.problem_responses(401, 403, 429, 503),
        },
    )
    async def metrics(_request: Request) -> Response:
        """Return the counters in Prometheus' exposition format."""
        return Response(
            prometheus.exposition(await gate.counters()), media_type=prometheus.CONTENT_TYPE, headers=HEADERS
        )


def _add_documentation(paths: APIRouter, describe: Callable[[], dict[str, Any]]) -> None:
    @paths.get("/openapi.json", include_in_schema=False)
    async def description(_request: Request) -> Response:
        return answered(describe())

    @paths.get("/niru-client.js", include_in_schema=False)
    async def browser_module(_request: Request) -> Response:
        return Response(_browser_module(), media_type="text/javascript", headers=HEADERS)

    @paths.get("/docs", include_in_schema=False)
    async def page(_request: Request) -> Response:
        return Response(docs.page(describe()), media_type="text/html", headers=docs.HEADERS)


@functools.cache
def _browser_module() -> bytes:
    """Return the client for browsers, which a page imports from its own server."""
    return (Path(__file__).parent / "static" / "niru-client.js").read_bytes()

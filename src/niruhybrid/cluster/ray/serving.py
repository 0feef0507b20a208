"""The application for Ray Serve: replicas of the pipeline, and HTTP servers in front of them."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from niruhybrid.cluster.ray.remote import RemotePipeline
from niruhybrid.cluster.ray.replica import Replica
from niruhybrid.cluster.ray.scaling import policy
from niruhybrid.cluster_config import RayConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.front import configured_keys
from niruhybrid.server.shared_log import SharedLog
from niruhybrid.settings import Settings, load_settings

__all__ = ("APPLICATION", "application")

APPLICATION = "niruhybrid"
"""The application's name on the cluster."""

_PIPELINE, _INGRESS = "pipeline", "ingress"
_DRAIN_LOOK = 0.5  # seconds between two looks of Ray Serve at whether a replica that is to go is done
_LOGS = {"enable_access_log": False}  # three lines for each request
_UNBOUNDED = 100_000  # calls of one replica: the scheduler and the gate have bounds of their own, and say so truly
_UP_AFTER, _DOWN_AFTER = 5.0, 120.0  # seconds of the same wish before the number of replicas changes


def application(
    settings: Settings | None = None, *, open_pipeline: Callable[[], Awaitable[Pipeline]] | None = None
) -> Any:
    """Return what `serve.run` takes: the pipeline's replicas and the HTTP servers in front of them.

    Args:
        settings: of pipeline, server and replicas; None reads them from the environment.
        open_pipeline: opens the pipeline of a replica, where the replica runs; None opens one from `settings`.

    Raises:
        InvalidSettingError: several replicas are wanted, and a store that only one process can have; or API keys can't
            be used, or are needed.
    """
    settings = settings or load_settings()
    configured_keys(settings.server)
    if open_pipeline is None:
        _refuse_stores_of_their_own(settings)
    from ray import serve  # noqa: PLC0415  # heavy

    bounds = settings.ray
    replicas: Any = serve.deployment(
        Replica,
        name=_PIPELINE,
        max_ongoing_requests=_UNBOUNDED,
        ray_actor_options={"num_cpus": bounds.cpus},
        graceful_shutdown_timeout_s=bounds.drain,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK,
        logging_config=_LOGS,
        **_numbers(bounds),
    )

    def http() -> ASGIApp:
        return _http(settings)

    ingress: Any = serve.deployment(
        serve.ingress(http)(),
        name=_INGRESS,
        max_ongoing_requests=_UNBOUNDED,
        num_replicas=bounds.ingress,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=bounds.drain,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK,
        logging_config=_LOGS,
    )
    open_here = open_pipeline or functools.partial(Pipeline.open, settings)
    return ingress.bind(replicas.bind(open_here, settings.streaming.max_concurrent_streams))


def _numbers(bounds: RayConfig) -> dict[str, Any]:
    """Return how many replicas there are to be, as Ray Serve takes it."""
    if bounds.max_replicas is None or bounds.max_replicas == bounds.replicas:
        return {"num_replicas": bounds.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": bounds.replicas,
            "max_replicas": bounds.max_replicas,
            "upscale_delay_s": _UP_AFTER,
            "downscale_delay_s": _DOWN_AFTER,
            "policy": {"policy_function": policy},
        }
    }


def _http(settings: Settings) -> ASGIApp:
    """Return the server's application, where an HTTP server runs."""
    from ray import serve  # noqa: PLC0415  # heavy

    from niruhybrid.server.app import create_app  # noqa: PLC0415  # only where it runs

    async def remote() -> RemotePipeline:
        handle = serve.get_deployment_handle(_PIPELINE)
        return RemotePipeline(handle, patience=settings.streaming.processing_timeout)

    async def shared() -> SharedLog:
        from niruhybrid.cluster.shared_log import PostgresSharedLog  # noqa: PLC0415  # an extra

        return await PostgresSharedLog.open(settings.store, keep=settings.server.log_seconds)

    app = create_app(remote, settings.server, open_log=shared if settings.store.on_server else None)
    return _once_open(app)


def _once_open(app: FastAPI) -> ASGIApp:
    """Return the application, which says that it has started when it can answer: Ray Serve sends requests then."""

    async def opened(scope: Scope, receive: Receive, send: Send) -> None:
        async def when_open(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await app.state.gate.open()
            await send(message)

        await app(scope, receive, when_open if scope["type"] == "lifespan" else send)

    return opened


def _refuse_stores_of_their_own(settings: Settings) -> None:
    most = settings.ray.max_replicas or settings.ray.replicas
    if most > 1 and not settings.store.on_server:
        raise InvalidSettingError(
            f"{most} replicas are wanted, and the store belongs to one process: "
            "give a store on PostgreSQL, or run one replica"
        )

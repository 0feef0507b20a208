"""The way to a cluster of Ray, or to one made on this machine; and what is run and stopped there."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from niruhybrid.cluster.ray.serving import APPLICATION
from niruhybrid.config import ServerConfig
from niruhybrid.errors import UnreachableError

__all__ = ("connected", "run", "stop")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Have a cluster within the block; one that was made for it ends with it.

    Args:
        address: `host:port` of a cluster's head, `auto` for the one that this machine is part of, `ray://host:port` for
            one that is reached through Ray's client; None makes one on this machine.

    Raises:
        UnreachableError: there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is loaded
    import ray  # noqa: PLC0415  # heavy

    try:
        ray.init(address or "local", include_dashboard=None if address else False, logging_level=logging.WARNING)
    except ConnectionError as err:
        raise UnreachableError(
            f"there is no cluster of Ray at {address!r}: check the address, or leave it out"
        ) from err
    try:
        yield
    finally:
        ray.shutdown()


def run(made: Any, config: ServerConfig, *, everywhere: bool) -> None:
    """Run an application, or update it where it runs; returns when it answers.

    Args:
        made: from `application`.
        config: where to listen. Where Ray Serve runs already, it listens as it does.
        everywhere: have each node of the cluster listen, not only the head.
    """
    from ray import serve  # noqa: PLC0415  # heavy

    serve.start(proxy_location="EveryNode" if everywhere else "HeadOnly", http_options=_http_options(config))
    serve.run(made, name=APPLICATION, route_prefix="/")


def stop() -> None:
    """Stop the application; what it has begun is done first, within `drain` seconds. Other applications go on."""
    from ray import serve  # noqa: PLC0415  # heavy

    serve.delete(APPLICATION)


def _http_options(config: ServerConfig) -> dict[str, object]:
    tls = {} if config.tls_cert is None else {"ssl_certfile": config.tls_cert, "ssl_keyfile": config.tls_key}
    return {"host": config.host, "port": config.port, **tls}

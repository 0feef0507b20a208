"""The connection to NATS: made in time, made again when it breaks, its errors told as our own."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from nats import errors as nats_errors
from nats.aio.client import Client

from niruhybrid.cluster.subjects import health_subject
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import UnreachableError

__all__ = ("ANSWER", "SettledClient", "ask_health", "connect", "told")

logger = logging.getLogger(__name__)

ANSWER = 5.0
"""Seconds for one answer of the server."""


class SettledClient(Client):
    """A client whose `flush`, which its subscriptions' `drain` waits for, returns when the server has taken everything.

    The ping of the original overtakes what is sent but not yet written, such as the end of a subscription; a second one
    does not.
    """

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109  # as the original has it
        """Wait until the server has taken all that was sent before."""
        await super().flush(timeout)
        await super().flush(timeout)


async def ask_health(config: WorkerConfig) -> dict[str, Any]:
    """Return what a worker of this host says of itself.

    Raises:
        UnreachableError: NATS can't be reached, or no worker of this host answers within five seconds.
    """
    client = Client()
    await connect(client, config, ANSWER)
    try:
        with told():
            reply = await client.request(health_subject(config.prefix), timeout=ANSWER)
    finally:
        await client.close()
    health: dict[str, Any] = orjson.loads(reply.data)
    return health


async def connect(client: Client, config: WorkerConfig, patience: float, **options: Any) -> None:
    """Connect within `patience` seconds, and from then on again whenever it breaks.

    Raises:
        UnreachableError: there was no connection in time.
    """
    last = "no answer"

    async def note(error: Exception) -> None:
        """Say what is wrong with the connection once, not at each try."""
        nonlocal last
        said = f"{type(error).__name__}: {error}"
        if said != last:
            logger.warning("broker_error error=%s", said)
        last = said

    urls = config.url.replace(",", " ").split()
    try:
        async with asyncio.timeout(patience):
            await client.connect(urls, error_cb=note, max_reconnect_attempts=-1, reconnect_time_wait=1, **options)
    except BaseException as err:
        await client.close()
        if isinstance(err, TimeoutError):
            raise UnreachableError(f"no connection to {_hosts(urls)} ({last}): check `url`") from err
        raise


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tell an error of NATS as our own."""
    try:
        yield
    except (nats_errors.Error, TimeoutError, OSError) as err:
        raise UnreachableError(f"NATS did not do what it was asked to ({err}): see whether it runs") from err


def _hosts(urls: Sequence[str]) -> str:
    """Return the addresses in `urls` without what else they hold: users, passwords, tokens."""
    parts = map(urlsplit, urls)
    return ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)

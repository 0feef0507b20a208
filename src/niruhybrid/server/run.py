"""Runs the application: a listening socket, a web server, its end."""

import asyncio
import contextlib
import errno
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import TypeAlias, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.app import create_app
from niruhybrid.server.front import configured_keys
from niruhybrid.server.gate import Gate

__all__ = ("listen", "serve", "set_on_signal")

Headers: TypeAlias = list[tuple[bytes, bytes]]

_BACKLOG = 2048
_DRAIN_SECONDS = 5


def listen(config: ServerConfig) -> socket.socket:
    """Return a listening socket; a connection on which a client takes no bytes for `send_timeout` is cut by the system.

    Raises:
        InvalidSettingError: the address can't be listened on, or not without API keys.
    """
    configured_keys(config)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds dead peers that send and never end
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(config.send_timeout * 1000)))
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as err:
        listener.close()
        remedy = "choose another `port`, or 0" if err.errno == errno.EADDRINUSE else "check `host` and `port`"
        raise InvalidSettingError(f"can't listen on {config.host}:{config.port} ({err.strerror}): {remedy}") from err
    listener.setblocking(False)  # noqa: FBT003  # its only argument
    return listener


async def serve(
    open_pipeline: Callable[[], Awaitable[Pipeline]],
    config: ServerConfig,
    *,
    listener: socket.socket,
    stopping: asyncio.Event,
    when_ready: Callable[[Pipeline], Awaitable[None]] | None = None,
) -> None:
    """Serve until `stopping` is set, then end open streams with a true event, and return.

    Args:
        open_pipeline: opens the pipeline, while the server already listens.
        config: what is taken from one client.
        listener: from `listen`; closed in every case.
        stopping: set by the caller, or here when there is nothing to serve.
        when_ready: runs beside the server once queries are taken; cancelled with it. Its failure ends the server.

    Raises:
        NiruError: the pipeline could not be opened.
    """
    with listener:
        app = create_app(open_pipeline, config)
        gate: Gate = app.state.gate
        server = _Server(_server_config(app, config))
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        beside = asyncio.ensure_future(_beside(gate, when_ready))
        beside.add_done_callback(lambda done: stopping.set() if done.cancelled() or done.exception() else None)
        asked = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
            gate.drain()
            beside.cancel()  # before the server closes the pipeline that it works with
            await asyncio.wait({beside})
            server.end()
            await serving
        finally:
            beside.cancel()
            asked.cancel()
            await asyncio.wait({beside, asked})
    if not beside.cancelled():
        beside.result()


def _server_config(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


async def _beside(gate: Gate, when_ready: Callable[[Pipeline], Awaitable[None]] | None) -> None:
    pipeline = await asyncio.shield(gate.open())
    if when_ready is not None:
        await when_ready(cast("Pipeline", pipeline))  # `open_pipeline` made it


class _Shared(ServerState):
    """What uvicorn's connections share, the date of their responses included (RFC 9110, section 6.6.1).

    uvicorn has the date ready by waking an idle server each second; here the first response of each makes it.
    """

    def __init__(self) -> None:
        self._second = 0
        self._headers: Headers = []
        super().__init__()

    @property
    def default_headers(self) -> Headers:
        """What each response begins with."""
        second = int(time.time())
        if second != self._second:
            self._second, self._headers = second, [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, _: Headers) -> None:
        """Leave them as they are."""


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to whoever runs it, and asleep while nobody asks."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _Shared()
        self._ends = asyncio.Event()

    def end(self) -> None:
        """Take no more connections, and end once those that are open have been served."""
        self.should_exit = True
        self._ends.set()

    async def main_loop(self) -> None:
        """Wait for the end, instead of looking for it ten times a second."""
        await self._ends.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def set_on_signal(stopping: asyncio.Event) -> Iterator[None]:
    """Set `stopping` at SIGINT or SIGTERM; to be used in the main thread, inside its event loop."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM)
    for number in caught:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)

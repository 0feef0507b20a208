"""Runs the application: a listening socket, a web server, its end."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import TypeAlias, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from niruhybrid.config import ServerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.server.app import create_app
from niruhybrid.server.connections import limits
from niruhybrid.server.gate import Gate
from niruhybrid.server.listening import accept, listen, open_files, tls_context
from niruhybrid.server.protocol import BoundedProtocol, Connections

__all__ = ("listen", "serve", "set_on_signal")

Headers: TypeAlias = list[tuple[bytes, bytes]]

_DRAIN_SECONDS = 5


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
        server = _Server(_server_config(app), config, listener)
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


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
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
    """uvicorn with bounds on connections, with the signals left to whoever runs it, and asleep while nobody asks.

    Args:
        config: uvicorn's.
        bounds: of connections.
        listener: where they come in.
    """

    def __init__(self, config: uvicorn.Config, bounds: ServerConfig, listener: socket.socket) -> None:
        super().__init__(config)
        self.server_state = _Shared()
        self.servers = []
        self._bounds = bounds
        self._listener = listener
        self._ends = asyncio.Event()
        self._connections: Connections | None = None
        self._accepting: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Take no more connections, and end once those that are open have been served."""
        self.should_exit = True
        self._ends.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # as uvicorn has it
        """Start the application and begin to accept connections."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(uvicorn.config.STARTUP_FAILURE)
        connections = self._connections = Connections(limits(self._bounds, open_files()))

        def make(peer: str | None) -> BoundedProtocol:
            return BoundedProtocol(connections, peer, self.config, self.server_state, self.lifespan.state)

        self._accepting = asyncio.ensure_future(
            accept(self._listener, connections, make, tls_context(self._bounds)),
        )
        self._accepting.add_done_callback(lambda _: self._ends.set())
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let the open connections come to their end, and stop the application."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        await super().shutdown(sockets)
        if self._connections is not None:
            self._connections.close()
        if self._accepting is not None and not self._accepting.cancelled():
            self._accepting.result()  # it ended by itself: let the cause be seen

    async def main_loop(self) -> None:
        """Wait for the end, instead of looking for it ten times a second."""
        await self._ends.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def set_on_signal(stopping: asyncio.Event) -> Iterator[None]:
    """Set `stopping` at SIGINT or SIGTERM, and put back what was done at these signals before.

    To be used in the main thread, inside its event loop.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            try:
                loop.add_signal_handler(number, stopping.set)
            except NotImplementedError:  # on Windows, event loops take no signals
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            if handler is not None:  # of a handler that C code installed, Python knows nothing
                signal.signal(number, handler)

"""Pipelines for replicas, importable where replicas run; and the gate by which a test leads their answers."""

import asyncio
import contextlib
import os
import socket
import socketserver
import threading
from collections.abc import AsyncIterator, Sequence
from queue import SimpleQueue
from typing import Self

from niruhybrid.config import StreamingConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.postgres import PostgresStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Hit, Query, Token, Vector

HELD = "held at "


class HeldEncoder(HashEncoder):
    """Encodes a batch with a held text when the gate that the text names lets it."""

    def encode(self, texts: Sequence[str], /) -> Vector:
        """Return unit vectors; each batch with a held text needs one step."""
        held = next((text for text in texts if HELD in text), None)
        if held is not None:
            host, port = held.split()[2:4]
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(f"{os.getpid()}\n".encode())
                connection.recv(1)
        return super().encode(texts)


class LedGenerator:
    """Gives the tokens that a query's metadata asks for: at once, or one for each step of the gate that it names."""

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        tokens, gate = query.metadata.get("tokens", 3), query.metadata.get("gate")
        if gate is None:
            for number in range(tokens):
                yield Token(f"{number} ")
            return
        reader, writer = await asyncio.open_connection(*gate)
        try:
            writer.write(f"{os.getpid()}\n".encode())
            for number in range(tokens):
                await reader.readexactly(1)
                yield Token(f"{number} ")
        finally:
            writer.close()


async def open_pipeline(database: str) -> Pipeline:
    """Return a pipeline over a database that all replicas share, with small batches and short lanes."""
    store = PostgresStore(database)
    config = StreamingConfig(batch_size=4, queue_size=8, processing_timeout=600.0, hang_timeout=600.0)  # tests hold it
    return Pipeline(HeldEncoder(), store, LedGenerator(), streaming=config)


class Led:
    """An answer under way in a replica.

    Attributes:
        pid: the replica's process.
        stopped: set when the replica no longer makes the answer.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.stopped = threading.Event()
        self._connection = connection

    def step(self, tokens: int = 1) -> None:
        """Let it give so many tokens more."""
        with contextlib.suppress(OSError):  # it has gone meanwhile
            self._connection.sendall(b"." * tokens)


class Gate:
    """Where answers ask before they give a token, and encoders before they encode a held text."""

    def __init__(self) -> None:
        self._begun: SimpleQueue[Led] = SimpleQueue()
        self._open = threading.Event()
        gate = self

        class Leads(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                led = Led(self.connection, int(self.rfile.readline()))
                if gate._open.is_set():
                    led.step()
                gate._begun.put(led)
                self.rfile.read()  # nothing more comes: it returns when the other end is closed
                led.stopped.set()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Leads)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def begun(self) -> Led:
        """Wait for the next one to ask, and return it."""
        return self._begun.get(timeout=60)

    def asked(self) -> bool:
        """Whether somebody has asked whom `begun` has not returned yet."""
        return not self._begun.empty()

    def open(self) -> None:
        """Let everybody through who has asked and not been returned, or who asks from now on."""
        self._open.set()
        while not self._begun.empty():
            self._begun.get().step()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

"""Pipelines for replicas, importable where replicas run; and the gate by which a test leads their answers."""

import asyncio
import os
import socket
import socketserver
import threading
from collections.abc import AsyncIterator, Sequence
from queue import SimpleQueue
from typing import Self

from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Hit, IndexEntry, Query, Token

DOCUMENTS = tuple(Document(f"d{n}", f"Document {n} is about tea, and about number {n}.") for n in range(20))


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


async def open_pipeline() -> Pipeline:
    """Return a pipeline over a few documents, the same in each replica."""
    store, encoder = EmbeddedStore(), HashEncoder()
    store.upsert([IndexEntry(each, encoder.encode([each.text])[0], encoder.terms(each.text)) for each in DOCUMENTS])
    return Pipeline(encoder, store, LedGenerator())


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
        self._connection.sendall(b"." * tokens)


class Gate:
    """Where answers ask before they give a token."""

    def __init__(self) -> None:
        self._begun: SimpleQueue[Led] = SimpleQueue()
        begun = self._begun

        class Leads(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                led = Led(self.connection, int(self.rfile.readline()))
                begun.put(led)
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
        """Wait for the next answer to begin, and return it."""
        return self._begun.get(timeout=20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

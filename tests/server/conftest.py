import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import requests

from niruhybrid.config import ServerConfig, StreamingConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.ports import Encoder, Generator
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.server.run import listen, serve
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Hit, IndexEntry, Query, Token


class FirstSentences:
    """Answers with the first sentence of each hit."""

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        for hit in hits:
            yield Token(hit.text.partition(".")[0] + ". ", hit.id)
        if not hits:
            yield Token("Nothing matches.")


class HangingGenerator:
    """Gives one token, then waits for ever; tells when it began to wait and when it was closed."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.closed = threading.Event()

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        try:
            yield Token("so far ")
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.closed.set()


DOCUMENTS = (
    Document("json", "The json module encodes and decodes JSON. It is in the standard library.", "json"),
    Document("heap", "The heapq module is a priority queue. It works on lists.", "heapq", {"page": 3}),
    Document("csv", "The csv module reads and writes tables.", "csv"),
)


def pipeline_of(
    generator: Generator | None = None, encoder: Encoder | None = None, streaming: StreamingConfig | None = None
) -> Pipeline:
    """Return a pipeline over three documents, with a fake encoder and an obvious generator by default."""
    store, encodes = EmbeddedStore(), HashEncoder()
    store.upsert([IndexEntry(item, encodes.encode([item.text])[0], encodes.terms(item.text)) for item in DOCUMENTS])
    return Pipeline(encoder or encodes, store, generator or FirstSentences(), streaming=streaming)


class Server:
    """A real server on a port of its own, in a thread of its own."""

    def __init__(
        self,
        make: Callable[[], Pipeline],
        config: ServerConfig,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._make = make
        self._config = config
        self._listener = listen(config)
        self.host, self.port = self._listener.getsockname()[:2]
        self._loop = new_loop()
        self._stopping = asyncio.Event()
        self.opened = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.pipeline: Pipeline
        self.failure: BaseException | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self, *, wait: bool) -> None:
        self._thread.start()
        if wait:
            assert self.opened.wait(10)
            assert self.failure is None

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(15)
        assert not self._thread.is_alive()

    def stats(self) -> dict[str, Any]:
        """Return the server's counters, asked over HTTP."""
        counters: dict[str, Any] = requests.get(f"{self.url}/stats", timeout=5).json()
        return counters

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as err:  # noqa: BLE001  # a test looks at it
                self.failure = err
        self.opened.set()

    async def _serve(self) -> None:
        await serve(self._open, self._config, listener=self._listener, stopping=self._stopping, when_ready=self._ready)

    async def _open(self) -> Pipeline:
        return await asyncio.to_thread(self._make)

    async def _ready(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.opened.set()


@pytest.fixture
def make_pipeline() -> Callable[..., Pipeline]:
    return pipeline_of


@pytest.fixture
def hanging() -> HangingGenerator:
    return HangingGenerator()


class Opening:
    """Opens a pipeline when it may."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self) -> Pipeline:
        assert self.go.wait(10)
        return pipeline_of()


@pytest.fixture
def opening() -> Iterator[Opening]:
    opening = Opening()
    yield opening
    opening.go.set()


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    """Start servers, and stop them at the end."""
    servers: list[Server] = []

    def start(
        make: Callable[[], Pipeline] = pipeline_of,
        *,
        wait: bool = True,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **settings: Any,
    ) -> Server:
        server = Server(make, ServerConfig(port=0, **settings), new_loop)
        servers.append(server)
        server.start(wait=wait)
        return server

    yield start
    for server in servers:
        server.stop()

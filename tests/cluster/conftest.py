"""Workers over a broker in memory, as tests watch and disturb them; replicas on a cluster of two nodes."""

import asyncio
import os
import secrets
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from niruhybrid.cluster.broker import Request
from niruhybrid.cluster.worker import run_worker
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import StoreError
from niruhybrid.generation.extractive import ExtractiveGenerator
from niruhybrid.pipeline import Pipeline
from niruhybrid.ports import Encoder
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import IndexEntry
from tests.cluster.memory_broker import MemoryBroker, MemoryStream
from tests.cluster.replicas import Gate
from tests.cluster.served import Served

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

WAIT = 30.0  # seconds for what should come at once


class BrokenStore(EmbeddedStore):
    """Fails as a store does that can't be reached, for as long as `failures` lasts."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        if self.failures:
            self.failures -= 1
            raise StoreError("the store can't be reached: see whether it runs")
        return super().upsert(entries)


class Town:
    """A stream, the workers on it, and whoever publishes and asks.

    Args:
        config: of all workers.
        ack_wait: of the stream; None takes the configuration's.
    """

    def __init__(self, config: WorkerConfig | None = None, ack_wait: float | None = None) -> None:
        self.config = config or WorkerConfig()
        self.stream = MemoryStream(self.config.ack_wait if ack_wait is None else ack_wait)
        self.results = self.listen("niru.results")
        self._inboxes = 0

    @asynccontextmanager
    async def worker(
        self, store: EmbeddedStore | None = None, encoder: Encoder | None = None
    ) -> AsyncIterator[Pipeline]:
        """Run a worker until the end of the block."""
        stopping = asyncio.Event()
        pipeline = Pipeline(encoder or HashEncoder(), store or EmbeddedStore(), ExtractiveGenerator())
        async with pipeline:
            working = asyncio.create_task(run_worker(pipeline, MemoryBroker(self.stream), self.config, stopping))
            try:
                yield pipeline
            finally:
                stopping.set()
                await working

    def send(self, value: object, subject: str = "niru.data", **headers: str) -> int:
        """Publish a data message: JSON, unless it is bytes already."""
        data = value if isinstance(value, bytes) else orjson.dumps(value)
        return self.stream.add(subject, data, {name.replace("_", "-"): each for name, each in headers.items()})

    def listen(self, subject: str) -> "asyncio.Queue[Request]":
        """Return where what is published to a subject comes out."""
        queue: asyncio.Queue[Request] = asyncio.Queue()
        self.stream.listeners[subject].append(queue)
        return queue

    async def result(self) -> dict[str, Any]:
        """Return the next result."""
        return await heard(self.results)

    async def ask(self, subject: str, value: object) -> "asyncio.Queue[Request]":
        """Send a request to a worker and return where its replies come out."""
        self._inboxes += 1
        replies = self.listen(f"inbox.{self._inboxes}")
        while not self.stream.handlers[subject]:
            self.stream.served.clear()
            await self.stream.served.wait()
        data = value if isinstance(value, bytes) else orjson.dumps(value)
        await self.stream.handlers[subject][0](Request(data, f"inbox.{self._inboxes}"))
        return replies


async def heard(queue: "asyncio.Queue[Request]") -> dict[str, Any]:
    """Return the next thing that is published there."""
    value: dict[str, Any] = orjson.loads((await queue.get()).data)
    return value


Scenario = Callable[[Town], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play() -> Play:
    """Return what plays a scenario in a town of its own."""

    def played(scenario: Scenario, config: WorkerConfig | None = None, ack_wait: float | None = None) -> None:
        async def main() -> None:
            async with asyncio.timeout(WAIT):
                await scenario(Town(config, ack_wait))

        asyncio.run(main())

    return played


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one into the home folder
}
NODE: dict[str, Any] = {"num_cpus": 4, "object_store_memory": 80 << 20}


@pytest.fixture(scope="session")
def served(postgres_server: "PostgresServer") -> Iterator[Served]:
    """Start two nodes of Ray on this machine, and Ray Serve on a free port."""
    ray: Any = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    kept = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own: files left open, calls that it has deprecated
        from ray import serve
        from ray.cluster_utils import Cluster

        head = NODE | {"include_dashboard": False, "node_ip_address": "127.0.0.2"}
        cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**NODE, node_ip_address="127.0.0.3")
        ray.init(cluster.address, log_to_driver=False, logging_level="error", _node_ip_address="127.0.0.2")
        port = _free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield Served(port, postgres_server.new_database())
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it so
        ray.shutdown()
        cluster.shutdown()
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate

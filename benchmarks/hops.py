"""What does each hop cost? The same streamed answers, at 1 and 8 clients: of the library, over HTTP, on Ray Serve.

Each way has the same passages in a store of its kind: a file, or a database on a PostgreSQL server. The library runs in
this process, beside its clients; `niru serve` in one of its own; on Ray there are a proxy, one HTTP server and one
replica. A closed loop: each client asks again when its answer is complete. All ways have their turn in each round, so
that what disturbs the machine disturbs all. Every way must find the same for the same questions, over the same store.

Processor time is the machine's, clients included, so nothing else may run. Run it with `python benchmarks/hops.py`;
`--quick` for a look, which writes nothing.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from _report import machine, percentile, summary, write

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the server that tests use, too

from _demo import demo_passages  # after the line about sys.path

from niruhybrid.ingest import ingest_new  # same
from niruhybrid.pipeline import Pipeline  # same
from niruhybrid.settings import Settings, load_settings  # same
from niruhybrid.types import Query  # same
from tests.servers.postgres import PostgresServer  # same

CLIENTS = (1, 8)
RAY_PORT = 18_231
ASKED = count(1)

HEAD = b"POST /stream/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Found = list[str]
Ask = Callable[[str], Awaitable[Found]]
"""Asks one question, reads its answer to the end and returns the ids of the hits."""


@asynccontextmanager
async def library(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[Ask]]]:
    """Answer in this process."""
    async with await Pipeline.open(settings) as pipeline:

        async def ask(question: str) -> Found:
            found: Found = []
            async with aclosing(pipeline.stream(Query("q", question))) as events:
                async for event in events:
                    if event.event == "sources":
                        found = [hit["id"] for hit in event.data["hits"]]
            assert event.event == "done", event
            return found

        async def connect() -> Ask:
            return ask

        yield connect


def over_http(port: int) -> Callable[[], Awaitable[Ask]]:
    """Return what makes connections to a server that answers."""

    async def connect() -> Ask:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask(question: str) -> Found:
            body = json.dumps({"query": question}).encode()
            writer.write(HEAD % len(body) + body)
            status = await reader.readuntil(b"\r\n\r\n")
            assert status.startswith(b"HTTP/1.1 200"), status
            stream = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                stream += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            events = [block.split(b"\n") for block in stream.split(b"\n\n") if block.startswith(b"id: ")]
            assert events[-1][1] == b"event: done", events[-1]
            return [hit["id"] for hit in json.loads(events[0][2].removeprefix(b"data: "))["hits"]]

        return ask

    return connect


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[Ask]]]:
    """Answer over HTTP, by `niru serve`."""
    words = (
        "-c",
        "from niruhybrid.cli import main; main()",
        "serve",
        "--port",
        "0",
        "--store",
        str(settings.store.path),
    )
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environ)
    assert process.stdout is not None
    port = 0
    async for line in process.stdout:
        if b"listens on" in line:
            port = int(line.split(b"http://127.0.0.1:")[1].split()[0])
        if b"ready after" in line:
            break
    try:
        yield over_http(port)
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def on_ray(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[Ask]]]:
    """Answer over HTTP on the Ray that runs on this machine; in a thread, since it has loops of its own."""
    from niruhybrid.cluster.ray import application, deploying

    await asyncio.to_thread(deploying.run, application(settings), settings.server, everywhere=False)
    try:
        yield over_http(RAY_PORT)
    finally:
        await asyncio.to_thread(deploying.stop)


WAYS = {"library": library, "HTTP": serve, "Ray": on_ray}


async def run(connect: Callable[[], Awaitable[Ask]], questions: Iterator[str], clients: int) -> list[float]:
    """Ask all questions and return how long each answer took, in milliseconds."""
    times: list[float] = []

    async def one() -> None:
        ask = await connect()
        for question in questions:
            began = time.perf_counter()
            await ask(question)
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one() for _ in range(clients)))
    return times


def busy() -> float:
    """Return the seconds that all processors of the machine have worked."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, *others = map(int, fields[:8])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def never_asked(titles: list[str], number: int) -> Iterator[str]:
    """Yield so many questions, none of them twice: its vector might be kept."""
    return (f"How is {titles[n % len(titles)]} used? Case {next(ASKED)}." for n in range(number))


async def turn(way: str, settings: Settings, titles: list[str], given: Any) -> dict[str, Any]:
    """Give one way its turn: the same questions first, then those that are timed."""
    async with WAYS[way](settings) as connect:
        ask = await connect()
        found = [await ask(f"What is {title}?") for title in titles[:20]]
        await run(connect, never_asked(titles, given.answers // 4), 8)  # warm-up
        rows: dict[str, Any] = {"found": found}
        for clients in CLIENTS:
            before, began = busy(), time.perf_counter()
            times = await run(connect, never_asked(titles, given.answers), clients)
            rows[str(clients)] = {
                "p50_ms": percentile(times, 50),
                "p99_ms": percentile(times, 99),
                "answers_per_second": len(times) / (time.perf_counter() - began),
                "cpu_ms_per_answer": (busy() - before) / len(times) * 1000,
            }
        return rows


async def fill(settings: Settings, documents: int) -> list[str]:
    """Bring the corpus into a store and return the titles."""
    passages = [passage for passage, _ in zip(demo_passages(), range(documents), strict=False)]
    async with await Pipeline.open(settings) as pipeline:
        report = await ingest_new(pipeline, passages)
    assert report.failed == 0, report
    return [passage.title or passage.id for passage in passages]


async def main(given: argparse.Namespace) -> dict[str, Any]:
    from niruhybrid.cluster.ray import deploying

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="niru-hops-")))
        folder.chmod(0o711)  # noqa: ASYNC240  # nothing runs yet; for whom PostgreSQL runs as, when root may not
        server = stack.enter_context(PostgresServer(folder / "server"))
        stores = {"file": str(folder / "hops.db"), "PostgreSQL": server.new_database()}
        kinds = {
            kind: load_settings(environ={}, arguments={"store.path": path, "server.port": RAY_PORT, "ray.cpus": 0.5})
            for kind, path in stores.items()
        }
        titles, _ = [await fill(settings, given.documents) for settings in kinds.values()]
        stack.enter_context(deploying.connected(None))
        rounds: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(given.rounds):
            for kind, settings in kinds.items():
                for way in WAYS:
                    rounds.setdefault((way, kind), []).append(await turn(way, settings, titles, given))
                    print(f"{way} over {kind}: done", file=sys.stderr, flush=True)
    for kind in kinds:
        found = [each["found"] for (_, store), runs in rounds.items() if store == kind for each in runs]
        assert all(each == found[0] for each in found), f"not all ways found the same over {kind}"
    return {
        f"{way} over {kind}": {str(clients): _row([each[str(clients)] for each in runs]) for clients in CLIENTS}
        for (way, kind), runs in rounds.items()
    }


def _row(runs: list[Mapping[str, float]]) -> dict[str, Any]:
    return {name: summary([each[name] for each in runs]) for name in runs[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=300, help="for each way, number of clients and round")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.answers, arguments.documents, arguments.rounds = 40, 100, 1
    results = asyncio.run(main(arguments))
    if not arguments.quick:
        about = {
            "question": "a streamed answer of the library, over HTTP and on Ray Serve, at 1 and 8 clients",
            "machine": machine(("ray", "fastapi", "uvicorn", "openvino", "psycopg")),
            "documents": arguments.documents,
            "answers": arguments.answers,
        }
        write("hops", about | {"results": results})
    for name, rows in results.items():
        for clients, row in rows.items():
            print(
                name, f"{clients} clients", *(f"{key} {value['median']:.2f}" for key, value in row.items()), sep=" | "
            )

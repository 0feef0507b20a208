"""The parts of the run, each by itself: who answers how fast, under too much load, beside an ingest, and at rest."""

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from _report import percentile, summary

from loading import client, corpus
from loading.client import Answer, Load
from loading.contenders import CONTENDERS, Contender
from loading.ingest import Ingest
from loading.servers import Server, started

HERE = Path(__file__).parent
IN_TIME = 1.0  # seconds after which an answer is of no use to who asked
INGEST_QUERIES = 20  # a second, during an ingest
SUBSCRIBERS = 1_000
NOT_SERVED = {"skipped": "not served"}


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts use.

    Attributes:
        core: of the servers.
        store: a filled store.
        vectors: the same documents' vectors.
        documents: the same documents, as a file of JSON lines.
        more: documents for an ingest.
        names: contenders that take part.
        scale: of all durations.
    """

    core: int
    store: Path
    vectors: Path
    documents: Path
    more: Sequence[dict[str, str]]
    names: Sequence[str]
    scale: float

    @contextlib.contextmanager
    def serve(self, one: Contender) -> Iterator[Server]:
        """Start a contender's server; ours on a copy of the store, which it may fill."""
        folder = corpus.fresh_copy(self.store)
        environ = {"LOAD_VECTORS": str(self.vectors), "LOAD_DOCUMENTS": str(self.documents)}
        command = [word.replace("{store}", str(folder / self.store.name)) for word in one.command]
        with started(command, self.core, ready=one.ready, environ={**environ, **one.environ}) as server:
            yield server


class Asking:
    """Real questions without end for one server, none twice until all were asked; then with a number behind."""

    def __init__(self, one: Contender, *, timed: bool = False) -> None:
        self.asked = 0
        self.requests = client.requests(one.path, self._questions(), one.asked_with if timed else {})

    def _questions(self) -> Iterator[str]:
        known = corpus.questions()
        for again in itertools.count(1):
            for question in known:
                self.asked += 1
                yield question if again == 1 else f"{question} {again}"


def served(port: int, one: Contender) -> bool:
    """Say whether a contender's path is there at all."""

    async def probe() -> Answer:
        connection = await client.connect(port)
        try:
            return await connection.ask(client.post(one.path, {"query": "who is there", "top_k": 5}), 0.0)
        finally:
            connection.close()

    return asyncio.run(probe()).status != 404


# --- 1. who answers how fast -----------------------------------------------------------------------------------------


def serving(bench: Bench) -> dict[str, Any]:
    """Measure everyone at 1 and at 32 clients, closed loop, in turns."""
    rounds, rows = 3, dict[str, Any]()
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[Server, Asking]] = {}
        for name in bench.names:
            one, server = CONTENDERS[name], stack.enter_context(bench.serve(CONTENDERS[name]))
            if not served(server.port, one):
                rows[name] = NOT_SERVED
                continue
            running[name] = (server, Asking(one))
            asyncio.run(client.closed_loop(server.port, running[name][1].requests, 32, 0.5))  # warm-up
        taken: dict[str, dict[int, list[dict[str, float]]]] = {name: {1: [], 32: []} for name in running}
        for _ in range(rounds):
            for name, (server, asking) in running.items():
                for clients, seconds in ((1, 1.2), (32, 2.2)):
                    before = server.cpu()
                    load = asyncio.run(client.closed_loop(server.port, asking.requests, clients, seconds * bench.scale))
                    cpu = server.cpu() - before
                    taken[name][clients].append(_slice(load, CONTENDERS[name], cpu))
        for name, (server, asking) in running.items():
            rows[name] = {_named(clients): _median(slices) for clients, slices in taken[name].items()}
            rows[name] |= {"rss_mb": round(server.rss(), 1), "cache_hit_rate": _hit_rate(server, asking)}
    return rows


def _slice(load: Load, one: Contender, cpu: float) -> dict[str, float]:
    ends = [one.check(answer) for answer in load.answers]
    first, last = ([getattr(answer, key) * 1000 for answer in load.answers] for key in ("first", "last"))
    found = {
        "queries_per_s": len(ends) / load.seconds,
        "first_p50_ms": percentile(first, 50),
        "first_p99_ms": percentile(first, 99),
        "last_p50_ms": percentile(last, 50),
        "last_p99_ms": percentile(last, 99),
        "server_cpu_ms": cpu / len(ends) * 1000,
        "generator_share": load.generator_share,
    }
    timings = [end["timings"] for end in ends if "timings" in end]
    for key in ("queued", "encode", "search", "generate") if timings else ():
        found[f"told_{key}_p50_ms"] = statistics.median(each.get(key, 0.0) for each in timings) * 1000
    return found


def _named(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


def _median(slices: list[dict[str, float]]) -> dict[str, Any]:
    return {key: summary([each[key] for each in slices]) for key in slices[0]}


def _hit_rate(server: Server, asking: Asking) -> float | None:
    """Return the share of questions whose vector was still known, where a server tells."""
    cache = _find(_stats(server.port), "cache")
    return None if cache is None else round(cache["hits"] / max(1, asking.asked), 4)


def _stats(port: int) -> Any:
    async def get() -> Answer:
        connection = await client.connect(port)
        try:
            return await connection.ask(b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 0.0)
        finally:
            connection.close()

    answer = asyncio.run(get())
    return json.loads(answer.content()) if answer.good else {}


def _find(tree: Any, key: str) -> Any:
    if not isinstance(tree, dict):
        return None
    return tree.get(key) or next((found for each in tree.values() if (found := _find(each, key))), None)


# --- 2. at twice the capacity ----------------------------------------------------------------------------------------


def overload(bench: Bench) -> dict[str, Any]:
    """Measure each one's peak, and then offer it twice as much."""
    rows = {}
    for name in bench.names:
        one = CONTENDERS[name]
        with bench.serve(one) as server:
            if not served(server.port, one):
                rows[name] = NOT_SERVED
                continue
            asking = Asking(one, timed=True)
            asyncio.run(client.closed_loop(server.port, asking.requests, 32, 0.5))  # warm-up
            peak = asyncio.run(client.closed_loop(server.port, asking.requests, 32, 2.5 * bench.scale))
            rate = len([1 for answer in peak.answers if answer.good]) / peak.seconds
            load = asyncio.run(client.open_loop(server.port, asking.requests, 2 * rate, 5 * bench.scale))
            rows[name] = {"peak_queries_per_s": round(rate, 1), **_goodput(load, one, rate)}
    return rows


def _goodput(load: Load, one: Contender, peak: float) -> dict[str, Any]:
    ends = {"in time": 0, "late": 0, "refused": 0, "refused, no Retry-After": 0, "other ends": 0, "no answer": 0}
    in_time = []
    for answer in load.answers:
        if answer.good:
            try:
                one.check(answer)
            except AssertionError:
                ends["other ends"] += 1
                continue
            ends["in time" if answer.last <= IN_TIME else "late"] += 1
            in_time += [answer.last * 1000] if answer.last <= IN_TIME else []
        elif answer.status in {429, 503}:
            ends["refused" if answer.retry_after else "refused, no Retry-After"] += 1
        else:
            ends["no answer" if answer.status == 0 else "other ends"] += 1
    refusals = [answer.last * 1000 for answer in load.answers if answer.status in {429, 503}]
    return {
        "offered_per_s": round(len(load.answers) / load.seconds, 1),
        "goodput_per_s": round(ends["in time"] / load.seconds, 1),
        "goodput_share_of_peak": round(ends["in time"] / load.seconds / peak, 3),
        "ends": ends,
        "truly_ended_share": round((ends["in time"] + ends["refused"]) / len(load.answers), 4),
        "in_time_p50_ms": round(percentile(in_time, 50), 1) if in_time else None,
        "refusal_p50_ms": round(percentile(refusals, 50), 2) if refusals else None,
        "generator_share": round(load.generator_share, 3),
        "sent_late_p99_ms": round(load.late * 1000, 2),
    }


# --- 3. beside an ingest ---------------------------------------------------------------------------------------------


def ingest(bench: Bench) -> dict[str, Any]:
    """Measure 20 queries a second during a bulk ingest, and the ingest with and without them, in turns."""
    rows: dict[str, Any] = {}
    for name in bench.names:
        if CONTENDERS[name].ingests:
            with bench.serve(CONTENDERS[name]) as server:
                rows[name] = asyncio.run(_ingested(bench, server, Asking(CONTENDERS[name])))
    return rows


async def _ingested(bench: Bench, server: Server, asking: Asking) -> dict[str, Any]:
    await client.closed_loop(server.port, asking.requests, 8, 0.5)  # warm-up
    quiet = await client.open_loop(server.port, asking.requests, INGEST_QUERIES, 3 * bench.scale)
    ingesting, rates, answers = Ingest(), dict[str, list[float]](alone=[], beside=[]), list[Answer]()
    if not await ingesting.start(server.port, iter(bench.more)):
        await ingesting.stop()
        return NOT_SERVED
    await ingesting.rate(2.0 * bench.scale)  # until it runs evenly
    for _ in range(3):
        rates["alone"].append(await ingesting.rate(5.0 * bench.scale))
        asked = asyncio.ensure_future(
            client.open_loop(server.port, asking.requests, INGEST_QUERIES, 5 * bench.scale, grace=8)
        )
        rates["beside"].append(await ingesting.rate(5 * bench.scale))
        answers += (await asked).answers
    await ingesting.stop()
    for answer in answers:
        client.check_stream(answer)
    last = [answer.last * 1000 for answer in answers]
    return {
        "queries": len(last),
        "query_p50_ms": round(percentile(last, 50), 1),
        "query_p99_ms": round(percentile(last, 99), 1),
        "query_most_ms": round(max(last), 1),
        "query_without_ingest_p50_ms": round(percentile([each.last * 1000 for each in quiet.answers], 50), 1),
        "documents_per_s_alone": summary(rates["alone"], 1),
        "documents_per_s_beside_queries": summary(rates["beside"], 1),
        "share_of_alone": round(sum(rates["beside"]) / max(sum(rates["alone"]), 1e-9), 3),
    }


# --- 4. at rest ------------------------------------------------------------------------------------------------------


def footprint(bench: Bench) -> dict[str, Any]:
    """Measure the start, the memory after some load, and the processor use of a server that nobody asks."""
    rows = {}
    for name in ("niruhybrid", "fastapi, torch", "mosec, torch"):
        if name not in bench.names:
            continue
        one = CONTENDERS[name]
        starts = []
        if name == "niruhybrid":
            for _ in range(2):
                with bench.serve(one) as server:
                    starts.append(server.ready_seconds)
        with bench.serve(one) as server:
            starts.append(server.ready_seconds)
            at_first = server.rss()
            asyncio.run(client.closed_loop(server.port, Asking(one).requests, 32, 1.0))
            time.sleep(1.0)
            before, idle = server.cpu(), 20 * bench.scale if name == "niruhybrid" else 5 * bench.scale
            time.sleep(idle)
            rows[name] = {
                "ready_s": summary(starts, 2),
                "rss_ready_mb": round(at_first, 1),
                "rss_after_load_mb": round(server.rss(), 1),
                "idle_percent_of_a_core": round((server.cpu() - before) / idle * 100, 3),
            }
    return rows


def subscribers(bench: Bench) -> dict[str, Any]:
    """Measure what clients cost that wait for news and get none."""
    with bench.serve(CONTENDERS["niruhybrid"]) as server:
        return {"niruhybrid": asyncio.run(_subscribed(server, bench.scale))}


async def _subscribed(server: Server, scale: float) -> dict[str, Any]:
    await client.closed_loop(server.port, Asking(CONTENDERS["niruhybrid"]).requests, 32, 1.0)  # warm-up
    before, held = server.rss(), list[asyncio.StreamWriter]()
    began = time.perf_counter()
    for question in itertools.islice(corpus.questions(), SUBSCRIBERS):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        held.append(writer)
        writer.write(
            f"GET /stream/subscribe?query={quote(question)}&min_score=0.9 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return NOT_SERVED if b" 404 " in head or b" 405 " in head else {"error": head.decode().splitlines()[0]}
        await reader.readuntil(b"\n\n")
    took = time.perf_counter() - began
    await asyncio.sleep(1.0)
    resident, cpu, idle = server.rss(), server.cpu(), 10 * scale
    await asyncio.sleep(idle)
    found = {
        "subscribers": len(held),
        "kb_each": round((resident - before) * 1024 / len(held), 1),
        "percent_of_a_core": round((server.cpu() - cpu) / idle * 100, 3),
        "opened_per_s": round(len(held) / took, 1),
    }
    for writer in held:
        writer.close()
    return found


# --- 5. the server's own part ----------------------------------------------------------------------------------------


def own(bench: Bench) -> dict[str, Any]:
    """Measure a `/stream/query` of our server with an encoder, a store and a generator that take no time."""
    one = CONTENDERS["niruhybrid"]
    with started([str(HERE / "bare.py"), "{port}"], bench.core, ready="/readyz") as server:
        asking = Asking(one)
        asyncio.run(client.closed_loop(server.port, asking.requests, 32, 0.5))  # warm-up
        slices: dict[int, list[dict[str, float]]] = {1: [], 32: []}
        for _ in range(5):
            for clients, kept in slices.items():
                before = server.cpu()
                load = asyncio.run(client.closed_loop(server.port, asking.requests, clients, 0.6 * bench.scale))
                kept.append(_slice(load, one, server.cpu() - before))
    return {"niruhybrid": {_named(clients): _median(kept) for clients, kept in slices.items()}}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "own": own,
    "serving": serving,
    "overload": overload,
    "ingest": ingest,
    "footprint": footprint,
    "subscribers": subscribers,
}

"""What is run in one process: a contender's rows with the timed encoder, with one fault, or with the real one."""

import asyncio
import itertools
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from benchmarks.scheduling import loads
from benchmarks.scheduling.contenders import CONTENDERS, Contender
from benchmarks.scheduling.encoders import BATCH, BATCH_SECONDS, Spec, build
from benchmarks.scheduling.loads import Figures, Scale

FAULTS = ("raise", "hang", "die", "short")
FULL = Scale(
    backlogs=26,
    queries=4,
    budget=60.0,
    lone=200,
    seconds=3.0,
    quiet=4.0,
    places=tuple(range(BATCH)),
    submissions=10_000,
)
RIVAL = Scale(
    backlogs=3,
    queries=12,
    budget=5.0,
    lone=60,
    seconds=2.0,
    quiet=4.0,
    places=tuple(range(0, BATCH, 4)),
    submissions=2_000,
)
QUICK = Scale(backlogs=2, queries=2, budget=3.0, lone=30, seconds=0.7, quiet=0.6, places=(0, 13, 31), submissions=300)
Tell = Callable[[str, Figures], None]


@asynccontextmanager
async def served(name: str, spec: Spec, **given: Any) -> AsyncIterator[Contender]:
    """Start a contender, ask it once and stop it at the end."""
    contender = CONTENDERS[name]()
    await contender.start(spec, **given)
    try:
        await asyncio.wait_for(contender.encode("warm up number 0"), 60)
        yield contender
    finally:
        await contender.stop()


async def row(tell: Tell, name: str, load: Awaitable[Figures], limit: float = 60.0) -> None:
    """Run one row; one that fails is told as such, and the next goes on."""
    try:
        tell(name, await asyncio.wait_for(load, limit))
    except Exception as err:  # a rival may raise anything  # noqa: BLE001  # a rival may raise anything, and that is what is measured
        tell(name, {"error": f"{type(err).__name__}: {err}"[:300]})


async def timed(name: str, scale: Scale, tell: Tell, folder: str) -> None:
    """Run the rows with an encoder of 20 ms a batch, and the one of the free encoder."""
    ours = name == "niruhybrid"
    plain = Spec("timed")
    async with served(name, plain) as contender:
        await row(tell, "query_behind_bulk", loads.query_behind_bulk(contender, scale, alone=3 if ours else 1))
        await row(tell, "saturated", loads.closed_loop(contender, 64, scale.seconds, BATCH / BATCH_SECONDS))
    async with served(name, plain) as contender:
        await row(tell, "lone_request", loads.lone_request(contender, scale, build(plain)))
        await row(tell, "idle", loads.idle(min(5.0, scale.seconds * 5 / 3)))
    async with served(name, Spec("free")) as contender:
        await row(tell, "free_encoder", loads.closed_loop(contender, 256, scale.seconds, None))
    if ours:
        async with served(name, Spec("free"), cache=False) as contender:
            await row(tell, "free_encoder_without_cache", loads.closed_loop(contender, 256, scale.seconds, None))
        tell("saturated_threads", threads("timed", 64, scale.seconds, BATCH / BATCH_SECONDS))
        tell("free_encoder_threads", threads("free", 64, scale.seconds, None))
    for many in (400, 800):
        async with served(name, plain, deadline=loads.DEADLINE) as contender:
            feasible = min(many, int(loads.DEADLINE / BATCH_SECONDS) * BATCH)
            await row(tell, f"burst_{many}", loads.burst(contender, scale, many, feasible))
    spec = loads.journalled(plain, folder, "poison")
    async with served(name, spec) as contender:
        await row(tell, "poison", loads.poison(contender, scale, spec))
    spec = loads.journalled(plain, folder, "cancel")
    async with served(name, spec) as contender:
        await row(tell, "cancellations", _cancellations(name, contender, scale, spec))


async def _cancellations(name: str, contender: Contender, scale: Scale, spec: Spec) -> Figures:
    figures = await loads.cancellations(contender, scale, spec)
    if name == "niruhybrid":
        stats = contender.processor.stats()  # type: ignore[attr-defined]  # ours alone has counters that add up
        assert stats.lanes.balanced, stats
        assert stats.queries.waiting == stats.queries.in_flight == 0, stats
        # One who leaves when the result is on its way counts as delivered here, as cancelled there.
        assert stats.queries.cancelled <= figures["cancelled"], stats
        assert stats.queries.delivered + stats.queries.cancelled == stats.queries.offered, stats
        figures["balanced"] = True
    return figures


def threads(kind: Any, clients: int, seconds: float, ideal: float | None) -> Figures:
    """Run a closed loop of threads on `StreamProcessor`."""
    from niruhybrid.streaming.stream_processor import StreamProcessor

    times: list[tuple[float, float]] = []
    opened = time.monotonic() + min(0.5, seconds / 4)
    until = opened + seconds
    with StreamProcessor(build(Spec(kind)), BATCH) as processor:

        def client() -> None:
            while (began := time.monotonic()) < until:
                text = loads.fresh(1)[0]
                loads.check(text, processor.process_query("q", text).vector)
                times.append((began, time.monotonic()))

        workers = [threading.Thread(target=client) for _ in range(clients)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    inside = [ended - began for began, ended in times if opened <= ended < until]
    rate = len(inside) / seconds
    figures: Figures = {"clients": clients, "per_second": round(rate, 1), "request_ms": loads.summary(inside)}
    return figures if ideal is None else figures | {"ideal_per_second": ideal, "share_of_ideal": round(rate / ideal, 4)}


async def faulty(name: str, kind: str, tell: Tell) -> None:
    """Run the row of one fault."""
    async with served(name, Spec("timed"), deadline=loads.PATIENCE) as contender:
        await row(tell, f"fault_{kind}", loads.fault(contender, kind), 30.0)


class Real:
    """Real texts, and what our encoder makes of each alone."""

    def __init__(self) -> None:
        from benchmarks._demo import demo_passages

        self.encoder = build(Spec("hybrid"))
        self._corpus = list(itertools.islice(demo_passages(), 2000))
        self._numbers = itertools.count()

    def texts(self, many: int, kind: str) -> list[str]:
        """Return texts that nobody has seen before."""
        chosen = [(n, self._corpus[n * 7 % len(self._corpus)]) for n in itertools.islice(self._numbers, many)]
        if kind == "document":
            return [f"{document.title}, number {n}. {document.text}" for n, document in chosen]
        return [f"How is {document.title} used in example {n}?" for n, document in chosen]

    def verify(self, text: str, vector: Any) -> None:
        """Fail unless one answer in fifty is what the encoder makes of that text alone."""
        if hash(text) % 50 == 0:
            assert float(np.dot(self.encoder.encode([text])[0], vector)) > 0.999, f"wrong vector for {text!r}"

    def batch_seconds(self, kind: str, seconds: float) -> float:
        """Return what a batch of 32 takes when nothing is between the caller and the encoder."""
        took = []
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            self.encoder.encode(self.texts(BATCH, kind))
            took.append(time.monotonic() - began)
        return float(np.median(took))


async def hybrid(name: str, scale: Scale, tell: Tell) -> None:
    """Run the rows again with the real encoder inside."""
    real = Real()
    await asyncio.to_thread(real.batch_seconds, "query", scale.seconds / 4)
    query = await asyncio.to_thread(real.batch_seconds, "query", scale.seconds / 2)
    document = await asyncio.to_thread(real.batch_seconds, "document", scale.seconds / 2)
    tell("hybrid_direct", {"query_batch_ms": round(query * 1000, 2), "document_batch_ms": round(document * 1000, 2)})
    smaller = replace(
        scale,
        backlogs=max(2, scale.backlogs // 4),
        budget=scale.budget / 2,
        lone=scale.lone // 4,
        quiet=scale.quiet / 2,
    )
    async with served(name, Spec("hybrid")) as contender:
        await row(
            tell,
            "hybrid_query_behind_bulk",
            loads.query_behind_bulk(contender, smaller, documents=320, alone=1, texts=real.texts, verify=real.verify),
        )
        await row(
            tell,
            "hybrid_lone_request",
            loads.lone_request(contender, smaller, real.encoder, real.texts(smaller.lone, "query")),
        )
        await row(
            tell,
            "hybrid_saturated",
            loads.closed_loop(contender, 64, smaller.seconds, BATCH / query, texts=real.texts, verify=real.verify),
        )
    feasible = int(loads.DEADLINE / query) * BATCH
    for share in (0.5, 1.0):
        async with served(name, Spec("hybrid"), deadline=loads.DEADLINE) as contender:
            many = int(share * feasible)
            load = loads.burst(contender, smaller, many, many, texts=real.texts, verify=real.verify)
            await row(tell, f"hybrid_burst_{int(share * 100)}_percent", load)


def run(name: str, part: str, scale: Scale, tell: Tell) -> None:
    """Run one part of one contender's rows."""
    with tempfile.TemporaryDirectory() as folder:
        if part == "timed":
            asyncio.run(timed(name, scale, tell, folder))
        elif part == "hybrid":
            asyncio.run(hybrid(name, scale, tell))
        else:
            asyncio.run(faulty(name, part, tell))

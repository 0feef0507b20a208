"""This library's store alone, in detail: what the table of bars in the issue of the store asks for."""

import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.storing.corpus import Corpus, Nearest, Question

from niruhybrid.ports import Store
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import IndexEntry, SearchRequest

FILTERS = {
    "filter 10%": ({"eq": {"lang": "sw"}}, lambda n: n % 10 == 1),
    "filter 0.1%": ({"eq": {"rare": 7}}, lambda n: n % 1000 == 7),
}
PROBES = 100


def times(call: Callable[[Any], object], items: Sequence[Any]) -> list[float]:
    """Return the milliseconds of each call."""
    taken = []
    for item in items:
        began = time.perf_counter()
        call(item)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def settled() -> None:
    """Wait until the store has no upkeep to do."""
    for thread in threading.enumerate():
        if thread.name in {"niru-store-upkeep", "niru-store-index"}:
            thread.join()


def asked(question: Question, **more: Any) -> SearchRequest:
    return SearchRequest(question.vector, question.terms, 10, **more)


def ids(store: Store, requests: Sequence[SearchRequest]) -> list[list[str]]:
    return [[hit.id for hit in store.search([request])[0].hits] for request in requests]


def under_writes(store: Store, corpus: Corpus, first: int, a_second: int) -> tuple[list[float], float]:
    """Return query times while rows are written one by one, and the rows written a second."""
    rows, done, written = corpus.rows(first, 20 * a_second), threading.Event(), [0]
    begun = time.monotonic()

    def write() -> None:
        for n, row in enumerate(rows):
            if done.wait(max(0.0, begun + n / a_second - time.monotonic())):
                return
            store.upsert([row])
            written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    taken = times(lambda question: store.search([asked(question)]), corpus.questions * 3)
    done.set()
    writer.join()
    return taken, written[0] / (time.monotonic() - begun)


def fill(store: Store, corpus: Corpus, rows: int, seen: Sequence[Nearest]) -> dict[str, float]:
    """Write rows in 32s."""
    began, spent = time.perf_counter(), 0.0
    for first in range(0, rows, 1024):
        batch = corpus.rows(first, min(1024, rows - first))
        for nearest in seen:
            nearest.see(first, batch)
        at = time.perf_counter()
        for n in range(0, len(batch), 32):
            store.upsert(batch[n : n + 32])
        spent += time.perf_counter() - at
    settled()
    return {"ingest in 32s, rows/s": rows / spent, "ingest and indexes, s": time.perf_counter() - began}


def writes(store: Store, more: Sequence[IndexEntry]) -> dict[str, float]:
    """Write more rows, one by one and in 32s, and look for some."""
    alone = times(lambda entry: store.upsert([entry]), more[:1000])
    together = times(store.upsert, [more[n : n + 32] for n in range(1000, 2000, 32)])
    fresh = sum(ids(store, [SearchRequest(row.vector, row.terms, 3)])[0][0] == row.document.id for row in more[::40])
    return {
        "upsert one by one, rows/s": 1e3 / statistics.mean(alone),
        "upsert in 32s, rows/s": 1e6 / sum(together),
        "not fresh, of 50": 50 - fresh,
    }


def queries(store: Store, corpus: Corpus, near: Nearest, filtered: dict[str, Nearest]) -> dict[str, float]:
    """Ask all questions: alone, together, by one half, with filters."""
    figures = {}
    requests = [asked(question) for question in corpus.questions]
    alone = times(lambda request: store.search([request]), requests)
    figures["query p50, ms"], figures["query p99, ms"] = statistics.median(alone), float(np.quantile(alone, 0.99))
    batches = [requests[n : n + 32] for n in range(0, len(requests) - 31, 32)]
    figures["query in 32s p50, ms each"] = statistics.median(times(store.search, batches)) / 32
    for mode in ("dense", "lexical"):
        one = [asked(question, mode=mode) for question in corpus.questions]
        figures[f"{mode} p50, ms"] = statistics.median(times(lambda request: store.search([request]), one))
    dense = [SearchRequest(question.vector, (), 10, mode="dense") for question in corpus.questions[:PROBES]]
    figures["recall@10"] = near.share(ids(store, dense))
    for name, (wanted, _) in FILTERS.items():
        some = [asked(question, filter=wanted) for question in corpus.questions]
        figures[f"{name} p50, ms"] = statistics.median(times(lambda request: store.search([request]), some))
        dense = [SearchRequest(q.vector, (), 10, filter=wanted, mode="dense") for q in corpus.questions[:PROBES]]
        figures[f"{name} recall@10"] = filtered[name].share(ids(store, dense))
    return figures


def memory() -> dict[str, float]:
    """Return the memory of this process: its own, and with it the pages of files that it has mapped."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "peak RSS, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "of it mapped files at the end, MB": int(status["RssFile"].split()[0]) / 1024,
    }


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Return all figures, by name."""
    corpus, path = Corpus(), folder / "store.niru"
    probes = [question.vector for question in corpus.questions[:PROBES]]
    near = Nearest(probes, lambda _: True)
    filtered = {name: Nearest(probes, kept) for name, (_, kept) in FILTERS.items()}
    store = EmbeddedStore(path)
    figures = fill(store, corpus, rows, [near, *filtered.values()])
    more = corpus.rows(rows, 2000)
    for nearest in (near, *filtered.values()):
        nearest.see(rows, more)
    figures |= writes(store, more)
    settled()
    figures |= queries(store, corpus, near, filtered)
    busy, achieved = under_writes(store, corpus, rows + 2000, 100)
    figures["query p50 under 100 writes/s, ms"] = statistics.median(busy)
    figures["query p99 under 100 writes/s, ms"] = float(np.quantile(busy, 0.99))
    figures["writes/s meanwhile"] = achieved
    settled()
    figures |= memory()
    store.close()
    began = time.perf_counter()
    with EmbeddedStore(path) as again:
        figures["open, s"] = time.perf_counter() - began
        figures["replayed at opening, rows"] = again.recovery.added
    figures["disk, MB"] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return figures

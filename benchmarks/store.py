"""Is the store as fast, fresh and safe as it has to be, beside others, over 100,000 real texts and over a million?

Texts are sentences of the files under `$NIRU_EVAL_DATA` (`corpus.jsonl*`, in any folder), four of them recombined to a
passage; vectors are mixtures of the encoder's own for these passages' sources, with noise. Queries are the files'
(`queries.jsonl`), with the encoder's vectors. Everything runs on one core; writes go on while queries are timed where
the table says so. A figure that misses its bar fails the run.

    NIRU_EVAL_DATA=folder python benchmarks/store.py [rows, 100000 by default]
"""

import gzip
import json
import os
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np

from niruhybrid import analysis
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, SearchRequest, Vector

RESULTS = Path(__file__).parent / "results" / "store.json"
QUERIES = 400
LANGUAGES = ("en", "sw", "fr", "de", "es", "it", "pt", "nl", "pl", "fi")


def lines(pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(Path(os.environ["NIRU_EVAL_DATA"]).rglob(pattern)):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


class Corpus:
    """Rows made from real texts, always the same ones."""

    def __init__(self) -> None:
        encoder = HybridEncoder()
        passages = [
            row["text"][:300] for row in lines("corpus.jsonl*") if row["text"].strip() and len(row["text"]) < 20_000
        ]
        questions = [row["text"] for row in lines("queries.jsonl")][:QUERIES]
        self.topics = np.concatenate([encoder.encode(passages[n : n + 64]) for n in range(0, len(passages), 64)])
        vectors = encoder.encode(questions)
        self.requests = [SearchRequest(v, analysis.terms(q), 10) for v, q in zip(vectors, questions, strict=True)]
        sentences = [part for text in passages for part in re.split(r"(?<=[.?!])\s+", text) if len(part) > 20]
        self.sentences = [(part, analysis.terms(part)) for part in sentences]

    def rows(self, first: int, count: int) -> list[IndexEntry]:
        """Return the rows numbered from `first` on."""
        rng, chosen = np.random.default_rng(first), random.Random(first)  # the same rows in every run
        near, far = (self.topics[rng.integers(0, len(self.topics), count)] for _ in range(2))
        share = rng.random((count, 1), dtype=np.float32) * 0.5
        noise = rng.standard_normal(near.shape, dtype=np.float32) * (0.5 / np.sqrt(near.shape[1]))
        vectors = near * (1 - share) + far * share + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return [self._row(first + n, vector, chosen) for n, vector in enumerate(vectors.astype(np.float32))]

    def _row(self, n: int, vector: Vector, chosen: random.Random) -> IndexEntry:
        parts = [chosen.choice(self.sentences) for _ in range(4)]
        metadata = {"n": n, "lang": LANGUAGES[n % 10], "rare": n % 1000}
        text = " ".join(part for part, _ in parts)
        return IndexEntry(
            Document(f"d{n}", text, metadata=metadata), vector, [term for _, terms in parts for term in terms]
        )


def times(call: Callable[[Any], object], items: Sequence[Any]) -> list[float]:
    taken = []
    for item in items:
        began = time.perf_counter()
        call(item)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def settled() -> None:
    for thread in threading.enumerate():
        if thread.name == "niru-store-upkeep":
            thread.join()


def recall(store: EmbeddedStore, requests: Sequence[SearchRequest], vectors: Vector, names: Sequence[str]) -> float:
    hits = 0
    for request in requests:
        assert request.vector is not None
        best = {names[n] for n in np.argsort(-np.vecdot(vectors, request.vector))[:10]}
        alone = SearchRequest(request.vector, (), 10, filter=request.filter, mode="dense")
        hits += len(best & {hit.id for hit in store.search([alone])[0].hits})
    return hits / (10 * len(requests))


def under_writes(store: EmbeddedStore, corpus: Corpus, first: int, a_second: int) -> tuple[list[float], float]:
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
    taken = times(lambda request: store.search([request]), corpus.requests * 3)
    done.set()
    writer.join()
    return taken, written[0] / (time.monotonic() - begun)


def measure(rows: int, folder: Path) -> dict[str, float]:
    corpus, figures = Corpus(), {}
    path = folder / "store.niru"
    store = EmbeddedStore(path)
    vectors, at = [], time.perf_counter()
    spent = 0.0
    for first in range(0, rows, 1024):
        batch = corpus.rows(first, min(1024, rows - first))
        vectors += [entry.vector for entry in batch]
        began = time.perf_counter()
        for n in range(0, len(batch), 32):
            store.upsert(batch[n : n + 32])
        spent += time.perf_counter() - began
    figures["ingest in 32s, rows/s"] = rows / spent
    settled()
    figures["ingest and indexes, s"] = time.perf_counter() - at
    more = corpus.rows(rows, 2000)
    taken = times(lambda entry: store.upsert([entry]), more[:1000])
    figures["upsert one by one, rows/s"] = 1e3 / statistics.mean(taken)
    taken = times(store.upsert, [more[n : n + 32] for n in range(1000, 2000, 32)])
    figures["upsert in 32s, rows/s"] = 1e3 * 1000 / sum(taken)
    fresh = sum(
        store.search([SearchRequest(row.vector, row.terms, 3)])[0].hits[0].id != row.document.id for row in more[::40]
    )
    figures["not fresh, of 50"] = fresh
    vectors += [entry.vector for entry in more]
    matrix, names = np.array(vectors), [f"d{n}" for n in range(len(vectors))]
    del vectors
    single = times(lambda request: store.search([request]), corpus.requests)
    figures["query p50, ms"], figures["query p99, ms"] = statistics.median(single), float(np.quantile(single, 0.99))
    batches = [corpus.requests[n : n + 32] for n in range(0, QUERIES - 31, 32)]
    figures["query in 32s p50, ms each"] = statistics.median(times(store.search, batches)) / 32
    for mode in ("dense", "lexical"):
        requests = [SearchRequest(r.vector, r.terms, 10, mode=mode) for r in corpus.requests]  # type: ignore[arg-type]  # one of three
        figures[f"{mode} p50, ms"] = statistics.median(times(lambda request: store.search([request]), requests))
    figures["recall@10"] = recall(store, corpus.requests[:100], matrix, names)
    for name, wanted, kept in (
        ("10%", {"eq": {"lang": "sw"}}, range(1, len(names), 10)),
        ("0.1%", {"eq": {"rare": 7}}, range(7, len(names), 1000)),
    ):
        requests = [SearchRequest(r.vector, r.terms, 10, filter=wanted) for r in corpus.requests]
        figures[f"filter {name} p50, ms"] = statistics.median(times(lambda request: store.search([request]), requests))
        some = list(kept)
        figures[f"filter {name} recall@10"] = recall(store, requests[:50], matrix[some], [names[n] for n in some])
    del matrix
    busy, achieved = under_writes(store, corpus, rows + 2000, 100)
    figures["query p50 under 100 writes/s, ms"] = statistics.median(busy)
    figures["query p99 under 100 writes/s, ms"] = float(np.quantile(busy, 0.99))
    figures["writes/s meanwhile"] = achieved
    settled()
    store.close()
    began = time.perf_counter()
    with EmbeddedStore(path) as again:
        figures["open, s"] = time.perf_counter() - began
        figures["replayed at opening, rows"] = again.recovery.added
    figures["peak RSS, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["disk, MB"] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return figures


def main(rows: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="niru-store-"))
    try:
        figures = measure(rows, folder)
    finally:
        shutil.rmtree(folder)
    commit = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=False).stdout.strip()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[str(rows)] = {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "figures": figures,
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:40s} {value:12.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

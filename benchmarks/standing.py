"""What do 100,000 standing queries cost a writer, and is each told exactly what a search would find?

Standing queries and documents are made from real texts under `$NIRU_EVAL_DATA`. A query has up to six terms of one of
the files' queries and a mixture of its vector and another's, with noise; a document has four sentences, and a mixture
of passages' vectors. A batch of 32 documents is written, in turn, to a store with standing queries and to one without;
the difference is what they cost. Everything runs on one core.

Exactness: for a sample of the standing queries, and every batch, the matches are compared with the hits of a search for
the same, filtered to the batch.

    NIRU_EVAL_DATA=folder python benchmarks/standing.py [standing queries, 100000 by default]
"""

import gzip
import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
from _report import eval_data, machine, percentile, summary, write

from niruhybrid import analysis
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, Match, SearchRequest, StandingQuery, Vector

BATCH, BATCHES, BEFORE = 32, 20, 10_240
TEXTS, QUESTIONS = 2000, 1000
SAMPLE = 40
NOISE = 0.25
TERMS = 6
BAR = 40.0  # ms


def lines(pattern: str, limit: int) -> list[str]:
    """Return so many texts of the files, picked evenly."""
    found = []
    for path in sorted(eval_data().rglob(pattern)):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            found += [text for line in file if (text := json.loads(line)["text"]).strip() and len(text) < 20_000]
    return random.Random(0).sample(found, min(limit, len(found)))


def mixed(rng: np.random.Generator, sources: Vector, count: int) -> tuple[Vector, Any]:
    """Return unit vectors between two sources each, with noise, and the sources chosen."""
    chosen = rng.integers(0, len(sources), (2, count))
    share = rng.random((count, 1), dtype=np.float32) * 0.5
    noise = rng.standard_normal((count, sources.shape[1]), dtype=np.float32) * (NOISE / np.sqrt(sources.shape[1]))
    vectors = sources[chosen[0]] * (1 - share) + sources[chosen[1]] * share + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), chosen.T


class Corpus:
    """Standing queries and documents made from real texts, always the same ones."""

    def __init__(self) -> None:
        encoder = HybridEncoder()
        passages = [text[:300] for text in lines("corpus.jsonl*", TEXTS)]
        questions = lines("queries.jsonl", QUESTIONS)
        self.topics = np.concatenate([encoder.encode(passages[n : n + 64]) for n in range(0, len(passages), 64)])
        self.asked = np.concatenate([encoder.encode(questions[n : n + 64]) for n in range(0, len(questions), 64)])
        self.words = [analysis.terms(text) for text in questions]
        sentences = [part for text in passages for part in re.split(r"(?<=[.?!])\s+", text) if len(part) > 20]
        self.sentences = [(part, analysis.terms(part)) for part in sentences]

    def standing(self, count: int, min_score: float, per_minute: int | None) -> Iterator[StandingQuery]:
        rng = np.random.default_rng(1)
        vectors, chosen = mixed(rng, self.asked, count)
        pick = random.Random(1)
        for n, (vector, (one, _)) in enumerate(zip(vectors, chosen, strict=True)):
            known = list(dict.fromkeys(self.words[one]))
            terms = pick.sample(known, min(TERMS, len(known)))
            yield StandingQuery(f"q{n}", vector, terms, min_score, per_minute)

    def documents(self, first: int, count: int) -> list[IndexEntry]:
        vectors, _ = mixed(np.random.default_rng(first), self.topics, count)
        pick = random.Random(first)
        made = []
        for n, vector in enumerate(vectors, start=first):
            parts = [pick.choice(self.sentences) for _ in range(4)]
            text, terms = " ".join(part for part, _ in parts), [term for _, more in parts for term in more]
            made.append(IndexEntry(Document(f"d{n}", text, metadata={"batch": n // BATCH}), vector, terms))
        return made


def filled(corpus: Corpus) -> EmbeddedStore:
    store = EmbeddedStore()
    for first in range(0, BEFORE, 512):
        store.upsert(corpus.documents(first, 512))
    return store


def written(store: EmbeddedStore, batch: Sequence[IndexEntry]) -> float:
    began = time.perf_counter()
    store.upsert(batch)
    return (time.perf_counter() - began) * 1e3


def refuse_inexact(store: EmbeddedStore, queries: Sequence[StandingQuery], told: Sequence[Match], batch: int) -> int:
    """Compare what was told of a batch with a search for the same; return the matches compared."""
    compared = 0
    for query in queries:
        request = SearchRequest(query.vector, query.terms, BATCH, filter={"eq": {"batch": batch}})
        hits = {hit.id: hit.score for hit in store.search([request])[0].hits}
        got = {match.hit.id: match.hit.score for match in told if match.query_id == query.id}
        least = query.min_score or 0.0
        sure = {name for name, score in hits.items() if score >= least + 1e-5}
        assert sure <= set(got) <= {name for name, score in hits.items() if score >= least - 1e-5}, query.id
        assert all(abs(hits[name] - score) < 1e-5 for name, score in got.items()), query.id
        compared += len(got)
    return compared


def measure(corpus: Corpus, count: int, min_score: float, per_minute: int | None) -> dict[str, Any]:
    """Return what standing queries of one kind cost."""
    plain, store, told = filled(corpus), filled(corpus), list[Match]()
    queries = list(corpus.standing(count, min_score, per_minute))
    began = time.perf_counter()
    for query in queries:
        store.subscribe(query, told.append)
    subscribed = (time.perf_counter() - began) / count * 1e6
    first = -(-BEFORE // 512) * 512
    with_them, without, matches, compared = [], [], 0, 0
    for n in range(BATCHES):
        batch = corpus.documents(first + n * BATCH, BATCH)
        told.clear()
        with_them.append(written(store, batch))
        without.append(written(plain, batch))
        matches += len(told)
        if per_minute is None and n % 5 == 0:
            named = {match.query_id for match in told}
            some = [query for query in queries if query.id in named][:SAMPLE] + queries[:: count // SAMPLE]
            compared += refuse_inexact(store, some, told, (first + n * BATCH) // BATCH)
    cost = [one - other for one, other in zip(with_them, without, strict=True)]
    plain.close()
    store.close()
    return {
        "min_score": min_score,
        "per_minute": per_minute,
        "standing_queries": count,
        "subscribe_us": round(subscribed, 1),
        "write_without_ms": summary(without),
        "write_with_ms": summary(with_them),
        "cost_ms": summary(cost),
        "cost_p90_ms": round(percentile(cost, 90), 3),
        "matches_a_batch": matches / BATCHES,
        "matches_compared_with_search": compared,
    }


def main(count: int) -> None:
    """Measure, print and keep; a bar that is missed fails the run."""
    corpus = Corpus()
    kinds = [(0.5, None), (0.4, None), (0.4, 10)]
    runs = [measure(corpus, count, *kind) for kind in kinds]
    path = write("standing", {"machine": machine(("numpy",)), "bar_ms": BAR, "batch": BATCH, "runs": runs})
    print(path.read_text())
    if runs[0]["cost_ms"]["median"] > BAR:
        raise SystemExit(f"{runs[0]['cost_ms']['median']} ms a batch: the bar is {BAR} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

"""What is lost when a long text is cut off, averaged or read in windows? nDCG@10 of each, on meetings and on passages.

`qmsum-meetings` has meetings of up to 26,000 words, `chunking-eval-passages` passages of about 200 tokens. Sizes, and
what late windows gain by the text's beginning, are tried on every sixth meeting first. Every way is measured by meaning
alone, and with the lexical half: fused by a weighted sum as the store does, BM25 once over documents, once over
passages (the best one's counts), once the mean of both. Wanted: the default at least .05 above truncation and above
BM25 on the meetings. Vectors are kept in the cache directory, so that a run can be stopped.

    NIRU_EVAL_DATA=folder python benchmarks/long_text_quality.py [part of a way's name ...]
"""

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import _report
import numpy as np
from ir_measures import calc_aggregate, nDCG
from numpy.typing import NDArray
from quality import K1, Lexicon

from niruhybrid.analysis import terms
from niruhybrid.config import LongText, StoreConfig, StreamingConfig
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.encoding.windows import EncodedText
from niruhybrid.evaluation.collection import Collection, read_collection
from niruhybrid.retrieval.fusion import term_norm
from niruhybrid.settings import cache_directory
from niruhybrid.types import Document
from niruhybrid.windows import MARKS, WindowCutter, cut_for

MEETINGS, SOME, PASSAGES = "qmsum-meetings", "qmsum-meetings, every 6th", "chunking-eval-passages"
WANTED_GAIN = 0.05
TOGETHER = 64  # windows encoded at a time


class Way(NamedTuple):
    """How a document becomes vectors; `sinks`: tokens of its beginning that late windows read, None for the usual."""

    mode: LongText
    size: int = 128
    overlap: int = 32
    sinks: int | None = None

    @property
    def name(self) -> str:
        if self.mode == "truncate":
            return "truncate"
        return f"{self.mode} {self.size}/{self.overlap}" + ("" if self.sinks is None else f", {self.sinks} sinks")


DEFAULT = Way(StreamingConfig().long_text, StreamingConfig().chunk_size, StreamingConfig().overlap_size)
BASIC = [Way("truncate"), DEFAULT, Way("mean"), Way("late")]
SIZES = [Way("late", sinks=0), Way("windows", 128, 0), Way("windows", 64, 16), Way("windows", 200, 32)]
WAYS = {
    PASSAGES: [*BASIC, *SIZES],
    SOME: [*BASIC, *SIZES, Way("windows", 128, 64)],
    MEETINGS: BASIC,
}
UNITS = ("documents", "passages", "both")
STORED = "hybrid, both"  # what a store is to do with documents of several passages
WEIGHT = StoreConfig().dense_weight
WEIGHTS = sorted({0.6, 0.65, 0.7, 0.71, 0.75, 0.8, WEIGHT})


class Words(Lexicon):
    """BM25 with the store's weight of a term, which is never below 0."""

    def search(self, query: Sequence[str]) -> tuple[NDArray[np.float64], float]:
        """Return every text's score, and the length of the query's term vector."""
        scores = np.zeros(self.size)
        bounds = []
        for term, times in Counter(query).items():
            found = self.postings.get(term, {})
            rarity = math.log1p((self.size - len(found) + 0.5) / (len(found) + 0.5))
            bounds.append(times * rarity * (K1 + 1))
            rows, counts = np.fromiter(found, np.int64), np.fromiter(found.values(), np.float64)
            scores[rows] += bounds[-1] * counts / (counts + self.length_part[rows])
        return scores, term_norm(bounds)


class Encoded(NamedTuple):
    """A collection's vectors, `(n, dim)`, and of each its document's row and its passage."""

    vectors: NDArray[np.float32]
    owners: NDArray[np.int64]
    passages: list[str]
    tokens: int


def read(encoder: HybridEncoder, way: Way, documents: Sequence[Document], folder: Path) -> Encoded:
    """Encode documents, or find what an earlier run has kept."""
    if way.mode == "mean":
        parts = read(encoder, way._replace(mode="windows"), documents, folder)
        starts = np.flatnonzero(np.r_[True, parts.owners[1:] != parts.owners[:-1]])
        means = np.add.reduceat(parts.vectors, starts, axis=0)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return Encoded(means, np.arange(len(documents)), [each.text for each in documents], parts.tokens)
    vectors, owners, passages, tokens = [], [], [], 0
    for row, document in enumerate(documents):
        key = f"{way.name}\0{document.title}\0{document.text}"
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"
        if not path.exists():
            keep(path, encoded(encoder, way, document))
        with np.load(path) as kept:
            vectors.append(kept["vectors"])
            owners += [row] * len(kept["vectors"])
            passages += [document.text[start:end] for start, end in kept["spans"]]
            tokens += int(kept["tokens"])
    return Encoded(np.concatenate(vectors), np.array(owners), passages, tokens)


def encoded(encoder: HybridEncoder, way: Way, document: Document) -> EncodedText:
    """Encode one document."""
    if way.sinks is None:
        return encoder.encode_long(
            document.text, title=document.title, long_text=way.mode, chunk_size=way.size, overlap_size=way.overlap
        )
    config = StreamingConfig(long_text=way.mode, chunk_size=way.size, overlap_size=way.overlap)
    title = encoder.tokenize(document.title).ids if document.title else ()
    cut = replace(cut_for(config, encoder.max_tokens - MARKS - len(title)), sinks=way.sinks)
    cutter = WindowCutter(encoder.tokenize, cut, title)
    windows = cutter.feed(document.text) + cutter.close()
    vectors = [encoder.encode(windows[at : at + TOGETHER]) for at in range(0, len(windows), TOGETHER)]
    spans = tuple((window.start, window.end) for window in windows)
    return EncodedText(np.concatenate(vectors), spans, cutter.seen, cutter.seen, len(windows))


def keep(path: Path, found: EncodedText) -> None:
    """Write vectors to a file that is there whole, or not at all."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, vectors=found.vectors, spans=found.spans, tokens=found.tokens_used)
    unfinished.replace(path)


def part(name: str) -> Collection:
    """Return a collection; of some, a part, with the queries that it can answer."""
    if name != SOME:
        return read_collection(_report.eval_data(name))
    whole = part(MEETINGS)
    documents = whole.documents[::6]
    ids = {document.id for document in documents}
    grades = {
        name: {each: grade for each, grade in of_query.items() if each in ids}
        for name, of_query in whole.judgements.items()
    }
    judgements = {name: of_query for name, of_query in grades.items() if of_query}
    queries = {name: whole.queries[name] for name in judgements}
    return replace(whole, name=name, documents=documents, queries=queries, judgements=judgements)


def ndcg(collection: Collection, scores: NDArray[np.float64]) -> float:
    """Return nDCG@10 of `(queries, documents)` scores."""
    run = {}
    for name, row in zip(collection.queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:10]
        run[name] = {collection.documents[at].id: 1.0 / place for place, at in enumerate(best, start=1)}
    grades = {name: dict(of_query) for name, of_query in collection.judgements.items()}
    return round(float(calc_aggregate([nDCG @ 10], grades, run)[nDCG @ 10]), 4)


def worded(texts: Sequence[str], queries: Sequence[Sequence[str]], starts: NDArray[np.int64] | None) -> Any:
    """Return `(queries, documents)` BM25, over the query's length; the best passage's where `starts` parts them."""
    lexicon = Words([terms(text) for text in texts])
    rows = []
    for query in queries:
        scores, norm = lexicon.search(query)
        rows.append((scores if starts is None else np.maximum.reduceat(scores, starts)) / norm)
    return np.array(rows)


def figures(encoder: HybridEncoder, name: str, wanted: Sequence[str], folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield a collection's figures, way by way."""
    collection = part(name)
    queries = encoder.encode(list(collection.queries.values()))
    words = [terms(text) for text in collection.queries.values()]
    of_documents = worded([f"{each.title}\n{each.text}" for each in collection.documents], words, None)
    yield "BM25", {"lexical, documents": ndcg(collection, of_documents)}
    for way in WAYS[name]:
        if wanted and not any(word in way.name for word in wanted):
            continue
        found = read(encoder, way, collection.documents, folder)
        starts = np.flatnonzero(np.r_[True, found.owners[1:] != found.owners[:-1]])
        dense = np.maximum.reduceat(queries @ found.vectors.T, starts, axis=1).astype(np.float64)
        of_passages = worded(found.passages, words, starts)
        halves = {"documents": of_documents, "passages": of_passages, "both": (of_documents + of_passages) / 2}
        weighed = {
            unit: {weight: ndcg(collection, weight * dense + (1 - weight) * half) for weight in WEIGHTS}
            for unit, half in halves.items()
        }
        row: dict[str, Any] = {
            "vectors": len(found.vectors),
            "tokens": found.tokens,
            "dense": ndcg(collection, dense),
            "lexical, passages": ndcg(collection, of_passages),
            **{f"hybrid, {unit}": of_unit[WEIGHT] for unit, of_unit in weighed.items()},
        }
        yield way.name, row | ({"by_weight": weighed} if way == DEFAULT else {})


def gains(meetings: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return how far the default is above truncation and above BM25, by what its lexical half goes by."""
    default, cut = meetings.get(DEFAULT.name), meetings.get("truncate")
    if default is None or cut is None:
        return {}
    best_cut = max(cut[f"hybrid, {unit}"] for unit in UNITS)
    found = {"dense": {"above truncation": default["dense"] - cut["dense"]}}
    for unit in UNITS:
        hybrid = default[f"hybrid, {unit}"]
        above_words = hybrid - meetings["BM25"]["lexical, documents"]
        found[f"hybrid, {unit}"] = {"above truncation": hybrid - best_cut, "above BM25": above_words}
    return {key: {name: round(value, 4) for name, value in row.items()} for key, row in found.items()}


def main(wanted: list[str]) -> int:
    folder = cache_directory() / "long-text"
    folder.mkdir(parents=True, exist_ok=True)
    encoder = HybridEncoder()
    kept = _report.RESULTS / "long_text_quality.json"
    report: dict[str, Any] = json.loads(kept.read_text()) if wanted and kept.exists() else {}
    report = {"ndcg_at_10": report.get("ndcg_at_10", {})}
    for name in WAYS:
        table = report["ndcg_at_10"].setdefault(name, {})
        for way, row in figures(encoder, name, wanted, folder):
            table[way] = row
            print(f"{name} {way:16} {row}", flush=True)
            above = gains(report["ndcg_at_10"].get(MEETINGS, {}))
            report |= {
                "machine": _report.machine(("numpy", "openvino", "tokenizers", "ir-measures", "PyStemmer")),
                "question": "what is lost when a long text is cut off, averaged or read in windows?",
                "default": DEFAULT.name,
                "wanted_gain": WANTED_GAIN,
                "dense_weight": WEIGHT,
                "gains": above,
                "met": {key: min(row.values()) >= WANTED_GAIN for key, row in above.items()},
            }
            _report.write("long_text_quality", report)
    print(f"{report['gains']}: {report['met']}")
    return 0 if report["met"].get(STORED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

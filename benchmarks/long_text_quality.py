"""What is lost when a long text is cut off, averaged or read in windows? nDCG@10 of each, on meetings and on passages.

`qmsum-meetings` has meetings of up to 26,000 words, `chunking-eval-passages` passages of about 200 tokens. Every way is
measured by meaning alone, and with the lexical half: fused as the store does (`weighted_sum`, .71), BM25 once over
documents, once over passages (the best one's counts), once the mean of both. Wanted: the default at least .05 above
truncation and above BM25 on the meetings. Vectors are kept in the cache directory, so that a run can be stopped.

    NIRU_EVAL_DATA=folder python benchmarks/long_text_quality.py [part of a way's name ...]
"""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
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
from niruhybrid.evaluation.collection import Collection, read_collection
from niruhybrid.retrieval.fusion import term_norm
from niruhybrid.settings import cache_directory
from niruhybrid.types import Document

MEETINGS, PASSAGES = "qmsum-meetings", "chunking-eval-passages"
WANTED_GAIN = 0.05


class Way(NamedTuple):
    """How a document becomes vectors."""

    mode: LongText
    size: int
    overlap: int

    @property
    def name(self) -> str:
        return "truncate" if self.mode == "truncate" else f"{self.mode} {self.size}/{self.overlap}"


DEFAULT = Way(StreamingConfig().long_text, StreamingConfig().chunk_size, StreamingConfig().overlap_size)
WAYS = {
    MEETINGS: [Way("truncate", 128, 0), DEFAULT, Way("mean", DEFAULT.size, DEFAULT.overlap), Way("late", 128, 32)],
    PASSAGES: [
        Way("truncate", 128, 0),
        DEFAULT,
        Way("mean", DEFAULT.size, DEFAULT.overlap),
        Way("late", 128, 32),
        Way("windows", 128, 0),
        Way("windows", 128, 64),
        Way("windows", 64, 16),
        Way("windows", 200, 32),
    ],
}


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
            found = encoder.encode_long(
                document.text, title=document.title, long_text=way.mode, chunk_size=way.size, overlap_size=way.overlap
            )
            np.savez(path, vectors=found.vectors, spans=found.spans, tokens=found.tokens_used)
        with np.load(path) as kept:
            vectors.append(kept["vectors"])
            owners += [row] * len(kept["vectors"])
            passages += [document.text[start:end] for start, end in kept["spans"]]
            tokens += int(kept["tokens"])
    return Encoded(np.concatenate(vectors), np.array(owners), passages, tokens)


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
    collection = read_collection(_report.eval_data(name))
    queries = encoder.encode(list(collection.queries.values()))
    words = [terms(text) for text in collection.queries.values()]
    of_documents = worded([f"{each.title}\n{each.text}" for each in collection.documents], words, None)
    yield "BM25", {"lexical, documents": ndcg(collection, of_documents)}
    weight = StoreConfig().dense_weight
    for way in WAYS[name]:
        if wanted and not any(word in way.name for word in wanted):
            continue
        found = read(encoder, way, collection.documents, folder)
        starts = np.flatnonzero(np.r_[True, found.owners[1:] != found.owners[:-1]])
        dense = np.maximum.reduceat(queries @ found.vectors.T, starts, axis=1).astype(np.float64)
        of_passages = worded(found.passages, words, starts)
        fused = {"documents": of_documents, "passages": of_passages, "both": (of_documents + of_passages) / 2}
        yield (
            way.name,
            {
                "vectors": len(found.vectors),
                "tokens": found.tokens,
                "dense": ndcg(collection, dense),
                "lexical, passages": ndcg(collection, of_passages),
                **{
                    f"hybrid, {unit}": ndcg(collection, weight * dense + (1 - weight) * lexical)
                    for unit, lexical in fused.items()
                },
            },
        )


def gains(meetings: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return how far the default is above truncation and above BM25."""
    default, cut = meetings.get(DEFAULT.name), meetings.get("truncate")
    if default is None or cut is None:
        return {}
    found = {"dense, above truncation": default["dense"] - cut["dense"]}
    for unit in ("documents", "passages", "both"):
        key = f"hybrid, {unit}"
        found[f"{key}, above truncation"] = default[key] - cut["hybrid, documents"]
        found[f"{key}, above BM25"] = default[key] - meetings["BM25"]["lexical, documents"]
    return {key: round(value, 4) for key, value in found.items()}


def main(wanted: list[str]) -> int:
    folder = cache_directory() / "long-text"
    folder.mkdir(parents=True, exist_ok=True)
    encoder = HybridEncoder()
    kept = _report.RESULTS / "long_text_quality.json"
    report: dict[str, Any] = json.loads(kept.read_text()) if wanted and kept.exists() else {"ndcg_at_10": {}}
    for name in WAYS:
        table = report["ndcg_at_10"].setdefault(name, {})
        for way, row in figures(encoder, name, wanted, folder):
            table[way] = row
            print(f"{name} {way:16} {row}", flush=True)
            above = gains(report["ndcg_at_10"][MEETINGS])
            report |= {
                "machine": _report.machine(("numpy", "openvino", "tokenizers", "ir-measures", "PyStemmer")),
                "question": "what is lost when a long text is cut off, averaged or read in windows?",
                "default": DEFAULT.name,
                "wanted_gain": WANTED_GAIN,
                "gains": above,
                "met": bool(above) and min(above.values()) >= WANTED_GAIN,
            }
            _report.write("long_text_quality", report)
    print(f"{report['gains']}: {'met' if report['met'] else 'NOT MET'}")
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

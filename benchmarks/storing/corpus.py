"""Rows made from real texts, always the same ones, and the nearest of them for some queries.

Texts are sentences of the files under `$NIRU_EVAL_DATA` (`corpus.jsonl*`, in any folder), four of them recombined to a
passage; vectors are mixtures of the encoder's own for two of these files' passages, with noise. Queries are the files'
(`queries.jsonl`), with the encoder's vectors. Encoding is done once, in a process of its own, and kept in
`$NIRU_BENCH_CACHE` (by default a folder among the system's temporary files).
"""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks._report import eval_data

from niruhybrid import analysis
from niruhybrid.types import Document, IndexEntry, Vector

QUERIES = 400
LANGUAGES = ("en", "sw", "fr", "de", "es", "it", "pt", "nl", "pl", "fi")


class Question(NamedTuple):
    """A query of the files."""

    text: str
    vector: Vector
    terms: list[str]


def lines(pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(eval_data().rglob(pattern)):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def texts() -> tuple[list[str], list[str]]:
    """Return the passages and the questions."""
    passages = [
        row["text"][:300] for row in lines("corpus.jsonl*") if row["text"].strip() and len(row["text"]) < 20_000
    ]
    return passages, [row["text"] for row in lines("queries.jsonl")][:QUERIES]


def encoded() -> tuple[Vector, Vector]:
    """Return the vectors of the passages and of the questions."""
    folder = Path(os.environ.get("NIRU_BENCH_CACHE") or Path(tempfile.gettempdir()) / "niruhybrid-benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "store-corpus.npz"
    if not path.exists():
        subprocess.run((sys.executable, "-m", __spec__.name, str(path)), check=True, cwd=Path(__file__).parents[2])
    kept = np.load(path)
    return kept["passages"], kept["questions"]


class Corpus:
    """Rows by number, as many as wanted."""

    def __init__(self) -> None:
        passages, questions = texts()
        self.topics, vectors = encoded()
        assert (len(passages), len(questions)) == (len(self.topics), len(vectors)), "remove the cached vectors"
        self.questions = [Question(q, v, analysis.terms(q)) for v, q in zip(vectors, questions, strict=True)]
        sentences = [part for text in passages for part in re.split(r"(?<=[.?!])\s+", text) if len(part) > 20]
        self.sentences = [(part, analysis.terms(part)) for part in sentences]

    def rows(self, first: int, count: int) -> list[IndexEntry]:
        """Return the rows numbered from `first` on."""
        rng, chosen = np.random.default_rng(first), random.Random(first)  # the same rows in every run
        near, far = (self.topics[rng.integers(0, len(self.topics), count)] for _ in range(2))
        share = rng.random((count, 1), dtype=np.float32) * 0.5
        noise = rng.standard_normal(near.shape, dtype=np.float32) * np.float32(0.5 / np.sqrt(near.shape[1]))
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


class Nearest:
    """The ten nearest rows of some queries, found by comparing each row as it comes by."""

    def __init__(self, queries: Sequence[Vector], kept: Callable[[int], bool]) -> None:
        self._queries, self._kept = np.array(queries), kept
        self._scores = np.full((len(queries), 10), -np.inf, np.float32)
        self._rows = np.full((len(queries), 10), -1)

    def see(self, first: int, rows: Sequence[IndexEntry]) -> None:
        """Take note of the rows numbered from `first` on."""
        some = [n for n in range(len(rows)) if self._kept(first + n)]
        if not some:
            return
        scores = np.hstack((self._scores, self._queries @ np.array([rows[n].vector for n in some]).T))
        numbers = np.hstack((self._rows, np.tile(np.array(some) + first, (len(self._queries), 1))))
        best = np.argpartition(-scores, 9, axis=1)[:, :10]
        self._scores, self._rows = (np.take_along_axis(array, best, axis=1) for array in (scores, numbers))

    def share(self, found: Sequence[Sequence[str]]) -> float:
        """Return which share of them the ids hold that were found, query by query."""
        hits = sum(len({f"d{n}" for n in rows} & set(ids)) for rows, ids in zip(self._rows, found, strict=True))
        return hits / sum(int((rows >= 0).sum()) for rows in self._rows)


def encode(path: Path) -> None:
    """Encode the texts and keep their vectors."""
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder

    encoder = HybridEncoder()
    passages, questions = texts()
    vectors = np.concatenate([encoder.encode(passages[n : n + 64]) for n in range(0, len(passages), 64)])
    np.savez(path, passages=vectors, questions=encoder.encode(questions))


if __name__ == "__main__":
    encode(Path(sys.argv[1]))

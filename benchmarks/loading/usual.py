"""What the rivals' servers have in common: an encoder, an index in memory, an answer of the same kind as ours.

The answer is made by our own code, so that it costs everyone the same. The index is NumPy's: vectors alone, where ours
also looks for words.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from niruhybrid.analysis import terms
from niruhybrid.generation.extractive import NO_ANSWER, select_sentences
from niruhybrid.types import Hit

Documents = list[dict[str, str]]


def encoder(name: str) -> Callable[[list[str]], Any]:
    """Return what encodes texts: `sentence-transformers` on torch, or `niruhybrid`'s own; one thread, warmed up."""
    if name == "niruhybrid":
        from niruhybrid.encoding.hybrid_encoder import HybridEncoder

        return HybridEncoder().encode
    import torch
    from sentence_transformers import SentenceTransformer

    from niruhybrid.encoding.weights import locate

    torch.set_num_threads(1)
    model = SentenceTransformer(str(locate(None)), device="cpu")

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)

    encode(["warm up"] * 8)
    return encode


class Index:
    """Documents and their vectors, `(n, dim)` float32, in memory."""

    def __init__(self, documents: Documents, vectors: Any) -> None:
        self._documents = documents
        self._room = np.zeros((2 * len(vectors), vectors.shape[1]), np.float32)
        self._room[: len(vectors)] = vectors

    @classmethod
    def from_environment(cls) -> "Index":
        with Path(os.environ["LOAD_DOCUMENTS"]).open(encoding="utf-8") as file:
            return cls([json.loads(line) for line in file], np.load(os.environ["LOAD_VECTORS"]))

    def add(self, documents: Documents, vectors: Any) -> None:
        self._room[len(self._documents) : len(self._documents) + len(vectors)] = vectors
        self._documents += documents

    def search(self, vectors: Any, top_k: int) -> list[list[Hit]]:
        """Return the best documents for each of `(n, dim)` vectors."""
        scores = vectors @ self._room[: len(self._documents)].T
        best = np.argpartition(-scores, top_k, axis=1)[:, :top_k]
        found = []
        for row, places in zip(scores, best, strict=True):
            ranked = places[np.argsort(-row[places])]
            found.append([self._hit(rank, place, row) for rank, place in enumerate(ranked, 1)])
        return found

    def _hit(self, rank: int, place: int, scores: Any) -> Hit:
        document = self._documents[place]
        return Hit(document["id"], rank, float(scores[place]), document["text"], document["title"])


def answer(question: str, hits: list[Hit]) -> list[dict[str, str]]:
    """Return the answer's pieces."""
    chosen = select_sentences(terms(question), hits)
    return [{"text": f"{text} ", "source": hit.id} for text, hit in chosen] or [{"text": NO_ANSWER}]

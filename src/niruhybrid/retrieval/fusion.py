"""Fusion: one ranking from the scores of the dense and the lexical half. Pure functions, one per formula.

A half is a mapping from row to score, higher is better; what a half did not find is not in it. The order of a mapping
never matters. `weighted_sum` scores a document by itself, so its scores can be compared between searches with one
query; those of `convex` and `rrf` lie between 0 and 1 and can be compared within one result only.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = (
    "convex",
    "min_max",
    "ranked",
    "ranked_weighted_sum",
    "rrf",
    "share_of_best",
    "summed",
    "term_norm",
    "weighted_sum",
    "words_needed",
)

Scores = Mapping[int, float]
Half = NDArray[np.float32] | None
"""Scores of some rows, or None for a half that was not asked."""

RRF_K = 60
_ROUNDING = 1e-5  # of scores in single precision: equal ones must not be told apart


def weighted_sum(dense: Scores | None, lexical: Scores | None, weight: float, norm: float) -> dict[int, float]:
    """Return `weight` times the cosine plus the rest times BM25 over the length of the query's term vector.

    Both halves are inner products with a query vector, of an embedding and of term weights. The embedding has length 1;
    dividing BM25 by `norm` gives the terms the same, as the vector space model does (Salton and Buckley,
    "Term-weighting approaches in automatic text retrieval", Information Processing & Management 24, 1988). Nothing is
    stretched over what happened to be found, so a query whose words hardly match keeps its small lexical score: the
    linear combination of Bruch, Gai and Ingber (see `convex`) with bounds known beforehand.

    Args:
        dense: inner products of unit vectors. A row that is only in `lexical` counts as the lowest of them, which it
            can't exceed where these are the nearest rows; give its own for an exact score. None where meaning is not
            to count.
        lexical: BM25 scores, above 0; a row that is only in `dense` has 0. None where words are not to count.
        weight: share of the dense half, 0 to 1. A half that is None leaves the other all of it.
        norm: `term_norm` of the query; any positive number where nothing was found.

    Returns:
        A score for each row of either half. The cosine is at most 1; the lexical part is at most the square root of
        the number of different terms, and about 1 where a document answers the query's rare words.
    """
    share = 0.0 if dense is None else 1.0 if lexical is None else weight
    near, worded = dense or {}, lexical or {}
    low = min(near.values(), default=0.0)
    return {
        row: share * near.get(row, low) + (1.0 - share) * worded.get(row, 0.0) / norm
        for row in near.keys() | worded.keys()
    }


def ranked_weighted_sum(
    rows: NDArray[Any], cosines: Half, words: Half, weight: float, norm: float
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return `ranked` of `weighted_sum`, the same numbers, from arrays to arrays.

    Args:
        rows: `(n,)`, none twice.
        cosines: of each row, `(n,)`; None where meaning is not to count.
        words: BM25 score of each row, 0 where it has none of the words; None where words are not to count.
        weight: as for `weighted_sum`.
        norm: as for `weighted_sum`.
    """
    scores = summed(cosines, words, weight, norm, len(rows))
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def summed(cosines: Half, words: Half, weight: float, norm: float, size: int) -> NDArray[np.float64]:
    """Return the scores of `ranked_weighted_sum`, `(size,)`, in the order in which those of the halves come."""
    share = 0.0 if cosines is None else 1.0 if words is None else weight
    scores = np.zeros(size, np.float64)
    if cosines is not None:
        scores += share * cosines.astype(np.float64)
    if words is not None:
        scores += (1.0 - share) * words.astype(np.float64) / norm
    return scores


def words_needed(
    cosines: NDArray[np.float32], words: NDArray[np.float32], wanted: int, weight: float, norm: float
) -> float:
    """Return the BM25 score without which a row can't be among the best.

    Whatever is not among the nearest rows has a cosine no higher than theirs, so only its words could lift it: the
    threshold algorithm of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware" (Journal of Computer
    and System Sciences 66, 2003), with one list read first.

    Args:
        cosines: of the nearest rows, `(n,)`.
        words: BM25 score of each of them.
        wanted: how many rows are to be found.
        weight: as for `weighted_sum`.
        norm: as for `weighted_sum`.

    Returns:
        The score; 0 if too few rows are known to say, infinity if words can't lift any.
    """
    if len(cosines) < wanted:
        return 0.0
    if weight >= 1.0:
        return math.inf
    near = weight * cosines.astype(np.float64)
    best = np.partition(near + (1.0 - weight) * words.astype(np.float64) / norm, len(near) - wanted)[len(near) - wanted]
    return float((best - near.min()) / (1.0 - weight) - _ROUNDING) * norm


def term_norm(bounds: Iterable[float]) -> float:
    """Return the Euclidean length of a query's term vector, 1 for a query without terms.

    Args:
        bounds: for each different term of the query, what it can add to a document's BM25 at the most: its inverse
            document frequency, times its count in the query, times `k1 + 1` where the score has that factor. Terms
            that no document has belong to it: they say how little of the query words can answer.
    """
    return math.hypot(*bounds) or 1.0


def convex(dense: Scores, lexical: Scores, weight: float) -> dict[int, float]:
    """Return `weight` times the normalised dense score plus the rest times the normalised lexical one.

    The convex combination of Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS
    42, 2023). A row that a half did not find gets 0 from it. A half that found nothing has no say: the other counts
    whole.

    Args:
        dense: inner products of unit vectors.
        lexical: BM25 scores, above 0.
        weight: share of the dense half, 0 to 1.
    """
    share = 1.0 if not lexical else 0.0 if not dense else weight
    near, worded = min_max(dense), share_of_best(lexical)
    return {
        row: share * near.get(row, 0.0) + (1.0 - share) * worded.get(row, 0.0) for row in near.keys() | worded.keys()
    }


def rrf(dense: Scores, lexical: Scores, k: int = RRF_K) -> dict[int, float]:
    """Return the sum of reciprocal ranks, as a share of the best there can be.

    Reciprocal rank fusion of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual rank learning methods" (SIGIR 2009): each half gives 1 / (k + rank), rank from 1. Divided by what a row
    gets that is first in every half that found something.

    Args:
        dense: scores of one half.
        lexical: scores of the other.
        k: how little the first ranks stand out; 60 in the paper.
    """
    halves = [half for half in (dense, lexical) if half]
    fused: dict[int, float] = {}
    for half in halves:
        for rank, (row, _) in enumerate(ranked(half.items()), start=1):
            fused[row] = fused.get(row, 0.0) + (k + 1) / (k + rank) / len(halves)
    return fused


def min_max(scores: Scores) -> dict[int, float]:
    """Stretch scores over 0 to 1, the lowest to the highest; equal ones all become 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high == low:
        return dict.fromkeys(scores, 1.0)
    return {row: (score - low) / (high - low) for row, score in scores.items()}


def share_of_best(scores: Scores) -> dict[int, float]:
    """Divide scores above 0 by the highest: unlike under `min_max`, the weakest match still counts."""
    best = max(scores.values(), default=1.0)
    return {row: score / best for row, score in scores.items()}


def ranked(scores: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return rows with their scores, best first; of equal ones the lower row."""
    return sorted(scores, key=lambda pair: (-pair[1], pair[0]))

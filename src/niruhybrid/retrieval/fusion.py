"""Fusion: one ranking from the scores of the dense and the lexical half. Pure functions, one per formula.

A half is a mapping from row to score, higher is better; what a half did not find is not in it. The order of a mapping
never matters. Scores come back between 0 and 1, and can be compared within one result only.
"""

from collections.abc import Iterable, Mapping

__all__ = ("convex", "min_max", "ranked", "rrf", "share_of_best")

Scores = Mapping[int, float]

RRF_K = 60


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

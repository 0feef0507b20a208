"""The lexical half: BM25 over postings. What a term that many passages have can add is little, and looked up late.

Passages are found by the rarer terms of a query. One that has none of these can't score more than the common terms can
add together; where that is less than is needed, nothing is missed, and only else the common ones are gone through, too
(Turtle and Flood, "Query evaluation: strategies and optimizations", Information Processing & Management 31, 1995).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.postgres.arrays import integers
from niruhybrid.retrieval.postgres.connection import Rows, Statement
from niruhybrid.retrieval.postgres.filters import Where
from niruhybrid.retrieval.postgres.terms import Counts, Weighed
from niruhybrid.retrieval.postings import K1, B, saturation, spread

__all__ = ("Plan", "document_scores", "documents_of", "found_by", "lengths_of", "occurrences_of", "plan", "scores")

_COMMON = 16  # a term that one passage in so many has
_FEW = 2000  # passages, of which all terms are gone through
_MORE = 20  # times as many rows as wanted, until it is simpler to go through all terms

Ints = NDArray[Any]
Floats = NDArray[np.float32]


class Plan(NamedTuple):
    """How the best passages are found.

    Attributes:
        terms: by which they are found, `(m,)`.
        weights: of these, `(m,)`.
        rest: what the other terms can add to a score at the most; 0 if there are none.
    """

    terms: Ints
    weights: Floats
    rest: float

    def proves(self, partial: list[float], wanted: int, floor: float) -> bool:
        """Whether no other passage can be among the best.

        Args:
            partial: scores by the plan's terms of what was found, best first.
            wanted: how many are needed.
            floor: what a passage must score at the least to be needed; 0 where that is not known.
        """
        if not self.rest:
            return True
        enough = partial[wanted - 1] if len(partial) >= wanted else 0.0
        return max(enough, floor) >= self.rest


def plan(query: Counts, weighed: Weighed, have: Ints, passages: int) -> tuple[Plan, Plan]:
    """Return how to find the best: by the rarer terms, and by all.

    Args:
        query: its terms.
        weighed: their weights.
        have: passages that have each.
        passages: how many there are.
    """
    every = Plan(query.terms, weighed.weights, 0.0)
    rare = have * _COMMON <= passages
    if passages <= _FEW or rare.all() or not have[rare].any():
        return every, every
    return Plan(query.terms[rare], weighed.weights[rare], float(weighed.weights[~rare].sum())), every


def found_by(wanted: Plan, average: float, depth: int, floor: float, where: Where) -> tuple[Statement, int]:
    """Return the statement that finds rows and their scores by a plan's terms, best first; and how many at the most.

    Args:
        wanted: the plan.
        average: mean length of passages.
        depth: rows wanted.
        floor: score that a row must have at the least.
        where: which passages may be found.
    """
    most = depth * _MORE if wanted.rest else depth
    sql = (
        "WITH scored AS MATERIALIZED (SELECT q.row, "
        "sum(w.weight * q.count / (q.count + %(flat)s + %(slope)s * q.length)) AS score "
        "FROM unnest(%(terms)s::bigint[], %(weights)s::float8[]) AS w (term, weight) "
        f"JOIN niru.postings q USING (term){where.joined} GROUP BY q.row) "
        "SELECT row, score FROM scored WHERE score >= greatest(%(floor)s, "
        "(SELECT score FROM scored ORDER BY score DESC OFFSET %(before)s LIMIT 1)) - %(rest)s "
        "ORDER BY score DESC, row LIMIT %(most)s"
    )
    given = {
        "terms": integers(wanted.terms),
        "weights": wanted.weights.tolist(),
        "flat": K1 * (1.0 - B),
        "slope": K1 * B / average,
        "floor": floor,
        "before": depth - 1,
        "rest": wanted.rest,
        "most": most,
    }
    return (sql, where.values | given), most


def occurrences_of(query: Counts, rows: list[int]) -> Statement:
    """Return the statement that finds how often some rows have a query's terms, for `scores`."""
    sql = (
        "SELECT row, term, count, length FROM niru.postings WHERE term = ANY(%s::bigint[]) AND row = ANY(%s::bigint[])"
    )
    return sql, (integers(query.terms), integers(rows))


def scores(found: Rows, query: Counts, weighed: Weighed, average: float) -> dict[int, float]:
    """Return the BM25 score of each row that has a term."""
    table = np.array(found, np.int64).reshape(-1, 4)
    rows, places = np.unique(table[:, 0], return_inverse=True)
    gained = saturation(table[:, 2], spread(table[:, 3].astype(np.float32), average))
    gained *= weighed.weights[query.terms.searchsorted(table[:, 1])]
    sums = np.zeros(len(rows), np.float32)
    np.add.at(sums, places, gained)
    return dict(zip(rows.tolist(), sums.tolist(), strict=True))


def documents_of(query: Counts, owners: list[int]) -> Statement:
    """Return the statement that finds how often some documents, all passages together, have a query's terms."""
    sql = (
        "SELECT p.owner, q.term, sum(q.count)::bigint FROM niru.passages p "
        "JOIN niru.postings q ON q.row = p.row AND q.term = ANY(%s::bigint[]) "
        "WHERE p.owner = ANY(%s::bigint[]) GROUP BY p.owner, q.term"
    )
    return sql, (integers(query.terms), integers(owners))


def lengths_of(owners: list[int]) -> Statement:
    """Return the statement that finds how many terms documents have."""
    sql = "SELECT owner, sum(length)::bigint FROM niru.passages WHERE owner = ANY(%s::bigint[]) GROUP BY owner"
    return sql, (integers(owners),)


def document_scores(
    found: Rows, lengths: dict[int, int], query: Counts, weighed: Weighed, average: float
) -> dict[int, float]:
    """Return the BM25 score of each document that has a term, as a share of the query's length."""
    rows = [(owner, term, count, lengths[owner]) for owner, term, count in found]
    return {owner: score / weighed.norm for owner, score in scores(rows, query, weighed, average).items()}

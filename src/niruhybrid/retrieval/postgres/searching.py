"""A batch of queries against one state of the store: both halves, their fusion, the best passage of each document.

What scores are, and how deep the halves look, is as in `niruhybrid.retrieval.search`; what was found is scored here,
from what the server has of it, by the same functions. Each step asks the server for all queries in one go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.asked import depth_of
from niruhybrid.retrieval.fusion import ranked_weighted_sum, words_needed
from niruhybrid.retrieval.postgres import nearest, worded
from niruhybrid.retrieval.postgres.arrays import integers
from niruhybrid.retrieval.postgres.connection import Connection, Rows, Statement, ask
from niruhybrid.retrieval.postgres.filters import Where, where
from niruhybrid.retrieval.postgres.frequencies import Frequencies
from niruhybrid.retrieval.postgres.state import State
from niruhybrid.retrieval.postgres.terms import Counts, Weighed, counted, weighed
from niruhybrid.retrieval.postings import average_length
from niruhybrid.retrieval.search import DEEPER, firsts
from niruhybrid.types import SearchRequest, Vector

__all__ = ("Best", "Search")

Best = list[tuple[int, float]]
_PLACES = "SELECT row, owner, kin FROM niru.passages WHERE row = ANY(%s::bigint[])"


class _Words(NamedTuple):
    """A query's terms as they are weighed here."""

    query: Counts
    own: Weighed  # among passages
    together: Weighed  # among documents
    plans: tuple[worded.Plan, worded.Plan]


@dataclass(slots=True, eq=False)
class _Asked:
    """A request, and what is known so far of the rows that may answer it."""

    request: SearchRequest
    vector: Vector | None  # None where meaning does not count
    words: _Words | None  # None where words do not count
    where: Where
    depth: int
    exact: bool = True
    near: dict[int, float] = field(default_factory=dict)  # cosines
    scores: dict[int, float] = field(default_factory=dict)  # of words
    found: set[int] = field(default_factory=set)  # rows that have words, still to be scored
    places: dict[int, tuple[int, str | None]] = field(default_factory=dict)  # owner and kin
    documents: dict[int, float] = field(default_factory=dict)  # scores of words, by owner
    best: Best = field(default_factory=list)

    def rows(self) -> list[int]:
        return sorted(self.near.keys() | self.scores.keys() | self.found)

    def unscored(self) -> list[int]:
        return [] if self.words is None else [row for row in self.rows() if row not in self.scores]

    def unplaced(self) -> list[int]:
        return [row for row in self.rows() if row not in self.places]

    def take(self, rows: Rows, *, final: bool) -> None:
        """Take in what was found by words, with its scores, which are `final` or by some of the words."""
        if final:
            self.scores = {row: float(np.float32(score)) for row, score in rows} | self.scores
        else:
            self.found |= {row for row, _ in rows}

    def far(self) -> list[int]:
        return [] if self.vector is None else [row for row in self.rows() if row not in self.near]


class Search:
    """Searches within one transaction.

    Args:
        connection: in the transaction.
        state: what it has found.
        frequencies: counts of terms, of the same store.
        dense_weight: share of the dense half.
    """

    def __init__(self, connection: Connection, state: State, frequencies: Frequencies, dense_weight: float) -> None:
        self._connection = connection
        self._state = state
        self._frequencies = frequencies
        self._weight = dense_weight
        self._apart = not state.parted and not state.kindred  # no hit stands for another

    def best(self, requests: Sequence[SearchRequest]) -> list[Best]:
        """Return the best rows of each request with their scores, best first."""
        asked = self._prepared(requests)
        self._count_passing(asked)
        open_ = asked
        while open_:
            self._find_near([one for one in open_ if one.vector is not None])
            words = [one for one in open_ if one.words is not None]
            self._complete(words)
            self._find_worded(words)
            self._complete(open_)
            if self._state.parted:
                self._score_documents(words)
            open_ = [one for one in open_ if self._rank(one)]
        return [one.best for one in asked]

    def _prepared(self, requests: Sequence[SearchRequest]) -> list[_Asked]:
        queries = [counted(() if one.mode == "dense" else one.terms) for one in requests]
        terms = np.concatenate([np.empty(0, np.int64), *(query.terms for query in queries)])
        passages, documents = self._frequencies.of(terms, self._state, self._rows)
        asked, at = [], 0
        for request, query in zip(requests, queries, strict=True):
            have = slice(at, at + len(query.terms))
            at = have.stop
            words = self._weighed(query, passages[have], documents[have]) if len(query.terms) else None
            vector = None if request.mode == "lexical" or self._state.dimension is None else request.vector
            asked.append(_Asked(request, vector, words, where(request.filter), depth_of(request)))
        return asked

    def _weighed(self, query: Counts, passages: NDArray[Any], documents: NDArray[Any]) -> _Words:
        own = weighed(query, passages, self._state.passages)
        together = weighed(query, documents, self._state.documents)
        return _Words(query, own, together, worded.plan(query, own, self._state.passages))

    def _count_passing(self, asked: Sequence[_Asked]) -> None:
        """Decide by which of two ways each request finds what is near."""
        large = self._state.indexed and self._state.passages > nearest.EXACT
        choosy = [one for one in asked if large and one.where.condition and one.vector is not None]
        for one in asked:
            one.exact = not large
        for one, [[count]] in zip(choosy, self._ask(nearest.passing(one.where) for one in choosy), strict=True):
            one.exact = count <= nearest.EXACT

    def _find_near(self, asked: Sequence[_Asked]) -> None:
        statements = [
            (nearest.compared if one.exact else nearest.likely)(one.vector, one.depth, one.where)
            for one in asked
            if one.vector is not None
        ]
        before = [nearest.settings(max(one.depth for one in asked))] if not all(one.exact for one in asked) else []
        for one, found in zip(asked, self._ask([*before, *statements])[len(before) :], strict=True):
            one.near = dict(found)

    def _complete(self, asked: Sequence[_Asked]) -> None:
        """Find what one half knows of a row and the other does not yet, and whose passage it is."""
        words = [(one, one.words, rows) for one in asked if one.words is not None and (rows := one.unscored())]
        far = [(one, one.vector, rows) for one in asked if one.vector is not None and (rows := one.far())]
        placed = [] if self._apart else [(one, rows) for one in asked if (rows := one.unplaced())]
        answers = iter(
            self._ask(
                [
                    *(worded.occurrences_of(terms.query, rows) for _, terms, rows in words),
                    *(nearest.cosines(vector, rows) for _, vector, rows in far),
                    *((_PLACES, (integers(rows),)) for _, rows in placed),
                ]
            )
        )
        for one, terms, rows in words:
            scores = worded.scores(next(answers), terms.query, terms.own, self._state.average)
            one.scores |= dict.fromkeys(rows, 0.0) | scores
        for one, _, _ in far:
            one.near |= dict(next(answers))
        for one, _ in placed:
            one.places |= {row: (owner, kin) for row, owner, kin in next(answers)}

    def _find_worded(self, asked: Sequence[_Asked]) -> None:
        """Find the best by words, by the rarer ones where that is enough."""
        some = [(one, one.words, floor) for one in asked if one.words and (floor := self._needed(one)) < np.inf]
        for attempt in (0, 1):
            plans = [words.plans[attempt] for _, words, _ in some]
            made = [
                worded.found_by(plan, self._state.average, one.depth, floor, one.where)
                for plan, (one, _, floor) in zip(plans, some, strict=True)
            ]
            found = self._ask(statement for statement, _ in made)
            left = []
            for each, plan, rows, (_, most) in zip(some, plans, found, made, strict=True):
                one, _, floor = each
                wanted = one.request.top_k if self._apart else one.depth
                whole = not plan.rest or len(rows) < most
                if whole and plan.proves([score for _, score in rows], wanted, floor):
                    one.take(rows, final=not plan.rest)
                else:
                    left.append(each)
            some = left

    def _needed(self, one: _Asked) -> float:
        """Return the score that a row's words must have if it is not near."""
        if one.vector is None or one.words is None or not self._apart:
            return 0.0
        rows = list(one.near)
        cosines, words = (np.array([of[row] for row in rows], np.float32) for of in (one.near, one.scores))
        return max(0.0, words_needed(cosines, words, one.request.top_k, self._weight, one.words.own.norm))

    def _score_documents(self, asked: Sequence[_Asked]) -> None:
        """Score by words the documents, all their passages together, of what was found."""
        wanted = [(one, one.words, sorted({owner for owner, _ in one.places.values()})) for one in asked if one.words]
        found = self._ask(worded.documents_of(words.query, owners) for _, words, owners in wanted)
        lengths = self._ask(worded.lengths_of(owners) for _, _, owners in wanted)
        average = average_length(self._state.terms, self._state.documents)
        for (one, words, _), occurrences, sizes in zip(wanted, found, lengths, strict=True):
            one.documents = worded.document_scores(occurrences, dict(sizes), words.query, words.together, average)

    def _rank(self, one: _Asked) -> bool:
        """Set the best rows of a request; return whether it has to look deeper."""
        rows = one.rows()
        cosines = None if one.vector is None else np.array([one.near[row] for row in rows], np.float32)
        words: NDArray[np.float32] | None = None
        norm = 1.0
        if one.words is not None:
            norm = one.words.own.norm
            words = np.array([one.scores[row] for row in rows], np.float32)
            if self._state.parted:
                theirs = np.array([one.documents.get(one.places[row][0], 0.0) for row in rows], np.float32)
                words = ((words + theirs * np.float32(norm)) / 2.0).astype(np.float32)
        ranked, scores = ranked_weighted_sum(np.array(rows, np.int64), cosines, words, self._weight, norm)
        kept = np.arange(len(ranked)) if self._apart else _one_of_each([one.places[row] for row in ranked.tolist()])
        wanted = one.request.top_k
        some = kept[:wanted]
        one.best = list(zip(ranked[some].tolist(), scores[some].tolist(), strict=True))
        deeper = len(kept) < min(wanted, len(rows)) and one.depth <= len(rows)
        one.depth *= DEEPER
        return deeper

    def _ask(self, statements: Iterable[Statement]) -> list[Rows]:
        asked = list(statements)
        return ask(self._connection, *asked) if asked else []

    def _rows(self, statement: Statement) -> Rows:
        return ask(self._connection, statement)[0]


def _one_of_each(places: Sequence[tuple[int, str | None]]) -> NDArray[Any]:
    """Return the positions of the first passage of each document, then of those that are kin."""
    kept = firsts(np.array([owner for owner, _ in places], np.int64))
    codes: dict[str, int] = {}
    kins = [places[at][1] for at in kept.tolist()]
    return kept[firsts(np.array([-1 if kin is None else codes.setdefault(kin, len(codes)) for kin in kins]))]

"""How many passages and documents have a term: counted by the server, and remembered while it hardly changes.

A count may be out of date by one passage in a thousand: the weight of a term that many have is then off by less than
that, and one that few have costs nothing to count. In a store of fewer than a thousand passages each count is exact.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.postgres.arrays import integers
from niruhybrid.retrieval.postgres.connection import Rows, Statement
from niruhybrid.retrieval.postgres.state import State

__all__ = ("Frequencies",)

_MOST = 500_000  # terms that are remembered
_STALE = 1000  # passages, of which one may have come or gone

_PASSAGES = "SELECT term, count(*), count(*) FROM niru.postings WHERE term = ANY(%s::bigint[]) GROUP BY term"
_BOTH = (
    "SELECT q.term, count(*), count(DISTINCT p.owner) FROM niru.postings q JOIN niru.passages p USING (row) "
    "WHERE q.term = ANY(%s::bigint[]) GROUP BY q.term"
)

Ints = NDArray[Any]


class _Known(NamedTuple):
    changes: int  # of the state in which it was counted
    passages: int
    documents: int


class Frequencies:
    """The counts of one store. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._mutex = threading.Lock()

    def of(self, terms: Ints, state: State, rows: Callable[[Statement], Rows]) -> tuple[Ints, Ints]:
        """Return how many passages, and how many documents, have each of some terms, `(n,)`.

        Args:
            terms: numbers of terms.
            state: the state of the transaction.
            rows: runs a statement in the transaction.
        """
        wanted = dict.fromkeys(terms.tolist())
        missing = [term for term in wanted if not self._fresh(term, state)]
        found: dict[int, _Known] = {}
        if missing and state.passages:
            statement = _BOTH if state.parted else _PASSAGES
            counted = rows((statement, (integers(missing),)))
            found = {term: _Known(state.changes, *both) for term, *both in counted}
        nothing = _Known(state.changes, 0, 0)
        fresh = {term: found.get(term, nothing) for term in missing}
        known = [fresh.get(term) or self._known.get(term, nothing) for term in terms.tolist()]
        self._remember(fresh)
        return (
            np.array([one.passages for one in known], np.int64),
            np.array([one.documents for one in known], np.int64),
        )

    def _fresh(self, term: int, state: State) -> bool:
        known = self._known.get(term)
        return known is not None and abs(state.changes - known.changes) <= state.passages // _STALE

    def _remember(self, found: dict[int, _Known]) -> None:
        with self._mutex:
            if len(self._known) + len(found) > _MOST:
                self._known.clear()
            self._known.update(found)

"""Standing queries: who waits for what, and who is told of what has just become searchable."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from niruhybrid.retrieval.columns import Columns
from niruhybrid.retrieval.fusion import weighted_sum
from niruhybrid.retrieval.snapshot import Snapshot
from niruhybrid.types import Document, Hit, IndexEntry, Match, StandingQuery, Vector

__all__ = ("News", "StandingQueries")

_log = logging.getLogger(__name__)

Deliver = Callable[[Match], None]


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """What one write has added.

    Attributes:
        entries: the new passages, in the order of the last slots of `snapshot`.
        vectors: `(n, dim)` float32, of each.
        snapshot: the state after the write.
    """

    entries: Sequence[IndexEntry]
    vectors: Vector
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    query: StandingQuery
    deliver: Deliver


class StandingQueries:
    """The subscriptions of one store. Thread-safe.

    Args:
        dense_weight: weight of the dense half, as searches have it.
    """

    def __init__(self, dense_weight: float) -> None:
        self._dense_weight = dense_weight
        self._subscriptions: dict[int, _Subscription] = {}
        self._next = 0
        self._changing = threading.Lock()
        self._pending: deque[News] = deque()  # one for each thread that is writing, at the most
        self._turn = threading.RLock()
        self._telling = False

    def add(self, query: StandingQuery, deliver: Deliver) -> Callable[[], None]:
        """Have `deliver` told of all that matches from now on; return what ends it."""
        with self._changing:
            number, self._next = self._next, self._next + 1
            self._subscriptions[number] = _Subscription(query, deliver)
        return lambda: self._end(number)

    def note(self, news: News) -> None:
        """Keep what a write has added, until `tell`; to be called in the order of the writes."""
        if self._subscriptions:
            self._pending.append(news)

    def tell(self) -> None:
        """Deliver the matches of all that has been noted; those of the caller's own write are delivered on return.

        A call from within `deliver` leaves its write to the call that is going on.
        """
        with self._turn:
            if self._telling:
                return
            self._telling = True
            try:
                while self._pending:
                    self._tell(self._pending.popleft())
            finally:
                self._telling = False

    def _tell(self, news: News) -> None:
        with self._changing:
            subscriptions = list(self._subscriptions.items())
        for number, one in subscriptions:
            for hit in _hits(one.query, news, self._dense_weight):
                try:
                    one.deliver(Match(one.query.id, hit, news.snapshot.watermark))
                except Exception:  # noqa: BLE001  # told once, here: neither the write nor others are to suffer
                    _log.exception("standing_query_ended id=%s: its receiver raised", one.query.id)
                    self._end(number)
                    break

    def _end(self, number: int) -> None:
        with self._changing:
            self._subscriptions.pop(number, None)


def _hits(query: StandingQuery, news: News, dense_weight: float) -> Iterator[Hit]:
    """Yield the best passage of each document that matches, in the order of the write."""
    snapshot, count = news.snapshot, len(news.entries)
    first = len(snapshot.rows) - count
    allowed = np.zeros(len(snapshot.rows), np.bool_)
    allowed[first:] = True
    if query.filter is not None:
        columns = Columns({}).changed(0, [entry.document.metadata for entry in news.entries])
        allowed[first:] = columns.passing(query.filter, count)
    terms = () if query.mode == "dense" else query.terms
    near = None
    if query.vector is not None and query.mode != "lexical":
        cosines = np.vecdot(news.vectors, query.vector)
        near = {first + n: float(cosine) for n, cosine in enumerate(cosines)}
    [worded] = snapshot.lexical.search([terms], [count], [allowed])
    [norm] = snapshot.lexical.norms([terms])
    scores = weighted_sum(near, worded if terms else None, dense_weight, norm)
    least = -np.inf if query.min_score is None else query.min_score
    best: dict[str, tuple[float, int]] = {}
    for slot, score in scores.items():
        name = news.entries[slot - first].document.id
        if allowed[slot] and score >= least and (score, -slot) > best.get(name, (-np.inf, 0)):
            best[name] = (score, -slot)
    for score, slot in best.values():
        yield _hit(news.entries[-slot - first], score)


def _hit(entry: IndexEntry, score: float) -> Hit:
    document: Document = entry.document
    span = (entry.start, entry.start + len(document.text))
    return Hit(document.id, 1, score, document.text, document.title, document.metadata, span)

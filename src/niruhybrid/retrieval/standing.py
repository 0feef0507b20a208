"""Standing queries: who waits for what, and who is told of what has just become searchable.

A thin shell: `panel` decides what matches, `quota` what of it is passed on. All of it happens in the thread that wrote,
after its commit, while other threads write and search.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.errors import InvalidVectorError
from niruhybrid.retrieval.columns import Columns
from niruhybrid.retrieval.panel import Panel, Statistics
from niruhybrid.retrieval.quota import Quotas
from niruhybrid.types import Hit, IndexEntry, Match, StandingQuery, Vector

__all__ = ("News", "StandingQueries")

_log = logging.getLogger(__name__)

Deliver = Callable[[Match], None]
Mask = NDArray[np.bool_]

_SLOWEST = 1.0  # seconds that a receiver may take
_FEWEST_OVER, _OVER_SHARE = 64, 2  # subscriptions that are over: so many, and half of all, are worth closing up


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """What one write has added.

    Attributes:
        entries: the new passages.
        vectors: `(n, dim)` float32, of each.
        terms: analysed terms of each.
        watermark: the write.
        statistics: of the terms of all that is there after it.
        earlier: by id, terms of the passages that stay before the new ones of a document.
    """

    entries: Sequence[IndexEntry]
    vectors: Vector
    terms: Sequence[Sequence[str]]
    watermark: int
    statistics: Statistics
    earlier: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    def documents(self) -> list[Sequence[str]]:
        """Return, for each passage, the terms of its whole document: the same list for all passages of one."""
        whole: dict[str, list[str]] = {
            name: [term for one in passages for term in one] for name, passages in self.earlier.items()
        }
        for entry, terms in zip(self.entries, self.terms, strict=True):
            whole.setdefault(entry.document.id, []).extend(terms)
        return [whole[entry.document.id] for entry in self.entries]


@dataclass(slots=True, eq=False)
class _Subscription:
    query: StandingQuery
    deliver: Deliver
    over: bool = False


class _Found(NamedTuple):
    place: int
    score: float


class StandingQueries:
    """The subscriptions of one store. Thread-safe.

    Args:
        dense_weight: weight of the dense half, as searches have it.
        clock: monotonic seconds.
    """

    def __init__(self, dense_weight: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._dimension: int | None = None
        self._arrived: deque[_Subscription] = deque()  # not yet in the panel; what is in it belongs to `_turn`
        self._pending: deque[News] = deque()  # one for each thread that is writing, at the most
        self._turn = threading.RLock()
        self._telling = False
        self._panel = Panel(dense_weight)
        self._quotas = Quotas()
        self._subscriptions: list[_Subscription] = []  # by slot
        self._over = 0  # of these and of those who have arrived; `_counting` goes with it
        self._counting = threading.Lock()

    def add(self, query: StandingQuery, deliver: Deliver, dimension: int | None) -> Callable[[], None]:
        """Have `deliver` told of all that matches from now on; return what ends it.

        Args:
            query: what is waited for.
            deliver: see `ports.Store.subscribe`.
            dimension: the store's; None while it has none, then the first standing query's.

        Raises:
            InvalidVectorError: the vector's length is not the dimension.
        """
        if query.vector is not None:
            self._dimension = dimension or self._dimension or len(query.vector)
            if query.vector.shape != (self._dimension,):
                raise _other_dimension(query, self._dimension)
        one = _Subscription(query, deliver)
        self._arrived.append(one)
        self._try_to_settle()
        return lambda: self._end(one)

    @property
    def awaited(self) -> bool:
        """Whether there is anybody to be told."""
        return bool(self._arrived) or len(self._subscriptions) > self._over

    def note(self, news: News) -> None:
        """Keep what a write has added, until `tell`; to be called in the order of the writes."""
        if self.awaited:
            self._pending.append(news)

    def tell(self) -> None:
        """Deliver the matches of all that has been noted; those of the caller's own write are delivered on return.

        A call from within a receiver leaves its write to the call that is going on.
        """
        if not self._pending and not self._telling:  # else another thread may be telling of the caller's write
            return
        with self._turn:
            if self._telling:
                return
            self._telling = True
            try:
                while self._pending:
                    self._tell_guarded(self._pending.popleft())
            finally:
                self._telling = False

    def _tell_guarded(self, news: News) -> None:
        """Tell of a write that is committed already: no fault in here may have it look as if it had failed."""
        try:
            self._settle()
            self._tell(news)
            self._settle()
        except Exception:  # noqa: BLE001  # logged whole: the documents are there, whoever was not told of them
            _log.exception("standing_queries_not_told watermark=%d", news.watermark)

    def _try_to_settle(self) -> None:
        """Settle, unless a thread is telling: it does so before and after."""
        if not self._unsettled or not self._turn.acquire(blocking=False):
            return
        try:
            if not self._telling:
                self._settle()
        finally:
            self._turn.release()

    @property
    def _unsettled(self) -> bool:
        """Whether any have arrived, or so many are over that their slots are worth closing up."""
        known = len(self._subscriptions)
        return bool(self._arrived) or self._over >= max(_FEWEST_OVER, known // _OVER_SHARE) or self._over >= known > 0

    def _settle(self) -> None:
        """Take in those who have arrived, and close up the slots of those who have gone, if these are many."""
        if self._unsettled and self._over:
            kept = np.array([not one.over for one in self._subscriptions], np.bool_)
            with self._counting:
                self._over -= int(np.count_nonzero(~kept))
            self._panel.compact(kept)
            self._quotas.compact(kept)
            self._subscriptions = [one for one, stays in zip(self._subscriptions, kept, strict=True) if stays]
        while self._arrived:
            one = self._arrived.popleft()
            with self._counting:
                self._over -= one.over
                if one.over:
                    continue
            self._panel.add(one.query)
            self._quotas.add(one.query.min_score, one.query.per_minute, self._clock())
            self._subscriptions.append(one)

    def _tell(self, news: News) -> None:
        if self._dimension is not None and news.vectors.shape[1] != self._dimension:
            self._end_foreign(news.vectors.shape[1])
            return
        now = self._clock()
        least = self._quotas.least(now)
        passing = _Passing(news.entries)
        several = news.statistics.owners != news.statistics.documents
        documents = news.documents() if several else None
        pairs = self._panel.pairs(news.vectors, news.terms, news.statistics, least, documents)
        triples = zip(*(column.tolist() for column in pairs), strict=True)
        for slot, found in groupby(triples, itemgetter(0)):
            self._pass_on(slot, [_Found(place, score) for _, place, score in found], passing, news, now)

    def _pass_on(self, slot: int, pairs: Sequence[_Found], passing: "_Passing", news: News, now: float) -> None:
        """Deliver the best passage of each document, as far as filter and quota allow, in the order of the write."""
        one = self._subscriptions[slot]
        allowed = passing.of(one.query)
        best: dict[str, _Found] = {}
        for pair in sorted((pair for pair in pairs if allowed[pair.place]), key=lambda pair: (-pair.score, pair.place)):
            best.setdefault(news.entries[pair.place].document.id, pair)
        admitted = [pair for pair in best.values() if self._quotas.admit(slot, pair.score, now)]
        for pair in sorted(admitted, key=lambda pair: pair.place):
            if one.over:
                return
            hit = _hit(news.entries[pair.place], pair.score)
            self._deliver(one, Match(one.query.id, hit, news.watermark))

    def _deliver(self, one: _Subscription, match: Match) -> None:
        began = self._clock()
        try:
            one.deliver(match)
        except Exception:  # noqa: BLE001  # told once, here: neither the write nor others are to suffer
            _log.exception("standing_query_ended id=%s reason=raised", one.query.id)
            self._end(one)
            return
        if (taken := self._clock() - began) > _SLOWEST:
            _log.warning("standing_query_ended id=%s reason=slow seconds=%.1f", one.query.id, taken)
            self._end(one)

    def _end(self, one: _Subscription) -> None:
        with self._counting:
            self._over += not one.over
            one.over = True
        self._try_to_settle()

    def _end_foreign(self, dimension: int) -> None:
        """End the subscriptions that came before the store had a dimension, and guessed another."""
        for one in self._subscriptions:
            if one.query.vector is not None and not one.over:
                _log.error("standing_query_ended id=%s reason=dimension store=%d", one.query.id, dimension)
                self._end(one)


class _Passing:
    """Which passages of a batch filters let through: what `Columns` says, asked once per filter."""

    def __init__(self, entries: Sequence[IndexEntry]) -> None:
        self._entries = entries
        self._columns: Columns | None = None
        self._known: dict[bytes, Mask] = {}

    def of(self, query: StandingQuery) -> Mask:
        """Return which passages a query may be told of, `(n,)`."""
        key = b"" if query.filter is None else orjson.dumps(query.filter)
        if key not in self._known:
            self._known[key] = self._passing(query)
        return self._known[key]

    def _passing(self, query: StandingQuery) -> Mask:
        if query.filter is None:
            return np.ones(len(self._entries), np.bool_)
        if self._columns is None:
            self._columns = Columns({}).changed(0, [entry.document.metadata for entry in self._entries])
        return self._columns.passing(query.filter, len(self._entries))


def _hit(entry: IndexEntry, score: float) -> Hit:
    document = entry.document
    span = (entry.start, entry.start + len(document.text))
    return Hit(document.id, 1, score, document.text, document.title, document.metadata, span)


def _other_dimension(query: StandingQuery, dimension: int) -> InvalidVectorError:
    shape = None if query.vector is None else query.vector.shape
    return InvalidVectorError(
        f"embedding of standing query {query.id!r} has shape {shape}, the store has dimension {dimension}: "
        "use the model that the store was filled with"
    )

"""What a store is given and asked, and what it finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from niruhybrid.errors import InvalidSettingError
from niruhybrid.filters import Filter
from niruhybrid.types.checks import SearchMode, Vector, checked_id, checked_search, shown
from niruhybrid.types.items import Document
from niruhybrid.types.results import Hit

_MAX_SCORE = 1e300  # no score comes near

__all__ = ("IndexEntry", "Match", "SearchRequest", "SearchResponse", "StandingQuery")


@dataclass(frozen=True, slots=True, eq=False)
class IndexEntry:
    """A document, or one passage of it, ready for the store: its text, its vector and its lexical terms.

    A document that is read whole is one entry, part 0. A longer one has an entry for each passage, in order; passages
    may overlap and leave no gap, so that the store can give the whole text back. Part 0 takes the place of whatever
    has the document's id; part n that of the parts from n on. So a text that still grows is kept passage by passage.

    Attributes:
        document: what is kept and returned; its text is the passage's.
        vector: `(dim,)` unit vector.
        terms: analysed terms of title and text, in order, with repeats.
        part: number of the passage in its document, from 0.
        start: where the passage begins in the document's text, in characters (code points).
    """

    document: Document
    vector: Vector
    terms: Sequence[str]
    part: int = 0
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """A query ready for the store.

    Attributes:
        vector: `(dim,)` unit vector; None where only words are to count.
        terms: analysed terms, in order, with repeats; may be empty.
        top_k: hits wanted, 1 to 1000.
        filter: what a document's metadata must say, see `niruhybrid.filters`; None for no filter.
        mode: what counts: both halves, or one.
        min_watermark: the write that the search must see at the least.

    Raises:
        InvalidSettingError: `filter` is not one, `mode` is not known, or `min_watermark` is not a whole number.
    """

    vector: Vector | None
    terms: Sequence[str]
    top_k: int = 5
    filter: Filter | None = None
    mode: SearchMode = "hybrid"
    min_watermark: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter", checked_search(self.filter, self.mode, self.min_watermark))


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """What a search found.

    Attributes:
        hits: best first, ranks from 1.
        watermark: the last write that the search could see.
        notes: what was asked for and not done, in words; empty when all was.
    """

    hits: tuple[Hit, ...]
    watermark: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class StandingQuery:
    """A query that stays, ready for the store: told of what arrives and matches.

    Attributes:
        id: its name in every match.
        vector: `(dim,)` unit vector; None where only words are to count.
        terms: analysed terms, in order, with repeats; may be empty.
        min_score: the score that a match must have; None leaves it to `per_minute`.
        per_minute: matches in a minute at the most, the best as far as can be told without waiting; None for no cap.
        filter: what a document's metadata must say; None for no filter.
        mode: what counts.

    Raises:
        InvalidSettingError: a value is out of its range, or neither `min_score` nor `per_minute` is given.
    """

    id: str
    vector: Vector | None
    terms: Sequence[str]
    min_score: float | None = None
    per_minute: int | None = None
    filter: Filter | None = None
    mode: SearchMode = "hybrid"

    def __post_init__(self) -> None:
        checked_id(self.id)
        object.__setattr__(self, "filter", checked_search(self.filter, self.mode, 0))
        score, cap = self.min_score, self.per_minute
        if score is None and cap is None:
            raise InvalidSettingError("neither `min_score` nor `per_minute` is given: give one, or both")
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (number and -_MAX_SCORE <= score <= _MAX_SCORE):
            raise InvalidSettingError(f"`min_score` is {shown(score)}: give a finite number")
        if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= 1_000_000):
            raise InvalidSettingError(f"`per_minute` is {shown(cap)}: give a whole number from 1 to 1000000")


@dataclass(frozen=True, slots=True)
class Match:
    """News for a standing query: a document that has just become searchable and matches.

    Attributes:
        query_id: the standing query's id.
        hit: the document, rank 1, scored as a search would score it.
        watermark: the write that brought it.
    """

    query_id: str
    hit: Hit
    watermark: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"query_id": self.query_id, "hit": self.hit.to_dict(), "watermark": self.watermark}

"""The values that travel through the pipeline: frozen, slotted, checked when they are made.

A `Query` or `Document` that exists is valid: texts are encodable and not blank, ids printable, embeddings finite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.errors import (
    InvalidIdError,
    InvalidMetadataError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
    NiruError,
)
from niruhybrid.filters import Filter, checked_filter

__all__ = (
    "BufferStats",
    "DataResult",
    "Document",
    "Finish",
    "FinishReason",
    "Hit",
    "IndexEntry",
    "Match",
    "Metadata",
    "PassageResult",
    "Query",
    "QueryResult",
    "SearchMode",
    "SearchRequest",
    "SearchResponse",
    "StandingQuery",
    "StreamEvent",
    "StreamItem",
    "Timings",
    "Token",
    "Vector",
)

Vector = NDArray[np.float32]
"""One embedding, `(dim,)` float32, or several, `(n, dim)`; C-contiguous, unit length unless said otherwise."""

Metadata = Mapping[str, Any]
"""A JSON object: string keys; strings, numbers, booleans, null, arrays and objects as values."""

SearchMode = Literal["hybrid", "dense", "lexical"]
"""What a search goes by: meaning and words, meaning alone, or words alone."""

FinishReason = Literal["stop", "length", "content_filter"]
"""Why a complete answer ends: it was at its end, at its longest, or the model's provider withheld the rest."""

MAX_ID_CHARS = 512
MAX_TOP_K = 1000
_NOTHING: Metadata = MappingProxyType({})


def _no_metadata() -> Metadata:
    return _NOTHING


def checked_id(value: object) -> str:
    """Return `value` if it can serve as an id.

    Raises:
        InvalidIdError: it is not a string of 1 to 512 printable, encodable characters.
    """
    if not isinstance(value, str):
        raise InvalidIdError(f"id is {_shown(value)}: give a string")
    if not 1 <= len(value) <= MAX_ID_CHARS:
        raise InvalidIdError(f"id has {len(value)} characters: give 1 to {MAX_ID_CHARS}")
    if not value.isprintable():
        raise InvalidIdError(f"id {value!r} has control or unpaired characters: use printable ones")
    return value


def checked_text(value: object, *, what: str = "text", max_chars: int | None = None) -> str:
    """Return `value` if it can be encoded.

    Args:
        value: the text.
        what: how an error names it.
        max_chars: characters at the most; None for no bound.

    Raises:
        InvalidTextError: it is not a string, is blank or too long, or has an unpaired surrogate.
    """
    if not isinstance(value, str):
        raise InvalidTextError(f"{what} is {_shown(value)}: give a string")
    if not value or value.isspace():
        raise InvalidTextError(f"{what} is empty ({len(value)} characters, all blank): give some text")
    if max_chars is not None and len(value) > max_chars:
        raise InvalidTextError(
            f"{what} has {len(value)} characters of {max_chars} allowed: split it, or raise the limit"
        )
    _refuse_surrogates(value, what)
    return value


def checked_top_k(value: object) -> int:
    """Return `value` if it is a number of hits one may ask for.

    Raises:
        InvalidSettingError: it is not a whole number from 1 to 1000.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise InvalidSettingError(f"`top_k` is {_shown(value)}: give a whole number from 1 to {MAX_TOP_K}")
    return value


def checked_vector(value: object, *, dim: int | None = None) -> Vector:
    """Return `value` as a unit vector: float32, C-contiguous, read-only, `(dim,)`.

    Args:
        value: a sequence or array of numbers, of any length but 0.
        dim: the dimension asked for; None takes any.

    Raises:
        InvalidVectorError: it is not one-dimensional, not of `dim` numbers, not finite, or all zeros.
    """
    try:
        vector = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise InvalidVectorError("embedding is not a list of numbers: give one number per dimension") from err
    if vector.ndim != 1 or vector.size == 0:
        raise InvalidVectorError(f"embedding has shape {vector.shape}: give one flat list of numbers")
    if dim is not None and vector.size != dim:
        raise InvalidVectorError(f"embedding has {vector.size} dimensions, the encoder has {dim}: use the same model")
    if not np.isfinite(vector).all():
        where = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise InvalidVectorError(f"embedding has {vector[where]} at position {where}: give finite numbers")
    top = float(np.abs(vector).max())
    if top == 0.0:
        raise InvalidVectorError("embedding is all zeros, it has no direction: give a non-zero vector")
    vector /= top  # first, so that the norm can neither overflow nor vanish
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    unit.flags.writeable = False
    return unit


def checked_metadata(value: object) -> Metadata:
    """Return `value` as a read-only JSON object; None gives an empty one.

    Raises:
        InvalidMetadataError: it is not a mapping with string keys and JSON values.
    """
    if value is None or (isinstance(value, Mapping) and not value):
        return _NOTHING
    if not isinstance(value, Mapping):
        raise InvalidMetadataError(f"metadata is {_shown(value)}: give a JSON object")
    copy = dict(value)
    try:
        orjson.dumps(copy)
    except (TypeError, ValueError) as err:
        raise InvalidMetadataError(f"metadata is not JSON ({err}): use string keys and JSON values") from err
    return MappingProxyType(copy)


def _refuse_surrogates(value: str, what: str) -> None:
    if value.isascii():
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as err:
        raise InvalidTextError(
            f"{what} has an unpaired surrogate at character {err.start}: send valid Unicode"
        ) from err


def _shown(value: object) -> str:
    """Name a refused value without repeating more than a few characters of it."""
    text = repr(value) if isinstance(value, int | float | bool | None) else type(value).__name__
    return text[:40]


@dataclass(frozen=True, slots=True)
class Query:
    """A text for which somebody is waiting.

    Attributes:
        id: the caller's name for it, returned with everything that concerns it.
        text: what is asked; not blank.
        top_k: hits wanted, 1 to 1000.
        metadata: returned unchanged with the result.
        timeout: seconds until it is given up; None takes `processing_timeout`.
        session: a newer query of the same session supersedes this one; None for no session.
        filter: what a document's metadata must say, see `niruhybrid.filters`; None for no filter.
        mode: what the search goes by.
        min_watermark: the write that the search must see at the least; 0 for none in particular.

    Raises:
        InvalidInputError: an attribute can't be used; the subclass says which.
    """

    id: str
    text: str
    top_k: int = 5
    metadata: Metadata = field(default_factory=_no_metadata)
    timeout: float | None = None
    session: str | None = None
    filter: Filter | None = None
    mode: SearchMode = "hybrid"
    min_watermark: int = 0

    def __post_init__(self) -> None:
        checked_id(self.id)
        checked_text(self.text, what="query text")
        checked_top_k(self.top_k)
        object.__setattr__(self, "metadata", checked_metadata(self.metadata))
        checked_timeout(self.timeout)
        if self.session is not None:
            checked_id(self.session)
        _refuse_search(self.filter, self.mode, self.min_watermark)


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is to be searchable.

    Attributes:
        id: a later document with the same id takes its place.
        text: what is encoded and shown; may be empty only beside an `embedding`.
        title: shown, and searched by words; may be empty.
        metadata: kept and returned with every hit.
        embedding: a ready vector, `(dim,)`; made a unit vector. None has the text encoded.
        timeout: seconds until its processing is given up; None takes `processing_timeout`.

    Raises:
        InvalidInputError: an attribute can't be used; the subclass says which.
    """

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=_no_metadata)
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    timeout: float | None = None

    def __post_init__(self) -> None:
        checked_id(self.id)
        if self.embedding is None:
            checked_text(self.text, what="document text")
        else:
            if not isinstance(self.text, str):
                raise InvalidTextError(f"document text is {_shown(self.text)}: give a string")
            _refuse_surrogates(self.text, "document text")
            object.__setattr__(self, "embedding", checked_vector(self.embedding))
        if not isinstance(self.title, str):
            raise InvalidTextError(f"document title is {_shown(self.title)}: give a string")
        _refuse_surrogates(self.title, "document title")
        object.__setattr__(self, "metadata", checked_metadata(self.metadata))
        checked_timeout(self.timeout)


def checked_timeout(value: object) -> None:
    """Refuse what can't be a time limit.

    Raises:
        InvalidSettingError: it is neither None nor finite seconds above 0.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[operator,arg-type]  # `number` says it
        raise InvalidSettingError(f"`timeout` is {_shown(value)}: give seconds above 0, or None for the default")


_MODES = get_args(SearchMode)


def _refuse_search(wanted: object, mode: object, min_watermark: object) -> None:
    if wanted is not None:
        checked_filter(wanted)
    if mode not in _MODES:
        raise InvalidSettingError(f"`mode` is {_shown(mode)}: give one of {', '.join(_MODES)}")
    if isinstance(min_watermark, bool) or not isinstance(min_watermark, int) or min_watermark < 0:
        raise InvalidSettingError(f"`min_watermark` is {_shown(min_watermark)}: give a whole number from 0 up")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that answers a query, by its best passage.

    Attributes:
        id: the document's id.
        rank: place in the result, from 1.
        score: fused score; higher is better; with the default fusion comparable between results of one query.
        text: the passage's text; all of the document's where that was read whole.
        title: the document's title, or "".
        metadata: the document's metadata.
        span: where the passage begins and ends in the document's text, in characters (code points).
    """

    id: str
    rank: int
    score: float
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=_no_metadata)
    span: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "id": self.id,
            "rank": self.rank,
            "score": self.score,
            "text": self.text,
            "title": self.title,
            "metadata": dict(self.metadata),
            "span": list(self.span),
        }


class Timings(NamedTuple):
    """Where an item's time went, in seconds.

    Attributes:
        queued: from acceptance until its batch was taken by a worker.
        encode: the whole encode call of its batch, shared by the batch's items.
        search: search or store call of its batch.
        total: from acceptance to result.
    """

    queued: float = 0.0
    encode: float = 0.0
    search: float = 0.0
    total: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return it as JSON-ready values, in seconds."""
        return {"queued": self.queued, "encode": self.encode, "search": self.search, "total": self.total}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """How a query ended: with a vector and hits, or with an error.

    Attributes:
        id: the query's id.
        text: the query's text; "" where the input had none.
        vector: its embedding, `(dim,)`; None after an error.
        hits: best first; empty without a store, without a match or after an error.
        metadata: the query's own.
        timings: where the time went.
        watermark: the store's state that the search saw; None without a store.
        notes: what was cut or left out on the way, in words; empty when nothing was.
        error: what went wrong, or None.
    """

    id: str
    text: str
    vector: Vector | None = field(default=None, compare=False)
    hits: tuple[Hit, ...] = ()
    metadata: Metadata = field(default_factory=_no_metadata)
    timings: Timings = field(default=Timings(), compare=False)
    watermark: int | None = None
    notes: tuple[str, ...] = ()
    error: NiruError | None = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    def __repr__(self) -> str:
        return (
            f"QueryResult(id={self.id!r}, text={_short(self.text)!r}, {_vector_shown(self.vector)}, "
            f"hits={[hit.id for hit in self.hits]!r}, {self.timings.total * 1e3:.1f} ms{_error_shown(self.error)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values; the vector as a list, the error as code and message."""
        return {
            "id": self.id,
            "text": self.text,
            "vector": None if self.vector is None else self.vector.tolist(),
            "hits": [hit.to_dict() for hit in self.hits],
            "metadata": dict(self.metadata),
            "timings": self.timings.to_dict(),
            "watermark": self.watermark,
            "notes": list(self.notes),
            "error": _error_dict(self.error),
        }


@dataclass(frozen=True, slots=True)
class DataResult:
    """How a document ended: encoded and, given a store, searchable; or with an error.

    Attributes:
        id: the document's id.
        vector: its embedding, `(dim,)`, of several windows the direction of their mean; None after an error.
        metadata: the document's own.
        timings: where the time went.
        watermark: the store's state in which it is searchable; None without a store.
        notes: what was cut or left out on the way, in words; empty when nothing was.
        error: what went wrong, or None.
        windows: windows in which it was read; 0 where nothing was.
        tokens_seen: tokens of title and text; None where the encoder does not tell, or nothing was read.
        tokens_used: those of them that were read; None likewise.
    """

    id: str
    vector: Vector | None = field(default=None, compare=False)
    metadata: Metadata = field(default_factory=_no_metadata)
    timings: Timings = field(default=Timings(), compare=False)
    watermark: int | None = None
    notes: tuple[str, ...] = ()
    error: NiruError | None = field(default=None, compare=False)
    windows: int = 0
    tokens_seen: int | None = None
    tokens_used: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    def __repr__(self) -> str:
        return (
            f"DataResult(id={self.id!r}, {_vector_shown(self.vector)}, watermark={self.watermark}, "
            f"{self.timings.total * 1e3:.1f} ms{_error_shown(self.error)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values; the vector as a list, the error as code and message."""
        return {
            "id": self.id,
            "vector": None if self.vector is None else self.vector.tolist(),
            "metadata": dict(self.metadata),
            "timings": self.timings.to_dict(),
            "watermark": self.watermark,
            "notes": list(self.notes),
            "error": _error_dict(self.error),
            "windows": self.windows,
            "tokens_seen": self.tokens_seen,
            "tokens_used": self.tokens_used,
        }


@dataclass(frozen=True, slots=True)
class PassageResult:
    """A passage of a growing text: encoded and, given a store, searchable; or the error that ended the text.

    Attributes:
        id: the text's id.
        part: number of the passage in the text, from 0.
        text: the passage.
        span: where it begins and ends in the text, in characters (code points).
        vector: its embedding, `(dim,)`; None after an error.
        timings: where the time went.
        watermark: the store's state in which it is searchable; None without a store.
        tokens_seen: tokens of the title and of the text so far, as far as it has been read.
        tokens_used: tokens of the title and of all passages up to this one.
        error: what went wrong, or None.
    """

    id: str
    part: int
    text: str
    span: tuple[int, int]
    vector: Vector | None = field(default=None, compare=False)
    timings: Timings = field(default=Timings(), compare=False)
    watermark: int | None = None
    tokens_seen: int | None = None
    tokens_used: int | None = None
    error: NiruError | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return (
            f"PassageResult(id={self.id!r}, part={self.part}, text={_short(self.text)!r}, span={self.span}, "
            f"{_vector_shown(self.vector)}, watermark={self.watermark}, "
            f"{self.timings.total * 1e3:.1f} ms{_error_shown(self.error)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values; the vector as a list, the error as code and message."""
        return {
            "id": self.id,
            "part": self.part,
            "text": self.text,
            "span": list(self.span),
            "vector": None if self.vector is None else self.vector.tolist(),
            "timings": self.timings.to_dict(),
            "watermark": self.watermark,
            "tokens_seen": self.tokens_seen,
            "tokens_used": self.tokens_used,
            "error": _error_dict(self.error),
        }


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of an answer, or of a standing query.

    Attributes:
        event: of an answer `sources` (first, once; a `provisional` may precede it), `token` (any number), then `done`
            or `error` (last, once). Of a standing query `subscribed` (first, once), `match` and `dropped` (any number),
            then `error`.
        data: JSON-ready payload, as docs/http.md describes it per event.
    """

    event: Literal["provisional", "sources", "token", "done", "error", "subscribed", "match", "dropped"]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a generated answer.

    Attributes:
        text: appended to what came before; never empty.
        source: id of the hit that the piece comes from, or None.
    """

    text: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generated answer ended, where that is not simply `stop`; comes after the last `Token`.

    Attributes:
        reason: why there is no more of it.
        notes: what was cut or left out on the way, in words; empty when nothing was.
    """

    reason: FinishReason = "stop"
    notes: tuple[str, ...] = ()


class StreamItem(NamedTuple):
    """An item as a buffer returns it.

    Attributes:
        item_id: the caller's id; a buffer does not ask for it to be unique.
        data: whatever was added.
        metadata: whatever was added beside it, or an empty mapping.
        added_at: monotonic seconds at which it was accepted.
    """

    item_id: str
    data: Any
    metadata: Metadata = _NOTHING
    added_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BufferStats:
    """A buffer's counters at one instant: offered = delivered + sum(dropped) + sum(rejected) + size.

    Attributes:
        size: items waiting now.
        size_bytes: bytes they are estimated at; 0 without a byte bound.
        capacity: items it holds at the most.
        capacity_bytes: bytes it holds at the most; None for no such bound.
        offered: items handed to `add`, whatever became of them; an `add` still blocked is not yet counted.
        accepted: items that entered: delivered + size + those dropped after they had entered.
        delivered: items returned in batches.
        dropped: items lost to the overflow policy or to a close, by reason.
        rejected: items refused with an error, by reason.
        batches: batches returned that held an item.
        peak: the highest `size` there has been.
        oldest_age: seconds the oldest waiting item has waited; 0 when empty.
    """

    size: int
    size_bytes: int
    capacity: int
    capacity_bytes: int | None
    offered: int
    accepted: int
    delivered: int
    dropped: Mapping[str, int]
    rejected: Mapping[str, int]
    batches: int
    peak: int
    oldest_age: float

    @property
    def drop_rate(self) -> float:
        """Share of the offered items that was dropped, 0 to 1; 0 before the first."""
        return sum(self.dropped.values()) / self.offered if self.offered else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, with `drop_rate`."""
        return {
            "size": self.size,
            "size_bytes": self.size_bytes,
            "capacity": self.capacity,
            "capacity_bytes": self.capacity_bytes,
            "offered": self.offered,
            "accepted": self.accepted,
            "delivered": self.delivered,
            "dropped": dict(self.dropped),
            "rejected": dict(self.rejected),
            "batches": self.batches,
            "peak": self.peak,
            "oldest_age": self.oldest_age,
            "drop_rate": self.drop_rate,
        }


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
        _refuse_search(self.filter, self.mode, self.min_watermark)


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
        _refuse_search(self.filter, self.mode, 0)
        score, cap = self.min_score, self.per_minute
        if score is None and cap is None:
            raise InvalidSettingError("neither `min_score` nor `per_minute` is given: give one, or both")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or score != score):  # noqa: PLR0124  # NaN
            raise InvalidSettingError(f"`min_score` is {_shown(score)}: give a number")
        if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= 1_000_000):
            raise InvalidSettingError(f"`per_minute` is {_shown(cap)}: give a whole number from 1 to 1000000")


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


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _vector_shown(vector: Vector | None) -> str:
    return "vector=None" if vector is None else f"vector=<{vector.dtype} {vector.shape}>"


def _error_shown(error: NiruError | None) -> str:
    return "" if error is None else f", error={type(error).__name__}({_short(str(error))!r})"


def _error_dict(error: NiruError | None) -> dict[str, str] | None:
    return None if error is None else {"code": error.code, "message": str(error)}

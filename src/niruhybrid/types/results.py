"""What becomes of items: hits, results, where their time went."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from niruhybrid.errors import NiruError
from niruhybrid.types.checks import Metadata, Vector, no_metadata

__all__ = ("DataResult", "Hit", "PassageResult", "QueryResult", "Timings")


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
    metadata: Metadata = field(default_factory=no_metadata)
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
    metadata: Metadata = field(default_factory=no_metadata)
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
    metadata: Metadata = field(default_factory=no_metadata)
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


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _vector_shown(vector: Vector | None) -> str:
    return "vector=None" if vector is None else f"vector=<{vector.dtype} {vector.shape}>"


def _error_shown(error: NiruError | None) -> str:
    return "" if error is None else f", error={type(error).__name__}({_short(str(error))!r})"


def _error_dict(error: NiruError | None) -> dict[str, str] | None:
    return None if error is None else {"code": error.code, "message": str(error)}

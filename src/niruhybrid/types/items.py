"""What enters: queries, documents, and whatever a buffer holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from niruhybrid.errors import InvalidTextError
from niruhybrid.filters import Filter
from niruhybrid.types.checks import (
    SearchMode,
    Vector,
    checked_id,
    checked_search,
    checked_text,
    checked_timeout,
    checked_title,
    checked_top_k,
    checked_vector,
    refuse_surrogates,
    shown,
)
from niruhybrid.types.metadata import NO_METADATA, Metadata, checked_metadata, kept_metadata, no_metadata

__all__ = ("BufferStats", "Document", "Query", "StreamItem", "kept_document", "passage_of")


@dataclass(frozen=True, slots=True)
class Query:
    """A text for which somebody is waiting.

    Attributes:
        id: the caller's name for it, returned with everything that concerns it.
        text: what is asked; not blank.
        top_k: hits wanted, 1 to 1000.
        metadata: a JSON object, returned with the result; 1,000 values, 65,536 bytes and 32 levels at the most.
        timeout: seconds until it is given up, up to 86,400; None takes `processing_timeout`.
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
    metadata: Metadata = field(default_factory=no_metadata)
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
        object.__setattr__(self, "filter", checked_search(self.filter, self.mode, self.min_watermark))


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is to be searchable.

    Attributes:
        id: a later document with the same id takes its place.
        text: what is encoded and shown; may be empty only beside an `embedding`.
        title: shown, and searched by words; may be empty, and has 2,000 characters at the most.
        metadata: a JSON object, kept and returned with every hit; 1,000 values, 65,536 bytes and 32 levels at the most.
        embedding: a ready vector, `(dim,)`; made a unit vector. None has the text encoded.
        timeout: seconds from when it is handed to the encoder's queue until it is given up, up to 86,400; None for no
            deadline.

    Raises:
        InvalidInputError: an attribute can't be used; the subclass says which.
    """

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=no_metadata)
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", checked_metadata(self.metadata))
        checked_title(self.title)
        checked_timeout(self.timeout)
        self._check_content()

    def _check_content(self) -> None:
        """Check what holds for every document, whenever it was accepted."""
        checked_id(self.id)
        if self.embedding is None:
            checked_text(self.text, what="document text")
        else:
            if not isinstance(self.text, str):
                raise InvalidTextError(f"document text is {shown(self.text)}: give a string")
            refuse_surrogates(self.text, "document text")
            object.__setattr__(self, "embedding", checked_vector(self.embedding))


def kept_document(id: str, text: str, title: str, metadata: object, embedding: Vector | None) -> Document:  # noqa: A002  # as everywhere
    """Return a document that a store gives back, with a title and metadata of any size: it was accepted once.

    Raises:
        InvalidInputError: an attribute can't be used: the store is damaged.
    """
    document = object.__new__(Document)
    values = {"id": id, "text": text, "title": title, "metadata": kept_metadata(metadata), "embedding": embedding}
    for name, value in (values | {"timeout": None}).items():
        object.__setattr__(document, name, value)
    document._check_content()
    return document


def passage_of(document: Document, text: str, embedding: Vector | None = None) -> Document:
    """Return a passage of a document: its own text, and the document's title and metadata, not copied.

    Raises:
        InvalidTextError: the text is blank, and there is no `embedding`.
    """
    return kept_document(document.id, text, document.title, document.metadata, embedding)


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
    metadata: Metadata = NO_METADATA
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

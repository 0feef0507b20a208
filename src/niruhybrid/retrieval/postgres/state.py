"""What one transaction finds: the row that every write leaves anew."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from niruhybrid.retrieval.postgres.schema import NEAREST
from niruhybrid.retrieval.postings import average_length

__all__ = ("STATE", "Counts", "State")

STATE = (
    "SELECT watermark, passages, documents, terms, changes, dimension, parted, kindred, "
    f"coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{NEAREST}')), false) FROM niru.state"
)


class Counts(NamedTuple):
    """What the state says of the passages.

    Attributes:
        passages: how many there are.
        documents: how many these make.
        terms: of all passages.
    """

    passages: int
    documents: int
    terms: int

    @property
    def impossible(self) -> bool:
        """Whether no passages can be counted like this, so that the counts have to be made again."""
        few = self.passages < self.documents or (self.documents > 0) != (self.passages > 0)
        return few or min(self) < 0 or (self.terms > 0 and not self.passages)


@dataclass(frozen=True, slots=True)
class State:
    """The store as of one transaction.

    Attributes:
        watermark: committed changes so far; 0 for a new store.
        passages: how many there are.
        documents: how many these make.
        terms: of all passages.
        changes: passages ever added or removed.
        dimension: length of every vector; None before the first.
        parted: whether there may be documents of several passages.
        kindred: whether there may be passages that share a hit, see `filters.kin_of`.
        indexed: whether the index of vectors is ready.
    """

    watermark: int
    passages: int
    documents: int
    terms: int
    changes: int
    dimension: int | None
    parted: bool
    kindred: bool
    indexed: bool

    @classmethod
    def of(cls, rows: list[tuple[Any, ...]]) -> Self:
        """Return what the statement `STATE` found."""
        return cls(*rows[0])

    @property
    def counts(self) -> Counts:
        """The counts alone."""
        return Counts(self.passages, self.documents, self.terms)

    @property
    def average(self) -> float:
        """Mean of the passages' lengths in terms, but 1 at the least."""
        return average_length(self.terms, self.passages)

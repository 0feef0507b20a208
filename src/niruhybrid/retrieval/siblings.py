"""The passages of some documents, together. Pure."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ("Siblings",)

Ints = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Siblings:
    """Documents with all their passages.

    Attributes:
        owners: row of each document's first passage, `(d,)` ascending.
        slots: passages, those of one document behind those of another, in the order of `owners`.
        starts: `(d + 1,)`; the passages of the n-th document go from `starts[n]` to `starts[n + 1]`.
    """

    owners: Ints
    slots: Ints
    starts: Ints

    @classmethod
    def of(cls, wanted: Ints, owners: Ints, live: NDArray[np.bool_]) -> Self:
        """Find the passages of documents in one pass over all slots.

        Args:
            wanted: row of each document's first passage, ascending, none twice; each has a passage that is there.
            owners: `(slots,)`, the same of each passage, in any order: a document may have grown late.
            live: `(slots,)`, whether a passage is there.
        """
        slots = np.flatnonzero(np.isin(owners, wanted) & live)
        slots = slots[np.argsort(owners[slots], kind="stable")]
        return cls(wanted, slots, np.append(owners[slots].searchsorted(wanted), len(slots)))

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum over each document's passages, `(…, d)`, of values of all passages, `(…, n)`."""
        sums: NDArray[Any] = np.add.reduceat(values, self.starts[:-1], axis=-1)
        return sums

    def some(self, wanted: Ints) -> Self:
        """Return those of some documents, ascending, of which each is here."""
        at = self.owners.searchsorted(wanted)
        sizes = self.starts[at + 1] - self.starts[at]
        starts = np.append(0, np.cumsum(sizes))
        places = np.arange(starts[-1]) + np.repeat(self.starts[at] - starts[:-1], sizes)
        return type(self)(wanted, self.slots[places], starts)

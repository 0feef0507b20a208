"""How many more passages than documents have a term: what a change of passages does to these counts. Pure.

A document of several passages may have a term in several of them. `repeats` counts all of these but one, so that the
number of documents with a term is that of passages less its repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ("Owned", "Owners", "changed_repeats")

Ints = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """Whose passages a change removes, adds and leaves; a document is known by the row of its first passage.

    Attributes:
        removed: document of each removed passage.
        added: document of each added passage.
        kept: slots of the passages that stay, of documents that lose or get others, `(k,)` ascending.
        of_kept: document of each of these, `(k,)`.
    """

    removed: Sequence[int] | Ints
    added: Sequence[int] | Ints
    kept: Ints
    of_kept: Ints

    @property
    def difference(self) -> int:
        """How many more documents there are after the change than before."""
        stay = set(self.of_kept.tolist())
        return len(stay.union(self.added)) - len(stay.union(self.removed))


class Owned(NamedTuple):
    """Terms of passages, one entry for each term of each.

    Attributes:
        terms: number of the term, `(n,)`.
        owners: document of the passage, `(n,)`.
    """

    terms: Ints
    owners: Ints


def changed_repeats(repeats: Ints, removed: Owned, added: Owned, kept: Owned) -> Ints:
    """Return the repeats after a change: `repeats` itself if they stay the same.

    Args:
        repeats: of each term, by its number; 0 behind the last one.
        removed: terms of the passages that are removed.
        added: terms of the passages that are added.
        kept: terms of the passages that stay of the same documents, of those terms at least that the others have.
    """
    sizes = len(removed.terms), len(added.terms), len(kept.terms)
    terms = np.concatenate((removed.terms, added.terms, kept.terms)).astype(np.int64)
    owners = np.unique(np.concatenate((removed.owners, added.owners, kept.owners)), return_inverse=True)[1]
    width = int(terms.max(initial=0)) + 1
    pairs, places = np.unique(owners * width + terms, return_inverse=True)
    first, second = sizes[0], sizes[0] + sizes[1]
    before = np.bincount(np.concatenate((places[:first], places[second:])), minlength=len(pairs))
    after = np.bincount(places[first:], minlength=len(pairs))
    more = np.maximum(after - 1, 0) - np.maximum(before - 1, 0)
    if not more.any():
        return repeats
    changed = np.zeros(max(width, len(repeats)), np.int32)
    changed[: len(repeats)] = repeats
    changed[:width] += np.bincount(pairs % width, more, width).astype(np.int32)
    return changed

"""A query as the indexes see it, and what is found for it: what both ways of searching share. Pure."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.lexical import LexicalQuery
from niruhybrid.types import SearchRequest, Vector

__all__ = ("LEAST", "Asked", "Scored", "depth_of")

LEAST = 100
"""How deep each half looks at least, where not all is scored."""

_DEPTH_PER_HIT = 4

Ints = NDArray[Any]
Half = NDArray[np.float32] | None


class Asked(NamedTuple):
    """A request, its words as the index weighs them, and what it may find.

    Attributes:
        request: what is asked.
        words: its terms; none where words are not to count.
        allowed: `(slots,)` bool, which slots may be found.
    """

    request: SearchRequest
    words: LexicalQuery
    allowed: NDArray[np.bool_]

    @property
    def vector(self) -> Vector | None:
        """The query's vector; None where meaning is not to count."""
        return None if self.request.mode == "lexical" else self.request.vector


class Scored(NamedTuple):
    """Slots that may be among the best, scored by both halves.

    Attributes:
        slots: `(n,)` ascending.
        cosines: of each, `(n,)`; None where meaning does not count.
        words: BM25 of each, `(n,)`, 0 where it has none of the words; None where words don't count.
    """

    slots: Ints
    cosines: Half
    words: Half


def depth_of(request: SearchRequest, least: int = LEAST) -> int:
    """Return how deep a search looks first: four times what is wanted, or `least`."""
    return max(least, _DEPTH_PER_HIT * request.top_k)

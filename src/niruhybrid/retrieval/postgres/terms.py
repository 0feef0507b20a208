"""Terms as numbers: 64 bits of their hash, so that writers need no vocabulary in common. Pure.

Two of a million different terms share a number with a probability of one in forty million; they would count as one.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niruhybrid.retrieval.fusion import term_norm
from niruhybrid.retrieval.lexical import MAX_QUERY_TERMS, term_weights
from niruhybrid.retrieval.postings import MOST_COUNTED

__all__ = ("Counts", "Weighed", "counted", "entries", "number", "weighed")

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Counts(NamedTuple):
    """The different terms of a query.

    Attributes:
        terms: `(n,)` int64, ascending.
        times: how often each is asked for, `(n,)` float32.
    """

    terms: Ints
    times: Floats


class Weighed(NamedTuple):
    """Terms of a query, weighed by how many have them.

    Attributes:
        weights: what each can add to a score at the most, `(n,)`.
        norm: `fusion.term_norm` of the query.
    """

    weights: Floats
    norm: float


def number(term: str) -> int:
    """Return a term's number.

    Raises:
        UnicodeEncodeError: it has an unpaired surrogate.
    """
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "big", signed=True)


def counted(terms: Sequence[str]) -> Counts:
    """Return the terms of a query that count: the first ones."""
    times = Counter(map(number, terms[:MAX_QUERY_TERMS]))
    known = sorted(times)
    return Counts(np.array(known, np.int64), np.array([times[one] for one in known], np.float32))


def weighed(query: Counts, have: NDArray[Any], total: int) -> Weighed:
    """Weigh a query's terms, of which some of `total` have each, `(n,)`."""
    weights = query.times * term_weights(have, total)
    return Weighed(weights, term_norm(weights.tolist()))


def entries(rows: Iterable[int], terms: Iterable[Sequence[str]]) -> NDArray[np.int64]:
    """Return what postings say of passages, `(4, p)`: term, row, occurrences, and the passage's length in terms."""
    found = [
        (number(term), row, min(times, MOST_COUNTED), len(words))
        for row, words in zip(rows, terms, strict=True)
        for term, times in Counter(words).items()
    ]
    return np.array(found, np.int64).reshape(-1, 4).T

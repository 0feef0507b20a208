"""The approximate half of the dense index: which of very many vectors are worth an exact look.

faiss keeps the vectors in cells around k-means centroids, each pair of dimensions as one of sixteen values, and
searches the cells nearest to a query, after André, Kermarrec and Le Scouarnec, "Quicker ADC: unlocking the hidden
potential of product quantization with SIMD" (IEEE Transactions on Pattern Analysis and Machine Intelligence 43, 2021).
The exact scores are for `dense` to compute. The only module that knows faiss. Every call runs on the caller's thread
alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from niruhybrid.types import Vector

__all__ = ("Sieve", "products")

Slots = NDArray[np.int64]
Allowed = NDArray[np.bool_]

_CELLS = 4.0  # times the square root of the number of vectors
_CELLS_SEARCHED, _SEARCHED_SHARE = 48, 24  # at least so many, and a share of all
_LOOKED_AT = 24  # vectors in the cells searched for each that is wanted, at least
_NEARLY_ALL = 2  # a half: from there on it is cheaper to compare all
_SAMPLE = 32  # vectors per cell that k-means learns from
_ROUNDS = 5
_AT_ONCE = 1024  # vectors added between two looks at whether to stop
_OUTGROWN = 4
_NEARLY = 1.125  # times as many as may be found


@dataclass(frozen=True, slots=True, eq=False)
class Sieve:
    """An approximate index over the first `covered` slots.

    Attributes:
        covered: slots it knows.
        learnt: how many there were when its cells were made.
    """

    _index: Any
    covered: int
    learnt: int

    @classmethod
    def of(cls, vectors: Vector, sample: Slots, stopped: Callable[[], bool]) -> "Sieve | None":
        """Make cells for vectors, `(n, dim)`, and put them there; None when `stopped` says so.

        Args:
            vectors: `(n, dim)` float32; the position is the slot.
            sample: slots to learn from, a few thousand at least.
            stopped: asked now and then whether to give up.
        """
        cells = int(_CELLS * sqrt(len(sample)))
        chosen = np.random.default_rng(0).choice(sample, min(len(sample), cells * _SAMPLE), replace=False)
        dim = vectors.shape[1]
        with _one_thread():
            pieces, bits, metric = dim // (2 - dim % 2), 4, faiss.METRIC_INNER_PRODUCT
            index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, cells, pieces, bits, metric)
            index.by_residual = False
            index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = _ROUNDS, _SAMPLE, 1
            index.train(vectors[np.sort(chosen)])
        return _filled(index, 0, len(vectors), vectors, stopped)

    def extended(self, vectors: Vector, stopped: Callable[[], bool]) -> "Sieve | None":
        """Return one that covers all of `vectors`, `(n, dim)`, of which it knows the first; None when `stopped`.

        Cells that were made for far fewer vectors are made anew.
        """
        if len(vectors) > self.learnt * _OUTGROWN:
            return self.of(vectors, np.arange(len(vectors)), stopped)
        return _filled(faiss.clone_index(self._index), self.covered, self.learnt, vectors, stopped)

    def again(self, vectors: Vector, stopped: Callable[[], bool]) -> "Sieve | None":
        """Return one with the same cells and other vectors, `(n, dim)`; None when `stopped`."""
        index = faiss.clone_index(self._index)
        index.reset()
        return _filled(index, 0, self.learnt, vectors, stopped)

    def worthwhile(self, limit: int) -> bool:
        """Whether a search for so many slots looks at much less than all of them."""
        return self._probed(limit) * _NEARLY_ALL <= int(self._index.nlist)

    def search(self, queries: Vector, limit: int, allowed: Allowed) -> Slots:
        """Return about the nearest slots of each query, `(m, limit)` or a few more; -1 where there is none.

        The more slots are wanted, the more cells are searched.

        Args:
            queries: `(m, dim)` float32.
            limit: slots wanted.
            allowed: `(covered,)`, which may be found.
        """
        count = int(np.count_nonzero(allowed))
        probed = min(self._index.nlist, self._probed(limit))
        more: dict[str, Any] = {"nprobe": probed}
        if count < self.covered <= count * _NEARLY:  # it is cheaper to find a few too many
            found = self.search(queries, int(limit * _NEARLY) + 1, np.ones(self.covered, np.bool_))
            found = np.where(allowed[found], found, -1)
            if np.count_nonzero(found >= 0, axis=1).min() >= limit:
                return found
        if count < self.covered:
            more["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            more["nprobe"] = min(self._index.nlist, probed * self.covered // max(1, count))
        with _one_thread():
            _, slots = self._index.search(queries, limit, params=faiss.SearchParametersIVF(**more))
        nearest: Slots = slots
        return nearest

    def _probed(self, limit: int) -> int:
        """Return how many cells to search for so many slots; possibly more than there are."""
        cells = int(self._index.nlist)
        return max(_CELLS_SEARCHED, cells // _SEARCHED_SHARE, limit * _LOOKED_AT * cells // max(1, self.covered))

    def saved(self) -> NDArray[np.uint8]:
        """Return it as bytes."""
        content: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return content

    @classmethod
    def loaded(cls, content: NDArray[np.uint8], learnt: int) -> Self:
        """Return the sieve that was saved as `content`."""
        index = faiss.deserialize_index(content)
        return cls(index, index.ntotal, learnt)


def _filled(index: Any, covered: int, learnt: int, vectors: Vector, stopped: Callable[[], bool]) -> Sieve | None:
    """Put those of the vectors that are behind the first `covered` into an index; None when `stopped`."""
    with _one_thread():
        for start in range(covered, len(vectors), _AT_ONCE):
            if stopped():
                return None
            index.add(vectors[start : start + _AT_ONCE])
    return Sieve(index, len(vectors), learnt)


def products(query: Vector, vectors: Vector, slots: Slots) -> Vector:
    """Return the inner products of a query with some of the vectors, without a copy of these.

    Args:
        query: `(dim,)` float32, C-contiguous.
        vectors: `(n, dim)` float32, C-contiguous.
        slots: `(k,)`, each from 0 to n - 1.
    """
    places = np.ascontiguousarray(slots, np.int64)
    found = np.empty(len(places), np.float32)
    pointers = (faiss.swig_ptr(array) for array in (found, query, vectors, places))
    with _one_thread():
        faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], 1, len(places))
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep faiss, for this thread, from spreading over every core; others are busy there."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

"""Arrays that grow at the end and are shared by the states that came before: what makes a state cheap to keep.

A longer state puts its items behind those the shorter one knows, in the same memory. Therefore changes must start from
the newest state, one at a time; a change that is abandoned is simply overwritten by the next.
"""

from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ("Growing",)

Item = TypeVar("Item", bound=np.generic)

_FEWEST = 64


@dataclass(frozen=True, slots=True, eq=False)
class Growing(Generic[Item]):
    """The first `size` items of an array that may hold more.

    Attributes:
        size: items this state knows.
    """

    _array: NDArray[Item]
    size: int

    @classmethod
    def empty(cls, dtype: DTypeLike, *item_shape: int) -> Self:
        """Return a state without items; each will have `item_shape`, `()` by default."""
        return cls(np.empty((0, *item_shape), dtype), 0)

    @classmethod
    def of(cls, array: NDArray[Item], size: int | None = None) -> Self:
        """Return the state that has the first `size` items of `array`, all by default; the rest is room to grow."""
        return cls(array, len(array) if size is None else size)

    @property
    def items(self) -> NDArray[Item]:
        """The items, `(size, …)`, without a copy: not to be written to."""
        return self._array[: self.size]

    def __len__(self) -> int:
        return self.size

    def extended(self, more: Any) -> Self:
        """Return the state with `more` items at the end; this one stays as it was."""
        end = self.size + len(more)
        array = self._array
        if end > len(array):
            array = np.empty((max(_FEWEST, 2 * end), *array.shape[1:]), array.dtype)
            array[: self.size] = self.items
        array[self.size : end] = more
        return type(self)(array, end)

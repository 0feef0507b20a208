"""The different values of a metadata field in ascending order: which of them lie between bounds. Pure.

Strings and numbers are ordered apart. Numbers compare as Python compares them: integers of any size and floats exactly.
Values are kept in a few sorted runs, each much longer than the next; a new value starts a run, and runs of similar
length are merged. Runs never change, so earlier orderings stay as they were.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ("Ordering",)

Codes = NDArray[np.int32]

_LONGER = 2  # times the length of the next run, at least
_AT_ONCE = 4096  # values merged in one call to `sorted`, which lets no other thread run


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Some values, ascending, and the code of each."""

    values: list[Any]
    codes: Codes

    @classmethod
    def of(cls, values: Sequence[Any], codes: Codes) -> Self:
        order = sorted(range(len(values)), key=values.__getitem__)
        return cls([values[at] for at in order], codes[order])

    def between(self, bounds: Mapping[str, Any]) -> Codes:
        first, end = 0, len(self.values)
        for name, bound in bounds.items():
            match name:
                case "gt":
                    first = max(first, bisect_right(self.values, bound))
                case "gte":
                    first = max(first, bisect_left(self.values, bound))
                case "lt":
                    end = min(end, bisect_left(self.values, bound))
                case _:
                    end = min(end, bisect_right(self.values, bound))
        return self.codes[first:end]

    def kept(self, places: Codes) -> Self:
        codes = places[self.codes]
        return type(self)(
            [value for value, code in zip(self.values, codes.tolist(), strict=True) if code >= 0], codes[codes >= 0]
        )

    def merged(self, shorter: "_Run") -> "_Run":
        if self.values[-1] < shorter.values[0]:
            return _Run(self.values + shorter.values, np.concatenate((self.codes, shorter.codes)))
        values, codes, at = [], [], 0
        for start in range(0, len(self.values), _AT_ONCE):
            end = start + _AT_ONCE
            until = bisect_left(shorter.values, self.values[end]) if end < len(self.values) else len(shorter.values)
            some = self.values[start:end] + shorter.values[at:until]
            piece = _Run.of(some, np.concatenate((self.codes[start:end], shorter.codes[at:until])))
            values += piece.values
            codes.append(piece.codes)
            at = until
        return _Run(values, np.concatenate(codes))


Runs = tuple[_Run, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """The strings and the numbers among the values of a field."""

    _strings: Runs = ()
    _numbers: Runs = ()

    @classmethod
    def of(cls, values: Sequence[Any], strings: Codes, numbers: Codes) -> Self:
        """Return the ordering that `codes` described.

        Args:
            values: the value of each code.
            strings: codes of the strings, in the order of these.
            numbers: codes of the numbers, in the order of these.
        """
        return cls(
            *((_Run([values[code] for code in one.tolist()], one),) if len(one) else () for one in (strings, numbers))
        )

    def extended(self, first: int, values: Sequence[tuple[str, Any]]) -> Self:
        """Return the ordering with more values, of kinds as `columns.Value` has them; their codes start at `first`."""
        strings = [(value, code) for code, (kind, value) in enumerate(values, start=first) if kind == "string"]
        numbers = [
            (value, code)
            for code, (kind, value) in enumerate(values, start=first)
            if kind == "number" and value == value  # noqa: PLR0124  # NaN has no place among numbers
        ]
        return type(self)(_extended(self._strings, strings), _extended(self._numbers, numbers))

    def between(self, bounds: Mapping[str, Any]) -> Codes:
        """Return the codes of the values between bounds of one kind, in no particular order."""
        if any(bound != bound for bound in bounds.values()):  # noqa: PLR0124  # nothing compares with NaN
            return np.empty(0, np.int32)
        runs = self._strings if isinstance(next(iter(bounds.values())), str) else self._numbers
        return np.concatenate([np.empty(0, np.int32), *(run.between(bounds) for run in runs)])

    def kept(self, places: Codes) -> Self:
        """Return the ordering with new codes: `places` has that of each old code, below 0 for a value to forget."""
        strings, numbers = ([run.kept(places) for run in runs] for runs in (self._strings, self._numbers))
        return type(self)(*(tuple(run for run in runs if run.values) for runs in (strings, numbers)))

    def codes(self) -> tuple[Codes, Codes]:
        """Return the codes of the strings and those of the numbers, each in the order of the values."""
        strings, numbers = map(_whole, (self._strings, self._numbers))
        return strings, numbers


def _extended(runs: Runs, more: Iterable[tuple[Any, int]]) -> Runs:
    pairs = list(more)
    if not pairs:
        return runs
    values, codes = zip(*pairs, strict=True)
    return _settled((*runs, _Run.of(values, np.array(codes, np.int32))))


def _settled(runs: Runs) -> Runs:
    """Merge the last runs until each is so much longer than the next."""
    kept = list(runs)
    while len(kept) > 1 and len(kept[-2].values) < _LONGER * len(kept[-1].values):
        last = kept.pop()
        longer, shorter = sorted((kept.pop(), last), key=lambda run: -len(run.values))
        kept.append(longer.merged(shorter))
    return tuple(kept)


def _whole(runs: Runs) -> Codes:
    if not runs:
        return np.empty(0, np.int32)
    whole = runs[0]
    for run in runs[1:]:
        whole = whole.merged(run)
    return whole.codes

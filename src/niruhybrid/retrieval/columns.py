"""Metadata by field: which documents a filter lets through. Pure.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. A field is kept for the
documents that have it only, so that many rare fields cost no more than a few common ones.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.filters import Filter
from niruhybrid.retrieval.growing import Growing
from niruhybrid.types import Metadata

__all__ = ("Column", "Columns", "Value", "field_value", "field_values")

Mask = NDArray[np.bool_]
Value = tuple[str, Any]
"""A kind and a value, so that 1 is not true: `number`, `string`, `bool`, `null`; `container`, there without a value."""

_NOT_SINGLE: tuple[Value, ...] = (("container", None), ("null", None))

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field.

    Attributes:
        values: code of each value; shared by all states, none is ever taken away.
        numbers: the value of each code, NaN for what is no number.
        slots: documents that have the field, ascending, once for each value.
        codes: the value each of them has.
    """

    values: dict[Value, int]
    numbers: Growing[np.float64]
    slots: Growing[np.int32]
    codes: Growing[np.int32]

    @classmethod
    def empty(cls) -> Self:
        """Return a field that no document has."""
        return cls({}, Growing.empty(np.float64), Growing.empty(np.int32), Growing.empty(np.int32))

    def extended(self, entries: Iterable[tuple[int, Value]]) -> Self:
        """Return the field with more documents, ascending, and their values."""
        slots, codes = [], []
        for slot, value in entries:
            slots.append(slot)
            codes.append(self.values.setdefault(value, len(self.values)))
        known = len(self.numbers)
        fresh = list(islice(reversed(self.values), len(self.values) - known))[::-1]
        numbers = [float(value) if kind == "number" else np.nan for kind, value in fresh]
        return replace(
            self,
            numbers=self.numbers.extended(numbers),
            slots=self.slots.extended(slots),
            codes=self.codes.extended(codes),
        )

    def having(self, values: Iterable[Value]) -> NDArray[np.int32]:
        """Return the slots that have one of the values."""
        codes = [self.values[value] for value in values if value in self.values]
        if len(codes) == 1:
            found: NDArray[np.int32] = self.slots.items[self.codes.items == codes[0]]
            return found
        wanted = np.zeros(len(self.values) + 1, np.bool_)
        wanted[codes] = True
        return self.slots.items[wanted[self.codes.items]]

    def between(self, bounds: Mapping[str, Any]) -> NDArray[np.int32]:
        """Return the slots with a value between bounds of one kind."""
        if isinstance(next(iter(bounds.values())), str):
            strings = [value for value in list(self.values) if value[0] == "string"]
            return self.having(value for value in strings if _within(value[1], bounds))
        numbers = self.numbers.items[self.codes.items]
        kept = ~np.isnan(numbers)
        for name, bound in bounds.items():
            kept &= _COMPARE[name](numbers, bound)
        return self.slots.items[kept]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The metadata of all documents.

    Attributes:
        fields: each field by its dotted name.
    """

    fields: Mapping[str, Column]

    def changed(self, first: int, added: Sequence[Metadata]) -> Self:
        """Return the columns with documents in the slots from `first` on."""
        entries: dict[str, list[tuple[int, Value]]] = {}
        for slot, metadata in enumerate(added, start=first):
            for name, value in dict.fromkeys(field_values("", metadata)):
                entries.setdefault(name, []).append((slot, value))
        if not entries:
            return self
        longer = {name: self.fields.get(name, Column.empty()).extended(more) for name, more in entries.items()}
        return type(self)({**self.fields, **longer})

    def compacted(self, live: Mask) -> Self:
        """Return the columns with the slots of documents that are gone closed up."""
        places = np.where(live, np.cumsum(live) - 1, -1)
        fields = {}
        for name, column in self.fields.items():
            slots = places[column.slots.items]
            kept = slots >= 0
            if kept.any():
                fields[name] = replace(
                    column,
                    slots=Growing.of(slots[kept].astype(np.int32)),
                    codes=Growing.of(column.codes.items[kept]),
                )
        return type(self)(fields)

    def passing(self, wanted: Filter, size: int) -> Mask:
        """Return which of the first `size` slots a checked filter lets through, `(size,)`."""
        [(name, operand)] = wanted.items()
        match name:
            case "and":
                return _all([self.passing(part, size) for part in operand], size)
            case "or":
                return ~_all([~self.passing(part, size) for part in operand], size)
            case "not":
                return ~self.passing(operand, size)
            case "exists":
                return _mask(self._column(operand).slots.items, size)
        [(field, value)] = operand.items()
        column = self._column(field)
        match name:
            case "eq":
                return _mask(column.having([field_value(value)]), size)
            case "ne":
                return ~_mask(column.having([field_value(value)]), size)
            case "in":
                return _mask(column.having([field_value(item) for item in value]), size)
        return _mask(column.between(value), size)

    def groups(self, field: str, slots: NDArray[Any]) -> NDArray[Any]:
        """Return a number for each of the slots, `(n,)`: those with one value in a field share it; -1 without one."""
        column = self._column(field)
        known = column.slots.items
        if not len(known) or not len(slots):
            return np.full(len(slots), -1)
        at = np.minimum(np.searchsorted(known, slots), len(known) - 1)
        codes = column.codes.items[at]
        has = (known[at] == slots) & ~np.isin(codes, [column.values.get(none, -1) for none in _NOT_SINGLE])
        return np.where(has, codes, -1)

    def _column(self, field: str) -> Column:
        return self.fields.get(field) or Column.empty()


def field_values(prefix: str, metadata: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Yield each field, by dotted name, with each of its values."""
    for key, value in metadata.items():
        name = prefix + key
        if isinstance(value, Mapping):
            yield name, ("container", None)
            yield from field_values(f"{name}.", value)
        elif isinstance(value, list | tuple):
            yield name, ("container", None)
            for item in value:
                if isinstance(item, Mapping):
                    yield from field_values(f"{name}.", item)
                elif not isinstance(item, list | tuple):
                    yield name, field_value(item)
        else:
            yield name, field_value(value)


def field_value(value: Any) -> Value:
    """Return a single value with its kind."""
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    return ("string", value) if isinstance(value, str) else ("number", value)


def _within(value: str, bounds: Mapping[str, str]) -> bool:
    return all(_COMPARE[name](value, bound) for name, bound in bounds.items())


def _mask(slots: NDArray[np.int32], size: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[slots] = True
    return mask


def _all(masks: Sequence[Mask], size: int) -> Mask:
    both = np.ones(size, np.bool_)
    for mask in masks:
        both &= mask
    return both

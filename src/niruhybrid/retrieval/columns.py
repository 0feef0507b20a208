"""Metadata by field: which documents a filter lets through. Pure.

Like all derived indexes it is a value: a change makes a new one and leaves the old as it was. A field is kept for the
documents that have it only, so that many rare fields cost no more than a few common ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from niruhybrid.filters import Filter
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.ordering import Ordering
from niruhybrid.types import Metadata

__all__ = ("Column", "Columns", "Value", "field_value", "field_values")

Mask = NDArray[np.bool_]
Value = tuple[str, Any]
"""A kind and a value, so that 1 is not true: `number`, `string`, `bool`, `null`; `container`, there without a value."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field.

    Attributes:
        values: code of each value, ascending. States that follow each other share it and it only grows, so it may
            have more values than this state knows; closing up gaps starts a new one without the values that are gone.
        strings: `(values,)`, whether each known value is a string.
        order: the known values in ascending order.
        slots: documents that have the field, ascending, once for each value.
        codes: the value each of them has.
    """

    values: dict[Value, int]
    strings: Growing[np.bool_]
    order: Ordering
    slots: Growing[np.int32]
    codes: Growing[np.int32]

    @classmethod
    def empty(cls) -> Self:
        """Return a field that no document has."""
        return cls({}, Growing.empty(np.bool_), Ordering(), Growing.empty(np.int32), Growing.empty(np.int32))

    def extended(self, entries: Iterable[tuple[int, Value]]) -> Self:
        """Return the field with more documents, ascending, and their values."""
        slots, codes = [], []
        for slot, value in entries:
            slots.append(slot)
            codes.append(self.values.setdefault(value, len(self.values)))
        known = len(self.strings)
        fresh = list(islice(reversed(self.values), len(self.values) - known))[::-1]
        return replace(
            self,
            strings=self.strings.extended([kind == "string" for kind, _ in fresh]),
            order=self.order.extended(known, fresh) if fresh else self.order,
            slots=self.slots.extended(slots),
            codes=self.codes.extended(codes),
        )

    def having(self, values: Iterable[Value]) -> NDArray[np.int32]:
        """Return the slots that have one of the values."""
        codes = [self.values[value] for value in values if value in self.values]
        if len(codes) == 1:
            found: NDArray[np.int32] = self.slots.items[self.codes.items == codes[0]]
            return found
        return self._coded(np.array(codes, np.intp))

    def between(self, bounds: Mapping[str, Any]) -> NDArray[np.int32]:
        """Return the slots with a value between bounds of one kind."""
        return self._coded(self.order.between(bounds))

    def compacted(self, places: NDArray[np.int32]) -> "Column | None":
        """Return the field with documents in other slots, and without values that none of them has.

        Args:
            places: new slot of each old one; below 0 for a document that is gone.

        Returns:
            The field; None if no document has it.
        """
        slots = places[self.slots.items]
        kept = slots >= 0
        if not kept.any():
            return None
        codes, used = self.codes.items[kept], np.zeros(len(self.strings), np.bool_)
        used[codes] = True
        moved = replace(self, slots=Growing.of(slots[kept]), codes=Growing.of(codes))
        all_used = len(self.values) == len(used) and used.all()  # else a change that was given up has left some
        return moved if all_used else _without_values(moved, used)

    def late_entries(self, first: int) -> list[tuple[int, Value]]:
        """Return the slots from `first` on, ascending, with their values."""
        start = int(self.slots.items.searchsorted(first))
        if start == len(self.slots):
            return []
        names = list(self.values)
        late = zip(self.slots.items[start:].tolist(), self.codes.items[start:].tolist(), strict=True)
        return [(slot, names[code]) for slot, code in late]

    def _coded(self, codes: NDArray[Any]) -> NDArray[np.int32]:
        """Return the slots whose values have one of the codes."""
        wanted = np.zeros(len(self.values) + 1, np.bool_)
        wanted[codes] = True
        return self.slots.items[wanted[self.codes.items]]


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
        """Return the columns with the slots of documents that are gone closed up, and without values only they had."""
        places = np.where(live, np.cumsum(live) - 1, -1).astype(np.int32)
        fields = {name: column.compacted(places) for name, column in self.fields.items()}
        return type(self)({name: column for name, column in fields.items() if column is not None})

    def followed_by(self, after: Self, first: int, shift: int) -> Self:
        """Return the columns that these become by changes that were made meanwhile.

        Args:
            after: what the columns have become that these were made from, by `compacted`.
            first: the first slot, in `after`, of a document that was added meanwhile.
            shift: how far down its slot is here.
        """
        late = {name: column.late_entries(first) for name, column in after.fields.items()}
        longer = {
            name: self.fields.get(name, Column.empty()).extended((slot - shift, value) for slot, value in entries)
            for name, entries in late.items()
            if entries
        }
        return type(self)({**self.fields, **longer})

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
        """Return a number for each of the slots, `(n,)`: those with the same string in a field share it; else -1."""
        column = self._column(field)
        known = column.slots.items
        if not len(known) or not len(slots):
            return np.full(len(slots), -1)
        at = np.minimum(np.searchsorted(known, slots), len(known) - 1)
        codes = column.codes.items[at]
        return np.where((known[at] == slots) & column.strings.items[codes], codes, -1)

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


def _without_values(column: Column, used: Mask) -> Column:
    """Return a column with a table of its own, of the values that are used."""
    places = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    names = list(column.values)
    return replace(
        column,
        values={names[old]: new for new, old in enumerate(np.flatnonzero(used).tolist())},
        strings=Growing.of(column.strings.items[used]),
        order=column.order.kept(places),
        codes=Growing.of(places[column.codes.items]),
    )


def _mask(slots: NDArray[np.int32], size: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[slots] = True
    return mask


def _all(masks: Sequence[Mask], size: int) -> Mask:
    both = np.ones(size, np.bool_)
    for mask in masks:
        both &= mask
    return both

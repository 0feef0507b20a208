"""Filters on metadata: a small language of JSON objects, checked where they enter.

    {"eq": {"lang": "en"}}                              the field has this value
    {"ne": {"lang": "en"}}                              it has not, or there is no such field
    {"in": {"lang": ["en", "sw"]}}                      it has one of these values
    {"range": {"year": {"gte": 2000, "lt": 2010}}}      between numbers, or between strings: gt, gte, lt, lte
    {"exists": "year"}                                  there is such a field, whatever its value
    {"and": [f, …]}  {"or": [f, …]}  {"not": f}         of other filters

Values are strings, finite numbers, booleans and null; whole numbers have 64 bits at the most. 1 and 1.0 are equal, 1
and true are not. A list in metadata has each of its elements as a value. A field within an object is written with a
dot: "author.name".
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from niruhybrid.errors import InvalidSettingError
from niruhybrid.ranges import HIGHEST_INTEGER, LOWEST_INTEGER, shown

__all__ = ("Filter", "checked_filter")

Filter = Mapping[str, Any]
"""One operator with its operand, as the module describes them."""

_DEEPEST = 32
_LONGEST = 10_000  # values in one list, and operators in the whole filter
_MOST_VALUES = 100_000  # in the whole filter
_BOUNDS = ("gt", "gte", "lt", "lte")


def checked_filter(value: object) -> Filter:
    """Return `value` if it is a filter, as a copy made of dictionaries, lists and plain values.

    Raises:
        InvalidSettingError: it is not a filter, is nested more than 32 deep, lists more than 10,000 values at once, has
            more than 10,000 operators or 100,000 values in all, or has a value that JSON in 64 bits can't hold.
    """
    return _Reader().filter(value, 0)


class _Reader:
    """Reads one filter. It counts what it has read, since parts may be shared and so occur very often."""

    def __init__(self) -> None:
        self._operators = 0
        self._values = 0

    def filter(self, value: object, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) != 1:
            raise InvalidSettingError(
                f'filter is {shown(value)}: give one operator, such as {{"eq": {{"lang": "en"}}}}'
            )
        self._operators += 1
        if depth > _DEEPEST:
            raise InvalidSettingError(f"filter is nested more than {_DEEPEST} deep: simplify it")
        if self._operators > _LONGEST:
            raise InvalidSettingError(f"filter has more than {_LONGEST} operators: simplify it")
        [(operator, operand)] = value.items()
        match operator:
            case "and" | "or":
                return {operator: [self.filter(part, depth + 1) for part in _listed(operator, operand)]}
            case "not":
                return {operator: self.filter(operand, depth + 1)}
            case "exists":
                return {operator: _named(operator, operand)}
        known = {"eq": self._scalar, "ne": self._scalar, "in": self._scalars, "range": self._bounds}
        if not isinstance(operator, str) or operator not in known:
            names = "eq, ne, in, range, exists, and, or, not"
            raise InvalidSettingError(f"filter has the operator {shown(operator)}: give one of {names}")
        if not isinstance(operand, Mapping) or len(operand) != 1:
            raise InvalidSettingError(
                f"`{operator}` in a filter has {shown(operand)}: give one field with what it needs"
            )
        [(name, wanted)] = operand.items()
        return {operator: {_named(operator, name): known[operator](operator, wanted)}}

    def _scalars(self, operator: str, values: object) -> list[Any]:
        return [self._scalar(operator, value) for value in _listed(operator, values)]

    def _bounds(self, operator: str, operand: object) -> dict[str, Any]:
        if not isinstance(operand, Mapping) or not operand or not set(operand) <= set(_BOUNDS):
            raise InvalidSettingError(f"`range` in a filter has {shown(operand)}: give some of {', '.join(_BOUNDS)}")
        bounds = {str(name): self._scalar(operator, bound) for name, bound in operand.items()}
        for bound in bounds.values():
            if bound is None or isinstance(bound, bool):
                raise InvalidSettingError(f"`range` in a filter has the bound {shown(bound)}: give numbers or strings")
        if len({isinstance(bound, str) for bound in bounds.values()}) > 1:
            raise InvalidSettingError("`range` in a filter mixes strings and numbers: give one kind")
        return bounds

    def _scalar(self, operator: str, value: object) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise InvalidSettingError(f"filter has more than {_MOST_VALUES} values: simplify it")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _encodable(operator, value)
        if isinstance(value, int):
            if not LOWEST_INTEGER <= value <= HIGHEST_INTEGER:
                raise InvalidSettingError(
                    f"`{operator}` in a filter compares with {shown(value)}: give a whole number of 64 bits at the most"
                )
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidSettingError(f"`{operator}` in a filter compares with {value}: give a finite number")
            return float(value)
        raise InvalidSettingError(
            f"`{operator}` in a filter compares with {shown(value)}: give a string, a number, true, false or null"
        )


def _listed(operator: str, operand: object) -> Iterable[object]:
    if not isinstance(operand, list | tuple) or len(operand) > _LONGEST:
        raise InvalidSettingError(f"`{operator}` in a filter has {shown(operand)}: give a list of up to {_LONGEST}")
    return operand


def _named(operator: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidSettingError(f"`{operator}` in a filter names the field {shown(name)}: give a string")
    return _encodable(operator, name)


def _encodable(operator: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise InvalidSettingError(
            f"`{operator}` in a filter has an unpaired surrogate at character {err.start} of a string: "
            "send valid Unicode"
        ) from err
    return str.__str__(text)

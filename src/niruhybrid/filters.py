"""Filters on metadata: a small language of JSON objects, checked where they enter.

    {"eq": {"lang": "en"}}                              the field has this value
    {"ne": {"lang": "en"}}                              it has not, or there is no such field
    {"in": {"lang": ["en", "sw"]}}                      it has one of these values
    {"range": {"year": {"gte": 2000, "lt": 2010}}}      between numbers, or between strings: gt, gte, lt, lte
    {"exists": "year"}                                  there is such a field, whatever its value
    {"and": [f, …]}  {"or": [f, …]}  {"not": f}         of other filters

Values are strings, numbers, booleans and null; 1 and 1.0 are equal, 1 and true are not. A list in metadata has each of
its elements as a value. A field within an object is written with a dot: "author.name".
"""

from collections.abc import Mapping
from typing import Any

from niruhybrid.errors import InvalidSettingError

__all__ = ("Filter", "checked_filter")

Filter = Mapping[str, Any]
"""One operator with its operand, as the module describes them."""

_DEEPEST = 32
_LONGEST = 10_000
_BOUNDS = ("gt", "gte", "lt", "lte")


def checked_filter(value: object, depth: int = 0) -> Filter:
    """Return `value` if it is a filter.

    Raises:
        InvalidSettingError: it is not one, is nested more than 32 deep, or lists more than 10,000 values.
    """
    if not isinstance(value, Mapping) or len(value) != 1:
        raise InvalidSettingError(f'filter is {_shown(value)}: give one operator, such as {{"eq": {{"lang": "en"}}}}')
    if depth > _DEEPEST:
        raise InvalidSettingError(f"filter is nested more than {_DEEPEST} deep: simplify it")
    [(operator, operand)] = value.items()
    match operator:
        case "and" | "or" | "not":
            for part in [operand] if operator == "not" else _listed(operator, operand):
                checked_filter(part, depth + 1)
        case "exists":
            _named(operator, operand)
        case "eq" | "ne":
            _scalar(operator, _field(operator, operand))
        case "in":
            _scalars(operator, _field(operator, operand))
        case "range":
            _bounds(_field(operator, operand))
        case _:
            known = "eq, ne, in, range, exists, and, or, not"
            raise InvalidSettingError(f"filter has the operator {_shown(operator)}: give one of {known}")
    return value


def _listed(operator: str, operand: object) -> list[Any]:
    if not isinstance(operand, list | tuple) or len(operand) > _LONGEST:
        raise InvalidSettingError(f"`{operator}` in a filter has {_shown(operand)}: give a list of up to {_LONGEST}")
    return list(operand)


def _field(operator: str, operand: object) -> Any:
    if not isinstance(operand, Mapping) or len(operand) != 1:
        raise InvalidSettingError(f"`{operator}` in a filter has {_shown(operand)}: give one field with what it needs")
    [(name, value)] = operand.items()
    _named(operator, name)
    return value


def _named(operator: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise InvalidSettingError(f"`{operator}` in a filter names the field {_shown(name)}: give a string")


def _scalar(operator: str, value: object) -> None:
    if value is not None and not isinstance(value, str | int | float):
        raise InvalidSettingError(
            f"`{operator}` in a filter compares with {_shown(value)}: give a string, a number, true, false or null"
        )


def _scalars(operator: str, values: object) -> None:
    for value in _listed(operator, values):
        _scalar(operator, value)


def _bounds(operand: object) -> None:
    if not isinstance(operand, Mapping) or not operand or not set(operand) <= set(_BOUNDS):
        raise InvalidSettingError(f"`range` in a filter has {_shown(operand)}: give some of {', '.join(_BOUNDS)}")
    kinds = {"a string" if isinstance(bound, str) else _number(bound) for bound in operand.values()}
    if len(kinds) > 1:
        raise InvalidSettingError("`range` in a filter mixes strings and numbers: give one kind")


def _number(bound: object) -> str:
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise InvalidSettingError(f"`range` in a filter has the bound {_shown(bound)}: give numbers or strings")
    return "a number"


def _shown(value: object) -> str:
    return repr(value)[:60]

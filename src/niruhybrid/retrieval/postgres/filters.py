"""Filters on metadata as conditions in SQL, and metadata in the form that they ask. Pure.

Each field has a list of its values under its dotted name; one that is there without a value, such as an object, has an
empty list. `columns.field_values` says which values these are. NUL is written otherwise: `jsonb` can't hold it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from niruhybrid.filters import Filter
from niruhybrid.retrieval.columns import field_value, field_values
from niruhybrid.retrieval.search import GROUP_FIELD
from niruhybrid.types import Metadata

__all__ = ("Where", "fields_of", "kin_of", "where")

Values = dict[str, Any]
"""What a statement's named parameters stand for."""

_UNFIT = re.compile("[\0\1\ud800-\udfff]")
_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Where(NamedTuple):
    """Which passages may be found.

    Attributes:
        condition: on the passage `p`; "" lets all pass.
        values: its parameters, by name.
    """

    condition: str
    values: Values

    @property
    def joined(self) -> str:
        """What follows the name of a table with rows to leave only those that pass."""
        return f" JOIN niru.passages p USING (row) WHERE {self.condition}" if self.condition else ""


def fields_of(metadata: Metadata) -> str:
    """Return metadata as JSON, each field with a list of its values."""
    fields: dict[str, list[Any]] = {}
    for name, (kind, value) in field_values("", metadata):
        values = fields.setdefault(_fit(name), [])
        if kind != "container":
            values.append(_fit(value) if isinstance(value, str) else value)
    return orjson.dumps(fields).decode()


def kin_of(metadata: Metadata) -> str | None:
    """Return what passages share of which one only is a hit; None for those that stand alone."""
    value = metadata.get(GROUP_FIELD)
    if value is None or isinstance(value, Mapping | list | tuple):
        return None
    kind, plain = field_value(value)
    return f"{kind} {_json(int(plain) if isinstance(plain, float) and plain.is_integer() else plain)}"


def where(wanted: Filter | None) -> Where:
    """Return what a checked filter asks of a passage; None lets all pass."""
    values: Values = {}
    return Where("" if wanted is None else _condition(wanted, values), values)


def _condition(wanted: Filter, values: Values) -> str:
    """Return a condition on the passage `p`; its parameters are added to `values`."""
    [(name, operand)] = wanted.items()
    match name:
        case "and" | "or":
            parts = [_condition(part, values) for part in operand]
            empty = "true" if name == "and" else "false"
            return f"({f' {name} '.join(parts)})" if parts else empty
        case "not":
            return f"(NOT {_condition(operand, values)})"
        case "exists":
            return f"(p.fields ? {_bound(_fit(operand), values)})"
    [(field, value)] = operand.items()
    match name:
        case "eq":
            return _having(field, value, values)
        case "ne":
            return f"(NOT {_having(field, value, values)})"
        case "in":
            lists = [_list_of(field, item) for item in value if not _is_nan(item)]
            return f"(p.fields @> ANY({_bound(lists, values)}::text[]::jsonb[]))"
    return _between(field, value, values)


def _having(field: str, value: Any, values: Values) -> str:
    return "false" if _is_nan(value) else f"(p.fields @> {_bound(_list_of(field, value), values)}::text::jsonb)"


def _between(field: str, bounds: Mapping[str, Any], values: Values) -> str:
    if any(map(_is_nan, bounds.values())):
        return "false"
    test = " && ".join(f"@ {_COMPARE[name]} ${name}" for name in bounds)
    given = "{" + ", ".join(f'"{name}": {_json(bound)}' for name, bound in bounds.items()) + "}"
    at = f"p.fields -> {_bound(_fit(field), values)}"
    return f"coalesce(jsonb_path_exists({at}, '$[*] ? ({test})', {_bound(given, values)}::text::jsonb), false)"


def _bound(value: Any, values: Values) -> str:
    name = f"filter_{len(values)}"
    values[name] = value
    return f"%({name})s"


def _list_of(field: str, value: Any) -> str:
    return f"{{{_json(field)}: [{_json(value)}]}}"


def _json(value: Any) -> str:
    if isinstance(value, str):
        return orjson.dumps(_fit(value)).decode()
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"  # beyond all that metadata can have
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else orjson.dumps(value).decode()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _fit(text: str) -> str:
    """Return a text without what `jsonb` can't hold: another for each, in the same order."""
    return _UNFIT.sub(lambda found: f"\1{ord(found[0]) + 1:04x}", text)

"""Metadata: JSON objects of bounded size, which can leave again wherever they were accepted. Pure."""

import math
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import orjson

from niruhybrid.errors import InvalidMetadataError
from niruhybrid.ranges import HIGHEST_INTEGER, LOWEST_INTEGER, shown

__all__ = ("NO_METADATA", "Metadata", "checked_metadata", "kept_metadata", "no_metadata")

Metadata = Mapping[str, Any]
"""A JSON object: string keys; strings, numbers, booleans, null, arrays and objects as values."""

NO_METADATA: Metadata = MappingProxyType({})

_MAX_BYTES = 65_536  # written as JSON: long documents keep it with each of their passages
_MAX_VALUES = 1000  # objects and lists included: each passage is found by each of them
_MAX_DEPTH = 32  # an answer wraps it in some levels more, and JSON is written to 254
_MAX_FIELD_CHARS = 1000  # of a dotted name: each field within an object is known by its whole name


def no_metadata() -> Metadata:
    """Return an object without fields."""
    return NO_METADATA


def checked_metadata(value: object) -> Metadata:
    """Return a copy of `value` as a read-only JSON object; None gives an empty one.

    The copy is what JSON makes of it: tuples are lists, dates are strings.

    Raises:
        InvalidMetadataError: it is not a mapping with string keys and JSON values, is nested more than 32 deep, has
            more than 1,000 values or 65,536 bytes as JSON, a field whose dotted name has more than 1,000 characters,
            or a number that is not finite or has more than 64 bits.
    """
    if value is None or value is NO_METADATA:
        return NO_METADATA
    if not isinstance(value, Mapping):
        raise InvalidMetadataError(f"metadata is a {type(value).__name__}: give a JSON object")
    copy = _Reader().object(value, "", 1)
    if not copy:
        return NO_METADATA
    try:
        size = len(orjson.dumps(copy))
    except TypeError as err:
        raise InvalidMetadataError(f"metadata is not JSON ({err}): send valid Unicode") from err
    if size > _MAX_BYTES:
        raise _too_large(size)
    return MappingProxyType(copy)


def kept_metadata(value: object) -> Metadata:
    """Return metadata that a store gives back, as a read-only object: whatever was once accepted stays readable.

    Raises:
        InvalidMetadataError: it is not a mapping.
    """
    if isinstance(value, MappingProxyType):
        return value
    if not isinstance(value, Mapping):
        raise InvalidMetadataError(
            f"kept metadata is a {type(value).__name__}, not an object: restore the store from a copy"
        )
    return MappingProxyType(dict(value))


class _Reader:
    """Copies metadata. It counts as it goes: parts may be shared, and so occur very often."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES
        self._values = 0

    def object(self, value: Mapping[Any, Any], name: str, depth: int) -> dict[str, Any]:
        self._refuse_deep(name, depth)
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidMetadataError(f"metadata has the key {shown(key)}: use strings as keys")
            field = f"{name}.{key}" if name else str.__str__(key)
            if len(field) > _MAX_FIELD_CHARS:
                raise InvalidMetadataError(
                    f"metadata has a field whose dotted name has {len(field)} characters of {_MAX_FIELD_CHARS} "
                    "allowed: shorten it"
                )
            self._count(len(key))
            copy[str.__str__(key)] = self._value(item, field, depth)
        return copy

    def _value(self, value: Any, name: str, depth: int) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise InvalidMetadataError(
                f"metadata has more than {_MAX_VALUES} values: keep only those that are filtered by or shown"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self._value(value.value, name, depth)
        if isinstance(value, str):
            self._count(len(value))
            return str.__str__(value)
        if isinstance(value, int | float):
            return _json_number(value, name)
        if isinstance(value, Mapping):
            return self.object(value, name, depth + 1)
        if isinstance(value, list | tuple):
            self._refuse_deep(name, depth + 1)
            return [self._value(item, name, depth + 1) for item in value]
        try:  # dates, times and UUIDs become strings
            return orjson.loads(orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS))
        except TypeError as err:
            raise InvalidMetadataError(
                f"metadata field `{_named(name)}` is not JSON ({err}): use strings, numbers, booleans, null, lists "
                "and objects"
            ) from err

    def _count(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _too_large(None)

    @staticmethod
    def _refuse_deep(name: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise InvalidMetadataError(
                f"metadata is nested more than {_MAX_DEPTH} deep at `{_named(name)}`: make it flatter"
            )


def _json_number(value: float, name: str) -> float:
    if isinstance(value, int):
        if not LOWEST_INTEGER <= value <= HIGHEST_INTEGER:
            raise InvalidMetadataError(
                f"metadata field `{_named(name)}` is {shown(value)}: give a whole number of 64 bits at the most, "
                "or a string"
            )
        return int(value)
    if not math.isfinite(value):
        raise InvalidMetadataError(f"metadata field `{_named(name)}` is {value}: give a finite number, or null")
    return float(value)


def _too_large(size: int | None) -> InvalidMetadataError:
    has = f"more than {_MAX_BYTES}" if size is None else f"{size} of {_MAX_BYTES} allowed"
    return InvalidMetadataError(f"metadata has {has} bytes as JSON: put what is long into the text")


def _named(name: str) -> str:
    """Return the beginning of a field's name, which an error can show."""
    return name[:40].encode("utf-8", "replace").decode()

"""What a stream may be fed with, made into queries and documents. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from niruhybrid.errors import InvalidInputError, InvalidTextError
from niruhybrid.types import Document, Query

__all__ = ("as_document", "as_query", "id_of", "text_of")

_Item = TypeVar("_Item", Query, Document)


def as_query(raw: object, position: int) -> Query:
    """Return a query made of a string, a mapping with the attributes of `Query` as keys, or a `Query`.

    Args:
        raw: what the stream gave.
        position: its place in the stream, from 1; the id of a query that brings none.

    Raises:
        InvalidInputError: it is none of these, has an unknown key or a value that can't be used.
    """
    if isinstance(raw, Query):
        return raw
    if isinstance(raw, str):
        return Query(str(position), raw)
    return _from_mapping(Query, raw, {"id": str(position)})


def as_document(raw: object, position: int) -> Document:
    """Return a document made of a string, a mapping with the attributes of `Document` as keys, or a `Document`.

    A document that brings no id gets one from its text, so that the same text is kept once.

    Args:
        raw: what the stream gave.
        position: its place in the stream, from 1, for error messages.

    Raises:
        InvalidInputError: it is none of these, has an unknown key or a value that can't be used.
    """
    if isinstance(raw, Document):
        return raw
    if isinstance(raw, str):
        return Document(_text_id(raw), raw)
    text = raw.get("text", "") if isinstance(raw, Mapping) else ""
    if not isinstance(text, str):
        raise InvalidTextError(f"item {position} has a {type(text).__name__} as `text`: give a string")
    return _from_mapping(Document, raw, {"id": _text_id(text), "text": text})


def id_of(raw: object, position: int) -> str:
    """Return the id under which a refused item is reported."""
    found = raw.get("id") if isinstance(raw, Mapping) else getattr(raw, "id", None)
    return found if isinstance(found, str) and found else str(position)


def text_of(raw: object) -> str:
    """Return the text of an item that may have been refused, or ""."""
    found = raw if isinstance(raw, str) else raw.get("text") if isinstance(raw, Mapping) else getattr(raw, "text", None)
    return found if isinstance(found, str) else ""


def _from_mapping(kind: type[_Item], raw: object, defaults: Mapping[str, Any]) -> _Item:
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"an item is a {type(raw).__name__}: give a string, a mapping or a {kind.__name__}")
    allowed = [field.name for field in fields(kind)]
    unknown = sorted(str(key) for key in raw if key not in allowed)
    if unknown:
        raise InvalidInputError(f"unknown keys {', '.join(unknown)}: use {', '.join(allowed)}")
    if "text" not in raw and "text" not in defaults:
        raise InvalidTextError("`text` is missing: give what is asked")
    return kind(**{**defaults, **raw})


def _text_id(text: str) -> str:
    return "text-" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

"""What a stream may be fed with, made into queries, documents and text. Pure."""

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from niruhybrid.errors import InvalidInputError, InvalidTextError
from niruhybrid.types import Document, Query
from niruhybrid.types.checks import checked_text

__all__ = ("TextDecoder", "as_document", "as_query", "id_of", "text_of")

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


class TextDecoder:
    """Makes text of the pieces of one text: strings, or the bytes of UTF-8, cut anywhere.

    Bytes that are no UTF-8 are refused, not replaced: what is kept is what was sent.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0  # before the piece

    def text(self, piece: object) -> str:
        """Return the text that a piece completes.

        Raises:
            InvalidTextError: it is neither string nor bytes, not valid Unicode, or a string amid a character's bytes.
        """
        if isinstance(piece, str):
            self._refuse_unfinished()
            if piece and not piece.isspace():
                checked_text(piece, what="a piece of text")
            return piece
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise InvalidTextError(f"a piece of text is a {type(piece).__name__}: give strings, or bytes of UTF-8")
        before = self._bytes - len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(bytes(piece))
        except UnicodeDecodeError as err:
            raise InvalidTextError(f"byte {before + err.start} of the text is no UTF-8: send valid UTF-8") from err
        self._bytes += len(piece)
        return text

    def end(self) -> None:
        """Take note that the text has ended.

        Raises:
            InvalidTextError: it ends within a character.
        """
        self._refuse_unfinished()

    def _refuse_unfinished(self) -> None:
        waiting = len(self._decoder.getstate()[0])
        if waiting:
            raise InvalidTextError(
                f"byte {self._bytes - waiting} of the text begins a character that is not ended: send valid UTF-8"
            )


def id_of(raw: object, position: int) -> str:
    """Return the id under which a refused item is reported; it may be no valid id."""
    found = raw.get("id") if isinstance(raw, Mapping) else getattr(raw, "id", None)
    return _encodable(found) if isinstance(found, str) and found else str(position)


def text_of(raw: object) -> str:
    """Return the text of an item that may have been refused, or ""."""
    found = raw if isinstance(raw, str) else raw.get("text") if isinstance(raw, Mapping) else getattr(raw, "text", None)
    return _encodable(found) if isinstance(found, str) else ""


def _encodable(text: str) -> str:
    """Return a text with "?" for each unpaired surrogate, which no result could carry as JSON."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


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

"""What is kept, as it is given back: documents, hits, entries."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from niruhybrid.retrieval.passages import whole
from niruhybrid.retrieval.postgres.arrays import integers, vector_of
from niruhybrid.retrieval.postgres.connection import Rows, Statement
from niruhybrid.retrieval.session import split
from niruhybrid.types import Document, Hit, IndexEntry
from niruhybrid.types.items import kept_document

__all__ = ("ENTRIES", "Piece", "documents", "documents_of", "entry_of", "hits_of", "records_of")

ENTRIES = (
    "SELECT p.row, p.id, p.part, p.start, p.title, p.metadata, p.text, p.terms, v.vector "
    "FROM niru.passages p JOIN niru.vectors v USING (row)"
)
"""What `entry_of` reads."""


class Piece(NamedTuple):
    """A passage in its document; see `passages.Piece`.

    Attributes:
        start: where it begins, in characters.
        text: what it says.
    """

    start: int
    text: str


def documents_of(ids: Sequence[str]) -> Statement:
    """Return the statement that finds documents, for `documents`."""
    return f"{ENTRIES} WHERE p.id = ANY(%s) ORDER BY p.id, p.part", (list(ids),)


def documents(rows: Rows) -> dict[str, Document]:
    """Return the documents of which these are all passages, in order."""
    return {name: _document([entry_of(row) for row in parts]) for name, parts in groupby(rows, itemgetter(1))}


def entry_of(row: tuple[Any, ...]) -> IndexEntry:
    """Return what was written as a row."""
    _, name, part, start, title, metadata, encoded, words, data = row
    text, vector = encoded.decode(), vector_of(data)
    blank = not text or text.isspace()  # such a text needs a vector beside it
    document = kept_document(name, text, title.decode(), orjson.loads(metadata), vector if blank else None)
    return IndexEntry(document, vector, split(words.decode()), part, start)


def hits_of(best: Sequence[tuple[int, float]], kept: dict[int, tuple[Any, ...]]) -> tuple[Hit, ...]:
    """Return hits from the best rows with their scores, and what the statement of `records_of` found."""
    return tuple(_hit(kept[row], rank, score) for rank, (row, score) in enumerate(best, start=1))


def records_of(rows: Sequence[int]) -> Statement:
    """Return the statement that finds what hits say."""
    return (
        "SELECT row, id, title, metadata, text, start FROM niru.passages WHERE row = ANY(%s::bigint[])",
        (integers(rows),),
    )


def _hit(kept: tuple[Any, ...], rank: int, score: float) -> Hit:
    _, name, title, metadata, encoded, start = kept
    text = encoded.decode()
    return Hit(
        name, rank, score, text, title.decode(), MappingProxyType(orjson.loads(metadata)), (start, start + len(text))
    )


def _document(parts: Sequence[IndexEntry]) -> Document:
    first = parts[0].document
    text = whole([Piece(one.start, one.document.text) for one in parts])
    vector = parts[0].vector if len(parts) == 1 else None
    return kept_document(first.id, text, first.title, first.metadata, vector)

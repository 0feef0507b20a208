"""What can still be read of a damaged store, copied to a new one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from niruhybrid.errors import StoreCorruptError, StoreError
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry

__all__ = ("Salvage", "salvage")

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged store's documents.

    Attributes:
        saved: documents that are in the new store.
        lost: row numbers that can't be read, or whose vector is not what was written. Where the list of rows is damaged
            itself, those of documents removed long ago count, too.
    """

    saved: int
    lost: int


def salvage(damaged: str | Path, target: str | Path) -> Salvage:
    """Copy every document that can be read in full to a new store.

    Args:
        damaged: a store's file; no document in it is changed.
        target: the new store's file; there must be none yet.

    Raises:
        StoreError: `target` is there already, or nothing at all can be read; the subclass says why.
    """
    if Path(target).exists():
        raise StoreError(f"{str(target)!r} is there already: give the path of a new store")
    log = Log(Path(damaged))
    try:
        rows = _rows(log)
        with EmbeddedStore(target) as store:
            found = _readable(log, rows)
            while batch := list(islice(found, _AT_ONCE)):
                store.upsert(batch)
            saved = store.count()
    finally:
        log.close()
    return Salvage(saved, len(rows) - saved)


def _rows(log: Log) -> Sequence[int]:
    """Return the rows that there are, or all numbers ever given where that can't be read."""
    with log.read() as session:
        last = session.state.last_row
    try:
        with log.read() as session:
            return session.rows()
    except StoreCorruptError:
        return range(1, last + 1)


def _readable(log: Log, rows: Sequence[int]) -> Iterator[IndexEntry]:
    """Yield the documents that can be read in full."""
    for row in rows:
        try:
            with log.read() as session:
                kept, terms, vector = session.record(row), session.terms(row), session.vector(row)
        except StoreCorruptError:
            continue
        embedding = np.frombuffer(vector, np.float32)
        document = Document(kept.id, kept.text, title=kept.title, metadata=kept.metadata, embedding=embedding)
        yield IndexEntry(document, embedding, terms)

"""What can still be read of a damaged store, copied to a new one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson

from niruhybrid.errors import StoreCorruptError, StoreError
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import IndexEntry
from niruhybrid.types.items import kept_document, passage_of

__all__ = ("Salvage", "salvage")

_AT_ONCE = 256
_LOST = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged store's documents.

    Attributes:
        saved: documents that are in the new store, whole or with a passage less.
        lost: passages, by row numbers, that can't be read, or whose vector is not what was written. Where the list of
            rows is damaged itself, those of documents removed long ago count, too.
    """

    saved: int
    lost: int


def salvage(damaged: str | Path, target: str | Path) -> Salvage:
    """Copy every passage that can be read in full to a new store.

    Where a document has lost a passage before others, its text has as many U+FFFD in that place, and so the others keep
    theirs; no search by words finds these, and none by meaning finds them near.

    Args:
        damaged: a store's file; no document in it is changed.
        target: the new store's file; there must be none yet.

    Raises:
        StoreError: there is no `damaged`, `target` is there already, or nothing at all can be read; the subclass says
            why.
    """
    if not Path(damaged).is_file():
        raise StoreError(f"store {str(damaged)!r} is not there: give the path of the damaged file")
    if Path(target).exists():
        raise StoreError(f"{str(target)!r} is there already: give the path of a new store")
    log = Log(Path(damaged))
    try:
        rows = _rows(log)
        with EmbeddedStore(target) as store:
            found = _readable(log, rows)
            for batch in _batches(log, found):
                store.upsert(batch)
            saved = store.count()
    finally:
        log.close()
    return Salvage(saved, len(rows) - sum(map(len, found)))


def _rows(log: Log) -> Sequence[int]:
    """Return the rows that there are, or all numbers ever given where that can't be read."""
    with log.read() as session:
        last = session.state.last_row
    try:
        with log.read() as session:
            return session.rows()
    except StoreCorruptError:
        return range(1, last + 1)


def _readable(log: Log, rows: Sequence[int]) -> list[list[int]]:
    """Return the rows that can be read in full, by document, in the order of the parts."""
    documents: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        try:
            entry = _entry(log, row)
        except (StoreCorruptError, ValueError):  # what SQLite takes for text or JSON need not be any
            continue
        documents.setdefault(entry.document.id, []).append((entry.part, row))
    return [[row for _, row in sorted(parts)] for parts in documents.values()]


def _batches(log: Log, documents: Sequence[Sequence[int]]) -> Iterator[list[IndexEntry]]:
    """Yield whole documents, some at once."""
    batch: list[IndexEntry] = []
    for rows in documents:
        batch += _without_holes([_entry(log, row) for row in rows])
        if len(batch) >= _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _without_holes(entries: Sequence[IndexEntry]) -> list[IndexEntry]:
    """Return passages of one document numbered anew, with something in the place of what is missing between them."""
    kept: list[IndexEntry] = []
    end = 0
    for entry in entries:
        if entry.start > end:
            lost = passage_of(entry.document, _LOST * (entry.start - end))
            kept.append(IndexEntry(lost, np.zeros_like(entry.vector), (), len(kept), end))
        kept.append(replace(entry, part=len(kept)))
        end = entry.start + len(entry.document.text)
    return kept


def _entry(log: Log, row: int) -> IndexEntry:
    with log.read() as session:
        kept, terms, vector = session.passages([row])[row], session.terms(row), session.vector(row)
    embedding = np.frombuffer(vector, np.float32)
    metadata = orjson.loads(kept.metadata)
    document = kept_document(kept.id, kept.text, kept.title, metadata, embedding)
    return IndexEntry(document, embedding, terms, kept.part, kept.start)

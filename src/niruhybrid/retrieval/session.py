"""One transaction on a store's file: what is kept in it and how it is read. No decisions."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import apsw
import orjson

from niruhybrid.errors import StoreCorruptError
from niruhybrid.retrieval.schema import SEPARATOR
from niruhybrid.types import Metadata, Vector

__all__ = ("Record", "Session", "State", "joined", "split")


@dataclass(frozen=True, slots=True)
class State:
    """What a transaction finds.

    Attributes:
        watermark: committed changes so far; 0 for a new store.
        last_row: the highest row number ever given; numbers are not used twice.
        documents: how many there are.
        dimension: length of every vector; None before the first.
    """

    watermark: int
    last_row: int
    documents: int
    dimension: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """A passage as it is kept.

    Attributes:
        row: its number; None for one that has none yet.
        id: the document's id.
        part: number of the passage in its document, from 0.
        start: where it begins in the document's text, in characters.
        title: the document's title, or "".
        text: the passage's text.
        metadata: a JSON object, encoded.
    """

    row: int
    id: str
    part: int
    start: int
    title: str
    text: str
    metadata: bytes

    @property
    def end(self) -> int:
        """Where the passage ends in the document's text, in characters."""
        return self.start + len(self.text)


class Session:
    """One transaction: every call sees the same state, and its own changes.

    Attributes:
        state: what the transaction found when it began, or has made of it.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.state = State(*next(self.execute("SELECT watermark, last_row, documents, dimension FROM state")))

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one statement and return its rows, lazily."""
        return self._connection.execute(sql, values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one statement once per item of `values`."""
        self._connection.executemany(sql, values)

    def passages(self, rows: Iterable[int]) -> dict[int, Record]:
        """Return the passages of some rows, by row.

        Raises:
            StoreCorruptError: there is none of a row, though an index has it.
        """
        wanted = set(rows)
        kept = self.remaining(wanted)
        for row in wanted - kept.keys():
            raise _missing(row)
        return kept

    def remaining(self, rows: Collection[int]) -> dict[int, Record]:
        """Return the passages of those rows that have not been removed, by row."""
        found = self.execute(
            f"SELECT {_RECORD} FROM passages WHERE row IN (SELECT value FROM json_each(?))",  # our own names
            (orjson.dumps(list(rows)).decode(),),
        )
        return {values[0]: Record(*values) for values in found}

    def records(self, name: str) -> list[Record]:
        """Return all passages of a document, in order; none of an unknown one."""
        found = self.execute(f"SELECT {_RECORD} FROM passages WHERE id = ? ORDER BY part", (name,))  # our own names
        return [Record(*values) for values in found]

    def parts(self, name: str, first: int = 0) -> list[tuple[int, list[str]]]:
        """Return row and terms of a document's passages from part `first` on, in order."""
        found = self.execute("SELECT row, terms FROM passages WHERE id = ? AND part >= ? ORDER BY part", (name, first))
        return [(row, split(terms)) for row, terms in found]

    def part(self, name: str, number: int) -> tuple[Record, int] | None:
        """Return one passage of a document and the row of the document's first; None if there is none."""
        found = self.execute(
            f"SELECT {_RECORD}, owner FROM passages WHERE id = ? AND part = ?", (name, number)
        )  # our own names
        return next(((Record(*values), owner) for *values, owner in found), None)

    def vector(self, row: int) -> bytes:
        """Return the vector of a row, as float32 bytes.

        Raises:
            StoreCorruptError: there is none, or it is not what was written.
        """
        for vector, checksum in self.execute("SELECT vector, checksum FROM vectors WHERE row = ?", (row,)):
            return checked_vector_bytes(row, vector, checksum)
        return checked_vector_bytes(row, None, None)

    def rows(self) -> list[int]:
        """Return all rows, ascending."""
        return sorted(row for (row,) in self.execute("SELECT row FROM passages INDEXED BY sqlite_autoindex_passages_1"))

    def terms(self, row: int) -> list[str]:
        """Return the analysed terms of a row."""
        for (terms,) in self.execute("SELECT terms FROM passages WHERE row = ?", (row,)):
            return split(terms)
        raise _missing(row)

    def indexed(self, after: int, limit: int) -> list[tuple[int, list[str], Metadata, bytes, int]]:
        """Return what indexes are built from: row, terms, metadata, vector and owner of the next rows, ascending.

        Args:
            after: the last row there is no need of.
            limit: rows to return at the most.

        Raises:
            StoreCorruptError: a passage has no vector, or a vector is not what was written.
        """
        found = self.execute(
            "SELECT row, terms, metadata, vector, checksum, owner FROM passages LEFT JOIN vectors USING (row) "
            "WHERE row > ? ORDER BY row LIMIT ?",
            (after, limit),
        )
        return [
            (row, split(terms), orjson.loads(metadata), checked_vector_bytes(row, vector, checksum), owner)
            for row, terms, metadata, vector, checksum, owner in found
        ]

    def page_of_entries(self, name: str, part: int, limit: int) -> list[tuple[Record, list[str], bytes]]:
        """Return the `limit` passages that follow a document's part, by id and part, with terms and vectors.

        Raises:
            StoreCorruptError: a passage has no vector, or a vector is not what was written.
        """
        found = self.execute(
            f"SELECT {_RECORD}, terms, vector, checksum FROM passages LEFT JOIN vectors USING (row) "  # our own names
            "WHERE (id, part) > (?, ?) ORDER BY id, part LIMIT ?",
            (name, part, limit),
        )
        return [
            (Record(*values), split(terms), checked_vector_bytes(values[0], vector, checksum))
            for *values, terms, vector, checksum in found
        ]

    def ids(self) -> list[str]:
        """Return all ids, in no particular order."""
        return [name for (name,) in self.execute("SELECT id FROM passages WHERE part = 0")]

    def page_of_ids(self, after: str, limit: int) -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point."""
        found = self.execute("SELECT id FROM passages WHERE id > ? AND part = 0 ORDER BY id LIMIT ?", (after, limit))
        return [name for (name,) in found]

    def insert(self, records: Sequence[Record], owners: Sequence[int], terms: Sequence[str], vectors: Vector) -> None:
        """Keep passages under new row numbers, with the rows of their documents, `joined` terms and `(n, dim)`."""
        self.executemany(
            f"INSERT INTO passages ({_RECORD}, owner, terms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # our own names
            (
                (one.row, one.id, one.part, one.start, one.title, one.text, one.metadata, owner, words)
                for one, owner, words in zip(records, owners, terms, strict=True)
            ),
        )
        self.executemany(
            "INSERT INTO vectors (row, vector, checksum) VALUES (?, ?, ?)",
            ((one.row, vector.data, crc32(vector)) for one, vector in zip(records, vectors, strict=True)),
        )

    def remove(self, rows: Iterable[int]) -> None:
        """Forget the passages of these rows."""
        keys = [(row,) for row in rows]
        self.executemany("DELETE FROM passages WHERE row = ?", keys)
        self.executemany("DELETE FROM vectors WHERE row = ?", keys)

    def checkpoint(self) -> str | None:
        """Return the name of the file with derived indexes that belongs to this log; None for none."""
        return next((name for (name,) in self.execute("SELECT name FROM checkpoint")), None)

    def set_checkpoint(self, name: str) -> None:
        """Name the file with derived indexes that belongs to this log."""
        self.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?)", (name,))

    def advance(self, state: State) -> None:
        """Set the state that this transaction leaves."""
        self.execute(
            "UPDATE state SET watermark = ?, last_row = ?, documents = ?, dimension = ?",
            (state.watermark, state.last_row, state.documents, state.dimension),
        )
        self.state = state


_RECORD = "row, id, part, start, title, text, metadata"


def joined(terms: Iterable[str]) -> str:
    """Return analysed terms as one text, as they are kept."""
    return SEPARATOR.join(terms)


def split(terms: str) -> list[str]:
    """Return the analysed terms of a text made by `joined`."""
    return terms.split(SEPARATOR) if terms else []


def checked_vector_bytes(row: int, vector: bytes | None, checksum: int | None) -> bytes:
    """Return the vector of a row if it is what was written.

    Raises:
        StoreCorruptError: it is missing, or another.
    """
    if vector is None:
        raise StoreCorruptError(f"row {row} has no vector: save what can be read with `salvage`")
    if crc32(vector) != checksum:
        raise StoreCorruptError(f"the vector of row {row} is damaged: save what can be read with `salvage`")
    return vector


def _missing(row: int) -> StoreCorruptError:
    return StoreCorruptError(f"row {row} is indexed but has no passage: restore the store from a copy")

"""The durable truth: documents, vectors and terms in one SQLite file with a write-ahead log.

Whatever else this room holds is derived from here and can be built again. Each committed transaction has a number, the
watermark: an index that carries the same number shows the same state.

Process death loses no committed transaction in either mode; `durability="power"` also syncs the file at each commit.
This is the only module that knows SQLite's driver, and the only one that turns its errors into ours.
"""

import errno
import fcntl
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import apsw
import orjson

from niruhybrid.config import Durability
from niruhybrid.errors import (
    ClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreVersionError,
)
from niruhybrid.types import Metadata, Vector

__all__ = ("Log", "Record", "Session", "State")

VERSION = 2
APPLICATION_ID = 0x4E495255  # "NIRU"
_SEPARATOR = "\x1f"  # between terms; a term that has one becomes two, alike for documents and, in vain, for queries
_BUSY_MS = 500  # only another program can be in the way, see `_claim`

_SCHEMA = f"""
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    watermark INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    dimension INTEGER
);
INSERT INTO state VALUES (1, 0, 0, NULL);
CREATE TABLE documents (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    metadata BLOB NOT NULL,
    text TEXT NOT NULL,
    terms TEXT NOT NULL
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL DEFAULT 0);
CREATE TABLE checkpoint (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), name TEXT NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

_FROM_VERSION_1 = f"""
DROP TABLE IF EXISTS vocabulary;
DROP TABLE IF EXISTS lexical;
ALTER TABLE vectors ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE vectors SET checksum = crc32(vector);
UPDATE documents SET terms = replace(terms, ' ', char(31));
CREATE TABLE checkpoint (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), name TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""

_SETTINGS = """
PRAGMA mmap_size = 2147483648;
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA temp_store = memory;
"""


@dataclass(frozen=True, slots=True)
class State:
    """What a transaction finds.

    Attributes:
        watermark: committed changes so far; 0 for a new store.
        last_row: the highest row number ever given; numbers are not used twice.
        dimension: length of every vector; None before the first.
    """

    watermark: int
    last_row: int
    dimension: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it is kept.

    Attributes:
        id: the document's id.
        title: its title, or "".
        text: its text.
        metadata: its JSON object.
    """

    id: str
    title: str
    text: str
    metadata: Metadata


class Session:
    """One transaction: every call sees the same state, and its own changes.

    Attributes:
        state: what the transaction found when it began.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.state = State(*next(self.execute("SELECT watermark, last_row, dimension FROM state")))

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one statement and return its rows, lazily."""
        return self._connection.execute(sql, values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one statement once per item of `values`."""
        self._connection.executemany(sql, values)

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """Return the row numbers of those ids that there are, each once, in the ids' order."""
        found: dict[int, None] = {}
        for name in ids:
            for (row,) in self.execute("SELECT row FROM documents WHERE id = ?", (name,)):
                found[row] = None
        return list(found)

    def record(self, row: int) -> Record:
        """Return the document of a row.

        Raises:
            StoreCorruptError: there is none, though an index has the row.
        """
        for name, title, text, metadata in self.execute(
            "SELECT id, title, text, metadata FROM documents WHERE row = ?", (row,)
        ):
            return Record(name, title, text, orjson.loads(metadata))
        raise StoreCorruptError(f"row {row} is indexed but has no document: restore the store from a copy")

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
        return sorted(
            row for (row,) in self.execute("SELECT row FROM documents INDEXED BY sqlite_autoindex_documents_1")
        )

    def terms(self, row: int) -> list[str]:
        """Return the analysed terms of a row."""
        for (joined,) in self.execute("SELECT terms FROM documents WHERE row = ?", (row,)):
            return split(joined)
        raise StoreCorruptError(f"row {row} is indexed but has no document: restore the store from a copy")

    def indexed(self, after: int, limit: int) -> list[tuple[int, list[str], Metadata, bytes]]:
        """Return what indexes are built from: row, terms, metadata and vector of the next rows, by ascending row.

        Args:
            after: the last row there is no need of.
            limit: rows to return at the most.

        Raises:
            StoreCorruptError: a document has no vector, or a vector is not what was written.
        """
        found = self.execute(
            "SELECT row, terms, metadata, vector, checksum FROM documents LEFT JOIN vectors USING (row) "
            "WHERE row > ? ORDER BY row LIMIT ?",
            (after, limit),
        )
        return [
            (row, split(joined), orjson.loads(metadata), checked_vector_bytes(row, vector, checksum))
            for row, joined, metadata, vector, checksum in found
        ]

    def ids(self) -> list[str]:
        """Return all ids, in no particular order."""
        return [name for (name,) in self.execute("SELECT id FROM documents")]

    def page_of_ids(self, after: str, limit: int) -> list[str]:
        """Return the `limit` ids that follow `after`, ascending by code point."""
        found = self.execute("SELECT id FROM documents WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [name for (name,) in found]

    def insert(
        self, rows: Sequence[int], records: Sequence[Record], terms: Sequence[Sequence[str]], vectors: Vector
    ) -> None:
        """Keep records under new row numbers, with their analysed terms and their vectors, `(n, dim)`."""
        self.executemany(
            "INSERT INTO documents (row, id, title, text, metadata, terms) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (row, record.id, record.title, record.text, orjson.dumps(dict(record.metadata)), joined(words))
                for row, record, words in zip(rows, records, terms, strict=True)
            ),
        )
        self.executemany(
            "INSERT INTO vectors (row, vector, checksum) VALUES (?, ?, ?)",
            ((row, vector.tobytes(), crc32(vector)) for row, vector in zip(rows, vectors, strict=True)),
        )

    def remove(self, rows: Iterable[int]) -> None:
        """Forget the documents of these rows."""
        keys = [(row,) for row in rows]
        self.executemany("DELETE FROM documents WHERE row = ?", keys)
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
            "UPDATE state SET watermark = ?, last_row = ?, dimension = ?",
            (state.watermark, state.last_row, state.dimension),
        )


def as_kept(metadata: Metadata) -> Metadata:
    """Return metadata as it will come back: JSON."""
    kept: Metadata = orjson.loads(orjson.dumps(dict(metadata))) if metadata else {}
    return kept


def joined(terms: Iterable[str]) -> str:
    """Return analysed terms as one text, as they are kept."""
    return _SEPARATOR.join(terms)


def split(terms: str) -> list[str]:
    """Return the analysed terms of a text made by `joined`."""
    return terms.split(_SEPARATOR) if terms else []


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


def _checksum(*vector: Any) -> int:
    return crc32(*vector)


class Log:
    """An open store file, or a store in memory. Thread-safe.

    One writer at a time. Readers of a file wait neither for it nor for each other; in memory they take turns.

    Args:
        path: the file, made if there is none; None keeps everything in memory.
        durability: `process` or `power`, see the module.

    Raises:
        StoreLockedError: the file is open already, here or in another process.
        StoreCorruptError: the file is damaged, or not a store.
        StoreVersionError: it was written by a newer version.
        StoreReadOnlyError: it can't be written to.
        StoreError: it can't be opened for another reason.
    """

    def __init__(self, path: Path | None, durability: Durability = "process") -> None:
        self._path = path
        self._name = "the store in memory" if path is None else f"store {str(path)!r}"
        self._mutex = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._closed = False
        self._claim = None if path is None else _claim(path)
        try:
            with self._own_errors():
                self._writer = self._open_writer("FULL" if durability == "power" else "NORMAL")
        except BaseException:
            self._release()
            raise

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Run a block as one transaction, alone: all of it is kept when the block ends, none if it raises.

        Raises:
            ClosedError: the log has been closed.
            StoreError: nothing was written; the subclass says why.
        """
        with self._mutex, self._own_errors():
            self._refuse_closed()
            with _transaction(self._writer, "BEGIN IMMEDIATE") as session:
                yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Run a block on one state, whatever is written meanwhile.

        Raises:
            ClosedError: the log has been closed.
            StoreError: it can't be read; the subclass says why.
        """
        with self._own_errors():
            if self._path is None:
                with self._mutex:
                    self._refuse_closed()
                    with _transaction(self._writer, "BEGIN") as session:
                        yield session
            else:
                with self._borrowed() as connection, _transaction(connection, "BEGIN") as session:
                    yield session

    def close(self) -> None:
        """Close the file; reads in progress end undisturbed, a write is waited for. A second call does nothing."""
        with self._mutex:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()
            self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()

    @contextmanager
    def _borrowed(self) -> Iterator[apsw.Connection]:
        """Lend a reading connection; there are as many as there were readers at once."""
        self._refuse_closed()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
            connection.pragma("query_only", value=True)
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self._closed:
                self._drop_idle()

    def _drop_idle(self) -> None:
        with self._mutex:
            while self._idle:
                self._idle.pop().close()

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(":memory:" if self._path is None else str(self._path))
        connection.set_busy_timeout(_BUSY_MS)
        for _ in connection.execute(_SETTINGS):
            pass
        return connection

    def _open_writer(self, synchronous: str) -> apsw.Connection:
        connection = self._connect()
        try:
            blank = self._refuse_foreign(connection)
            connection.pragma("journal_mode", value="wal")
            connection.pragma("synchronous", value=synchronous)
            if blank:
                connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
            elif connection.pragma("user_version") < VERSION:
                connection.create_scalar_function("crc32", _checksum, 1, deterministic=True)
                connection.execute(f"BEGIN IMMEDIATE; {_FROM_VERSION_1} COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_foreign(self, connection: apsw.Connection) -> bool:
        """Return whether the file is still empty. One that isn't ours is left as it was."""
        kind, version = connection.pragma("application_id"), connection.pragma("user_version")
        blank = kind == 0 and next(connection.execute("SELECT count(*) FROM sqlite_schema"))[0] == 0
        if not blank and kind != APPLICATION_ID:
            raise StoreCorruptError(f"{self._name} is a database of another kind: give another path")
        if not blank and not (isinstance(version, int) and version <= VERSION):
            raise StoreVersionError(
                f"{self._name} has format {version}, this version reads up to {VERSION}: use a newer niruhybrid"
            )
        if connection.readonly("main"):
            raise StoreReadOnlyError(f"{self._name} can't be written to: change the file's permissions, or copy it")
        return bool(blank)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._name} has been closed: open it again")

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as err:
            raise _store_error(err, self._name) from err


@contextmanager
def _transaction(connection: apsw.Connection, begin: str) -> Iterator[Session]:
    connection.execute(begin)
    try:
        yield Session(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise


def _claim(path: Path) -> IO[bytes]:
    """Take the store for this process. The system gives the claim back when the process ends, however it ends."""
    beside = path.with_name(path.name + ".lock")
    try:
        claim = beside.open("ab")
    except OSError as err:
        raise _claim_error(err, path) from err
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        claim.close()
        raise StoreLockedError(f"store {str(path)!r} is open already: close it there, or give another path") from err
    return claim


def _claim_error(err: OSError, path: Path) -> StoreError:
    if isinstance(err, PermissionError) or err.errno == errno.EROFS:
        return StoreReadOnlyError(f"store {str(path)!r} can't be written to: change the folder's permissions")
    if isinstance(err, FileNotFoundError):
        return StoreError(f"store {str(path)!r} is in a folder that there is not: make the folder first")
    return StoreError(f"store {str(path)!r} can't be opened ({err.strerror}): give the path of a file")


def _store_error(err: apsw.Error, name: str) -> StoreError:
    match err:
        case apsw.FullError():
            return StoreFullError(f"{name} has no room to grow, the last change was not made: free some disk space")
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return StoreReadOnlyError(f"{name} can't be written to: change the file's permissions, or copy it")
        case apsw.BusyError() | apsw.LockedError():
            return StoreLockedError(f"{name} is in use by another program: close it there")
        case apsw.CorruptError() | apsw.NotADBError():
            return StoreCorruptError(f"{name} is damaged ({err}): restore it from a copy")
    return StoreError(f"{name} can't be read or written ({err}): check the disk and the file's permissions")

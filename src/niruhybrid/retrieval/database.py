"""SQLite's part of a store's file: connections to it, what they find, and their errors as ours."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from niruhybrid.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreVersionError,
)
from niruhybrid.retrieval.claim import refuse_other_names, refuse_owner_of_another_name
from niruhybrid.retrieval.schema import (
    APPLICATION_ID,
    BLANK,
    COUNTED,
    FIRST_WITH_CHECKPOINTS,
    SETTINGS,
    VERSION,
)

__all__ = ("BUSY_MS", "connected", "copy_of_file", "detach", "format_of", "own_errors", "vacuum")

BUSY_MS = 500  # only another program can be in the way: a store has its file to itself
_STEPS = 100_000  # of SQLite's machine, some milliseconds


def connected(file: str) -> apsw.Connection:
    """Return a new connection to a file that is there, or to a database of its own in memory."""
    connection = apsw.Connection(file, flags=apsw.SQLITE_OPEN_READWRITE)  # files are made elsewhere, never here
    connection.set_busy_timeout(BUSY_MS)
    for _ in connection.execute(SETTINGS):
        pass
    return connection


def format_of(connection: apsw.Connection, name: str) -> int:
    """Return the format of a database, or `BLANK` for an empty one. One that isn't ours is left as it was.

    Raises:
        StoreCorruptError: it is of another program.
        StoreVersionError: it is of a newer version.
    """
    kind, version = connection.pragma("application_id"), connection.pragma("user_version")
    if kind == 0 and next(connection.execute("SELECT count(*) FROM sqlite_schema"))[0] == 0:
        return BLANK
    if kind != APPLICATION_ID:
        raise StoreCorruptError(f"{name} is a database of another kind: give another path")
    if not (isinstance(version, int) and version in COUNTED):
        raise StoreVersionError(
            f"{name} has format {version}, this version reads up to {VERSION}: use a newer niruhybrid"
        )
    return version


@contextmanager
def own_errors(name: str) -> Iterator[None]:
    """Turn the errors of SQLite's driver within a block into ours.

    Args:
        name: the store, as errors name it.

    Raises:
        StoreError: SQLite raised one; the subclass says why.
    """
    try:
        yield
    except apsw.Error as err:
        raise _store_error(err, name) from err


def vacuum(connection: apsw.Connection, name: str, target: Path) -> None:
    """Write a database to an empty file, as one transaction sees it.

    Args:
        connection: to the database, without a transaction.
        name: the store, as errors name it.
        target: the file.

    Raises:
        StoreFullError: there is no room for it.
        StoreError: one of the two can't be read or written; the subclass says why.
    """
    only_reads = connection.pragma("query_only")
    connection.pragma("query_only", value=False)  # it would keep SQLite from writing the other file
    connection.set_progress_handler(lambda: False, _STEPS)  # a moment in which Ctrl-C is heard
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    except apsw.FullError as err:
        raise StoreFullError(f"there is no room for a copy of {name}: free some disk space") from err
    except apsw.Error as err:
        raise _store_error(err, name) from err
    finally:
        connection.set_progress_handler(None)
        connection.pragma("query_only", value=only_reads)


def copy_of_file(path: Path, target: Path) -> None:
    """Write the present state of a store's file to an empty file; another process may have the store open.

    Raises:
        StoreLockedError: this process has the store open, or another has it open under another name.
        StoreFullError: there is no room for the copy.
        StoreError: there is no store, it can't be read, or the copy can't be written; the subclass says why.
    """
    name, file = f"store {str(path)!r}", Path(os.path.realpath(path))
    if not file.is_file():
        raise StoreError(f"{name} is not there: give the path of a store")
    refuse_other_names(file, name)
    refuse_owner_of_another_name(file, name)
    with own_errors(name), closing(connected(str(file))) as connection:
        if format_of(connection, name) == BLANK:
            raise StoreError(f"{name} is empty: give the path of a store")
        vacuum(connection, name, target)


def detach(copy: Path) -> tuple[int, int]:
    """Make a copy a store of its own, without the index file of the one it was made from.

    Returns:
        Its watermark, and how many documents it has.

    Raises:
        StoreError: it can't be read or written; the subclass says why.
    """
    name = f"the copy {str(copy)!r}"
    with own_errors(name), closing(connected(str(copy))) as connection:
        version = format_of(connection, name)
        if version >= FIRST_WITH_CHECKPOINTS:
            connection.execute("DELETE FROM checkpoint")
        [(watermark, documents)] = connection.execute(COUNTED[version])
    return watermark, documents


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

"""Copies of a store's file, made while the store is in use.

A copy is one state of the store, whole: SQLite reads it in one transaction, which no write restarts. It is made under
another name and gets its own when it is complete and on the disk, so a file of that name is always a whole copy.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from niruhybrid.errors import StoreError, StoreReadOnlyError
from niruhybrid.retrieval.database import copy_of_file, detach
from niruhybrid.retrieval.log import Log

__all__ = ("Backup", "back_up", "copied")

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished copy of a store.

    Attributes:
        watermark: of the last write that is in it.
        documents: how many it has.
        size: of the file, in bytes.
    """

    watermark: int
    documents: int
    size: int


def back_up(store: str | Path, target: str | Path) -> Backup:
    """Copy the file of a store to a new file, while another process may serve and change the store.

    In the process that has the store open, use `EmbeddedStore.backup`.

    Args:
        store: the store's file.
        target: the copy's path; nothing may be there yet.

    Raises:
        StoreLockedError: this process has the store open, or another has it open under another name.
        StoreFullError: there is no room for the copy.
        StoreError: there is no store, `target` is there already, or one of them can't be read or written; the subclass
            says more. No part of a copy is left.
    """
    source = Path(store)
    return _made(Path(target), lambda draft: copy_of_file(source, draft))


def copied(log: Log, target: str | Path) -> Backup:
    """Copy an open store to a new file; writes and searches go on.

    Raises:
        ClosedError: the store has been closed.
        StoreFullError: there is no room for the copy.
        StoreError: `target` is there already, or can't be written; the subclass says more. No part of a copy is left.
    """
    return _made(Path(target), log.copy)


def _made(target: Path, copy: Callable[[Path], None]) -> Backup:
    """Have a copy made under a name of its own, and give it the name `target` once it is whole."""
    target = Path(os.path.realpath(target.parent)) / target.name
    for taken in (target, *(target.with_name(target.name + end) for end in ("-wal", "-journal"))):
        if os.path.lexists(taken):
            raise StoreError(f"{str(taken)!r} is there already: give another path, or move it away")
    with _draft(target) as draft:
        copy(draft)
        watermark, documents = detach(draft)
        try:
            size = draft.stat().st_size
            _sync(draft, os.O_RDWR)
            _publish(draft, target)
        except OSError as err:
            raise _target_error(err, target) from err
    return Backup(watermark, documents, size)


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Make an empty file beside `target`; nothing of it is left at the end, unless it has another name then."""
    draft = target.with_name(f"{target.name}.draft-{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    except OSError as err:
        raise _target_error(err, target) from err
    try:
        yield draft
    finally:
        for left in (draft, draft.with_name(draft.name + "-journal")):
            left.unlink(missing_ok=True)


def _publish(draft: Path, target: Path) -> None:
    """Give a file its name, which must be free, and have the folder keep it through a loss of power."""
    try:
        os.link(draft, target)  # unlike a rename, it never takes the place of a file
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from err
        draft.rename(target)
    else:
        draft.unlink()
    if os.name == "posix":
        _sync(target.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _target_error(err: OSError, target: Path) -> StoreError:
    if isinstance(err, PermissionError) or err.errno == errno.EROFS:
        return StoreReadOnlyError(f"the copy {str(target)!r} can't be written: change the folder's permissions")
    if isinstance(err, FileNotFoundError):
        return StoreError(f"the copy {str(target)!r} is in a folder that does not exist: make the folder first")
    if isinstance(err, FileExistsError):
        return StoreError(f"{str(target)!r} is there already: give another path, or move it away")
    return StoreError(f"the copy {str(target)!r} can't be written ({err.strerror}): give the path of a new file")

"""Which process has a store's file: a claim on its name and on the file itself.

A store is a file, and beside the file's name its write-ahead log. Two processes that reach one file by different names
would each have a write-ahead log of its own and lose each other's writes. So a claim covers both:

    the name    a lock on `NAME.lock` beside the file, after symbolic links have been resolved
    the file    on Linux, a lock on one byte of the file itself, which is seen through every name, a bind mount too

A file with several hard links is refused everywhere: after a crash the last writes are in the write-ahead log beside
one of its names, and opening it by another would lose them. The system releases a claim when the process ends, however
it ends.
"""

import contextlib
import errno
import os
import struct
import sys
import threading
from pathlib import Path

from niruhybrid.errors import StoreError, StoreLockedError, StoreReadOnlyError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ("Claim", "identity_of", "refuse_other_names", "refuse_owner_of_another_name", "wal_of")

Identity = tuple[int, int]
"""Device and inode of a file."""

_BYTE = 1 << 62  # far behind the bytes that SQLite locks, and behind any content
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}  # the last one is Windows'
_NO_SUCH_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW}  # of the file system

# POSIX drops a process's locks on a file, SQLite's too, as soon as the process closes any descriptor of it. So a file
# that a store of this process has open is never opened here a second time.
_open_here: set[Identity] = set()
_opening = threading.Lock()


class Claim:
    """A store's file, claimed for this process until `close`.

    Args:
        path: the file, made if there is none.

    Attributes:
        file: the same path, absolute and without symbolic links.

    Raises:
        StoreLockedError: the file is open already, here or in another process, under this name or another.
        StoreReadOnlyError: the file or its folder can't be written to.
        StoreError: it can't be opened for another reason.
    """

    def __init__(self, path: Path) -> None:
        self._name = f"store {str(path)!r}"
        self._beside: int | None = None
        self._own: int | None = None
        self._wal: Identity | None = None
        try:
            self.file = Path(os.path.realpath(path))
            self._beside = self._locked_beside()
            with _opening:
                self._own = self._locked_file()
                self._identity = identity_of(os.fstat(self._own))
                _open_here.add(self._identity)
        except OSError as err:
            self.close()
            raise _claim_error(err, self._name) from err
        except BaseException:
            self.close()
            raise

    def watch_wal(self) -> None:
        """Have `refuse_moved` look after the write-ahead log, too, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._wal = identity_of(wal_of(self.file).stat())

    def refuse_moved(self) -> int:
        """Refuse to go on when the path no longer leads to the file, or its write-ahead log is gone.

        Returns:
            The size of the file, in bytes.

        Raises:
            StoreError: one of them was renamed, deleted or replaced by another.
        """
        wal = wal_of(self.file)
        try:
            found = self.file.stat()
        except OSError as err:
            raise StoreError(
                f"{self._name} was moved or deleted while it was open ({err.strerror}): put the file back, or close "
                f"the store and move {wal.name!r}, which has its last writes, to where the file is now"
            ) from err
        if identity_of(found) != self._identity:
            raise StoreError(
                f"{self._name} was replaced by another file while it was open: put the file back, or close the store, "
                f"remove {wal.name!r}, which has the last writes of the old file, and open the new one"
            )
        try:
            lost = self._wal is not None and identity_of(wal.stat()) != self._wal
        except OSError:
            lost = True
        if lost:
            raise StoreError(f"{wal.name!r} was deleted while {self._name} was open: close the store, which saves it")
        return found.st_size

    def close(self) -> None:
        """Release the claim; to be called when nothing of this process has the file open any more."""
        if self._own is not None:
            with _opening:
                _unlock_byte(self._own)
                os.close(self._own)
                _open_here.discard(self._identity)
            self._own = None
        if self._beside is not None:
            if sys.platform != "win32":
                fcntl.flock(self._beside, fcntl.LOCK_UN)  # a child that was just forked may still have a copy
            os.close(self._beside)
            self._beside = None

    def abandon(self) -> None:
        """Close a child process's copies of the descriptors, so that its parent alone can release the claim.

        SQLite's own state was copied, too: this process must not open the file again.
        """
        for descriptor in (self._own, self._beside):
            if descriptor is not None:
                os.close(descriptor)
        self._own = self._beside = None

    def _locked_beside(self) -> int:
        """Return a descriptor of the lock file, locked."""
        beside = os.open(_beside(self.file), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform == "win32":
                msvcrt.locking(beside, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(beside)
            if err.errno in _HELD:
                raise _open_already(self._name) from err
            raise
        return beside

    def _locked_file(self) -> int:
        """Return a descriptor of the file itself, locked where the system has locks that SQLite's don't meet."""
        refuse_other_names(self.file, self._name)
        own = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)  # the mode that SQLite gives a new file
        try:
            _lock_byte(own, self._name)
        except BaseException:
            os.close(own)
            raise
        return own


def wal_of(file: Path) -> Path:
    """Return the path of a file's write-ahead log."""
    return file.with_name(file.name + "-wal")


def identity_of(found: os.stat_result) -> Identity:
    """Return what tells a file from every other."""
    return found.st_dev, found.st_ino


def refuse_other_names(file: Path, name: str) -> None:
    """Refuse a file that this process has open under another name, or that has several hard links.

    Args:
        file: a path without symbolic links; there need be no file.
        name: the store, as errors name it.

    Raises:
        StoreLockedError: it is open.
        StoreError: it has several hard links.
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        return
    if identity_of(found) in _open_here:
        raise _open_already(name)
    if found.st_nlink > 1 and not file.is_dir():
        raise StoreError(
            f"{name} has {found.st_nlink} names (hard links), and its write-ahead log lies beside one of them only: "
            "remove the other names, or copy the file and open the copy"
        )


def refuse_owner_of_another_name(file: Path, name: str) -> None:
    """Refuse a file that another process has open, but not under this name: its last writes can't be seen from here.

    Args:
        file: a path without symbolic links, which this process does not have open.
        name: the store, as errors name it.

    Raises:
        StoreLockedError: another process has it open under another name.
        OSError: it can't be looked at.
    """
    if sys.platform != "linux":
        return
    with file.open("rb") as own:
        try:
            found = fcntl.fcntl(own, fcntl.F_OFD_GETLK, _byte(fcntl.F_WRLCK))
        except OSError:  # the file system has no such locks
            return
    if struct.unpack_from("h", found)[0] == fcntl.F_UNLCK:
        return
    try:
        with _beside(file).open("rb") as beside:
            fcntl.flock(beside, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # it is the one that has the file
    except FileNotFoundError:
        pass
    raise StoreLockedError(f"{name} is open under another name: give the name that it was opened by")


def _beside(file: Path) -> Path:
    return file.with_name(file.name + ".lock")


def _byte(kind: int) -> bytes:
    """Return the system's description of a lock on our byte."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, _BYTE, 1, 0)


def _lock_byte(descriptor: int, name: str) -> None:
    """Lock a byte of an open file for its descriptor, where there are locks that can do it.

    Elsewhere than on Linux a lock of the file would be one of SQLite's own kind, or keep SQLite out.

    Raises:
        StoreLockedError: another process has the lock.
    """
    if sys.platform != "linux":
        return
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _byte(fcntl.F_WRLCK))
    except OSError as err:
        if err.errno in _HELD:
            raise _open_already(name) from err
        if err.errno not in _NO_SUCH_LOCKS:
            raise


def _unlock_byte(descriptor: int) -> None:
    """Unlock the byte, for the copies of the descriptor too that a child process may have."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # there are file systems without such locks
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _byte(fcntl.F_UNLCK))


def _open_already(name: str) -> StoreLockedError:
    return StoreLockedError(f"{name} is open already: close it there, or give another path")


def _claim_error(err: OSError, name: str) -> StoreError:
    if isinstance(err, PermissionError) or err.errno == errno.EROFS:
        return StoreReadOnlyError(f"{name} can't be written to: change the permissions of the file and its folder")
    if isinstance(err, FileNotFoundError):
        return StoreError(f"{name} is in a folder that does not exist: make the folder first")
    return StoreError(f"{name} can't be opened ({err.strerror}): give the path of a file")


def _after_fork() -> None:
    """Make a new lock in a child process: another thread of the parent may have held the old one."""
    global _opening  # noqa: PLW0603  # there is one for the process
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)

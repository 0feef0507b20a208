"""What becomes of objects that hold threads or open files when their process forks: in the child they are refused.

A fork copies memory, not threads: an object that waits for its threads would wait for ever in the child. So such an
object learns that it is in a child, and says so at its next use.
"""

import os
import weakref
from typing import Protocol

from niruhybrid.errors import ClosedError

__all__ = ("Inheritable", "forked_error", "watch")


class Inheritable(Protocol):
    """An object that a child process may inherit."""

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked. Must not wait: no other thread is there."""
        ...


def watch(thing: Inheritable) -> None:
    """Have `thing.after_fork` called in each child that the process forks, as long as `thing` lives."""
    _watched.add(thing)


def forked_error(what: str) -> ClosedError:
    """Return the error of an object that was made before a fork and used after it, in the child."""
    return ClosedError(
        f"{what} was made before this process (pid {os.getpid()}) was forked, and works in its parent only: "
        "make it after the fork, in each process"
    )


_watched: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def _tell_all() -> None:
    for thing in list(_watched):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_tell_all)

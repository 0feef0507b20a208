"""The states of the indexes that searches may need, and the thread that keeps the newest one fast."""

import logging
import os
import threading
import time
from collections.abc import Callable

from niruhybrid.errors import ClosedError, StoreError
from niruhybrid.retrieval.recovery import Checkpoints
from niruhybrid.retrieval.snapshot import Snapshot

__all__ = ("Keeper",)

_log = logging.getLogger(__name__)

_NICENESS = 10  # of the thread: queries go first
_ROUNDS = 8  # of catching up beside writers, before the rest is done while they wait
_FEW = 4096  # entries of the journal that are caught up with while writers wait


class Keeper:
    """Holds the newest snapshots, one or two: which of them counts is for the log's watermark to say.

    While searches and changes go on, a thread makes a better form of the newest one, when it would be worth it, and
    puts it in its place. The thread ends with its work, or with `stop`.

    Args:
        snapshot: the first state.
        watermark: says which state is committed; called with `changing` held.
        checkpoints: where to keep states.

    Attributes:
        changing: to be held from looking at the newest state until the next one is committed or given up.
    """

    def __init__(self, snapshot: Snapshot, watermark: Callable[[], int], checkpoints: Checkpoints) -> None:
        self.changing = threading.Lock()
        self._states: tuple[Snapshot, ...] = (snapshot,)
        self._watermark = watermark
        self._checkpoints = checkpoints
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def at(self, watermark: int) -> Snapshot | None:
        """Return the state of a watermark that the log has shown, or None if later ones have taken its place.

        Raises:
            StoreError: the log is ahead of every state, so something else has written to it.
            ClosedError: the store has been closed, and the states are gone.
        """
        states = self._states  # read after the log, and offered before it was written
        if not states:
            raise ClosedError("the store has been closed: open it again")
        if watermark > states[-1].watermark:
            raise StoreError(
                f"the store's file was changed by another program (watermark {watermark}, indexes up to "
                f"{states[-1].watermark}): close the store and open it again"
            )
        return next((state for state in states if state.watermark == watermark), None)

    def offer(self, before: Snapshot, after: Snapshot) -> None:
        """Make a change's state known ahead of its commit: nobody uses it until the log says so."""
        self._states = (before, after)

    def wake(self) -> None:
        """Have the thread work if there is something worth doing; called with `changing` held."""
        newest = self._states[-1]
        if self._stopped.is_set() or self._thread is not None:
            return
        if newest.upkeep() is None and not self._checkpoints.due(newest):
            return
        self._thread = threading.Thread(target=self._run, name="niru-store-upkeep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, wait for its end, and write a checkpoint if one is due; states stay."""
        self._stopped.set()
        with self.changing:
            thread = self._thread
        if thread is not None:
            thread.join()
        try:
            if self._states and self._checkpoints.due(self._states[-1], at_end=True):
                self._checkpoints.write(self._newest())
        except StoreError as err:
            _log.warning("store_checkpoint_failed error=%s", err)

    def forget(self) -> None:
        """Release the memory of the states."""
        self._states = ()

    def _run(self) -> None:
        _be_nice()
        try:
            while self._improved():
                pass
        except Exception:  # noqa: BLE001  # told, once, where it is handled: the store goes on without
            _log.exception("store_upkeep_failed: searches stay right, but get slower")
            # it would only fail again; `_thread` stays, so that nobody tries

    def _improved(self) -> bool:
        """Do what is worth doing; return False, with the thread signed off, if nothing is."""
        with self.changing:
            before = self._newest()
            work = None if self._stopped.is_set() else before.upkeep()
            due = not self._stopped.is_set() and self._checkpoints.due(before)
            if work is None and not due:
                self._thread = None
                return False
        if work is None:
            self._checkpoints.write(before)
            return True
        began = time.monotonic()
        made = work(before, self._stopped.is_set)
        if not self._stopped.is_set():
            self._put(made, before)
            _log.debug("store_upkeep rows=%d seconds=%.3f", len(made), time.monotonic() - began)
        return True

    def _put(self, made: Snapshot, before: Snapshot) -> None:
        """Have `made`, which was made from `before`, take the newest state's place.

        What was written meanwhile is added beside the writers, round by round, so that they wait for the last few
        changes only.
        """
        for _ in range(_ROUNDS):
            with self.changing:
                newest = self._newest()
            if newest.changes_since(before) <= _FEW:
                break
            made, before = made.followed_by(before, newest), before.grown_to(newest)
        with self.changing:
            self._states = (made.followed_by(before, self._newest()),)

    def _newest(self) -> Snapshot:
        """Return the committed state; called with `changing` held."""
        newest = self.at(self._watermark())
        if newest is None:
            raise StoreError("the store's file was put back to an earlier state: close the store and open it again")
        return newest


def _be_nice() -> None:
    """Let other threads go first, where the system gives each thread a priority of its own."""
    if hasattr(os, "setpriority") and threading.get_native_id() != os.getpid():
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        except OSError as err:
            _log.debug("store_upkeep_not_nice error=%s", err)

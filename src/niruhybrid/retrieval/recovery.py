"""Indexes from a checkpoint and the log, as far as the checkpoint goes: opening, catching up, writing the next one."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from niruhybrid.errors import StoreCorruptError, StoreError
from niruhybrid.retrieval import checkpoint
from niruhybrid.retrieval.log import Log, Session
from niruhybrid.retrieval.snapshot import Additions, Snapshot

__all__ = ("Checkpoints", "Recovery", "caught_up", "opened")

_log = logging.getLogger(__name__)

_AT_ONCE = 4096
_JOURNAL = 4_000_000  # entries; as postings they need less memory
_FEWEST = 1024  # rows since the last checkpoint that are worth another: so many, and a share of all
_SHARE, _SHARE_AT_END = 8, 100


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a store's indexes came to be when it was opened.

    Attributes:
        checkpoint: watermark of the file they were read from; None if all were built from the log.
        added: documents that were indexed anew.
        removed: documents that the file had and the log has not.
        problem: why a file was not used; "" if none was missing or damaged.
    """

    checkpoint: int | None
    added: int
    removed: int
    problem: str


def opened(path: Path | None, session: Session) -> tuple[Snapshot, Recovery]:
    """Return the snapshot of the log's present state, and how it was made.

    Raises:
        StoreCorruptError: the log lacks a vector, or has a damaged one.
    """
    snapshot, problem = Snapshot.empty(0), ""
    name = session.checkpoint() if path is not None else None
    if path is not None and name is not None:
        try:
            snapshot = checkpoint.read(checkpoint.file_of(path, name))
        except checkpoint.CheckpointError as err:
            problem = f"index {name} was not used, {err}: all indexes were built from the log"
            _log.warning("store_indexes_rebuilt checkpoint=%s reason=%s", name, err)
    before, used = len(snapshot), snapshot.watermark if len(snapshot.rows) else None
    snapshot = _without_removed(snapshot, session)
    removed = before - len(snapshot)
    snapshot = caught_up(snapshot, session)
    return snapshot, Recovery(used, len(snapshot) + removed - before, removed, problem)


def caught_up(snapshot: Snapshot, session: Session) -> Snapshot:
    """Return the snapshot with all later documents of the log.

    Raises:
        StoreCorruptError: the log lacks a vector, or has a damaged one.
    """
    state = session.state
    last = int(snapshot.rows.items[-1]) if len(snapshot.rows) else 0
    while found := session.indexed(last, _AT_ONCE):
        rows, terms, metadata, blobs, *owners = zip(*found, strict=True)  # without owners, each row is its own
        if any(len(blob) != 4 * (state.dimension or 0) for blob in blobs):
            raise StoreCorruptError(f"a vector of rows {rows[0]} to {rows[-1]} has not the dimension {state.dimension}")
        vectors = np.frombuffer(b"".join(blobs), np.float32).reshape(len(rows), -1)
        snapshot = snapshot.changed(state.watermark, {}, Additions(rows, vectors, terms, metadata, *owners))
        if snapshot.lexical.unmerged > _JOURNAL:
            snapshot = snapshot.without_journal()
        last = rows[-1]
    return snapshot.changed(state.watermark, {}, Additions.nothing())


def _without_removed(snapshot: Snapshot, session: Session) -> Snapshot:
    """Return the snapshot without what the log has no longer."""
    if not len(snapshot.rows):
        return snapshot
    kept = np.isin(snapshot.rows.items, np.array(session.rows(), np.int64), assume_unique=True)
    gone = np.flatnonzero(snapshot.live.items & ~kept)
    if not len(gone):
        return snapshot
    terms = snapshot.lexical.terms_of(gone)
    removed = {int(snapshot.rows.items[slot]): terms[slot] for slot in gone.tolist()}
    return snapshot.changed(snapshot.watermark, removed, Additions.nothing())


class Checkpoints:
    """Writes a store's checkpoints, when they are worth it. One thread at a time.

    Args:
        path: the store's file; None for a store in memory, which has none.
        log: the store's log.
        last: the highest row in the present checkpoint; 0 without one.
    """

    def __init__(self, path: Path | None, log: Log, last: int) -> None:
        self._path = path
        self._log = log
        self._last = last

    def due(self, snapshot: Snapshot, *, at_end: bool = False) -> bool:
        """Whether so much has been written since the last one that opening would take long.

        Args:
            snapshot: the newest state.
            at_end: whether this is the last chance for it.
        """
        since = (int(snapshot.rows.items[-1]) if len(snapshot.rows) else 0) - self._last
        return self._path is not None and since > max(_FEWEST, len(snapshot) // (_SHARE_AT_END if at_end else _SHARE))

    def write(self, snapshot: Snapshot) -> None:
        """Write one, have the log name it, and remove the others; a failure is logged, and costs time at opening."""
        if self._path is None:
            return
        self._last = int(snapshot.rows.items[-1])
        try:
            name = checkpoint.write(self._path, snapshot.without_journal())
            with self._log.write() as session:
                session.set_checkpoint(name)
            checkpoint.remove_others(self._path, name)
        except (OSError, StoreError) as err:
            _log.warning("store_checkpoint_failed watermark=%d error=%s", snapshot.watermark, err)

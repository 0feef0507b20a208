"""Indexes from the log: all of them, or what they miss."""

import numpy as np

from niruhybrid.errors import StoreCorruptError
from niruhybrid.retrieval.log import Session
from niruhybrid.retrieval.snapshot import Additions, Snapshot

__all__ = ("caught_up",)

_AT_ONCE = 4096


def caught_up(snapshot: Snapshot, session: Session) -> Snapshot:
    """Return the snapshot of the log's present state, made from an older one.

    Raises:
        StoreCorruptError: the log lacks a vector, or has a damaged one.
    """
    state = session.state
    last = int(snapshot.rows.items[-1]) if len(snapshot.rows) else 0
    while found := session.indexed(last, _AT_ONCE):
        rows, terms, metadata, blobs = zip(*found, strict=True)
        if any(len(blob) != 4 * (state.dimension or 0) for blob in blobs):
            raise StoreCorruptError(f"a vector of rows {rows[0]} to {rows[-1]} has not the dimension {state.dimension}")
        vectors = np.frombuffer(b"".join(blobs), np.float32).reshape(len(rows), -1)
        snapshot = snapshot.changed(state.watermark, {}, Additions(rows, vectors, terms, metadata))
        last = rows[-1]
    return snapshot.changed(state.watermark, {}, Additions.nothing())

"""The write-ahead log stays bounded while searches follow each other without a gap."""

import threading
from pathlib import Path

import numpy as np
import pytest

from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, SearchRequest, Vector

DIM = 256
WRITTEN = 160 << 20
BOUND = 64 << 20


def vectors(count: int, seed: int) -> Vector:
    made: Vector = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return made


@pytest.mark.slow
def test_the_write_ahead_log_stays_bounded_while_searches_overlap(tmp_path: Path) -> None:
    path, text, done = tmp_path / "notes.db", "word " * 20_000, threading.Event()
    requests = [SearchRequest(vector, ["word"], 100) for vector in vectors(8, 0)]
    failed: list[BaseException] = []

    def search() -> None:
        try:
            while not done.is_set():
                assert len(store.search(requests)) == len(requests)
        except BaseException as err:  # noqa: BLE001  # told by the test
            failed.append(err)

    with EmbeddedStore(path) as store:
        store.upsert([IndexEntry(Document(f"d{n}", "word"), one, ["word"]) for n, one in enumerate(vectors(8000, 1))])
        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        peak = 0
        try:
            for n in range(WRITTEN // (len(text) * 10)):
                far = vectors(10, n) / 1000  # no hits: searches need not begin anew
                documents = [Document(f"new{k}", text) for k in range(10)]
                store.upsert([IndexEntry(one, v, ["text"]) for one, v in zip(documents, far, strict=True)])
                peak = max(peak, path.with_name("notes.db-wal").stat().st_size)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failed == []
    assert peak < BOUND

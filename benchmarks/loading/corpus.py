"""What is asked, and of what: real passages and questions, and a store of them that is filled once and kept."""

import atexit
import contextlib
import gzip
import json
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _report import eval_data

COLLECTIONS = ("cranfield", "cisi", "medline", "chunking-eval-passages", "kenya-constitution")
STORED = 5_000
BATCH = 64

_folders = contextlib.ExitStack()
atexit.register(_folders.close)


def passages() -> list[dict[str, str]]:
    """Return the passages that are in every store: id, title and text, all texts different."""
    return list(islice(_different(_read(COLLECTIONS)), STORED))


def more_passages(count: int) -> list[dict[str, str]]:
    """Return passages that are in no store yet, for an ingest: the rest of the collections, and meetings in pieces.

    They are shuffled, always the same way, so that those of any few seconds are about as long as those of any others.
    """
    rest = islice(_different(_read(COLLECTIONS)), STORED, None)
    found = [*islice(rest, count)]
    found += islice(_different(_meetings()), count - len(found))
    random.Random(0).shuffle(found)
    return found


def questions() -> list[str]:
    """Return real questions that people asked a search engine, each once."""
    with gzip.open(eval_data("replay", "queries_nq_open_google.txt.gz"), "rt", encoding="utf-8") as file:
        return [text for text in dict.fromkeys(line.strip() for line in file) if text]


def encoded(documents: Sequence[dict[str, str]]) -> Path:
    """Return a NumPy file of the documents' vectors; it is kept, so this takes its time once."""
    from niruhybrid.settings import library_version

    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "niruhybrid", "bench-load")
    key = sha256(json.dumps([library_version(), *documents]).encode()).hexdigest()[:16]
    vectors = root / f"{key}.npy"
    if not vectors.exists():
        print(f"encoding {len(documents):,} passages, once", flush=True)
        root.mkdir(parents=True, exist_ok=True)
        texts = [f"{each['title']}\n{each['text']}".strip() for each in documents]
        parts = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), spawned, initializer=_load) as pool:
            np.save(vectors, np.concatenate(list(pool.map(_encode, parts))))
    return vectors


def filled_store(folder: Path, documents: Sequence[dict[str, str]], vectors: Path) -> Path:
    """Make a store of documents and their vectors in an empty folder and return its file.

    Nobody may write to it: see `fresh_copy`.
    """
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder
    from niruhybrid.retrieval.store import EmbeddedStore
    from niruhybrid.types import Document, IndexEntry

    terms, rows, path = HybridEncoder().terms, np.load(vectors), folder / "load.db"
    folder.mkdir()
    with EmbeddedStore(path) as store:
        for at in range(0, len(documents), BATCH):
            store.upsert(
                [
                    IndexEntry(Document(**each), row, terms(f"{each['title']} {each['text']}"))
                    for each, row in zip(documents[at : at + BATCH], rows[at : at + BATCH], strict=True)
                ]
            )
    return path


def fresh_copy(store: Path) -> Path:
    """Return a new folder, gone at this process's end, with a copy of a store and of what lies beside it."""
    folder = Path(_folders.enter_context(tempfile.TemporaryDirectory()))
    shutil.copytree(store.parent, folder, dirs_exist_ok=True)
    return folder


_worker: dict[str, Any] = {}


def _load() -> None:
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder

    _worker["encoder"] = HybridEncoder()


def _encode(texts: list[str]) -> Any:
    return _worker["encoder"].encode(texts)


def _read(collections: Sequence[str]) -> Iterator[dict[str, str]]:
    for name in collections:
        for path in sorted(eval_data(name).glob("corpus.jsonl*")):
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rt", encoding="utf-8") as file:
                for line in file:
                    each = json.loads(line)
                    yield {"id": f"{name}-{each['_id']}", "title": each["title"], "text": each["text"]}


def _meetings() -> Iterator[dict[str, str]]:
    from niruhybrid.corpus.passages import passages as cut

    for each in _read(("qmsum-meetings",)):
        for number, text in enumerate(cut(each["text"])):
            yield {"id": f"{each['id']}-{number}", "title": each["title"], "text": text}


def _different(found: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    for each in found:
        if each["text"].strip() and each["text"] not in seen:
            seen.add(each["text"])
            yield each

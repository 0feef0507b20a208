"""The same few operations on each embedded store, set up as its documentation advises for one process and a folder."""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks.storing.corpus import Question

from niruhybrid.types import IndexEntry

Batches = Iterable[Sequence[IndexEntry]]
"""Of a thousand rows each."""


class Contender(Protocol):
    """What the loads ask of a store."""

    hybrid: bool

    def load(self, batches: Batches) -> None:
        """Take very many rows at first."""

    def ready(self) -> None:
        """Do what the documentation advises after loading: indexes, a first save."""

    def write(self, rows: Sequence[IndexEntry]) -> None:
        """Take some rows; they are acknowledged when it returns."""

    def search(self, question: Question) -> list[str]:
        """Return the ten best ids, hybrid where it can."""

    def ids(self) -> set[str]:
        """Return all ids."""


class Niruhybrid:
    """This library's store."""

    hybrid = True

    def __init__(self, folder: Path) -> None:
        from niruhybrid.retrieval.store import EmbeddedStore

        self.store = EmbeddedStore(folder / "store.niru")

    def load(self, batches: Batches) -> None:
        for rows in batches:
            self.store.upsert(rows)

    def ready(self) -> None:
        from benchmarks.storing.ours import settled

        settled()

    def write(self, rows: Sequence[IndexEntry]) -> None:
        self.store.upsert(rows)

    def search(self, question: Question) -> list[str]:
        from benchmarks.storing.ours import asked

        return [hit.id for hit in self.store.search([asked(question)])[0].hits]

    def ids(self) -> set[str]:
        return set(self.store.ids())


class Lancedb:
    """IVF_PQ, refined, and a full-text index, reciprocal ranks fused; rows that are not indexed yet are scanned."""

    hybrid = True

    def __init__(self, folder: Path) -> None:
        import lancedb
        from lancedb.rerankers import RRFReranker

        self.fusion = RRFReranker()
        self.base = lancedb.connect(folder)
        self.table: Any = self.base.open_table("rows") if "rows" in self.base.list_tables().tables else None

    def load(self, batches: Batches) -> None:
        for rows in batches:
            if self.table is None:
                self.table = self.base.create_table("rows", self._data(rows))
            else:
                self.table.add(self._data(rows))

    def ready(self) -> None:
        self.table.create_index(metric="cosine", vector_column_name="vector")
        self.table.create_fts_index("text", use_tantivy=False)
        self.table.optimize()

    def write(self, rows: Sequence[IndexEntry]) -> None:
        self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(self._data(rows))

    def search(self, question: Question) -> list[str]:
        asked = self.table.search(query_type="hybrid").vector(question.vector).text(question.text)
        found = asked.rerank(self.fusion).refine_factor(10).select(["id"]).limit(10).to_list()
        return [row["id"] for row in found]

    def ids(self) -> set[str]:
        return set(self.table.to_arrow().column("id").to_pylist())

    @staticmethod
    def _data(rows: Sequence[IndexEntry]) -> Any:
        import pyarrow as pa

        dim = rows[0].vector.size
        flat = pa.array(np.concatenate([row.vector for row in rows]), pa.float32())
        return pa.table(
            {
                "id": [row.document.id for row in rows],
                "text": [row.document.text for row in rows],
                "vector": pa.FixedSizeListArray.from_arrays(flat, dim),
            }
        )


class Chroma:
    """Its HNSW index with cosine distance. It has no hybrid search in one process: meaning alone."""

    hybrid = False

    def __init__(self, folder: Path) -> None:
        import chromadb

        client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        self.rows = client.get_or_create_collection(
            "rows", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def load(self, batches: Batches) -> None:
        for rows in batches:
            self.rows.add(**self._data(rows))

    def ready(self) -> None:
        pass

    def write(self, rows: Sequence[IndexEntry]) -> None:
        self.rows.upsert(**self._data(rows))

    def search(self, question: Question) -> list[str]:
        found = self.rows.query(query_embeddings=question.vector[None], n_results=10, include=["documents"])
        return list(found["ids"][0])

    def ids(self) -> set[str]:
        return set(self.rows.get(include=[])["ids"])

    @staticmethod
    def _data(rows: Sequence[IndexEntry]) -> dict[str, Any]:
        return {
            "ids": [row.document.id for row in rows],
            "embeddings": np.array([row.vector for row in rows]),
            "documents": [row.document.text for row in rows],
            "metadatas": [dict(row.document.metadata) for row in rows],
        }


class Txtai:
    """faiss (IVF as it chooses) and its own BM25, texts in SQLite, indexed in one go; `save` writes everything anew.

    A write is acknowledged without a `save`, which takes as long as the store is large. A search while another thread
    writes makes the write fail, so they take turns.
    """

    hybrid = True

    def __init__(self, folder: Path) -> None:
        os.environ["ALLOW_RESOLVE_TRANSFORM"] = "True"  # else it takes no vectors that are known already
        from txtai import Embeddings

        self.folder = folder / "index"
        transform = f"{__name__}.known_vectors"
        self.rows = Embeddings({"method": "external", "transform": transform, "content": True, "hybrid": True})
        if self.folder.exists():
            self.rows.load(str(self.folder))
        self.turn = threading.Lock()

    def load(self, batches: Batches) -> None:
        self.rows.index(row for rows in batches for row in self._data(rows))

    def ready(self) -> None:
        self.rows.save(str(self.folder))

    def write(self, rows: Sequence[IndexEntry]) -> None:
        with self.turn:
            self.rows.upsert(list(self._data(rows)))

    def search(self, question: Question) -> list[str]:
        _known[question.text] = question.vector
        with self.turn:
            return [str(row["id"]) for row in self.rows.search(question.text, 10)]

    def ids(self) -> set[str]:
        return {str(row["id"]) for row in self.rows.search("SELECT id FROM txtai", 10_000_000)}

    @staticmethod
    def _data(rows: Sequence[IndexEntry]) -> Iterable[tuple[str, str, None]]:
        for row in rows:
            _known[row.document.text] = row.vector
            yield row.document.id, row.document.text, None


_known: dict[str, Any] = {}


def known_vectors(texts: Sequence[str]) -> Any:
    """Return the given vectors of texts, which txtai asks for one text after another."""
    return np.array([_known[text] for text in texts])


CONTENDERS: dict[str, type[Any]] = {
    "niruhybrid": Niruhybrid,
    "lancedb": Lancedb,
    "chromadb": Chroma,
    "txtai": Txtai,
}

"""The store on a file, reopened at any moment, against a dictionary."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from niruhybrid.config import StoreConfig
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, SearchRequest, Vector

IDS = st.sampled_from([f"d{n}" for n in range(12)])
WORDS = st.lists(st.sampled_from(["ash", "birch", "cedar", "日本", "éclair"]), max_size=4)
VECTORS = st.lists(st.integers(-3, 3), min_size=4, max_size=4).map(lambda numbers: np.array([*numbers, 1], np.float32))
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not text.isspace())
METADATA = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.integers(-9, 9), max_size=2)


@st.composite
def entries(draw: st.DrawFn) -> IndexEntry:
    document = Document(draw(IDS), draw(TEXTS), title=draw(st.sampled_from(["", "T"])), metadata=draw(METADATA))
    return IndexEntry(document, draw(VECTORS), draw(WORDS))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, IndexEntry] = {}
        self.watermark = 0
        self.store = self.opened()

    def opened(self) -> EmbeddedStore:
        return EmbeddedStore(Path(self.folder.name) / "store", config=StoreConfig(dense_weight=1.0))

    @rule(batch=st.lists(entries(), min_size=1, max_size=6))
    def upsert(self, batch: list[IndexEntry]) -> None:
        self.watermark += 1
        assert self.store.upsert(batch) == self.watermark
        self.model.update({entry.document.id: entry for entry in batch})

    @rule(ids=st.lists(IDS, max_size=4))
    def delete(self, ids: list[str]) -> None:
        gone = {name for name in ids if self.model.pop(name, None)}
        self.watermark += bool(gone)
        assert self.store.delete(ids) == (len(gone), self.watermark)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.opened()

    @rule(ids=st.lists(IDS, max_size=4))
    def get(self, ids: list[str]) -> None:
        expected = [self.model[name].document if name in self.model else None for name in ids]
        assert self.store.get(ids) == expected

    @rule(vector=VECTORS, top_k=st.integers(1, 15))
    def search_dense(self, vector: Vector, top_k: int) -> None:
        [answer] = self.store.search([SearchRequest(vector, [], top_k)])
        exact = {name: float(entry.vector @ vector) for name, entry in self.model.items()}
        best = sorted(exact.values(), reverse=True)[:top_k]
        assert [exact[hit.id] for hit in answer.hits] == best
        assert len({hit.id for hit in answer.hits}) == len(best)
        assert all(hit.text == self.model[hit.id].document.text for hit in answer.hits)

    @rule(words=WORDS)
    def search_words(self, words: list[str]) -> None:
        [answer] = self.store.search([SearchRequest(None, words, 20)])
        matching = {name for name, entry in self.model.items() if set(words) & set(entry.terms)}
        assert {hit.id for hit in answer.hits} == matching

    @invariant()
    def counts_agree(self) -> None:
        assert self.store.count() == len(self.model)
        assert set(self.store.ids()) == self.model.keys()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStoreModel = StoreMachine.TestCase

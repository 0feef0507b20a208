"""The store on a file, reopened at any moment, against a dictionary."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from niruhybrid.config import StoreConfig
from niruhybrid.errors import InvalidPassageError
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


def whole(parts: list[IndexEntry]) -> Document:
    text = ""
    for part in parts:
        text = text[: part.start] + part.document.text
    return replace(parts[0].document, text=text)


@st.composite
def appended(draw: st.DrawFn) -> tuple[IndexEntry, int]:
    """Return a passage, and how far it reaches back into what is before it, in tenths."""
    return draw(entries()), draw(st.integers(0, 3))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, list[IndexEntry]] = {}
        self.watermark = 0
        self.store = self.opened()

    def opened(self) -> EmbeddedStore:
        return EmbeddedStore(Path(self.folder.name) / "store", config=StoreConfig(dense_weight=1.0))

    @rule(batch=st.lists(entries(), min_size=1, max_size=6))
    def upsert(self, batch: list[IndexEntry]) -> None:
        self.watermark += 1
        assert self.store.upsert(batch) == self.watermark
        self.model.update({entry.document.id: [entry] for entry in batch})

    @rule(passage=appended(), at=st.integers(1, 3))
    def append(self, passage: tuple[IndexEntry, int], at: int) -> None:
        entry, back = passage
        name = entry.document.id
        known = self.model.get(name, [])[:at]
        last = known[-1] if known else entry
        start = last.start + len(last.document.text) * (10 - back) // 10
        part = replace(entry, part=max(1, len(known)), start=start)
        if not known:
            with pytest.raises(InvalidPassageError):
                self.store.upsert([part])
            return
        self.watermark += 1
        assert self.store.upsert([part]) == self.watermark
        self.model[name] = [*known, part]

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
        assert self.store.get(ids) == [whole(self.model[name]) if name in self.model else None for name in ids]

    @rule(vector=VECTORS, top_k=st.integers(1, 15))
    def search_dense(self, vector: Vector, top_k: int) -> None:
        [answer] = self.store.search([SearchRequest(vector, [], top_k)])
        exact = {name: max(float(part.vector @ vector) for part in parts) for name, parts in self.model.items()}
        best = sorted(exact.values(), reverse=True)[:top_k]
        assert [exact[hit.id] for hit in answer.hits] == best
        assert len({hit.id for hit in answer.hits}) == len(best)
        for hit in answer.hits:
            places = {(part.start, part.start + len(part.document.text)): part for part in self.model[hit.id]}
            part = places[hit.span]
            assert (hit.text, hit.title) == (part.document.text, part.document.title) or len(places) < len(
                self.model[hit.id]
            )

    @rule(words=WORDS)
    def search_words(self, words: list[str]) -> None:
        [answer] = self.store.search([SearchRequest(None, words, 20)])
        matching = {name for name, parts in self.model.items() if any(set(words) & set(part.terms) for part in parts)}
        assert {hit.id for hit in answer.hits} == matching

    @invariant()
    def counts_agree(self) -> None:
        assert self.store.count() == len(self.model)
        assert sorted(self.store.ids()) == self.store.list_ids(20) == sorted(self.model)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStoreModel = StoreMachine.TestCase

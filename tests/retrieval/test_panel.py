"""The panel's bounds leave out no pair that the plain formula has: against brute force, and against the search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.config import StoreConfig
from niruhybrid.retrieval import panel
from niruhybrid.retrieval.lexical import LexicalIndex
from niruhybrid.retrieval.panel import Panel
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.types import Document, IndexEntry, Match, SearchMode, SearchRequest, StandingQuery, Vector

WORDS = ["ash", "birch", "cedar", "fir", "oak", "pine"]
TERMS = st.lists(st.sampled_from(WORDS), max_size=5)
MODES = st.sampled_from(["hybrid", "dense", "lexical"])
VECTORS = st.lists(st.integers(-4, 4), min_size=6, max_size=6).map(lambda numbers: np.array([*numbers, 1], np.float32))
UNITS = VECTORS.map(lambda vector: vector / np.linalg.norm(vector))
QUERIES = st.builds(StandingQuery, st.just("q"), st.none() | UNITS, TERMS, st.floats(0.0, 1.0, width=16), mode=MODES)
GONE = st.sets(st.integers(0, 11))
DOCUMENTS = st.lists(st.tuples(UNITS, TERMS), min_size=1, max_size=6)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have few queries and documents make several blocks."""
    monkeypatch.setattr(panel, "_BLOCK", 3)
    monkeypatch.setattr(panel, "_DOCUMENTS", 2)
    monkeypatch.setattr(panel, "_KEPT", 0.1)  # few documents change the weights of terms much


def searched(
    queries: list[StandingQuery], earlier: list[tuple[Vector, list[str]]], batch: list[tuple[Vector, list[str]]]
) -> dict[tuple[int, int], float]:
    """Return the score that a search gives each new document that reaches a query's threshold."""
    with EmbeddedStore(config=StoreConfig(dense_weight=0.7)) as store:
        entries = [
            IndexEntry(Document(f"d{n}", "x"), vector, terms) for n, (vector, terms) in enumerate(earlier + batch)
        ]
        store.upsert(entries)
        requests = [SearchRequest(query.vector, query.terms, 1000, mode=query.mode) for query in queries]
        found = {}
        for slot, answer in enumerate(store.search(requests)):
            for hit in answer.hits:
                if (place := int(hit.id[1:]) - len(earlier)) >= 0:
                    found[slot, place] = hit.score
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
@settings(max_examples=60, deadline=None)
@given(
    queries=st.lists(QUERIES, min_size=1, max_size=12),
    gone=st.sets(st.integers(0, 11)),
    earlier=DOCUMENTS,
    batch=DOCUMENTS,
)
def test_pairs_are_those_of_a_search(
    queries: list[StandingQuery],
    gone: set[int],
    earlier: list[tuple[Vector, list[str]]],
    batch: list[tuple[Vector, list[str]]],
) -> None:
    made = Panel(0.7)
    for query in queries:
        made.add(query)
    made.compact(np.array([slot not in gone for slot in range(len(queries))]))
    queries = [query for slot, query in enumerate(queries) if slot not in gone]
    for query in queries[:2]:  # and more come afterwards
        made.add(query)
    queries += queries[:2]
    lexical = LexicalIndex.of({}).changed({}, [terms for _, terms in earlier])
    least = np.array([query.min_score for query in queries])
    made.pairs(np.array([vector for vector, _ in earlier]), [terms for _, terms in earlier], lexical, least)
    lexical = lexical.changed({}, [terms for _, terms in batch])
    vectors = np.array([vector for vector, _ in batch])
    pairs = made.pairs(vectors, [terms for _, terms in batch], lexical, least)
    expected = searched(queries, earlier, batch)
    got = {(slot, place): score for slot, place, score in zip(*(column.tolist() for column in pairs), strict=True)}
    assert list(got) == sorted(got)
    for at, score in expected.items():
        if abs(score - least[at[0]]) > 1e-5:  # rounding decides there
            assert (at in got) == (score >= least[at[0]]), (at, score)
    assert got == pytest.approx({at: expected[at] for at in got}, abs=1e-5)


def passages(rng: np.random.Generator, name: str, first: int, count: int) -> list[IndexEntry]:
    """Return consecutive passages of a document, from a part on."""
    made = []
    for part in range(first, first + count):
        vector = rng.standard_normal(7).astype(np.float32)
        terms = [str(word) for word in rng.choice(WORDS, rng.integers(0, 9))]
        made.append(IndexEntry(Document(name, "x"), vector / np.linalg.norm(vector), terms, part, part))
    return made


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_of_documents_of_several_passages_a_standing_query_hears_what_a_search_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    told: dict[str, dict[str, float]] = {}
    modes: list[SearchMode] = ["hybrid", "dense", "lexical"]
    with EmbeddedStore(config=StoreConfig(dense_weight=0.7)) as store:
        waiting = []
        for n in range(9):
            vector = rng.standard_normal(7).astype(np.float32)
            terms = [str(word) for word in rng.choice([*WORDS, "unknown"], rng.integers(1, 4))]
            waiting.append(StandingQuery(f"q{n}", vector / np.linalg.norm(vector), terms, 0.1, mode=modes[n % 3]))

            def tell(match: Match) -> None:
                told.setdefault(match.query_id, {})[match.hit.id] = match.hit.score

            store.subscribe(waiting[-1], tell)
        parts: dict[str, int] = {}
        for _ in range(12):
            told.clear()
            batch, changed = list[IndexEntry](), {f"d{n}" for n in rng.integers(0, 8, 3)}
            for name in sorted(changed):
                first = int(rng.integers(0, parts.get(name, 0) + 1))
                count = int(rng.integers(1, 4))
                batch += passages(rng, name, first, count)
                parts[name] = first + count
            if rng.random() < 0.2 and (gone := sorted(parts.keys() - changed)[:1]):
                store.delete(gone)
                parts.pop(gone[0])
            store.upsert(batch)
            new = {(entry.document.id, entry.start) for entry in batch}
            for query in waiting:
                request = SearchRequest(query.vector, query.terms, 100, mode=query.mode)
                [answer] = store.search([request])
                heard = told.get(query.id, {})
                for hit in answer.hits:
                    if (hit.id, hit.span[0]) in new and abs(hit.score - 0.1) > 1e-5:  # else an older passage is best
                        assert (hit.id in heard) == (hit.score >= 0.1)
                        assert heard.get(hit.id, hit.score) == pytest.approx(hit.score, abs=1e-6)
                assert heard.keys() <= {hit.id for hit in answer.hits}

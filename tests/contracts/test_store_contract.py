"""What every store promises. A new store joins by one more line in `STORES`."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niruhybrid.config import StoreConfig
from niruhybrid.errors import (
    ClosedError,
    InvalidPassageError,
    InvalidSettingError,
    InvalidVectorError,
    UnknownWatermarkError,
)
from niruhybrid.ports import Store
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Match, SearchMode, SearchRequest, StandingQuery

POWER = StoreConfig(durability="power")


def postgres_store(request: pytest.FixtureRequest) -> Store:
    from niruhybrid.retrieval.postgres import PostgresStore  # only where there is a server

    return PostgresStore(request.getfixturevalue("postgres_server").emptied_database())


STORES: dict[str, Callable[[pytest.FixtureRequest], Store]] = {
    "memory": lambda _: EmbeddedStore(),
    "file": lambda request: EmbeddedStore(folder_of(request) / "store.niru"),
    "file, synced": lambda request: EmbeddedStore(folder_of(request) / "store.niru", config=POWER),
    "postgres": postgres_store,
}


SERVED = pytest.param("postgres", marks=pytest.mark.integration)


def folder_of(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("tmp_path")
    return folder


ENCODER = HashEncoder(dimension=32)


def entry(name: str, text: str, **more: object) -> IndexEntry:
    document = Document(name, text, **more)  # type: ignore[arg-type]  # passed on as given
    return IndexEntry(document, ENCODER.encode([text])[0], ENCODER.terms(f"{document.title} {text}"))


def asked(text: str, top_k: int = 5, *, dense: bool = True, words: bool = True) -> SearchRequest:
    vector = ENCODER.encode([text])[0] if dense else None
    return SearchRequest(vector, ENCODER.terms(text) if words else [], top_k)


def standing(text: str, min_score: float | None = 0.5, **more: Any) -> StandingQuery:
    return StandingQuery("q", ENCODER.encode([text])[0], ENCODER.terms(text), min_score, **more)


def found(store: Store, request: SearchRequest) -> list[str]:
    return [hit.id for hit in store.search([request])[0].hits]


@pytest.fixture(params=[name if name != "postgres" else SERVED for name in STORES])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = STORES[request.param](request)
    yield made
    made.close()


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.count() == 0
    assert list(store.ids()) == []
    assert store.get(["a"]) == [None]
    assert store.delete(["a"]) == (0, 0)
    [answer] = store.search([asked("anything")])
    assert (answer.hits, answer.watermark) == ((), 0)


def test_an_entry_is_found_as_soon_as_it_is_acknowledged(store: Store) -> None:
    watermark = store.upsert([entry("a", "river delta"), entry("b", "mountain pass")])
    [answer] = store.search([asked("river delta")])
    assert answer.watermark == watermark
    assert [hit.id for hit in answer.hits] == ["a", "b"]


def test_a_hit_carries_all_of_its_document(store: Store) -> None:
    text, metadata = "naïve “text” \0 日本\n", {"page": 3, "tags": ["x", None], "deep": {"ü": 1.5}}
    store.upsert([entry("ид-1", text, title="Títle", metadata=metadata)])
    [hit] = store.search([asked("text", 1)])[0].hits
    assert (hit.id, hit.rank, hit.text, hit.title, hit.metadata) == ("ид-1", 1, text, "Títle", metadata)
    assert 0.0 <= hit.score <= 1.0


def test_ranks_count_from_one_and_scores_descend(store: Store) -> None:
    store.upsert([entry(f"d{n}", f"alpha beta {n} {'gamma ' * n}") for n in range(20)])
    hits = store.search([asked("gamma alpha", 10)])[0].hits
    assert [hit.rank for hit in hits] == list(range(1, 11))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_alone_find_only_what_has_them(store: Store) -> None:
    store.upsert([entry("a", "zebra crossing"), entry("b", "level crossing"), entry("c", "harbour")])
    assert found(store, asked("zebra crossing", dense=False)) == ["a", "b"]
    assert found(store, asked("unknown", dense=False)) == []


def test_meaning_alone_finds_the_nearest(store: Store) -> None:
    store.upsert([entry(f"d{n}", f"word{n}") for n in range(30)])
    assert found(store, asked("word7", 1, words=False)) == ["d7"]


def test_a_title_is_searched_by_words(store: Store) -> None:
    store.upsert([entry("a", "plain", title="Zanzibar"), entry("b", "plain")])
    assert found(store, asked("zanzibar", dense=False)) == ["a"]


@pytest.mark.parametrize(
    "word", ["日本語", "мир", "straße", "नमस्ते", "x86", "c++", "o'neil", 'say"', "AND", "NEAR", "*", "a b", "a\0b"]
)
def test_any_term_is_found_as_it_was_given(store: Store, word: str) -> None:
    vector = ENCODER.encode(["v"])[0]
    store.upsert([IndexEntry(Document("a", "text"), vector, [word]), IndexEntry(Document("b", "text"), vector, ["q"])])
    assert found(store, SearchRequest(None, [word])) == ["a"]


def test_a_query_of_thousands_of_terms_is_answered(store: Store) -> None:
    store.upsert([entry("a", "first words"), entry("b", "nothing")])
    terms = ["first", *(f"t{n}" for n in range(5000))]
    assert [hit.id for hit in store.search([SearchRequest(None, terms)])[0].hits] == ["a"]


def test_a_replaced_document_is_gone_from_both_halves(store: Store) -> None:
    store.upsert([entry("a", "old wording"), entry("b", "other")])
    store.upsert([entry("a", "new phrase", title="T", metadata={"v": 2})])
    assert store.count() == 2
    assert found(store, asked("old wording", dense=False)) == []
    assert found(store, asked("new phrase", dense=False)) == ["a"]
    hits = store.search([asked("old wording", words=False)])[0].hits
    assert sorted(hit.text for hit in hits) == ["new phrase", "other"]


def test_the_last_of_a_batch_wins(store: Store) -> None:
    store.upsert([entry("a", "first"), entry("b", "middle"), entry("a", "second")])
    assert store.count() == 2
    assert found(store, asked("first", dense=False)) == []
    assert found(store, asked("second", dense=False)) == ["a"]


def test_a_deleted_document_is_gone_from_both_halves(store: Store) -> None:
    before = store.upsert([entry("a", "river"), entry("b", "lake")])
    assert store.delete(["a", "unknown", "a"]) == (1, before + 1)
    assert found(store, asked("river")) == ["b"]
    assert found(store, asked("river", dense=False)) == []
    assert store.get(["a"]) == [None]
    assert list(store.ids()) == ["b"]
    store.delete(["b"])
    assert (store.count(), found(store, asked("lake"))) == (0, [])


def test_get_returns_documents_in_the_order_asked(store: Store) -> None:
    kept = [Document("a", "one", title="A", metadata={"n": 1}), Document("b", "two")]
    store.upsert([IndexEntry(document, ENCODER.encode([document.text])[0], []) for document in kept])
    assert store.get(["b", "missing", "a", "b"]) == [kept[1], None, kept[0], kept[1]]


def test_a_document_without_text_comes_back_with_its_vector(store: Store) -> None:
    vector = ENCODER.encode(["v"])[0]
    store.upsert([IndexEntry(Document("a", "", embedding=vector), vector, [])])
    [document] = store.get(["a"])
    assert document is not None
    assert document.embedding is not None
    np.testing.assert_allclose(document.embedding, vector, atol=1e-6)


def test_each_change_has_its_watermark(store: Store) -> None:
    seen = [store.upsert([entry("a", "x")]), store.upsert([entry("b", "y"), entry("c", "z")]), store.delete(["a"])[1]]
    assert seen == sorted(set(seen))
    assert store.delete(["a"]) == (0, seen[-1])
    assert store.upsert([]) == seen[-1]
    assert store.search([asked("x")])[0].watermark == seen[-1]


def test_the_first_vector_sets_the_dimension(store: Store) -> None:
    store.upsert([entry("a", "x")])
    odd = np.ones(3, np.float32)
    with pytest.raises(InvalidVectorError, match=r"\(3,\).* 32"):
        store.upsert([entry("b", "y"), IndexEntry(Document("c", "z"), odd, [])])
    with pytest.raises(InvalidVectorError, match=r"\(3,\).* 32"):
        store.search([SearchRequest(odd, [])])
    assert list(store.ids()) == ["a"]


def test_vectors_of_one_batch_must_agree(store: Store) -> None:
    with pytest.raises(InvalidVectorError):
        store.upsert([entry("a", "x"), IndexEntry(Document("c", "z"), np.ones(3, np.float32), [])])
    assert store.count() == 0
    store.upsert([IndexEntry(Document("c", "z"), np.ones(3, np.float32), [])])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(store: Store, bad: float) -> None:
    store.upsert([entry("a", "x")])
    vector = np.full(32, bad, np.float32)
    with pytest.raises(InvalidVectorError, match="finite"):
        store.upsert([IndexEntry(Document("b", "y"), vector, [])])
    with pytest.raises(InvalidVectorError, match="finite"):
        store.search([SearchRequest(vector, [])])
    assert store.count() == 1


def test_a_batch_that_can_not_be_kept_changes_nothing(store: Store) -> None:
    watermark = store.upsert([entry("a", "river")])
    broken = IndexEntry(Document("c", "x"), ENCODER.encode(["x"])[0], ["\ud800"])
    with pytest.raises(UnicodeEncodeError):
        store.upsert([entry("a", "replaced"), entry("b", "lake"), broken])
    assert (list(store.ids()), store.upsert([])) == (["a"], watermark)
    assert found(store, asked("river")) == found(store, asked("river", dense=False)) == ["a"]
    assert store.upsert([entry("b", "lake")]) == watermark + 1
    assert sorted(found(store, asked("river lake", words=False))) == ["a", "b"]


def test_a_batch_is_answered_as_its_queries_would_be_alone(store: Store) -> None:
    store.upsert([entry(f"d{n}", f"word{n} word{n + 1} {'even' if n % 2 else 'odd'}") for n in range(400)])
    requests = [asked(f"word{n} even", 1 + n, dense=n % 3 > 0, words=n % 5 > 0) for n in range(70)]
    for request, answer in zip(requests, store.search(requests), strict=True):
        [alone] = store.search([request])
        assert [hit.id for hit in answer.hits] == [hit.id for hit in alone.hits]
        assert [hit.score for hit in answer.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-5)
    assert store.search([]) == []


def test_the_widest_search_returns_every_document(store: Store) -> None:
    store.upsert([entry(f"d{n}", f"word{n}") for n in range(1001)])
    assert len(set(found(store, asked("word1", 1000)))) == 1000


LANGUAGES = ["en", "sw", "fr"]
MODES: list[SearchMode] = ["hybrid", "dense", "lexical"]


def catalogued() -> list[IndexEntry]:
    """Return sixty documents with metadata: language, year and, some, tags and an author."""
    documents = []
    for n in range(60):
        metadata: dict[str, object] = {"lang": LANGUAGES[n % 3], "year": 1990 + n}
        if n % 4 == 0:
            metadata |= {"tags": ["a", f"t{n % 8}"], "author": {"name": f"N{n % 5}"}, "draft": n % 8 == 0, "none": None}
        documents.append(entry(f"d{n}", f"word{n} text", metadata=metadata))
    return documents


@pytest.fixture
def catalogue(store: Store) -> Store:
    """A store of these documents."""
    store.upsert(catalogued())
    return store


FILTERS: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"eq": {"lang": "sw"}}, lambda n: n % 3 == 1),
    ({"ne": {"lang": "sw"}}, lambda n: n % 3 != 1),
    ({"eq": {"year": 1995.0}}, lambda n: n == 5),
    ({"in": {"year": [1990, 1991, "1992"]}}, lambda n: n < 2),
    ({"in": {"year": []}}, lambda _: False),
    ({"range": {"year": {"gte": 2000, "lt": 2010}}}, lambda n: 10 <= n < 20),
    ({"range": {"year": {"gt": 2000.5}}}, lambda n: n >= 11),
    ({"range": {"lang": {"gt": "en", "lte": "fr"}}}, lambda n: n % 3 == 2),
    ({"range": {"lang": {"gt": 0}}}, lambda _: False),
    ({"exists": "tags"}, lambda n: n % 4 == 0),
    ({"exists": "none"}, lambda n: n % 4 == 0),
    ({"exists": "missing"}, lambda _: False),
    ({"eq": {"none": None}}, lambda n: n % 4 == 0),
    ({"eq": {"missing": None}}, lambda _: False),
    ({"eq": {"tags": "t4"}}, lambda n: n % 8 == 4),
    ({"ne": {"tags": "t4"}}, lambda n: n % 8 != 4),
    ({"eq": {"author.name": "N0"}}, lambda n: n % 20 == 0),
    ({"eq": {"draft": True}}, lambda n: n % 8 == 0),
    ({"eq": {"draft": 1}}, lambda _: False),
    ({"and": []}, lambda _: True),
    ({"or": []}, lambda _: False),
    ({"not": {"exists": "tags"}}, lambda n: n % 4 != 0),
    ({"and": [{"eq": {"lang": "en"}}, {"or": [{"eq": {"year": 1990}}, {"range": {"year": {"gt": 2040}}}]}]},
     lambda n: n % 3 == 0 and (n == 0 or n > 50)),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("wanted", "passes"), FILTERS, ids=[str(wanted) for wanted, _ in FILTERS])
def test_a_filter_lets_through_what_it_says(
    catalogue: Store, wanted: dict[str, Any], passes: Callable[[int], bool], mode: SearchMode
) -> None:
    request = replace(asked("text", 100), filter=wanted, mode=mode)
    assert sorted(found(catalogue, request)) == sorted(f"d{n}" for n in range(60) if passes(n))


def test_a_filter_sees_documents_as_they_are_now(catalogue: Store) -> None:
    request = replace(asked("text", 100), filter={"eq": {"lang": "sw"}})
    catalogue.upsert([entry("d1", "text", metadata={"lang": "en"}), entry("d2", "text", metadata={"lang": "sw"})])
    catalogue.delete(["d4"])
    assert sorted(found(catalogue, request)) == sorted(
        {f"d{n}" for n in range(60) if n % 3 == 1} - {"d1", "d4"} | {"d2"}
    )


def test_requests_of_a_batch_have_filters_of_their_own(catalogue: Store) -> None:
    requests = [replace(asked("text", 100), filter={"eq": {"lang": lang}}) for lang in (*LANGUAGES, "xx", "en")]
    assert [len(answer.hits) for answer in catalogue.search(requests)] == [20, 20, 20, 0, 20]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        [],
        "lang",
        {"eq": {"lang": "en"}, "ne": {"lang": "sw"}},
        {"near": {"lang": "en"}},
        {"eq": {"lang": ["en"]}},
        {"eq": {"a": 1, "b": 2}},
        {"eq": "lang"},
        {"in": {"lang": "en"}},
        {"in": {"lang": [["en"]]}},
        {"range": {"year": {}}},
        {"range": {"year": {"above": 3}}},
        {"range": {"year": {"gt": 3, "lt": "4"}}},
        {"range": {"year": {"gt": True}}},
        {"exists": ""},
        {"and": {"eq": {"lang": "en"}}},
        {"not": {}},
        {"or": [{"eq": {"lang": "en"}}, {"oops": 1}]},
    ],
)
def test_what_is_no_filter_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidSettingError, match="filter"):
        replace(asked("text"), filter=bad)


def test_a_filter_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"exists": "a"}
    for _ in range(40):
        deep = {"not": deep}
    with pytest.raises(InvalidSettingError, match="32 deep"):
        replace(asked("text"), filter=deep)


def test_a_mode_takes_one_half_only(store: Store) -> None:
    store.upsert([entry("a", "river delta"), entry("b", "river"), entry("c", "mountain")])
    assert found(store, replace(asked("river"), mode="lexical")) == ["b", "a"]
    assert len(found(store, replace(asked("river"), mode="dense"))) == 3
    assert found(store, replace(asked("river", dense=False), mode="dense")) == []
    with pytest.raises(InvalidSettingError, match="hybrid, dense, lexical"):
        replace(asked("x"), mode="both")  # type: ignore[arg-type]  # that is what is refused


def test_a_search_may_ask_for_a_write(store: Store) -> None:
    watermark = store.upsert([entry("a", "river")])
    [answer] = store.search([replace(asked("river"), min_watermark=watermark)])
    assert answer.watermark >= watermark
    with pytest.raises(UnknownWatermarkError, match=f"at watermark {watermark}"):
        store.search([replace(asked("river"), min_watermark=watermark + 1)])
    with pytest.raises(InvalidSettingError, match="whole number"):
        replace(asked("river"), min_watermark=1.5)  # type: ignore[arg-type]  # that is what is refused


def test_of_a_document_the_best_passage_is_found(store: Store) -> None:
    passages = [
        entry(f"p{n}", f"river {'delta ' * (n % 7)} word{n}", metadata={"document": f"D{n // 50}"}) for n in range(200)
    ]
    store.upsert([*passages, entry("alone", "river word"), entry("listed", "river", metadata={"document": ["D1"]})])
    hits = store.search([asked("river delta word3", 6)])[0].hits
    documents = [hit.metadata.get("document") for hit in hits]
    assert sorted(map(str, documents)) == ["D0", "D1", "D2", "D3", "None", "['D1']"]
    assert hits[0].id == "p3"
    assert [hit.rank for hit in hits] == list(range(1, 7))


def test_what_is_passed_over_is_told(store: Store) -> None:
    vector = ENCODER.encode(["x"])[0]
    terms = [f"t{n}" for n in range(300)]
    [cut] = store.search([SearchRequest(vector, terms)])
    assert len(cut.notes) == 1
    assert "300" in cut.notes[0]
    answers = store.search([SearchRequest(vector, terms[:100]), SearchRequest(vector, terms, mode="dense")])
    assert [answer.notes for answer in answers] == [(), ()]


def test_a_closed_store_refuses_everything(store: Store) -> None:
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.upsert([entry("a", "x")]),
        lambda: store.delete(["a"]),
        lambda: store.get(["a"]),
        lambda: store.search([asked("x")]),
        store.count,
        lambda: list(store.ids()),
        lambda: store.list_ids(1),
        lambda: store.subscribe(standing("x"), print),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()


@pytest.mark.slow
def test_searches_stay_consistent_while_documents_change(store: Store) -> None:
    """Each state has 20 documents of one generation: no search may see two generations, a gap, or go back in time."""
    names = [f"d{n}" for n in range(20)]
    store.upsert([entry(name, f"generation 0 {name}") for name in names])
    done, wrong = threading.Event(), list[str]()
    begun = threading.Barrier(4)

    def search() -> None:
        last = 0
        begun.wait()
        while not done.is_set():
            try:
                answers = store.search([asked("generation d3", 50), asked("generation", 50, dense=False)])
            except Exception as err:  # noqa: BLE001  # any error is what this test looks for
                wrong.append(repr(err))
                return
            seen = {(hit.text.split()[1], answer.watermark) for answer in answers for hit in answer.hits}
            full = all(sorted(hit.id for hit in answer.hits) == sorted(names) for answer in answers)
            if len(seen) != 1 or not full or answers[0].watermark < last:
                wrong.append(f"{seen} {full} after {last}")
                return
            last = answers[0].watermark

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    for generation in range(1, 60):
        watermark = store.upsert([entry(name, f"generation {generation} {name}") for name in names])
        assert store.search([asked("generation")])[0].watermark >= watermark
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_standing_query_is_told_what_matches_until_it_ends(store: Store) -> None:
    told: list[Match] = []
    end = store.subscribe(standing("river delta"), told.append)
    watermark = store.upsert([entry("a", "river delta", metadata={"n": 1}), entry("b", "mountain pass")])
    [match] = told
    [hit] = store.search([asked("river delta", 1)])[0].hits
    assert (match.query_id, match.watermark) == ("q", watermark)
    assert (match.hit.id, match.hit.rank, match.hit.text, match.hit.metadata) == ("a", 1, "river delta", {"n": 1})
    assert match.hit.score == pytest.approx(hit.score, abs=1e-5)
    end()
    end()
    store.upsert([entry("c", "river delta")])
    assert len(told) == 1


def test_a_standing_query_is_told_what_a_search_for_the_same_finds(store: Store) -> None:
    store.upsert([entry(f"e{n}", f"word{n} river") for n in range(10)])
    texts = ["river delta", "word3", "delta", "nothing of it"]
    told: dict[str, dict[str, float]] = {}

    def tell(match: Match) -> None:
        told.setdefault(match.query_id, {})[match.hit.id] = match.hit.score

    for mode in MODES:
        for text in texts:
            query = replace(standing(text, 0.2), id=f"{mode} {text}", mode=mode)
            store.subscribe(query, tell)
    store.upsert([entry(f"d{n}", f"word{n} river {'delta ' * (n % 3)}") for n in range(12)])
    for mode in MODES:
        for text in texts:
            hits = store.search([replace(asked(text, 100), mode=mode)])[0].hits
            expected = {hit.id: hit.score for hit in hits if hit.score >= 0.2 and hit.id[0] == "d"}
            assert told.get(f"{mode} {text}", {}) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("wanted", "passes"), FILTERS, ids=[str(wanted) for wanted, _ in FILTERS])
def test_a_standing_query_lets_through_what_its_filter_says(
    store: Store, wanted: dict[str, Any], passes: Callable[[int], bool]
) -> None:
    told: list[Match] = []
    store.subscribe(standing("text", -9.0, filter=wanted), told.append)
    store.upsert(catalogued())
    assert sorted(match.hit.id for match in told) == sorted(f"d{n}" for n in range(60) if passes(n))


def test_replaced_documents_are_news_and_deleted_ones_are_not(store: Store) -> None:
    told: list[Match] = []
    store.subscribe(standing("river"), told.append)
    seen = [store.upsert([entry("a", "river")]), store.upsert([entry("a", "river", title="T")])]
    store.delete(["a"])
    assert [match.watermark for match in told] == seen
    assert [match.hit.title for match in told] == ["", "T"]


def test_what_was_not_written_is_no_news(store: Store) -> None:
    told: list[Match] = []
    store.subscribe(standing("river"), told.append)
    with pytest.raises(UnicodeEncodeError):
        store.upsert([entry("a", "river"), IndexEntry(Document("c", "x"), ENCODER.encode(["x"])[0], ["\ud800"])])
    assert told == []


def test_a_match_is_found_by_a_search_from_within_the_receiver(store: Store) -> None:
    seen: list[tuple[int, list[str]]] = []

    def look(match: Match) -> None:
        [answer] = store.search([replace(asked("river"), min_watermark=match.watermark)])
        seen.append((match.watermark, [hit.id for hit in answer.hits]))

    store.subscribe(standing("river"), look)
    watermark = store.upsert([entry("a", "river")])
    assert seen == [(watermark, ["a"])]


def test_a_standing_query_of_another_dimension_is_refused(store: Store) -> None:
    store.upsert([entry("a", "river")])
    with pytest.raises(InvalidVectorError, match=r"\(3,\).* 32"):
        store.subscribe(StandingQuery("q", np.ones(3, np.float32), [], 0.5), print)


def passages(name: str, *texts: str, first: int = 0, start: int = 0, **more: Any) -> list[IndexEntry]:
    """Return entries of one document whose passages meet."""
    made = []
    for part, text in enumerate(texts, first):
        made.append(replace(entry(name, text, **more), part=part, start=start))
        start += len(text)
    return made


def test_passages_make_one_document(store: Store) -> None:
    parts = passages("a", "river bank ", "mountain pass ", "harbour wall", title="T", metadata={"n": 1})
    store.upsert([*parts, entry("b", "mountain")])
    [document, _] = store.get(["a", "b"])
    assert document == Document("a", "river bank mountain pass harbour wall", title="T", metadata={"n": 1})
    assert document is not None
    assert document.embedding is None
    assert (store.count(), sorted(store.ids()), store.list_ids(9)) == (2, ["a", "b"], ["a", "b"])
    [first, *others] = store.search([asked("harbour wall", 9)])[0].hits
    assert (first.id, first.text, first.span, first.title) == ("a", "harbour wall", (25, 37), "T")
    assert [hit.id for hit in others] == ["b"]
    assert store.delete(["a"])[0] == 1
    assert (store.count(), store.list_ids(9), found(store, asked("harbour"))) == (1, ["b"], ["b"])


def test_part_0_takes_the_place_of_all_parts_and_another_of_those_from_it_on(store: Store) -> None:
    store.upsert(passages("a", "one ", "two ", "three"))
    for _ in range(2):  # the same again changes nothing
        store.upsert(passages("a", "zwei ", "drei", first=1, start=4))
        assert [document and document.text for document in store.get(["a"])] == ["one zwei drei"]
        assert found(store, asked("two three", dense=False)) == []
    store.upsert(passages("a", "vier", first=2, start=9))
    assert [document and document.text for document in store.get(["a"])] == ["one zwei vier"]
    store.upsert(passages("a", "eins"))
    assert [document and document.text for document in store.get(["a"])] == ["eins"]
    assert (store.count(), found(store, asked("one zwei vier", dense=False))) == (1, [])


def test_entries_of_a_batch_apply_in_order(store: Store) -> None:
    early, late = passages("a", "one ", "two ", "three"), passages("a", "zwei ", "drei", first=1, start=4)
    store.upsert([*early, *late, *passages("b", "x", "y"), *passages("b", "z")])
    assert [document and document.text for document in store.get(["a", "b"])] == ["one zwei drei", "z"]
    store.upsert([*passages("a", "four", first=3, start=13), *late])
    assert [document and document.text for document in store.get(["a"])] == ["one zwei drei"]


def test_passages_may_overlap(store: Store) -> None:
    [one, two] = passages("a", "river bank", "bank of sand")
    store.upsert([one, replace(two, start=6)])
    assert [document and document.text for document in store.get(["a"])] == ["river bank of sand"]


@pytest.mark.parametrize(
    "bad",
    [
        passages("a", "late", first=2, start=8),
        passages("new", "late", first=1, start=3),
        passages("a", "gap", first=1, start=5),
        passages("a", "back", first=1, start=-1),
        passages("a", "first", start=1),
        [*passages("a", "one ", "two "), *passages("a", "gap", first=2, start=9)],
        [*passages("a", "one ", "two "), *passages("a", "far", first=3, start=8)],
        [*passages("a", "one ", "two "), *passages("a", "far", first=2, start=3)],
    ],
    ids=["missing", "unknown", "gap", "negative", "start", "gap in batch", "missing in batch", "before the last"],
)
def test_a_passage_that_does_not_continue_its_document_is_refused(store: Store, bad: list[IndexEntry]) -> None:
    watermark = store.upsert(passages("a", "one "))
    with pytest.raises(InvalidPassageError, match=r"'(a|new)'"):
        store.upsert([entry("b", "other"), *bad])
    assert (store.count(), store.upsert([])) == (1, watermark)


def test_a_document_is_news_once_by_its_best_passage(store: Store) -> None:
    told: list[Match] = []
    store.subscribe(standing("river delta", 0.3), told.append)
    store.upsert(passages("a", "river ", "river delta ", "delta"))
    [match] = told
    assert (match.hit.text, match.hit.span) == ("river delta ", (6, 18))
    store.upsert(passages("a", "river delta", first=3, start=23))
    assert [match.hit.span for match in told] == [(6, 18), (23, 34)]
    assert store.count() == 1


def test_ids_come_page_by_page(store: Store) -> None:
    names = [f"d{n}" for n in range(25)] + ["ä", "Z", "日"]
    store.upsert([one for name in names for one in passages(name, "x ", "y")])
    pages: list[list[str]] = [store.list_ids(7)]
    while pages[-1]:
        pages.append(store.list_ids(7, after=pages[-1][-1]))
    assert [len(page) for page in pages] == [7, 7, 7, 7, 0]
    assert [name for page in pages for name in page] == sorted(names)


def test_writers_at_once_fail_alone_and_are_acknowledged_together(store: Store) -> None:
    """Half of the writers give a vector of another length, all the time: the others must not notice."""
    store.upsert([entry("a", "x")])
    begun, watermarks, wrong = threading.Barrier(8), list[int](), list[str]()

    def write(number: int) -> None:
        begun.wait()
        for n in range(20):
            try:
                if number % 2:
                    store.upsert([IndexEntry(Document("bad", "x"), np.ones(3, np.float32), [])])
                    wrong.append("taken")
                else:
                    watermark = store.upsert([entry(f"w{number}-{n}", "river")])
                    [answer] = store.search([replace(asked("x"), min_watermark=watermark)])
                    watermarks.append(watermark)
                    if answer.watermark < watermark or store.get([f"w{number}-{n}"]) == [None]:
                        wrong.append(f"{watermark} not seen")
            except InvalidVectorError as err:
                if not number % 2:
                    wrong.append(repr(err))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(watermarks) == list(range(2, 82))
    assert store.count() == 81


class Made(NamedTuple):
    """A write, and what came of it."""

    kind: str
    names: list[str]
    texts: list[str]
    watermark: int
    removed: int


TURNS = itertools.count(1)
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["put", "append", "delete"]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=8,
)


def make(store: Store, kind: str, names: list[str], parts: int) -> Made | None:
    """Make a write of documents that it says itself are unlike all others; None if it is refused."""
    texts = [f"common t{next(TURNS):08} part {part} " for part in range(parts)]
    if kind == "delete":
        removed, watermark = store.delete(names)
        return Made(kind, names, [], watermark, removed)
    first = kind == "append"  # of any version: all first passages are of one length
    made = [entry for name in names for entry in passages(name, *texts, first=first, start=first * len(texts[0]))]
    try:
        return Made(kind, names, texts, store.upsert(made), 0)
    except InvalidPassageError:
        return None


def replayed(writes: list[Made]) -> dict[str, list[str]]:
    """Return the texts that writes leave when they are made in the order of their watermarks."""
    kept: dict[str, list[str]] = {}
    for one in sorted(writes, key=lambda one: (one.watermark, one.kind == "delete" and not one.removed)):
        if one.kind == "delete":
            assert one.removed == len(kept.keys() & set(one.names)), one
        for name in one.names:
            if one.kind == "put":
                kept[name] = one.texts
            elif one.kind == "append":
                assert name in kept, one
                kept[name] = [kept[name][0], *one.texts]
            else:
                kept.pop(name, None)
    return kept


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(work=st.lists(WRITES, min_size=2, max_size=4))
def test_writes_at_once_are_as_if_made_one_by_one_in_the_order_of_their_watermarks(
    store: Store, work: list[list[tuple[str, list[str], int]]]
) -> None:
    begun, done = threading.Barrier(len(work)), list[Made | None]()

    def run(writes: list[tuple[str, list[str], int]]) -> None:
        begun.wait()
        done.extend([make(store, *one) for one in writes])

    threads = [threading.Thread(target=run, args=(writes,)) for writes in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writes = [one for one in done if one is not None]
    marks = [one.watermark for one in writes if one.kind != "delete" or one.removed]
    assert len(marks) == len(set(marks))
    kept = replayed(writes)
    assert (store.count(), sorted(store.ids())) == (len(kept), sorted(kept))
    assert {one.id: one.text for one in store.get(list("abc")) if one} == {name: "".join(kept[name]) for name in kept}
    hits = store.search([asked("common part", 9, dense=False), asked("common part", 9)])
    assert [sorted(hit.id for hit in answer.hits) for answer in hits] == [sorted(kept)] * 2
    assert all(math.isfinite(hit.score) for answer in hits for hit in answer.hits)
    assert store.delete(list("abc"))[0] == len(kept)
    assert (store.count(), list(store.ids())) == (0, [])

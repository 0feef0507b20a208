import math
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="the extra `eval` is not installed")

from niruhybrid.config import StoreConfig
from niruhybrid.evaluation.collection import Collection, read_collection
from niruhybrid.evaluation.measure import MEASURES, MODES, Evaluation, Loser, evaluate, mean_of
from niruhybrid.evaluation.vectors import VectorCache
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document

MakeFolder = Callable[..., Path]


def measured(collection: Collection) -> Evaluation:
    return evaluate(collection, VectorCache(HashEncoder(), None), StoreConfig())


def collection(texts: dict[str, str], queries: dict[str, str], judgements: dict[str, dict[str, int]]) -> Collection:
    return Collection("made", tuple(Document(name, text) for name, text in texts.items()), queries, judgements)


def test_all_is_right_where_words_decide(folder: MakeFolder) -> None:
    found = measured(read_collection(folder()))
    assert (found.name, found.documents, found.queries) == ("small", 4, 2)
    assert found.means["lexical"]["MRR@10"] == 1.0
    assert found.means["hybrid"]["R@100"] == 1.0
    assert found.notes == ("queries with no relevant document, not asked: 1",)
    assert set(found.means) == set(MODES)
    assert all(set(values) == set(MEASURES) for values in found.means.values())


def test_the_measures_are_those_of_the_text_books() -> None:
    # by words: a, b, c; the second and third are relevant, one relevant document is not found
    texts = {"a": "tide tide tide", "b": "tide tide wave", "c": "tide wave wave wave", "d": "stone"}
    found = measured(collection(texts, {"q": "tide"}, {"q": {"b": 1, "c": 2, "d": 1}})).means["lexical"]
    best = 2.0 + 1.0 / math.log2(3) + 1.0 / math.log2(4)
    assert found["nDCG@10"] == pytest.approx((1.0 / math.log2(3) + 2.0 / math.log2(4)) / best)
    assert found["MRR@10"] == 0.5
    assert found["R@100"] == pytest.approx(2 / 3)


def test_a_query_that_finds_nothing_counts_as_0() -> None:
    found = measured(collection({"a": "tide"}, {"q1": "tide", "q2": "???"}, {"q1": {"a": 1}, "q2": {"a": 1}}))
    assert found.means["lexical"] == dict.fromkeys(MEASURES, 0.5)


def test_the_first_hundred_count_for_recall() -> None:
    texts = {f"d{number:03}": "tide" for number in range(120)}
    judged = dict.fromkeys(texts, 1)
    assert measured(collection(texts, {"q": "tide"}, {"q": judged})).means["lexical"]["R@100"] == pytest.approx(
        100 / 120
    )


def test_losers_are_the_queries_where_hybrid_is_behind_the_better_half() -> None:
    assert Loser("q", "?", lexical=0.2, dense=0.9, hybrid=0.5).loss == pytest.approx(0.4)
    assert Loser("q", "?", lexical=0.2, dense=0.1, hybrid=0.5).loss < 0


def test_losers_come_with_their_figures_the_greatest_loss_first() -> None:
    # lengths and counts make the halves disagree; with all the weight on the words, hybrid is their copy
    words = ("tide", "sand", "wave", "wind", "salt")
    texts = {f"d{n}": " ".join(words[n * k % 5] for k in range(1, 3 + n % 7)) for n in range(40)}
    queries = {f"q{n}": f"{words[n % 5]} {words[n // 5]}" for n in range(25)}
    judged = {name: {f"d{at}": 1} for at, name in enumerate(queries)}
    found = evaluate(
        collection(texts, queries, judged), VectorCache(HashEncoder(), None), StoreConfig(dense_weight=0.0)
    )
    losses = [loser.loss for loser in found.losers]
    assert len(set(losses)) > 2
    assert losses == sorted(losses, reverse=True)
    assert all(loser.hybrid == loser.lexical < loser.dense for loser in found.losers)
    assert all(loser.text == queries[loser.query] for loser in found.losers)
    assert found.to_dict(1)["losers"] == [found.losers[0]._asdict()]


def test_many_queries_each_get_their_own_answer() -> None:
    names = [f"d{number}" for number in range(70)]
    found = measured(
        collection(
            {name: f"word{name}" for name in names},
            {name: f"word{name}" for name in names},
            {name: {name: 1} for name in names},
        )
    )
    assert all(values["nDCG@10"] == 1.0 for values in found.means.values())


def test_of_equal_scores_the_ranking_of_the_store_counts() -> None:
    texts = {"b": "tide", "a": "tide", "c": "sand"}
    assert measured(collection(texts, {"q": "tide"}, {"q": {"b": 1}})).means["hybrid"]["MRR@10"] == 1.0


def test_the_mean_counts_each_collection_the_same() -> None:
    def having(value: float, queries: int) -> Evaluation:
        return Evaluation("x", 1, queries, {mode: dict.fromkeys(MEASURES, value) for mode in MODES}, ())

    assert mean_of([having(0.2, 1), having(0.6, 100)])["dense"]["nDCG@10"] == pytest.approx(0.4)


def test_progress_reaches_its_end(folder: MakeFolder) -> None:
    told: dict[str, tuple[int, int]] = {}
    evaluate(
        read_collection(folder()),
        VectorCache(HashEncoder(), None),
        StoreConfig(),
        lambda what, done, total: told.__setitem__(what, (done, total)),
    )
    assert told == {"encoding passages": (4, 4), "storing passages": (4, 4), "asking queries": (2, 2)}

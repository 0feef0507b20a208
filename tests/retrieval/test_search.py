"""What a search finds, against every document scored by the formulas one by one."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid.retrieval.search import best_slots
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.types import Metadata, SearchRequest, Vector

DIM = 4


def vectors(*directions: float) -> Vector:
    """Return unit vectors whose product with `QUERY` is the number given."""
    return np.array([[cosine, (1 - cosine * cosine) ** 0.5, 0, 0] for cosine in directions], np.float32)


QUERY = vectors(1.0)[0]


def snapshot_of(cosines: list[float], owners: list[int], metadata: list[Metadata] | None = None) -> Snapshot:
    rows = range(1, len(cosines) + 1)
    added = Additions(rows, vectors(*cosines), [[]] * len(rows), metadata or [{}] * len(rows), owners)
    return Snapshot.empty(0).changed(1, {}, added)


def found(snapshot: Snapshot, top_k: int) -> list[int]:
    [best] = both_ways(snapshot, [SearchRequest(QUERY, (), top_k)], 1.0)
    return [int(snapshot.rows.items[slot]) for slot, _ in best]


def both_ways(snapshot: Snapshot, requests: Sequence[SearchRequest], weight: float) -> list[list[tuple[int, float]]]:
    """Return what is found by scoring all documents, having seen that looking for likely ones finds the same."""
    every = best_slots(snapshot, requests, weight, exhaustive=True)
    likely = best_slots(snapshot, requests, weight, exhaustive=False)
    assert [[slot for slot, _ in best] for best in likely] == [[slot for slot, _ in best] for best in every]
    for one, other in zip(likely, every, strict=True):
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-6)
    return every


def test_the_best_passage_of_a_document_stands_for_it() -> None:
    assert found(snapshot_of([0.5, 0.9, 0.7, 0.8], [1, 1, 3, 3]), 10) == [2, 4]
    assert found(snapshot_of([0.5, 0.9, 0.7, 0.8], []), 10) == [2, 4, 3, 1]


def test_documents_that_share_the_metadata_field_are_one_as_well() -> None:
    metadata: list[Metadata] = [{}, {"document": "a"}, {}, {"document": "a"}]
    assert found(snapshot_of([0.5, 0.8, 0.7, 0.9], [1, 1, 3, 4], metadata), 10) == [4, 3]


def test_only_strings_in_the_metadata_field_make_documents_one() -> None:
    same = [True, 7, 7.5, None, ["a"], {"name": "a"}]
    metadata: list[Metadata] = [{"document": value} for value in same for _ in range(2)]
    cosines = [0.9 - n / 100 for n in range(len(metadata))]
    assert found(snapshot_of(cosines, [], metadata), 50) == list(range(1, len(metadata) + 1))


def test_a_document_of_very_many_passages_does_not_crowd_out_the_others() -> None:
    cosines = [0.9] * 500 + [0.5, 0.4, 0.3]
    assert found(snapshot_of(cosines, [1] * 500 + [501, 502, 503]), 3) == [1, 501, 502]


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 5)), min_size=1, max_size=30), st.integers(1, 9))
@settings(deadline=None)
def test_one_passage_of_each_document_best_first(passages: list[tuple[int, int]], top_k: int) -> None:
    cosines = [cosine / 100 for cosine, _ in passages]
    first: dict[int, int] = {}
    owners = [first.setdefault(document, row) for row, (_, document) in enumerate(passages, start=1)]
    best: dict[int, float] = {}
    for cosine, owner in zip(cosines, owners, strict=True):
        best[owner] = max(best.get(owner, -1.0), cosine)
    [answer] = both_ways(snapshot_of(cosines, owners), [SearchRequest(QUERY, (), top_k)], 1.0)
    assert [score for _, score in answer] == pytest.approx(sorted(best.values(), reverse=True)[:top_k], abs=1e-6)
    assert len({owners[slot] for slot, _ in answer}) == len(answer)


WORDS = ("ash", "birch", "elm", "oak", "yew")


class Passage(NamedTuple):
    owner: int
    cosine: float
    terms: list[str]


def bm25(texts: Mapping[int, list[str]], query: Sequence[str]) -> dict[int, float]:
    """Score texts by the formula, as shares of the length of the query's vector."""
    average = sum(map(len, texts.values())) / len(texts)
    scores, bounds = dict.fromkeys(texts, 0.0), []
    for term in query:
        have = sum(term in terms for terms in texts.values())
        bounds.append(2.2 * math.log(1 + (len(texts) - have + 0.5) / (have + 0.5)))
        for key, terms in texts.items():
            count = terms.count(term)
            scores[key] += bounds[-1] * count / (count + 1.2 * (0.25 + 0.75 * len(terms) / max(1.0, average)))
    norm = math.hypot(*bounds) or 1.0
    return {key: score / norm for key, score in scores.items()}


def expected_scores(passages: Sequence[Passage], query: Sequence[str], weight: float) -> dict[int, float]:
    """Score every passage, by row, without any index."""
    together: dict[int, list[str]] = {}
    for one in passages:
        together.setdefault(one.owner, []).extend(one.terms)
    own = bm25({row: one.terms for row, one in enumerate(passages, start=1)}, query)
    theirs = bm25(together, query)
    return {
        row: weight * one.cosine + (1 - weight) * (own[row] + theirs[one.owner]) / 2
        for row, one in enumerate(passages, start=1)
    }


def drawn(rng: np.random.Generator, count: int, documents: int) -> list[Passage]:
    first: dict[int, int] = {}
    owners = [first.setdefault(int(rng.integers(documents)), row) for row in range(1, count + 1)]
    return [
        Passage(owner, float(rng.uniform(-0.9, 0.9)), [str(word) for word in rng.choice(WORDS, rng.integers(0, 9))])
        for owner in owners
    ]


def written(passages: Sequence[Passage], merged: int) -> Snapshot:
    """Return them all: the first `merged` in postings, the others in the journal."""
    snapshot = Snapshot.empty(0)
    for start, some in ((0, passages[:merged]), (merged, passages[merged:])):
        rows = range(start + 1, start + len(some) + 1)
        cosines = vectors(*(one.cosine for one in some)) if some else np.empty((0, DIM), np.float32)
        owners = [one.owner for one in some]
        added = Additions(rows, cosines, [one.terms for one in some], [{}] * len(some), owners)
        snapshot = snapshot.changed(1, {}, added) if some else snapshot
        snapshot = snapshot.without_journal() if not start else snapshot
    return snapshot


@pytest.mark.slow
@given(st.integers(0, 999), st.integers(1, 60), st.sampled_from([1, 5, 1000]), st.sampled_from([0.0, 0.6]))
@settings(deadline=None)
def test_a_score_is_that_of_the_formula_for_a_passage_with_its_document(
    seed: int, count: int, documents: int, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    passages, query = drawn(rng, count, documents), list(dict.fromkeys(rng.choice(WORDS, 2).tolist()))
    scores = expected_scores(passages, query, weight)
    best: dict[int, float] = {}
    for row, one in enumerate(passages, start=1):
        best[one.owner] = max(best.get(one.owner, -9.0), scores[row])
    whole = [
        cut
        for cut in range(count + 1)
        if {one.owner for one in passages[:cut]}.isdisjoint(one.owner for one in passages[cut:])
    ]  # no document is cut apart: how many have a term is exact then
    snapshot = written(passages, int(rng.choice(whole)))
    [answer] = both_ways(snapshot, [SearchRequest(QUERY, query, 10)], weight)
    assert [score for _, score in answer] == pytest.approx(sorted(best.values(), reverse=True)[:10], abs=1e-5)
    assert all(score == pytest.approx(scores[slot + 1], abs=1e-5) for slot, score in answer)


@pytest.mark.slow
@given(st.integers(0, 999), st.sampled_from([0.3, 0.74, 1.0]), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_of_many_documents_of_one_passage_none_is_missed(seed: int, weight: float, top_k: int) -> None:
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(40)]
    passages = [
        Passage(row, float(rng.uniform(-0.9, 0.9)), rng.choice(words, rng.integers(1, 9)).tolist())
        for row in range(1, 501)
    ]
    query = rng.choice(words, 4, replace=False).tolist()
    scores = expected_scores(passages, query, weight)
    snapshot = written(passages, int(rng.integers(501)))
    [answer] = both_ways(snapshot, [SearchRequest(QUERY, query, top_k)], weight)
    assert [score for _, score in answer] == pytest.approx(sorted(scores.values(), reverse=True)[:top_k], abs=1e-5)


def test_what_one_half_finds_is_scored_by_the_other_as_well() -> None:
    near = [Passage(row, 0.9 - row / 1000, ["ash"] if row == 150 else ["oak"]) for row in range(1, 201)]
    worded = [Passage(row, -0.5 + row / 1000, ["elm"]) for row in range(201, 401)]
    passages = [*near, *worded]
    query = ["elm", "oak", "ash"]
    scores = expected_scores(passages, query, 0.5)
    [answer] = both_ways(written(passages, 350), [SearchRequest(QUERY, query, 10)], 0.5)
    assert all(score == pytest.approx(scores[slot + 1], abs=1e-5) for slot, score in answer)
    assert 149 in dict(answer)


def test_a_removed_passage_adds_nothing_to_its_document() -> None:
    passages = [Passage(1, 0.1, ["ash"]), Passage(1, 0.1, ["ash", "elm"]), Passage(3, 0.1, ["elm"])]
    removed = written(passages, 3).changed(2, {2: ["ash", "elm"]}, Additions.nothing())
    [answer] = both_ways(removed, [SearchRequest(QUERY, ["ash"], 10, mode="lexical")], 0.5)
    own = bm25({0: ["ash"], 1: ["elm"]}, ["ash"])
    assert [slot for slot, _ in answer] == [0]
    assert answer[0][1] == pytest.approx(own[0], abs=1e-5)

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from niruhybrid.retrieval.dense import EXACT, DenseIndex, all_products
from niruhybrid.retrieval.growing import Growing
from niruhybrid.types import Vector

DIM = 8


def vectors(count: int, seed: int = 0, dim: int = DIM) -> Vector:
    made: Vector = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return made


def empty() -> DenseIndex:
    return DenseIndex.of(Growing.empty(np.float32, 0))


def index_of(count: int) -> DenseIndex:
    return empty().changed(vectors(count))


def all_of(index: DenseIndex) -> NDArray[np.bool_]:
    return np.ones(len(index.vectors), np.bool_)


def search(index: DenseIndex, queries: Vector, limits: list[int]) -> list[dict[int, float]]:
    return found(index, queries, limits, [all_of(index)] * len(limits))


def found(
    index: DenseIndex, queries: Vector, limits: list[int], allowed: list[NDArray[np.bool_]]
) -> list[dict[int, float]]:
    answers = index.search(list(queries), limits, allowed)
    assert all(np.all(np.diff(slots) > 0) for slots, _ in answers)
    return [dict(zip(slots.tolist(), scores.tolist(), strict=True)) for slots, scores in answers]


def never() -> bool:
    return False


def test_an_empty_index_finds_nothing() -> None:
    assert search(empty(), vectors(2), [5, 5]) == [{}, {}]


def test_a_search_returns_the_best_slots_of_each_query() -> None:
    queries = vectors(70, seed=1)
    exact = queries @ vectors(200).T
    limits = list(range(1, 71))
    for seen, scores, limit in zip(search(index_of(200), queries, limits), exact, limits, strict=True):
        best = np.argsort(-scores)[:limit]
        assert sorted(seen) == sorted(best.tolist())
        np.testing.assert_allclose([seen[slot] for slot in best.tolist()], scores[best], rtol=1e-4, atol=1e-5)


def test_of_equal_scores_the_lower_slots_are_kept() -> None:
    same = np.ones((50, DIM), np.float32)
    assert search(empty().changed(same), same[:1], [3]) == [{0: 8.0, 1: 8.0, 2: 8.0}]


def test_a_change_leaves_the_index_it_started_from_as_it_was() -> None:
    before = index_of(100)
    query = vectors(1, seed=2)
    seen = search(before, query, [100])
    grown = before.changed(vectors(2, seed=3)).changed(vectors(100, seed=4))
    assert search(before, query, [100]) == seen
    assert len(search(grown, query, [300])[0]) == 202


def test_an_abandoned_change_leaves_no_trace() -> None:
    before = index_of(100).changed(vectors(1, seed=5))
    before.changed(vectors(2, seed=6))
    kept = vectors(1, seed=7)
    after = before.changed(kept)
    [seen] = search(after, kept, [200])
    assert len(seen) == 102
    assert seen[101] == pytest.approx(float(kept[0] @ kept[0]), rel=1e-4)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_what_is_not_allowed_is_not_found(share: float) -> None:
    index = index_of(400)
    some, others = np.random.default_rng(1).random((2, 400)) < share
    answers = found(index, vectors(3, seed=8), [400] * 3, [some, others, some])
    assert [sorted(one) for one in answers] == [np.flatnonzero(may).tolist() for may in (some, others, some)]


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 3))
@settings(deadline=None)
def test_any_history_of_changes_ranks_as_brute_force(steps: list[int], seed: int) -> None:
    index, model = empty(), np.empty((0, DIM), np.float32)
    for number, added in enumerate(steps):
        fresh = vectors(added, seed=number)
        index, model = index.changed(fresh), np.concatenate((model, fresh))
    allowed = np.random.default_rng(seed).random(len(model)) < 0.6
    query = vectors(1, seed=99)
    [seen] = found(index, query, [1000], [allowed])
    assert sorted(seen) == np.flatnonzero(allowed).tolist()
    for slot, score in seen.items():
        np.testing.assert_allclose(score, model[slot] @ query[0], rtol=1e-4, atol=1e-5)


def clustered(count: int, seed: int, dim: int = 32) -> Vector:
    """Vectors as encoders make them: around many topics."""
    topics = vectors(500, seed=0, dim=dim)
    chosen = np.random.default_rng(seed).integers(0, len(topics), count)
    made: Vector = topics[chosen] + vectors(count, seed=seed, dim=dim) * np.float32(0.3)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def recall(index: DenseIndex, queries: Vector, allowed: NDArray[np.bool_]) -> float:
    """Return the share of the ten nearest that a search for 100 finds, each with its exact score."""
    hits = 0
    exact = np.where(allowed, queries @ index.vectors.items.T, -np.inf)
    for seen, scores in zip(found(index, queries, [100] * 50, [allowed] * 50), exact, strict=True):
        assert len(seen) == 100
        assert all(abs(scores[slot] - score) < 1e-4 for slot, score in seen.items())
        hits += len(set(np.argsort(-scores)[:10].tolist()) & seen.keys())
    return hits / 500


@pytest.mark.slow
def test_many_vectors_are_searched_through_a_sieve_that_loses_next_to_nothing() -> None:
    index = empty().changed(clustered(EXACT + 4000, seed=1))
    assert index.outgrown
    queries = clustered(50, seed=2)
    sieved = index.sieved(all_of(index), never)
    assert not sieved.outgrown
    assert sieved.unsieved == 0
    assert recall(sieved, queries, all_of(sieved)) >= 0.97
    newest = clustered(50, seed=3)
    grown = sieved.changed(newest)
    assert all(len(grown.vectors) - 50 + n in one for n, one in enumerate(search(grown, newest, [5] * 50)))
    again = grown.changed(clustered(2500, seed=4))
    assert again.outgrown
    again = again.sieved(all_of(again), never)
    assert recall(again, queries, all_of(again)) >= 0.97


@pytest.mark.slow
def test_recall_holds_however_many_are_wanted() -> None:
    index = empty().changed(clustered(EXACT + 8000, seed=1, dim=64))
    sieved = index.sieved(all_of(index), never)
    queries = clustered(20, seed=2, dim=64)
    exact = queries @ sieved.vectors.items.T
    for top_k in (10, 300, 1000):
        depth = max(100, 4 * top_k)  # as a search looks
        shares = []
        for seen, scores in zip(search(sieved, queries, [depth] * 20), exact, strict=True):
            best = np.argsort(-scores)[:top_k].tolist()
            shares.append(len(seen.keys() & set(best)) / top_k)
        assert np.mean(shares) >= 0.98, top_k


@pytest.mark.slow
@pytest.mark.parametrize(("share", "least"), [(0.9, 0.97), (0.5, 1.0), (0.001, 1.0)])
def test_a_filter_costs_no_recall(share: float, least: float) -> None:
    index = empty().changed(clustered(EXACT + 8000, seed=1))
    sieved = index.sieved(all_of(index), never)
    allowed = np.random.default_rng(5).random(len(index.vectors)) < max(share, 150 / len(index.vectors))
    assert recall(sieved, clustered(50, seed=2), allowed) >= least


@pytest.mark.slow
def test_signs_of_long_vectors_are_enough_for_a_filter() -> None:
    index = empty().changed(clustered(EXACT + 4000, seed=1, dim=256))
    queries = clustered(50, seed=2, dim=256)
    merged = index.sieved(all_of(index), never)
    later = index.changed(clustered(200, seed=6, dim=256))
    for made in (merged, merged.followed_by(index, later), grown(merged)):
        allowed = np.arange(len(made.vectors)) % 2 == 1
        assert recall(made, queries, allowed) >= 0.998


def grown(index: DenseIndex) -> DenseIndex:
    """Return the index after changes on both sides of upkeep, which keep signs and vectors together."""
    live = np.arange(len(index.vectors)) % 17 != 3
    later = index.changed(clustered(700, seed=5, dim=256))
    return index.compacted(live, never).followed_by(index, later)


@pytest.mark.slow
def test_what_is_gone_around_a_query_makes_room_for_what_is_farther() -> None:
    index = empty().changed(clustered(EXACT + 4000, seed=1))
    sieved = index.sieved(all_of(index), never)
    query = clustered(1, seed=2)
    allowed = all_of(sieved)
    allowed[np.argsort(-(sieved.vectors.items @ query[0]))[:500]] = False
    [seen] = found(sieved, query, [100], [allowed])
    assert len(seen) == 100
    assert all(allowed[slot] for slot in seen)


@given(st.integers(1, 70), st.integers(0, 90), st.sampled_from([3, 384]))
@settings(deadline=None)
def test_products_of_a_batch_are_those_of_each_alone(queries: int, count: int, dim: int) -> None:
    asked, known = vectors(queries, seed=1, dim=dim), vectors(count, seed=2, dim=dim)
    np.testing.assert_allclose(all_products(asked, known), asked @ known.T, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_closing_gaps_keeps_the_sieve() -> None:
    index = empty().changed(clustered(EXACT + 4000, seed=1))
    live = np.random.default_rng(6).random(len(index.vectors)) < 0.95
    compacted = index.sieved(live, never).compacted(live, never)
    assert compacted.unsieved == 0
    assert len(compacted.vectors) == np.count_nonzero(live)
    assert recall(compacted, clustered(50, seed=2), all_of(compacted)) >= 0.97


@pytest.mark.slow
def test_work_that_is_stopped_leaves_the_index_as_it_was() -> None:
    index = empty().changed(clustered(EXACT + 4000, seed=1))
    assert index.sieved(all_of(index), lambda: True) is index
    sieved = index.sieved(all_of(index), never).changed(clustered(3000, seed=3))
    assert sieved.sieved(all_of(sieved), lambda: True) is sieved


@pytest.mark.slow
def test_growing_for_ever_by_one_is_linear_in_memory() -> None:
    index = index_of(100)
    tracemalloc.start()
    for number in range(3000):
        index = index.changed(vectors(1, seed=number))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 3 * 3100 * DIM * 4

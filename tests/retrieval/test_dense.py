import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.dense import DenseIndex
from niruhybrid.types import Vector

DIM = 8
NOTHING = np.empty((0, DIM), np.float32)


def vectors(count: int, seed: int = 0) -> Vector:
    made: Vector = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return made


def index_of(count: int) -> DenseIndex:
    return DenseIndex.of(1, np.arange(1, count + 1), vectors(count))


def test_an_empty_index_finds_nothing() -> None:
    empty = DenseIndex.of(0, np.empty(0, np.int64), np.empty((0, 0), np.float32))
    assert empty.search(vectors(2), [5, 5]) == [{}, {}]
    assert len(empty) == 0


def test_a_search_returns_the_best_rows_of_each_query() -> None:
    queries = vectors(70, seed=1)
    exact = queries @ vectors(200).T
    for found, scores, limit in zip(index_of(200).search(queries, range(1, 71)), exact, range(1, 71), strict=True):
        best = np.argsort(-scores)[:limit]
        assert sorted(found) == sorted((best + 1).tolist())
        np.testing.assert_allclose([found[row + 1] for row in best.tolist()], scores[best], rtol=1e-4, atol=1e-5)


def test_of_equal_scores_the_lower_rows_are_kept() -> None:
    same = np.ones((50, DIM), np.float32)
    index = DenseIndex.of(1, np.arange(10, 60), same)
    assert index.search(same[:1], [3]) == [{10: 8.0, 11: 8.0, 12: 8.0}]


def test_a_change_leaves_the_index_it_started_from_as_it_was() -> None:
    before = index_of(100)
    query = vectors(1, seed=2)
    [seen] = before.search(query, [100])
    grown = before.changed(2, remove=[1, 50, 100], rows=[101, 102], vectors=vectors(2, seed=3))
    emptied = grown.changed(3, remove=[*range(2, 50), *range(51, 100)], vectors=NOTHING)
    emptied.changed(4, rows=range(103, 203), vectors=vectors(100, seed=4))
    assert before.search(query, [100]) == [seen]
    assert sorted(grown.search(query, [200])[0]) == [*range(2, 50), *range(51, 100), 101, 102]
    assert sorted(emptied.search(query, [200])[0]) == [101, 102]


def test_an_abandoned_change_leaves_no_trace() -> None:
    before = index_of(100).changed(2, rows=[101], vectors=vectors(1, seed=5))
    before.changed(3, remove=[7], rows=[102, 103], vectors=vectors(2, seed=6))
    kept = vectors(1, seed=7)
    after = before.changed(3, rows=[102], vectors=kept)
    assert len(after) == 102
    [found] = after.search(kept, [1])
    assert found == {102: np.float32(found[102])}
    assert 7 in after.search(kept, [200])[0]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=12))
def test_any_history_of_changes_ranks_as_brute_force(steps: list[tuple[int, int]]) -> None:
    model: dict[int, Vector] = {}
    index = DenseIndex.of(0, np.empty(0, np.int64), np.empty((0, 0), np.float32))
    last = 0
    for number, (added, removed) in enumerate(steps, start=1):
        gone = sorted(model)[:: max(1, len(model) // (removed + 1))][:removed]
        fresh, rows = vectors(added, seed=number), range(last + 1, last + 1 + added)
        index = index.changed(number, remove=gone, rows=rows, vectors=fresh)
        for row in gone:
            del model[row]
        model.update(zip(rows, fresh, strict=True))
        last += added
    query = vectors(1, seed=99)
    [found] = index.search(query, [1000])
    assert len(index) == len(found) == len(model)
    for row, score in found.items():
        np.testing.assert_allclose(score, model[row] @ query[0], rtol=1e-4, atol=1e-5)


def test_replacing_rows_for_ever_takes_no_more_memory() -> None:
    index = index_of(100)
    tracemalloc.start()
    for number in range(2, 3002):
        index = index.changed(number, remove=[number - 1], rows=[number + 99], vectors=vectors(1, seed=number))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 100
    assert grown < 20 * 100 * DIM * 4

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.sketches import likely, sketched


@given(st.integers(0, 20), st.sampled_from([1, 63, 64, 65, 384]))
def test_a_sketch_has_a_bit_for_each_coordinate_above_0(count: int, dim: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, dim)).astype(np.float32)
    signs = sketched(vectors)
    assert signs.shape == (count, -(-dim // 64))
    assert np.bitwise_count(signs).sum(axis=1).tolist() == (vectors > 0).sum(axis=1).tolist()


def test_coordinates_count_by_their_size_in_the_query() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4000, 384)).astype(np.float32)
    queries = (rng.standard_normal((20, 384)) ** 3).astype(np.float32)  # a few large coordinates among many small ones
    signs = np.ascontiguousarray(sketched(vectors).T)
    hits = 0
    for query in queries:
        nearest = np.argsort(-(vectors @ query))[:10]
        hits += len(set(nearest.tolist()) & set(likely(query, signs, 400).tolist()))
    assert hits >= 170


def test_few_vectors_are_all_likely() -> None:
    signs = np.ascontiguousarray(sketched(np.ones((3, 384), np.float32)).T)
    assert sorted(likely(np.zeros(384, np.float32), signs, 3).tolist()) == [0, 1, 2]
    assert len(likely(np.zeros(384, np.float32), signs, 2)) == 2

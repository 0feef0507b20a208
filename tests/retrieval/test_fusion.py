import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.fusion import (
    convex,
    min_max,
    ranked,
    ranked_weighted_sum,
    rrf,
    share_of_best,
    term_norm,
    weighted_sum,
)

ROWS = st.integers(1, 30)
COSINES = st.dictionaries(ROWS, st.floats(-1.0, 1.0, width=32))
BM25 = st.dictionaries(ROWS, st.floats(1e-7, 50.0))
WEIGHTS = st.floats(0.0, 1.0)
Halves = dict[int, float]
FORMULAS: dict[str, Callable[[Halves, Halves, float], Halves]] = {
    "convex": convex,
    "rrf": lambda dense, lexical, _: rrf(dense, lexical),
    "weighted_sum": lambda dense, lexical, weight: weighted_sum(dense, lexical, weight, 7.5),
}
SHARES = ("convex", "rrf")


@pytest.fixture(params=SHARES)
def fuse(request: pytest.FixtureRequest) -> Callable[[Halves, Halves, float], Halves]:
    return FORMULAS[request.param]


@pytest.mark.parametrize("formula", FORMULAS)
@given(dense=COSINES, lexical=BM25, weight=WEIGHTS)
def test_fusion_keeps_every_row(formula: str, dense: Halves, lexical: Halves, weight: float) -> None:
    assert FORMULAS[formula](dense, lexical, weight).keys() == dense.keys() | lexical.keys()


@given(
    scores=st.dictionaries(ROWS, st.tuples(st.floats(-1.0, 1.0, width=32), st.floats(0.0, 50.0, width=32))),
    halves=st.sampled_from([(True, True), (True, False), (False, True)]),
    weight=WEIGHTS,
    norm=st.floats(0.1, 40.0),
)
def test_the_fast_form_of_the_weighted_sum_gives_the_same_numbers_in_the_same_order(
    scores: dict[int, tuple[float, float]], halves: tuple[bool, bool], weight: float, norm: float
) -> None:
    columns = [{row: pair[at] for row, pair in scores.items()} if there else None for at, there in enumerate(halves)]
    arrays = [None if half is None else np.array(list(half.values()), np.float32) for half in columns]
    rows, fused = ranked_weighted_sum(np.array(list(scores), np.int64), arrays[0], arrays[1], weight, norm)
    expected = ranked(weighted_sum(columns[0], columns[1], weight, norm).items())
    assert list(zip(rows.tolist(), fused.tolist(), strict=True)) == expected


@pytest.mark.parametrize("formula", SHARES)
@given(dense=COSINES, lexical=BM25, weight=WEIGHTS)
def test_shares_are_from_0_to_1(formula: str, dense: Halves, lexical: Halves, weight: float) -> None:
    assert all(0.0 <= score <= 1.0 for score in FORMULAS[formula](dense, lexical, weight).values())


@pytest.mark.parametrize("formula", FORMULAS)
@given(dense=COSINES, lexical=BM25, weight=WEIGHTS)
def test_fusion_ignores_the_order_of_its_input(formula: str, dense: Halves, lexical: Halves, weight: float) -> None:
    fuse = FORMULAS[formula]
    turned = fuse(dict(reversed(dense.items())), dict(reversed(lexical.items())), weight)
    assert turned == fuse(dense, lexical, weight)
    assert ranked(turned.items()) == ranked(fuse(dense, lexical, weight).items())


@pytest.mark.parametrize("formula", FORMULAS)
@given(dense=COSINES, lexical=BM25, weight=WEIGHTS)
def test_a_row_ahead_in_both_halves_is_not_behind_after_fusion(
    formula: str, dense: Halves, lexical: Halves, weight: float
) -> None:
    fused = FORMULAS[formula](dense, lexical, weight)
    both = dense.keys() & lexical.keys()
    for one in both:
        for other in both:
            if dense[one] > dense[other] and lexical[one] > lexical[other]:
                assert fused[one] >= fused[other]


def test_convex_weighs_the_normalised_halves() -> None:
    fused = convex({1: 0.9, 2: 0.5, 3: 0.1}, {2: 8.0, 4: 2.0}, 0.75)
    assert fused == pytest.approx({1: 0.75, 2: 0.375 + 0.25, 3: 0.0, 4: 0.0625})


def test_convex_with_all_the_weight_on_one_half_ranks_as_that_half() -> None:
    dense, lexical = {1: 0.9, 2: 0.5}, {2: 8.0, 3: 2.0}
    assert [row for row, _ in ranked(convex(dense, lexical, 1.0).items())] == [1, 2, 3]
    assert [row for row, _ in ranked(convex(dense, lexical, 0.0).items())] == [2, 3, 1]


def test_rrf_adds_reciprocal_ranks() -> None:
    fused = rrf({1: 0.9, 2: 0.5}, {2: 8.0, 3: 2.0})
    assert fused == pytest.approx({1: 0.5, 2: (61 / 62 + 1) / 2, 3: 61 / 62 / 2})


def test_a_half_that_found_nothing_has_no_say(fuse: Callable[[Halves, Halves, float], Halves]) -> None:
    assert fuse({}, {}, 0.3) == {}
    assert fuse({1: 0.4, 2: 0.2}, {}, 0.3)[1] == 1.0
    assert fuse({}, {1: 3.0, 2: 9.0}, 0.3)[2] == 1.0


def test_equal_scores_are_equal_after_normalisation_and_the_lower_row_comes_first() -> None:
    assert min_max({5: 0.2, 3: 0.2}) == {5: 1.0, 3: 1.0}
    assert share_of_best({5: 4.0, 3: 4.0}) == {5: 1.0, 3: 1.0}
    assert ranked(convex({5: 0.2, 3: 0.2}, {}, 0.5).items()) == [(3, 1.0), (5, 1.0)]


def test_the_weakest_match_of_words_still_counts() -> None:
    assert share_of_best({1: 4.0, 2: 1.0}) == {1: 1.0, 2: 0.25}


def test_a_weighted_sum_adds_the_cosine_and_the_share_of_the_terms() -> None:
    fused = weighted_sum({1: 0.9, 2: -0.5}, {2: 8.0, 1: 2.0}, 0.75, 4.0)
    assert fused == pytest.approx({1: 0.675 + 0.125, 2: -0.375 + 0.5})


def test_in_a_weighted_sum_a_row_of_words_only_is_as_near_as_the_farthest_of_the_nearest() -> None:
    assert weighted_sum({1: 0.9, 2: 0.5}, {3: 8.0}, 0.5, 4.0) == pytest.approx({1: 0.45, 2: 0.25, 3: 0.25 + 1.0})


def test_a_row_without_words_counts_the_same_whether_others_have_them_or_not() -> None:
    alone = weighted_sum({1: 0.8}, {}, 0.7, 4.0)
    assert alone == pytest.approx({1: 0.56})
    assert weighted_sum({1: 0.8}, {2: 3.0}, 0.7, 4.0)[1] == alone[1]


def test_a_half_that_is_not_asked_leaves_all_the_weight_to_the_other() -> None:
    assert weighted_sum({1: 0.8, 2: -0.2}, None, 0.7, 4.0) == pytest.approx({1: 0.8, 2: -0.2})
    assert weighted_sum(None, {1: 2.0}, 0.7, 4.0) == pytest.approx({1: 0.5})
    assert weighted_sum(None, None, 0.7, 4.0) == {}


@given(dense=st.dictionaries(ROWS, st.floats(-1.0, 1.0, width=32), min_size=1), lexical=BM25, weight=WEIGHTS)
def test_a_weighted_sum_scores_a_row_by_itself(dense: Halves, lexical: Halves, weight: float) -> None:
    fused = weighted_sum(dense, lexical, weight, 7.5)
    for row in dense:
        words = {row: lexical[row]} if row in lexical else {}
        assert weighted_sum({row: dense[row]}, words, weight, 7.5)[row] == fused[row]


@given(lexical=st.dictionaries(ROWS, st.floats(1e-3, 50.0), min_size=1), factor=st.sampled_from((0.5, 2.0, 4.0)))
def test_the_unit_of_bm25_does_not_matter(lexical: Halves, factor: float) -> None:
    scaled = {row: score * factor for row, score in lexical.items()}
    fused = weighted_sum({1: 0.5}, scaled, 0.7, term_norm([3.0 * factor, 4.0 * factor]))
    assert fused == pytest.approx(weighted_sum({1: 0.5}, lexical, 0.7, term_norm([3.0, 4.0])))


def test_the_norm_is_the_length_of_the_term_vector_and_1_without_terms() -> None:
    assert term_norm([3.0, 4.0]) == 5.0
    assert term_norm([2.5]) == 2.5
    assert term_norm([]) == term_norm([0.0]) == 1.0


@given(weights=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=12), data=st.data())
def test_words_add_at_most_the_root_of_their_number(weights: list[float], data: st.DataObject) -> None:
    matched = [data.draw(st.floats(0.01, 1.0)) for _ in weights]
    score = sum(weight * share for weight, share in zip(weights, matched, strict=True))
    assert weighted_sum(None, {1: score}, 0.7, term_norm(weights))[1] <= math.sqrt(len(weights)) + 1e-9

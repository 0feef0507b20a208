from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.fusion import convex, min_max, ranked, rrf, share_of_best

ROWS = st.integers(1, 30)
COSINES = st.dictionaries(ROWS, st.floats(-1.0, 1.0, width=32))
BM25 = st.dictionaries(ROWS, st.floats(1e-7, 50.0))
WEIGHTS = st.floats(0.0, 1.0)
Halves = dict[int, float]
FORMULAS: dict[str, Callable[[Halves, Halves, float], Halves]] = {
    "convex": convex,
    "rrf": lambda dense, lexical, _: rrf(dense, lexical),
}


@pytest.fixture(params=FORMULAS)
def fuse(request: pytest.FixtureRequest) -> Callable[[Halves, Halves, float], Halves]:
    return FORMULAS[request.param]


@pytest.mark.parametrize("formula", FORMULAS)
@given(dense=COSINES, lexical=BM25, weight=WEIGHTS)
def test_fusion_keeps_every_row_and_scores_it_from_0_to_1(
    formula: str, dense: Halves, lexical: Halves, weight: float
) -> None:
    fused = FORMULAS[formula](dense, lexical, weight)
    assert fused.keys() == dense.keys() | lexical.keys()
    assert all(0.0 <= score <= 1.0 for score in fused.values())


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

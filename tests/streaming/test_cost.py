"""The cost model: hopeful at first, stubborn against pauses, remembering what it has seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.streaming.cost import CostModel, estimate_tokens


def taught(*observations: tuple[int, float], times: int = 8) -> CostModel:
    model = CostModel()
    for _ in range(times):
        for tokens, seconds in observations:
            model.observe(tokens, seconds)
    return model


def test_it_expects_nothing_before_it_has_seen_anything() -> None:
    model = CostModel()
    assert model.seconds(100) == 0.0
    assert model.tokens_within(0.02, 768) == 768


def test_it_hopes_that_larger_batches_cost_no_more_until_it_has_seen_one() -> None:
    model = taught((10, 0.02))
    assert model.seconds(1000) == pytest.approx(0.02)
    model.observe(1000, 0.5)
    assert model.seconds(1000) == pytest.approx(0.5)


def test_it_interpolates_between_sizes_and_extends_the_last_slope() -> None:
    model = taught((100, 0.01), (1000, 0.1))
    assert model.seconds(550) == pytest.approx(0.055)
    assert model.seconds(2000) == pytest.approx(0.2)
    assert model.seconds(1) == pytest.approx(0.01)


def test_small_batches_do_not_wash_out_what_is_known_of_large_ones() -> None:
    model = taught((1000, 0.1))
    for _ in range(1000):
        model.observe(10, 0.002)
    assert model.seconds(1000) == pytest.approx(0.1)


def test_a_pause_moves_it_little_and_a_lasting_change_wins() -> None:
    model = taught((100, 0.01))
    model.observe(100, 60.0)
    assert model.seconds(100) < 0.02
    for _ in range(20):
        model.observe(100, 0.05)
    assert model.seconds(100) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    ("observations", "most", "expected"),
    [
        (((10, 0.02), (600, 0.021)), 768, 768),  # every batch costs the same: cutting gains nothing
        (((10, 0.001), (1000, 0.1)), 768, 199),  # a ten-thousandth of a second a token
        (((200, 0.03), (800, 0.12)), 768, 300),  # one document is more than asked for: half as long again
    ],
)
def test_tokens_within_a_time(observations: tuple[tuple[int, float], ...], most: int, expected: int) -> None:
    assert taught(*observations).tokens_within(0.02, most) == pytest.approx(expected, abs=2)


@given(st.lists(st.tuples(st.integers(1, 4000), st.floats(0.0, 10.0)), min_size=1), st.integers(1, 4000))
def test_predictions_are_never_negative_and_stay_near_what_was_seen(seen: list[tuple[int, float]], tokens: int) -> None:
    model = CostModel()
    for observation in seen:
        model.observe(*observation)
    least, most = min(seconds for _, seconds in seen), max(seconds for _, seconds in seen)
    assert model.seconds(tokens) >= 0.0
    if tokens <= max(size for size, _ in seen):
        assert model.seconds(tokens) >= least - 1e-9
    if tokens <= min(size for size, _ in seen):
        assert model.seconds(tokens) <= most + 1e-9


def test_tokens_are_estimated_within_the_window() -> None:
    assert estimate_tokens("what is asked") == 6
    assert estimate_tokens("x" * 10_000, 256) == 256

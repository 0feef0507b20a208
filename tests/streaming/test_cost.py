"""What the cost model may conclude from what it has seen, and what not."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.streaming.cost import CostModel, estimate_tokens


def learnt(*observations: tuple[int, float], times: int = 1) -> CostModel:
    model = CostModel()
    for _ in range(times):
        for tokens, seconds in observations:
            model.observe(tokens, seconds)
    return model


def test_it_knows_nothing_before_the_first_batch() -> None:
    assert CostModel().seconds(1000) == 0.0


@given(st.lists(st.tuples(st.integers(5, 12), st.floats(0.0195, 0.0205)), min_size=1, max_size=60))
def test_the_noise_of_lone_queries_is_not_drawn_out_to_a_full_batch(observations: list[tuple[int, float]]) -> None:
    assert learnt(*observations).seconds(400) <= 0.05


def test_batches_of_nearly_one_size_show_no_slope() -> None:
    assert learnt((7, 0.0200), (8, 0.0206), times=30).seconds(400) <= 0.03


def test_a_slope_that_stands_out_is_followed_beyond_the_largest_batch() -> None:
    model = learnt((100, 0.01), (200, 0.02), (400, 0.04), times=30)
    assert model.seconds(2000) == pytest.approx(0.2, rel=0.05)


def test_between_known_sizes_the_cost_is_interpolated() -> None:
    model = learnt((10, 0.01), (300, 0.15))
    assert model.seconds(155) == pytest.approx(0.08)


def test_one_pause_of_the_machine_is_not_the_price_of_a_batch() -> None:
    model = learnt((200, 0.02), times=10)
    model.observe(200, 5.0)
    assert model.seconds(200) <= 0.04


def test_what_full_batches_cost_outlives_any_number_of_lone_queries() -> None:
    model = learnt((300, 0.15), times=5)
    for tokens in islice((8, 9, 10, 11) * 100, 400):
        model.observe(tokens, 0.005)
    assert model.seconds(300) == pytest.approx(0.15)


def test_a_batch_is_not_cut_short_where_that_wins_nothing() -> None:
    flat = learnt((8, 0.0201), (256, 0.0203), times=8)
    assert flat.tokens_within(0.02, 2048) == 2048


def test_a_batch_is_cut_where_its_length_is_what_it_costs() -> None:
    steep = learnt((8, 0.002), (64, 0.016), (512, 0.128), times=8)
    assert 70 <= steep.tokens_within(0.02, 2048) <= 90


def test_where_one_document_takes_longer_than_asked_a_batch_may_take_half_as_long_again() -> None:
    model = learnt((200, 0.03), (800, 0.12), times=8)
    assert model.tokens_within(0.02, 768) == pytest.approx(300, abs=2)


def test_a_size_that_was_disturbed_when_it_was_last_seen_is_tried_again() -> None:
    model = learnt((100, 0.01), (200, 0.02), (400, 0.04), times=10)
    for _ in range(10):
        model.observe(400, 1.0)
    assert model.tokens_within(0.04, 2048) >= 390


def test_a_lasting_change_wins() -> None:
    model = learnt((100, 0.01), times=10)
    for _ in range(20):
        model.observe(100, 0.05)
    assert model.seconds(100) == pytest.approx(0.05, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 4000), st.floats(0.0, 10.0)), min_size=1), st.integers(1, 4000))
def test_predictions_are_never_negative(seen: list[tuple[int, float]], tokens: int) -> None:
    assert learnt(*seen).seconds(tokens) >= 0.0


def test_tokens_are_estimated_within_the_window() -> None:
    assert estimate_tokens("what is asked") == 6
    assert estimate_tokens("x" * 10_000, 256) == 256


def test_little_is_certain_after_one_batch_and_much_after_many() -> None:
    assert learnt((300, 0.24)).at_least(300) == 0.0
    assert learnt((300, 0.24), times=30).at_least(300) == pytest.approx(0.24, rel=0.01)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.encoding.packing import Row, Run, lay_out, plan

lengths_of_texts = st.lists(st.integers(1, 256), max_size=80)


@given(lengths_of_texts, st.sampled_from((1, 16)))
def test_every_text_is_placed_once_and_fits(lengths: list[int], tile: int) -> None:
    runs = plan(lengths, tile)
    assert sorted(text for run in runs for text in run.texts) == list(range(len(lengths)))
    for run in runs:
        assert all(row for row in run.rows)
        assert max(sum(lengths[text] for text in row) for row in run.rows) <= run.width
        assert len(run.rows) * run.width <= 2048
        assert run.width % tile == 0


@given(lengths_of_texts)
def test_padding_stays_small(lengths: list[int]) -> None:
    slots = sum(len(run.rows) * run.width for run in plan(lengths))
    one_by_one = sum(-(-length // 4) * 4 + 32 for length in lengths)  # a run each, rounded up, and its start
    assert slots <= one_by_one + 96


@given(st.lists(st.integers(1, 32), min_size=32, max_size=64))
def test_short_texts_share_rows_nearly_without_padding(lengths: list[int]) -> None:
    slots = sum(len(run.rows) * run.width for run in plan(lengths))
    assert slots <= 1.15 * sum(lengths) + 64


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ([], []),
        ([1], [(1, 4)]),
        ([12], [(1, 12)]),
        ([256], [(1, 256)]),
        ([200] * 8, [(8, 200)]),
        ([256] * 16, [(8, 256), (8, 256)]),
        ([12] * 10, [(2, 60)]),
        ([12, 256], [(1, 12), (1, 256)]),
        ([3000], [(1, 3000)]),
    ],
)
def test_plans(lengths: list[int], shapes: list[tuple[int, int]]) -> None:
    assert [(len(run.rows), run.width) for run in plan(lengths)] == shapes


def test_questions_of_like_length_have_one_shape_where_the_processor_works_on_tiles() -> None:
    assert {run.width for length in range(1, 17) for run in plan([length], 16)} == {16}
    assert [(len(run.rows), run.width) for run in plan([12] * 10, 16)] == [(2, 64)]


def whole(*ids: int) -> Row:
    return Row(ids, (0, len(ids)))


def test_texts_lie_end_to_end_and_count_from_zero_each() -> None:
    feed = lay_out(Run(rows=((1, 0), (2,)), width=6), [whole(7, 8), whole(4, 5, 6), whole(9)], "mean")
    np.testing.assert_array_equal(feed.ids, [[4, 5, 6, 7, 8, 0], [9, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(feed.positions, [[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(feed.segments, [[0, 0, 0, 1, 1, -1], [2, -1, -1, -1, -1, -1]])
    np.testing.assert_array_equal(feed.pool, [[1, 1, 1] + [0] * 9, [0, 0, 0, 1, 1] + [0] * 7, [0] * 6 + [1] + [0] * 5])


def test_first_token_alone_is_pooled_where_the_model_wants_it() -> None:
    feed = lay_out(Run(rows=((1, 0),), width=6), [whole(7, 8), whole(4, 5, 6)], "cls")
    np.testing.assert_array_equal(feed.pool, [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]])


def test_a_window_is_pooled_over_its_passage_and_the_marks() -> None:
    feed = lay_out(Run(rows=((0,), (1,)), width=6), [Row((1, 2, 3, 4, 5, 6), (2, 4)), whole(7, 8)], "mean")
    np.testing.assert_array_equal(feed.pool, [[1, 0, 1, 1, 0, 1] + [0] * 6, [0] * 6 + [1, 1] + [0] * 4])
    np.testing.assert_array_equal(feed.segments, [[0] * 6, [1, 1] + [-1] * 4])

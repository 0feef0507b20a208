"""A product is never further from the truth than is said, whatever the vectors."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from niruhybrid.retrieval.codes import Codes, Few
from niruhybrid.types import Vector

NUMBERS = st.floats(-4.0, 4.0, width=32)
SOME = st.integers(1, 5).flatmap(lambda count: arrays(np.float32, (count, 7), elements=NUMBERS))
ROUNDING = 1e-4


def coded(vectors: Vector, zeros: int = 0) -> Codes:
    codes = Codes(zeros, vectors.shape[1])
    for vector in vectors:
        codes.add(vector)
    return codes


TINY = np.full((1, 7), 1e-45, np.float32)  # the smallest number: a fraction of it is zero


@settings(max_examples=50, deadline=None)
@given(many=SOME, few=SOME)
@example(many=TINY, few=TINY)
@example(many=TINY * 136, few=TINY * 136)
def test_a_product_is_within_its_margin(many: Vector, few: Vector) -> None:
    found = coded(many).products(slice(0, len(many)), Few.of(few))
    wrong = np.abs(found.products * found.units[:, None] - many @ few.T)
    assert (wrong <= found.margins[:, None] + ROUNDING).all()


def test_margins_of_unit_vectors_are_small() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = coded(vectors[:20]).products(slice(5, 20), Few.of(vectors[20:]))
    assert found.margins.max() < 0.03
    assert found.products * found.units[:, None] == pytest.approx(vectors[5:20] @ vectors[20:].T, abs=0.005)


def test_zeros_come_first_and_places_close_up() -> None:
    vectors = np.eye(3, dtype=np.float32)
    codes = coded(vectors, zeros=2)
    codes.compact(np.array([True, False, False, True, True]))
    found = codes.products(slice(0, 3), Few.of(vectors))
    assert found.products * found.units[:, None] == pytest.approx(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]]))

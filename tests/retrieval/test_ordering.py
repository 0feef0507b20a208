"""Which values lie between bounds, against a comparison with each of them."""

import operator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.ordering import Ordering

LARGE = st.integers(2**53 - 2, 2**53 + 2) | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.7e18])
NUMBERS = st.integers(-3, 3) | st.floats(-3, 3, width=16) | LARGE | LARGE.map(float)
STRINGS = st.text("abé日", max_size=3)
VALUES = st.tuples(st.just("number"), NUMBERS) | st.tuples(st.just("string"), STRINGS) | st.just(("null", None))
COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
BOUNDS = st.sampled_from([NUMBERS, STRINGS]).flatmap(
    lambda kind: st.dictionaries(st.sampled_from(sorted(COMPARE)), kind, min_size=1)
)


def expected(values: list[tuple[str, Any]], bounds: dict[str, Any]) -> set[int]:
    kind = "string" if isinstance(next(iter(bounds.values())), str) else "number"
    return {
        code
        for code, (own, value) in enumerate(values)
        if own == kind and all(COMPARE[name](value, bound) for name, bound in bounds.items())
    }


@given(st.lists(st.lists(VALUES, max_size=9), max_size=6), BOUNDS, st.sets(st.integers(0, 60)))
def test_the_codes_between_bounds_are_those_of_the_values_that_compare(
    batches: list[list[tuple[str, Any]]], bounds: dict[str, Any], forgotten: set[int]
) -> None:
    order, values = Ordering(), list[tuple[str, Any]]()
    for batch in batches:
        fresh = [value for value in dict.fromkeys(batch) if value not in values]
        order = order.extended(len(values), fresh)
        values += fresh
        assert sorted(order.between(bounds).tolist()) == sorted(expected(values, bounds))
    plain = [value for _, value in values]
    again = Ordering.of(plain, *order.codes())
    assert sorted(again.between(bounds).tolist()) == sorted(expected(values, bounds))
    kept = np.array([code not in forgotten for code in range(len(values))], np.bool_)
    left = [value for value, stays in zip(values, kept, strict=True) if stays]
    fewer = order.kept(np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32))
    assert sorted(fewer.between(bounds).tolist()) == sorted(expected(left, bounds))


def test_nothing_lies_on_either_side_of_what_is_no_number() -> None:
    order = Ordering().extended(0, [("number", 1), ("number", float("nan"))])
    assert order.between({"gt": float("nan")}).tolist() == []
    assert order.between({"lt": 5}).tolist() == [0]

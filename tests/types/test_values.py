"""What enters: each value is refused with a clear error, or can leave again as JSON."""

import json
import math
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niruhybrid import Document, EmbeddedStore, Query, StreamProcessor
from niruhybrid.errors import (
    InvalidInputError,
    InvalidMetadataError,
    InvalidSettingError,
    InvalidTextError,
    InvalidVectorError,
)
from niruhybrid.testing import HashEncoder
from niruhybrid.types import IndexEntry, SearchRequest, StandingQuery
from niruhybrid.types.items import kept_document

HUGE = 10**5000  # more digits than Python writes out
A_HUGE_ONE = pytest.param(HUGE, id="huge")


def deep(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = {"a": inner}
    return inner


# --- time limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1e12, sys.maxsize, A_HUGE_ONE, math.inf, math.nan, 0, -1, True, "1", 86_401])
def test_a_time_limit_that_nothing_can_wait_for_is_refused(timeout: Any) -> None:
    for make in (lambda: Document("a", "text", timeout=timeout), lambda: Query("q", "text", timeout=timeout)):
        with pytest.raises(InvalidSettingError, match=r"`timeout` is .*: give seconds above 0, up to 86400, or None"):
            make()


def test_a_time_limit_of_a_day_is_taken() -> None:
    assert Document("a", "text", timeout=86_400).timeout == 86_400


def test_no_time_limit_ends_the_thread_that_watches_time_limits() -> None:
    encoder = HashEncoder()
    with StreamProcessor(encoder) as processor:
        vector = encoder.encode(["x"])[0]
        for timeout in (1e12, sys.maxsize):
            with pytest.raises(InvalidSettingError):
                processor.process_data("bomb", "x", embedding=vector, timeout=timeout)
        assert processor.process_data("long", "x", embedding=vector, timeout=86_400).ok
        assert any(thread.name == "niru-alarm" for thread in threading.enumerate())


# --- titles --------------------------------------------------------------------------------------------------------


def test_a_title_is_bounded() -> None:
    assert len(Document("a", "text", "t" * 2000).title) == 2000
    with pytest.raises(InvalidTextError, match="document title has 2001 characters of 2000 allowed: shorten it"):
        Document("a", "text", "t" * 2001)


# --- metadata ------------------------------------------------------------------------------------------------------


def test_metadata_is_bounded_in_depth() -> None:
    assert Document("a", "text", metadata=deep(32)).metadata
    for metadata in (deep(33), deep(253), deep(5_000), {"a": [deep(31)]}):
        with pytest.raises(InvalidMetadataError, match="metadata is nested more than 32 deep at `a"):
            Document("a", "text", metadata=metadata)
    with pytest.raises(InvalidMetadataError, match="nested more than 32 deep"):
        Query("q", "text", metadata=deep(33))


def test_metadata_that_contains_itself_is_refused() -> None:
    own: dict[str, Any] = {}
    own["a"] = own
    with pytest.raises(InvalidMetadataError, match="nested more than 32 deep"):
        Document("a", "text", metadata=own)


def test_metadata_is_bounded_in_size() -> None:
    assert Document("a", "text", metadata={"a": "x" * 65_528}).metadata
    for metadata in ({"a": "x" * 65_529}, {"a": "é" * 40_000}, {"a": ["x" * 100] * 700}):
        with pytest.raises(InvalidMetadataError, match=r"metadata has .*65536.* bytes as JSON: put what is long"):
            Document("a", "text", metadata=metadata)


def test_metadata_is_bounded_in_values() -> None:
    assert Document("a", "text", metadata={"a": list(range(999))}).metadata
    for metadata in ({"a": list(range(1000))}, {f"f{number}": None for number in range(1001)}):
        with pytest.raises(InvalidMetadataError, match="metadata has more than 1000 values: keep only those"):
            Document("a", "text", metadata=metadata)


@pytest.mark.parametrize("inner", ["x" * 1000, 1])
def test_metadata_whose_parts_are_shared_is_not_multiplied(inner: Any) -> None:
    shared = inner
    for _ in range(30):
        shared = [shared, shared]  # a thousand million times the same
    with pytest.raises(InvalidMetadataError, match="metadata has more than"):
        Document("a", "text", metadata={"a": shared})


def test_the_names_of_fields_are_bounded() -> None:
    assert Document("a", "text", metadata={"a" * 500: {"b" * 499: 1}}).metadata
    with pytest.raises(InvalidMetadataError, match="dotted name has 1001 characters of 1000 allowed"):
        Document("a", "text", metadata={"a" * 500: {"b" * 500: 1}})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_numbers_in_metadata_are_finite(number: float) -> None:
    with pytest.raises(InvalidMetadataError, match=r"metadata field `a.b` is .*: give a finite number, or null"):
        Document("a", "text", metadata={"a": {"b": [1, number]}})


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, A_HUGE_ONE])
def test_whole_numbers_in_metadata_have_64_bits(number: int) -> None:
    assert Document("a", "text", metadata={"low": -(2**63), "high": 2**64 - 1}).metadata["high"] == 2**64 - 1
    with pytest.raises(InvalidMetadataError, match=r"metadata field `n` is .*: give a whole number of 64 bits"):
        Document("a", "text", metadata={"n": number})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([], "metadata is a list: give a JSON object"),
        ("text", "metadata is a str: give a JSON object"),
        ({1: "x"}, "metadata has the key 1: use strings as keys"),
        ({"a": {None: 1}}, "metadata has the key None: use strings as keys"),
        ({"a": {1, 2}}, "metadata field `a` is not JSON"),
        ({"a": b"x"}, "metadata field `a` is not JSON"),
        ({"a": np.arange(3)}, "metadata field `a` is not JSON"),
        ({"a": object()}, "metadata field `a` is not JSON"),
        ({"a": "\ud800"}, "send valid Unicode"),
        ({"\ud800": 1}, "send valid Unicode"),
        ({"\ud800": math.nan}, r"metadata field `\?` is nan"),
    ],
)
def test_what_is_not_json_is_refused(metadata: Any, message: str) -> None:
    with pytest.raises(InvalidMetadataError, match=message) as raised:
        Document("a", "text", metadata=metadata)
    assert orjson.dumps(str(raised.value))


class Colour(str, Enum):  # noqa: UP042  # as older code has it
    RED = "red"


def test_metadata_is_kept_as_what_json_makes_of_it() -> None:
    when = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    given = {
        "tuple": (1, 2),
        "date": when,
        "uuid": uuid.UUID(int=1),
        "enum": Colour.RED,
        "numpy": np.float64(0.5),
        "mapping": MappingProxyType({"a": True}),
    }
    kept = dict(Document("a", "text", metadata=given).metadata)
    assert kept == {
        "tuple": [1, 2],
        "date": "2024-05-01T12:30:00+00:00",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "enum": "red",
        "numpy": 0.5,
        "mapping": {"a": True},
    }
    assert json.loads(json.dumps(kept)) == kept


def test_metadata_does_not_change_with_what_it_was_made_of() -> None:
    inner = [1]
    document = Document("a", "text", metadata={"inner": inner})
    inner.append(math.nan)  # type: ignore[arg-type]  # as a careless caller may
    assert document.metadata["inner"] == [1]


def test_a_document_that_was_stored_before_the_bounds_can_be_read() -> None:
    old = kept_document("old", "green tea", "t" * 5000, {"a": deep(200), "b": "x" * 100_000}, None)
    encoder = HashEncoder()
    with EmbeddedStore() as store:
        store.upsert([IndexEntry(old, encoder.encode(["green tea"])[0], ["green", "tea"])])
        (read,) = store.get(["old"])
        assert read is not None
        assert (read.title, dict(read.metadata)) == (old.title, dict(old.metadata))
        assert [entry.document.metadata for entry in store.entries(10)] == [old.metadata]
        (found,) = store.search([SearchRequest(None, ["tea"], mode="lexical")])
        assert [hit.metadata for hit in found.hits] == [old.metadata]


# --- filters and limits of a search --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "shape", [lambda n: {"eq": {"x": n}}, lambda n: {"in": {"x": [n]}}, lambda n: {"range": {"x": {"lt": n}}}]
)
def test_numbers_in_filters_are_finite(shape: Callable[[float], Any], number: float) -> None:
    with pytest.raises(InvalidSettingError, match=r"in a filter compares with .*: give a finite number"):
        Query("q", "text", filter=shape(number))


@pytest.mark.parametrize("number", [2**70, -(2**63) - 1, A_HUGE_ONE])
def test_whole_numbers_in_filters_have_64_bits(number: int) -> None:
    for wanted in ({"eq": {"x": number}}, {"range": {"x": {"gte": number}}}):
        with pytest.raises(InvalidSettingError, match=r"compares with .*: give a whole number of 64 bits at the most"):
            SearchRequest(None, ["text"], filter=wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        {"eq": {"x": "\ud800"}},
        {"eq": {"\ud800": 1}},
        {"exists": "\ud800"},
        {"range": {"x": {"lt": True}}},
        {"range": {"x": {"lt": 1, "gt": "a"}}},
        {"eq": {"x": deep(5000)}},
        {"eq": deep(5000)},
        {HUGE: 1},
        {"eq": {"x": [1]}},
        {b"eq": {"x": 1}},
    ],
)
def test_what_is_no_filter_is_refused(wanted: Any) -> None:
    with pytest.raises(InvalidSettingError, match="filter") as raised:
        Query("q", "text", filter=wanted)
    assert len(str(raised.value)) < 300
    assert orjson.dumps(str(raised.value))


def test_a_filter_whose_parts_are_shared_is_not_multiplied() -> None:
    shared: dict[str, Any] = {"eq": {"x": 1}}
    for _ in range(30):
        shared = {"and": [shared, shared]}
    with pytest.raises(InvalidSettingError, match="filter has more than 10000 operators: simplify it"):
        Query("q", "text", filter=shared)


def test_a_filter_is_a_copy_of_what_was_given() -> None:
    values = ["en"]
    query = Query("q", "text", filter=MappingProxyType({"in": MappingProxyType({"lang": values})}))
    values.append("sw")
    assert query.filter == {"in": {"lang": ["en"]}}
    assert orjson.dumps(query.filter)
    with EmbeddedStore() as store:
        assert store.search([SearchRequest(None, ["text"], filter=query.filter, mode="lexical")])[0].hits == ()


@pytest.mark.parametrize("watermark", [-1, 2**63, A_HUGE_ONE, True, 1.0])
def test_a_watermark_has_64_bits(watermark: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"`min_watermark` is .*: give a whole number from 0 to"):
        Query("q", "text", min_watermark=watermark)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, A_HUGE_ONE, "1", True])
def test_a_score_that_none_can_be_compared_with_is_refused(score: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"`min_score` is .*: give a finite number"):
        StandingQuery("q", None, ["text"], min_score=score, mode="lexical")


@pytest.mark.parametrize("value", [A_HUGE_ONE, -(10**4000), 0, 1001, True, 2.0, None, "5"])
def test_a_number_of_hits_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"`top_k` is .*: give a whole number from 1 to 1000"):
        Query("q", "text", top_k=value)


# --- vectors -------------------------------------------------------------------------------------------------------


class Stubborn:
    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("on another device")


@pytest.mark.parametrize(
    "vector",
    [
        [HUGE, 1],
        ["1", "2"],
        [1j, 2],
        [True, False],
        [b"1"],
        [[1, 2], [3]],
        [None, 1.0],
        [{}],
        {"a": 1},
        Stubborn(),
        np.array(["2024-01-01"], "datetime64[D]"),
        deep(5000),
        [],
        5,
        [0.0, 0.0],
        [math.nan, 1.0],
    ],
)
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    with pytest.raises(InvalidVectorError, match="embedding"):
        Document("a", "text", embedding=vector)


@pytest.mark.parametrize("vector", [[3, 4], (3.0, 4.0), np.array([3, 4], np.float16), np.array([3, 4], np.uint8)])
def test_any_numbers_make_a_unit_vector(vector: Any) -> None:
    assert Document("a", "text", embedding=vector).embedding == pytest.approx([0.6, 0.8])


# --- anything at all -----------------------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
ANY_NUMBER = st.one_of(
    st.integers(),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), 10**4000]),
    st.floats(),
    st.booleans(),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), ANY_NUMBER, ANY_TEXT, st.binary(max_size=5), st.datetimes(), st.uuids(), st.just(object())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner),
        st.dictionaries(st.one_of(ANY_TEXT, st.integers()), inner, max_size=4),
        inner.flatmap(lambda value: st.sampled_from([1, 29, 40]).map(lambda levels: deep(levels, value))),
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(ANY_TEXT, ANYTHING, max_size=4)
TEXTS = st.one_of(ANY_TEXT, st.sampled_from(["green tea", "", " ", "\0", "tea " * 3000]), ANYTHING)
FILTERS = st.recursive(
    st.one_of(
        st.builds(
            lambda name, field, value: {name: {field: value}}, st.sampled_from(["eq", "ne", "in"]), ANY_TEXT, ANYTHING
        ),
        st.builds(
            lambda field, name, value: {"range": {field: {name: value}}},
            ANY_TEXT,
            st.sampled_from(["lt", "gte"]),
            ANYTHING,
        ),
        st.builds(lambda field: {"exists": field}, ANYTHING),
        ANYTHING,
    ),
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(lambda parts: {"and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"or": parts}, st.lists(inner, max_size=3)),
    ),
    max_leaves=6,
)


def wrapped(value: Any, levels: int = 16) -> bytes:
    """Return `value` as JSON, some levels deeper than an answer has it."""
    assert json.dumps(value)
    for _ in range(levels):
        value = [value]
    return orjson.dumps(value)


def expect_good_work(processor: StreamProcessor) -> None:
    """Assert that a document and a query without any fault pass."""
    assert processor.process_data("good", "green tea is brewed", timeout=60).ok
    assert "good" in [hit.id for hit in processor.process_query("q", "green tea brewed", top_k=1000, timeout=60).hits]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": TEXTS,
            "text": TEXTS,
            "title": TEXTS,
            "metadata": st.one_of(OBJECTS, ANYTHING),
            "embedding": st.one_of(st.lists(ANY_NUMBER, min_size=64, max_size=64), ANYTHING),
            "timeout": st.one_of(ANY_NUMBER, st.just(60), ANYTHING),
        },
    )
)
def test_any_document_is_refused_or_can_be_read_by_all(fields: Mapping[str, Any]) -> None:
    with EmbeddedStore() as store, StreamProcessor(HashEncoder(), store=store) as processor:
        (result,) = processor.process_data_batch([fields])
        wrapped(result.to_dict())
        if result.error is None:
            (document,) = store.get([result.id])
            assert document is not None
            wrapped(
                {"id": document.id, "text": document.text, "title": document.title, "metadata": dict(document.metadata)}
            )
        expect_good_work(processor)
        found = processor.process_query("q", f"green tea {result.id}", top_k=1000, timeout=60)
        wrapped(found.to_dict())


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": TEXTS,
            "text": TEXTS,
            "top_k": ANYTHING,
            "metadata": st.one_of(OBJECTS, ANYTHING),
            "timeout": st.one_of(ANY_NUMBER, st.just(60), ANYTHING),
            "session": TEXTS,
            "filter": FILTERS,
            "mode": st.one_of(st.sampled_from(["hybrid", "lexical", "dense"]), ANYTHING),
            "min_watermark": ANY_NUMBER,
        },
    )
)
def test_any_query_ends_and_harms_nobody(fields: Mapping[str, Any]) -> None:
    with EmbeddedStore() as store, StreamProcessor(HashEncoder(), store=store) as processor:
        expect_good_work(processor)
        (result,) = processor.process_query_batch([fields])
        wrapped(result.to_dict())
        expect_good_work(processor)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(FILTERS)
def test_any_filter_is_refused_or_can_be_asked(wanted: Any) -> None:
    try:
        query = Query("q", "tea", filter=wanted)
    except InvalidInputError:
        return
    with EmbeddedStore() as store:
        document = Document("a", "tea", metadata={"a": [1, "x", None, {"b": 0.5}], "": True})
        store.upsert([IndexEntry(document, HashEncoder(4).encode(["tea"])[0], ["tea"])])
        assert len(store.search([SearchRequest(None, ["tea"], filter=query.filter, mode="lexical")])[0].hits) <= 1

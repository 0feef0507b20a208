"""Events as values, and back on the wire."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.client.events import AnswerEvent, Done, Sources, answer_event, stream_event
from niruhybrid.types import Hit, Token

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.filter(bool)
finite = st.floats(0, 1, allow_nan=False)
notes = st.lists(names, max_size=2).map(tuple)
hits = st.builds(
    Hit, names, st.integers(1, 9), finite, texts, texts, st.dictionaries(names, st.integers(0, 9), max_size=2)
)
events = st.one_of(
    st.builds(
        Sources, names, st.lists(hits, max_size=2).map(tuple), st.integers(0, 9), notes, provisional=st.booleans()
    ),
    st.builds(Token, texts, st.none() | names),
    st.builds(Done, names, st.just("stop"), st.dictionaries(names, finite, max_size=2), notes),
)


@given(event=events)
def test_an_event_is_the_same_after_a_way_over_the_wire(event: AnswerEvent) -> None:
    sent = stream_event(event)
    assert answer_event(sent.event, orjson.dumps(sent.data).decode()) == event


@pytest.mark.parametrize(("provisional", "name"), [(True, "provisional"), (False, "sources")])
def test_sources_go_by_their_own_name(provisional: bool, name: str) -> None:
    assert stream_event(Sources("q", (), provisional=provisional)).event == name

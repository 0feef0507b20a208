import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.retrieval.journal import GONE, Journal

ENTRIES = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 40), st.integers(1, 9)), max_size=8)
Entry = tuple[int, int, int]


def extended(journal: Journal, entries: list[Entry]) -> Journal:
    return journal.extended(*(list(column) for column in zip(*entries, strict=True))) if entries else journal


def read(journal: Journal, terms: list[int]) -> list[Entry]:
    found = journal.of(np.array(terms, np.int32))
    names = np.array(terms, np.int32)[found.terms]
    return list(zip(names.tolist(), found.slots.tolist(), found.counts.tolist(), strict=True))


@given(st.lists(st.tuples(ENTRIES, st.booleans()), max_size=12))
def test_any_history_reads_as_the_entries_that_were_kept(history: list[tuple[list[Entry], bool]]) -> None:
    journal, model = Journal.blank(), []
    states = [(journal, 0)]
    for entries, abandoned in history:
        longer = extended(journal, entries)
        if not abandoned:
            journal = longer
            model += entries
            states.append((journal, len(model)))
    for state, size in states:
        assert len(state) == size
        for term in range(6):
            assert read(state, [term]) == [entry for entry in model[:size] if entry[0] == term]
        assert sorted(read(state, [1, 3, 4])) == sorted(entry for entry in model[:size] if entry[0] in {1, 3, 4})


def test_what_came_later_can_be_told_from_what_was_there() -> None:
    before = extended(Journal.blank(), [(1, 0, 1), (2, 0, 3)])
    after = extended(before, [(2, GONE, 0)])
    assert [column.tolist() for column in after.since(len(before))] == [[2], [GONE], [0]]
    assert read(before, [2]) == [(2, 0, 3)]
    assert read(after, [2, 7]) == [(2, 0, 3), (2, GONE, 0)]

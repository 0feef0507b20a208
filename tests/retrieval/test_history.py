"""Any history of documents leaves the indexes as if only what is there now had ever been written."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from niruhybrid.retrieval import checkpoint
from niruhybrid.retrieval.search import best_slots
from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.types import SearchRequest, Vector

DIM = 8
WORDS = [f"w{n}" for n in range(12)]
REQUESTS = [["w0", "w1", "unknown"], ["w2"], ["w3", "w4", "w4", "w5"]]
STAMP = 1_700_000_000_000_000_000
FILTERS: list[Any] = [
    {"eq": {"day": "2026-01-03"}},
    {"range": {"day": {"gte": "2026-01-02", "lt": "2026-01-05"}}},
    {"range": {"stamp": {"gt": STAMP + 2, "lte": STAMP + 40}}},
    {"in": {"tags": ["t1", 2]}},
    {"not": {"exists": "day"}},
]


@dataclass(frozen=True)
class Passage:
    row: int
    vector: Vector
    terms: list[str]
    metadata: dict[str, Any]


def passage(row: int, seed: int) -> Passage:
    rng = np.random.default_rng((row, seed))
    made = rng.standard_normal(DIM).astype(np.float32)
    terms = [*rng.choice(WORDS, rng.integers(0, 9)).tolist(), f"only{row}"]
    metadata: dict[str, Any] = {"stamp": STAMP + row, "tags": [f"t{row % 3}", row % 4]}
    if row % 5:
        metadata["day"] = f"2026-01-0{row % 7 + 1}"
    if row % 4 == 1:
        metadata["document"] = ["a", 7, True, "b"][seed % 4]
    return Passage(row, made / np.linalg.norm(made), terms, metadata)


def written(documents: list[list[Passage]]) -> Snapshot:
    """Return the indexes of passages that were written at once."""
    owned = sorted(((one, run[0].row) for run in documents for one in run), key=lambda pair: pair[0].row)
    if not owned:
        return Snapshot.empty(0)
    return Snapshot.empty(0).changed(1, {}, additions([one for one, _ in owned], [owner for _, owner in owned]))


def additions(passages: list[Passage], owners: list[int]) -> Additions:
    return Additions(
        [one.row for one in passages],
        np.array([one.vector for one in passages], np.float32).reshape(len(passages), DIM),
        [one.terms for one in passages],
        [one.metadata for one in passages],
        owners,
    )


def answers(snapshot: Snapshot, *, exhaustive: bool) -> list[dict[int, float]]:
    query = passage(0, 0).vector
    requests = [SearchRequest(query, words, 500) for words in REQUESTS]
    requests += [SearchRequest(query, words, 500, mode="lexical") for words in REQUESTS]
    requests += [SearchRequest(query, REQUESTS[0], 500, wanted) for wanted in FILTERS]
    found = best_slots(snapshot, requests, 0.6, exhaustive=exhaustive)
    return [{int(snapshot.rows.items[slot]): score for slot, score in best} for best in found]


def never() -> bool:
    return False


class HistoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.snapshot = Snapshot.empty(0)
        self.documents: dict[int, list[Passage]] = {}
        self.row = self.watermark = 0
        self.begun: tuple[Snapshot, Snapshot] | None = None

    def write(self, removed: list[Passage], added: list[Passage], owners: list[int]) -> None:
        self.watermark += 1
        gone = {one.row: one.terms for one in removed}
        self.snapshot = self.snapshot.changed(self.watermark, gone, additions(added, owners))

    @rule(names=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), parts=st.integers(1, 4))
    def upsert(self, names: list[int], parts: int) -> None:
        removed, added, owners = list[Passage](), list[Passage](), list[int]()
        for name in names:
            removed += self.documents.pop(name, [])
            run = [passage(self.row + n, name) for n in range(1, parts + name % 2)] or [passage(self.row + 1, name)]
            self.row += len(run)
            owners += [run[0].row] * len(run)
            added += run
            self.documents[name] = run
        self.write(removed, added, owners)

    @precondition(lambda self: bool(self.documents))
    @rule(at=st.integers(0, 5), part=st.integers(1, 4), more=st.integers(1, 3))
    def follow(self, at: int, part: int, more: int) -> None:
        name = sorted(self.documents)[at % len(self.documents)]
        kept, replaced = self.documents[name][:part], self.documents[name][part:]
        added = [passage(self.row + n, name) for n in range(1, more + 1)]
        self.row += more
        self.documents[name] = [*kept, *added]
        self.write(replaced, added, [kept[0].row] * more)

    @rule(names=st.sets(st.integers(0, 5), max_size=3))
    def delete(self, names: set[int]) -> None:
        gone = [one for name in sorted(names) for one in self.documents.pop(name, [])]
        if gone:
            self.write(gone, [], [])

    @rule()
    def abandon(self) -> None:
        lost = passage(self.row + 1, 99)
        removed = {one.row: one.terms for run in list(self.documents.values())[:1] for one in run}
        self.snapshot.changed(self.watermark + 1, removed, additions([lost], [lost.row]))

    @precondition(lambda self: self.begun is None)
    @rule(closing=st.booleans())
    def begin_upkeep(self, closing: bool) -> None:
        work = self.snapshot.compacted if closing else self.snapshot.merged
        self.begun = (self.snapshot, work(never))

    @precondition(lambda self: self.begun is not None)
    @rule()
    def end_upkeep(self) -> None:
        assert self.begun is not None
        before, made = self.begun
        self.begun = None
        self.snapshot = made.followed_by(before, self.snapshot)

    @precondition(lambda self: self.begun is None and len(self.snapshot) > 0)
    @rule()
    def reopen(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "store")
            name = checkpoint.write(store, self.snapshot.without_journal())
            self.snapshot = checkpoint.read(checkpoint.file_of(store, name))

    @precondition(lambda self: self.begun is None)
    @rule()
    def nothing_is_held_after_gaps_are_closed_but_what_is_there(self) -> None:
        made = self.snapshot.compacted(never)
        live = [one for run in self.documents.values() for one in run]
        assert set(made.lexical.vocabulary) == {term for one in live for term in one.terms}
        held = {name: {value for _, value in column.values} for name, column in made.columns.fields.items()}
        stamps = {one.metadata["stamp"] for one in live}
        assert held.get("stamp", set()) == stamps
        assert held.get("day", set()) == {one.metadata["day"] for one in live if "day" in one.metadata}
        self.snapshot = made

    @invariant()
    def all_is_found_as_if_written_at_once(self) -> None:
        fresh = written(list(self.documents.values()))
        assert self.snapshot.documents == len(self.documents)
        expected = answers(fresh, exhaustive=True)
        for way in (True, False):
            for got, wanted in zip(answers(self.snapshot, exhaustive=way), expected, strict=True):
                assert got == pytest.approx(wanted, abs=1e-6)


HistoryMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestHistory = pytest.mark.slow(HistoryMachine.TestCase)


def test_versions_that_are_gone_leave_nothing_behind() -> None:
    snapshot, terms = Snapshot.empty(0), dict[int, list[str]]()
    for row in range(1, 12_001, 50):
        new = range(row, row + 50)
        removed = {old: terms.pop(old) for old in range(row - 200, row - 150) if old > 0}
        terms |= {one: ["common", f"word{one}"] for one in new}
        metadata = [{"updated": f"2026-01-01T00:00:{one:06d}", "stamp": STAMP + one} for one in new]
        vectors = np.ones((50, 2), np.float32)
        added = Additions(new, vectors, [terms[one] for one in new], metadata)
        snapshot = snapshot.changed(row, removed, added)
        if (work := snapshot.upkeep()) is not None:
            snapshot = work(snapshot, never).followed_by(snapshot, snapshot)
    assert len(snapshot) == 200
    assert len(snapshot.lexical.vocabulary) < 2000
    assert all(len(column.values) < 2000 for column in snapshot.columns.fields.values())
    wanted = {"range": {"updated": {"gt": "2026-01-01T00:00:011900"}}}
    assert np.count_nonzero(snapshot.passing(wanted)) == 100


def test_values_of_a_change_that_was_given_up_are_forgotten_too() -> None:
    one, lost = passage(1, 1), passage(2, 2)
    snapshot = Snapshot.empty(0).changed(1, {}, additions([one], [1]))
    snapshot.changed(2, {}, additions([lost], [2]))
    made = snapshot.compacted(never)
    assert set(made.lexical.vocabulary) == set(one.terms)
    assert [value for _, value in made.columns.fields["stamp"].values] == [one.metadata["stamp"]]

"""Any history of changes, with upkeep begun and ended in between, shows the documents that are there."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from niruhybrid.retrieval.snapshot import Additions, Snapshot
from niruhybrid.types import Vector

DIM = 4
LANGUAGES = ["en", "sw", None]


def vector(row: int) -> Vector:
    made: Vector = np.random.default_rng(row).standard_normal(DIM).astype(np.float32)
    return made


def terms(row: int) -> list[str]:
    return ["all", f"third{row % 3}", f"row{row}"]


def owner(row: int) -> int:
    """Rows 4 to 6, 12 to 14 and so on are passages of one document each."""
    return row - row % 4 if row % 8 in (4, 5, 6) else row


def never() -> bool:
    return False


class SnapshotMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.snapshot = Snapshot.empty(0)
        self.rows: set[int] = set()
        self.last = self.watermark = 0
        self.begun: tuple[Snapshot, Snapshot] | None = None

    @rule(added=st.integers(0, 20), removed=st.integers(0, 15))
    def change(self, added: int, removed: int) -> None:
        gone = sorted(self.rows)[:: max(1, removed // 3)][:removed]
        new = range(self.last + 1, self.last + 1 + added)
        vectors = np.array([vector(row) for row in new], np.float32).reshape(len(new), DIM)
        metadata = [{"row": row, "lang": LANGUAGES[row % 3], "tags": [row % 2, row % 5]} for row in new]
        self.watermark += 1
        self.snapshot = self.snapshot.changed(
            self.watermark,
            {row: terms(row) for row in gone},
            Additions(new, vectors, [terms(row) for row in new], metadata, [owner(row) for row in new]),
        )
        self.rows = self.rows - set(gone) | set(new)
        self.last += added

    @rule()
    def abandon(self) -> None:
        lost = Additions([self.last + 1], vector(0)[None], [["all", "lost"]], [{"row": "lost", "lang": "sw"}])
        self.snapshot.changed(self.watermark + 1, {row: terms(row) for row in list(self.rows)[:1]}, lost)

    @precondition(lambda self: self.begun is None)
    @rule(closing=st.booleans())
    def begin(self, closing: bool) -> None:
        work = self.snapshot.compacted if closing else self.snapshot.merged
        self.begun = (self.snapshot, work(never))

    @precondition(lambda self: self.begun is not None)
    @rule()
    def catch_up(self) -> None:
        assert self.begun is not None
        before, made = self.begun
        self.begun = (before.grown_to(self.snapshot), made.followed_by(before, self.snapshot))

    @precondition(lambda self: self.begun is not None)
    @rule()
    def end(self) -> None:
        assert self.begun is not None
        before, made = self.begun
        self.begun = None
        self.snapshot = made.followed_by(before, self.snapshot)

    def near(self, row: int) -> dict[int, float]:
        [(slots, scores)] = self.snapshot.dense.search([vector(row)], [1000], [self.snapshot.passing(None)])
        return dict(zip(self.snapshot.rows.items[slots].tolist(), scores.tolist(), strict=True))

    def having(self, *words: str) -> set[int]:
        lexical = self.snapshot.lexical
        [(slots, _)] = lexical.search(lexical.weighed([words]), [1000], [self.snapshot.passing(None)])
        return set(self.snapshot.rows.items[slots].tolist())

    @invariant()
    def everything_is_found_in_every_way(self) -> None:
        snapshot = self.snapshot
        assert (len(snapshot), snapshot.watermark) == (len(self.rows), self.watermark)
        live = snapshot.passing(None)
        rows = snapshot.rows.items[live].tolist()
        assert dict(zip(rows, snapshot.owners.items[live].tolist(), strict=True)) == {r: owner(r) for r in self.rows}
        assert snapshot.passages or all(owner(row) == row for row in self.rows)
        assert self.having("all") == self.rows
        assert self.having("third1", "lost") == {row for row in self.rows if row % 3 == 1}
        for row in sorted(self.rows)[:1]:
            near = self.near(row)
            assert near.keys() == self.rows
            assert near[row] == pytest.approx(float(vector(row) @ vector(row)), abs=1e-4)
        for wanted, passes in (
            ({"eq": {"lang": "sw"}}, lambda row: row % 3 == 1),
            ({"eq": {"lang": None}}, lambda row: row % 3 == 2),
            ({"eq": {"tags": 4}}, lambda row: row % 5 == 4),
            ({"range": {"row": {"gt": 10, "lte": 30}}}, lambda row: 10 < row <= 30),
            ({"eq": {"row": "lost"}}, lambda _: False),
        ):
            kept = np.flatnonzero(snapshot.passing(wanted))
            assert set(snapshot.rows.items[kept].tolist()) == {row for row in self.rows if passes(row)}


SnapshotMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestSnapshot = SnapshotMachine.TestCase

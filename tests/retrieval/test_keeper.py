"""Upkeep beside writers: they wait for the last few changes only, however many came while it worked."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pytest

from niruhybrid.retrieval.keeper import Keeper
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.recovery import Checkpoints
from niruhybrid.retrieval.snapshot import Additions, Snapshot

DIM = 4
TERMS = 50


def additions(first: int, count: int) -> Additions:
    rows = range(first, first + count)
    vectors = np.random.default_rng(first).standard_normal((count, DIM)).astype(np.float32)
    return Additions(rows, vectors, [[f"w{n}" for n in range(TERMS)]] * count, [{"n": row} for row in rows])


@dataclass(frozen=True, slots=True, eq=False)
class Watched(Snapshot):
    """A state that is worth upkeep once, and notes what upkeep catches up with while writers have to wait."""

    def upkeep(self) -> Callable[[Self, Callable[[], bool]], Self] | None:
        if self.watermark == 1:
            return upkeep[0]
        done.set()
        return None

    def followed_by(self, before: Self, after: Self) -> Self:
        waited.append(after.changes_since(before) if keepers[0].changing.locked() else 0)
        return super(Watched, self).followed_by(before, after)  # zero-argument super() is not for slots


done = threading.Event()
upkeep: list[Callable[[Any, Callable[[], bool]], Any]] = []
waited: list[int] = []
keepers: list[Keeper] = []


@pytest.mark.slow
@pytest.mark.parametrize("closing", [False, True], ids=["merged", "closed up"])
def test_writers_do_not_wait_while_upkeep_catches_up_with_what_they_wrote(closing: bool) -> None:
    state, committed = Watched.empty(0).changed(1, {}, additions(1, 300)), [1]

    def write(first: int, count: int) -> None:
        keeper = keepers[0]
        with keeper.changing:
            before = keeper.at(committed[0])
            assert before is not None
            removed = {first - 2: [f"w{n}" for n in range(TERMS)]}
            keeper.offer(before, before.changed(committed[0] + 1, removed, additions(first, count)))
            committed[0] += 1

    def work(before: Watched, stopped: Callable[[], bool]) -> Watched:
        made = before.compacted(stopped) if closing else before.merged(stopped)
        for first in range(301, 2301, 100):
            write(first, 100)
        return made

    waited.clear()
    done.clear()
    upkeep[:] = [work]
    keepers[:] = [Keeper(state, lambda: committed[0], Checkpoints(None, Log(None), 0))]
    with keepers[0].changing:
        keepers[0].wake()
    assert done.wait(50)
    keepers[0].stop()
    newest = keepers[0].at(committed[0])
    assert newest is not None
    assert len(newest) == 300 + 2000 - 20
    lexical = newest.lexical
    [(slots, _)] = lexical.search(lexical.weighed([["w7"]]), [5000], [newest.passing(None)])
    assert len(slots) == len(newest)
    assert max(waited) == 0

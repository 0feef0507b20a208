from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import get_args

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from niruhybrid.config import Overflow
from niruhybrid.errors import ClosedError, InvalidInputError, QueueFullError
from niruhybrid.streaming.core import Adder, BufferCore, Entry, Taker, size_of


def entry(serial: int, now: float = 0.0) -> Entry:
    return (f"item-{serial}", serial, MappingProxyType({}), now)


def filled(count: int, *, capacity: int = 8, overflow: Overflow = "drop_oldest") -> BufferCore:
    core = BufferCore(capacity, overflow=overflow)
    for serial in range(count):
        core.offer(entry(serial, float(serial)), 0)
    return core


class BufferMachine(RuleBasedStateMachine):
    """The core beside a ledger that writes down, independently, where each item ought to be."""

    adders: Bundle[tuple[Adder, int]] = Bundle("adders")
    takers: Bundle[Taker] = Bundle("takers")

    @initialize(
        capacity=st.integers(1, 5),
        max_bytes=st.none() | st.integers(3, 8),
        overflow=st.sampled_from((*get_args(Overflow), "block")),
    )
    def start(self, capacity: int, max_bytes: int | None, overflow: Overflow) -> None:
        self.core = BufferCore(capacity, max_bytes, overflow)
        self.now = 0
        self.serial = 0
        self.inside: list[tuple[int, int, int]] = []  # serial, size, time
        self.parked: list[tuple[Adder, int, int]] = []  # adder, serial, size
        self.counts = {"offered": 0, "delivered": 0, "displaced": 0, "dropped": 0, "rejected": 0, "batches": 0}
        self.peak = 0
        self.woken: list[object] = []
        self.sleeping: list[Taker] = []
        self.called: list[Taker] = []

    def fits(self, size: int) -> bool:
        full = len(self.inside) >= self.core.capacity
        limit = self.core.max_bytes
        return not full and (limit is None or sum(s for _, s, _ in self.inside) + size <= limit)

    def enter(self, serial: int, size: int) -> None:
        self.inside.append((serial, size, self.now))
        self.peak = max(self.peak, len(self.inside))

    def let_in(self) -> None:
        while self.parked and self.fits(self.parked[0][2]):
            adder, serial, size = self.parked.pop(0)
            assert adder.state == "in"
            self.counts["offered"] += 1
            self.enter(serial, size)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=adders, size=st.integers(0, 4) | st.just(9))
    def add(self, size: int) -> MultipleResults[tuple[Adder, int]] | tuple[Adder, int]:
        self.serial += 1
        item = entry(self.serial, self.now)
        if len(self.core.entries) < self.core.plain_below:
            assert self.fits(size)
            assert not self.parked
            assert not self.core.closed
            self.core.entries.append(item)
            self.counts["offered"] += 1
            self.enter(self.serial, size)
            return multiple()
        return self.offer(item, size)

    def offer(self, item: Entry, size: int) -> MultipleResults[tuple[Adder, int]] | tuple[Adder, int]:
        limit = self.core.max_bytes
        refused: type[Exception] | None = None
        if self.core.closed:
            refused = ClosedError
        elif limit is not None and size > limit:
            refused = InvalidInputError
        elif self.core.overflow == "error" and not self.fits(size):
            refused = QueueFullError
        if refused is not None:
            with pytest.raises(refused):
                self.core.offer(item, size)
            self.counts["offered"] += 1
            self.counts["rejected"] += 1
            return multiple()
        room = self.fits(size) and not self.parked
        dropped = self.core.offer(item, size)
        if room:
            assert dropped == ()
            self.enter(self.serial, size)
        elif self.core.overflow == "block":
            assert dropped is None
            adder = self.core.park(item, size, lambda: self.woken.append(adder))
            self.parked.append((adder, self.serial, size))
            return (adder, self.serial)
        elif self.core.overflow == "drop_newest":
            assert dropped is not None
            assert [lost.data for lost in dropped] == [self.serial]
            self.counts["dropped"] += 1
        else:
            assert dropped is not None
            for lost in dropped:
                assert not self.fits(size), "dropped more than was needed"
                assert lost.data == self.inside.pop(0)[0]
            self.counts["displaced"] += len(dropped)
            self.enter(self.serial, size)
        self.counts["offered"] += 1
        return multiple()

    @rule(want=st.integers(1, 6))
    def take(self, want: int) -> None:
        batch = self.core.take(want, self.now)
        expected, self.inside = self.inside[:want], self.inside[want:]
        assert [(item.data, item.added_at) for item in batch] == [(serial, when) for serial, _, when in expected]
        self.counts["delivered"] += len(batch)
        self.counts["batches"] += bool(batch)
        self.let_in()

    @rule(pair=consumes(adders))
    def give_up(self, pair: tuple[Adder, int]) -> None:
        adder, serial = pair
        waiting = any(parked is adder for parked, _, _ in self.parked)
        assert self.core.withdraw(adder, "full", self.now) == waiting
        if waiting:
            self.parked = [row for row in self.parked if row[1] != serial]
            self.counts["offered"] += 1
            self.counts["rejected"] += 1
            self.let_in()

    @rule(pair=consumes(adders))
    def cancel(self, pair: tuple[Adder, int]) -> None:
        adder, serial = pair
        waiting = any(parked is adder for parked, _, _ in self.parked)
        entered = any(row[0] == serial for row in self.inside)
        assert self.core.retract(adder, self.now) == (waiting or entered)
        self.parked = [row for row in self.parked if row[1] != serial]
        self.inside = [row for row in self.inside if row[0] != serial]
        self.counts["offered"] += waiting
        self.counts["rejected"] += waiting or entered
        self.let_in()

    @rule(target=takers, want=st.integers(1, 6), timeout=st.integers(0, 3))
    def wait(self, want: int, timeout: int) -> MultipleResults[Taker] | Taker:
        give_up = self.now + timeout
        due = self.core.due(want, timeout, give_up)
        if self.core.closed or len(self.inside) >= min(want, self.core.capacity):
            assert due == -inf
        elif due != -inf:
            assert due == (self.inside[0][2] + timeout if self.inside else give_up)
        else:
            assert self.core.max_bytes is not None, "due at once, though neither full nor closed"
        if due <= self.now:
            return multiple()
        taker = self.core.wait(want, lambda: self.woken.append(taker))
        self.sleeping.append(taker)
        return taker

    @rule(taker=consumes(takers))
    def leave(self, taker: Taker) -> None:
        self.core.leave(taker)
        (self.sleeping if taker in self.sleeping else self.called).remove(taker)

    @rule()
    def close(self) -> None:
        self.core.close()
        for adder, _, _ in self.parked:
            assert adder.state == "closed"
        self.counts["offered"] += len(self.parked)
        self.counts["rejected"] += len(self.parked)
        self.parked.clear()

    @invariant()
    def all_adds_up(self) -> None:
        stats = self.core.stats(self.now)
        assert stats.offered == self.counts["offered"]
        assert stats.delivered == self.counts["delivered"]
        assert stats.batches == self.counts["batches"]
        assert stats.size == len(self.core) == len(self.inside) <= stats.capacity
        assert stats.accepted == stats.delivered + stats.size + self.counts["displaced"]
        assert sum(stats.dropped.values()) == self.counts["displaced"] + self.counts["dropped"]
        assert sum(stats.rejected.values()) == self.counts["rejected"]
        lost = sum(stats.dropped.values()) + sum(stats.rejected.values())
        assert stats.offered == stats.delivered + lost + stats.size
        assert stats.peak == self.peak
        assert stats.oldest_age == (self.now - self.inside[0][2] if self.inside else 0)
        if stats.capacity_bytes is not None:
            assert stats.size_bytes == sum(size for _, size, _ in self.inside) <= stats.capacity_bytes

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for waiter in self.woken:
            if isinstance(waiter, Taker) and waiter in self.sleeping:
                self.sleeping.remove(waiter)
                self.called.append(waiter)
        assert len(self.woken) == len(set(map(id, self.woken))), "woken twice"
        spare = len(self.inside) - sum(taker.want for taker in self.called)
        assert all(taker.want > spare for taker in self.sleeping)
        assert not (self.core.closed and self.sleeping)
        assert all(adder.state == "waiting" and adder not in self.woken for adder, _, _ in self.parked)
        assert not (self.parked and self.fits(self.parked[0][2]))


TestBufferMachine = pytest.mark.slow(BufferMachine.TestCase)
TestBufferMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("now", "ready"),
    [(2.0, False), (2.999, False), (3.0, True), (3.001, True)],
)
def test_oldest_item_is_due_at_its_arrival_plus_the_timeout_and_not_before(now: float, ready: bool) -> None:
    core = BufferCore(8)
    core.offer(entry(1, 1.0), 0)
    core.offer(entry(2, 2.0), 0)
    assert (core.due(5, 2.0, give_up=inf) <= now) == ready


@pytest.mark.parametrize(("held", "due"), [(0, 7.0), (1, 4.0), (2, 4.0), (3, -inf), (4, -inf)])
def test_a_batch_is_due_at_once_only_when_full(held: int, due: float) -> None:
    assert filled(held).due(3, 4.0, give_up=7.0) == due


def test_without_a_limit_an_empty_buffer_is_never_due() -> None:
    assert BufferCore(1).due(1, 0.0, give_up=inf) == inf


def test_a_full_buffer_is_a_full_batch_however_much_is_wanted() -> None:
    assert filled(8, capacity=8).due(100, 9.0, give_up=9.0) == -inf


def test_closed_never_accepts() -> None:
    for overflow in get_args(Overflow):
        core = filled(2, capacity=4, overflow=overflow)
        core.close()
        assert core.plain_below == 0
        with pytest.raises(ClosedError, match="buffer is closed"):
            core.offer(entry(9), 0)
        assert [item.data for item in core.take(9, 1.0)] == [0, 1]
        assert core.plain_below == 0
        with pytest.raises(ClosedError):
            core.offer(entry(9), 0)
        assert len(core) == 0
        assert core.stats(0.0).rejected == {"closed": 2}


def test_those_who_wait_for_room_are_never_overtaken() -> None:
    core = filled(1, capacity=1, overflow="block")
    first = core.park(entry(1), 0, lambda: None)
    core.take(1, 5.0)
    second = core.park(entry(2), 0, lambda: None)
    assert core.offer(entry(3), 0) is None
    assert first.state == "in"
    assert second.state == "waiting"
    assert [(item.data, item.added_at) for item in core.take(1, 6.0)] == [(1, 5.0)]
    assert [(item.data, item.added_at) for item in core.take(1, 7.0)] == [(2, 6.0)]


def test_a_small_item_does_not_overtake_a_large_one_that_waits() -> None:
    core = BufferCore(8, 10, "block")
    core.offer(entry(0), 7)
    assert core.offer(entry(1), 7) is None
    large = core.park(entry(1), 7, lambda: None)
    assert core.offer(entry(2), 1) is None
    small = core.park(entry(2), 1, lambda: None)
    assert [item.data for item in core.take(8, 0.0)] == [0]
    assert (large.state, small.state) == ("in", "in")
    assert [item.data for item in core.take(8, 0.0)] == [1, 2]


def test_an_item_taken_out_again_gives_its_bytes_back() -> None:
    core = BufferCore(8, 10, "block")
    core.offer(entry(0), 9)
    core.park(entry(1), 1, lambda: None)
    cancelled = core.park(entry(2), 6, lambda: None)
    waiting = core.park(entry(3), 7, lambda: None)
    core.take(1, 0.0)
    assert (cancelled.state, waiting.state) == ("in", "waiting")
    assert core.retract(cancelled, 0.0)
    assert core.stats(0.0).size_bytes == 8
    assert [item.data for item in core.take(8, 0.0)] == [1, 3]


def test_the_peak_counts_an_item_that_was_taken_out_again() -> None:
    core = BufferCore(8, 10, "block")
    core.offer(entry(0), 9)
    parked = [core.park(entry(serial), 2, lambda: None) for serial in (1, 2)]
    core.take(1, 0.0)
    assert all(core.retract(adder, 0.0) for adder in parked)
    assert core.stats(0.0).peak == 2


def test_giving_up_lets_in_those_behind() -> None:
    core = BufferCore(8, 10, "block")
    core.offer(entry(0), 7)
    large = core.park(entry(1), 7, lambda: None)
    small = core.park(entry(2), 1, lambda: None)
    assert core.withdraw(large, "full", 0.0)
    assert small.state == "in"


def test_one_full_batch_wakes_one_taker() -> None:
    core = BufferCore(8)
    woken: list[str] = []
    first = core.wait(2, lambda: woken.append("first"))
    core.wait(2, lambda: woken.append("second"))
    for serial in range(3):
        core.offer(entry(serial), 0)
    assert woken == ["first"]
    core.offer(entry(3), 0)
    assert woken == ["first", "second"]
    core.leave(first)


def test_a_taker_that_wants_more_than_fits_is_woken_when_nothing_more_does() -> None:
    core = BufferCore(2)
    woken: list[str] = []
    core.wait(5, lambda: woken.append("taker"))
    core.offer(entry(0), 0)
    assert woken == []
    core.offer(entry(1), 0)
    assert woken == ["taker"]


def test_a_taker_that_leaves_passes_its_wake_on() -> None:
    core = BufferCore(8)
    woken: list[str] = []
    first = core.wait(2, lambda: woken.append("first"))
    core.wait(2, lambda: woken.append("second"))
    core.offer(entry(0), 0)
    core.offer(entry(1), 0)
    core.leave(first)
    assert woken == ["first", "second"]


@pytest.mark.parametrize("overflow", ["block", "drop_newest", "drop_oldest"])
def test_out_of_bytes_means_full_for_those_who_wait(overflow: Overflow) -> None:
    core = BufferCore(8, 10, overflow)
    woken: list[str] = []
    core.offer(entry(0), 7)
    core.wait(8, lambda: woken.append("taker"))
    if core.offer(entry(1), 7) is None:
        core.park(entry(1), 7, lambda: None)
    assert woken == ["taker"]
    assert core.due(8, 60.0, give_up=inf) == -inf
    core.take(8, 0.0)
    if not len(core):
        assert core.due(8, 60.0, give_up=inf) == inf


def test_an_item_larger_than_everything_is_refused_and_displaces_nothing() -> None:
    core = BufferCore(8, 10)
    core.offer(entry(0), 10)
    with pytest.raises(InvalidInputError, match=r"item has 11 bytes of 10: .*`max_bytes`"):
        core.offer(entry(1), 11)
    assert [item.data for item in core.take(8, 0.0)] == [0]


def test_full_says_the_numbers_and_the_remedy() -> None:
    core = filled(2, capacity=2, overflow="error")
    with pytest.raises(QueueFullError, match="buffer holds 2 of 2 items: retry later or raise `buffer_size`"):
        core.offer(entry(9), 0)


@dataclass
class Passage:
    text: str
    vector: object = None


CYCLE: list[object] = ["abc"]
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 3),
        ("é€😀", 9),
        ("\ud800", 3),
        (b"1234", 4),
        (np.zeros(3, np.float32), 12),
        ({"text": "abc", "more": {"x": ["de", b"f"]}, "n": 7}, 6),
        (Passage("abc", np.zeros(1, np.float32)), 7),
        (("a", None, 1.5), 1),
        (CYCLE, 3),
        (str, 0),
        (None, 0),
    ],
)
def test_size_is_that_of_texts_and_arrays(value: object, size: int) -> None:
    assert size_of(value) == size


def test_size_of_several_is_their_sum() -> None:
    assert size_of("ab", {"k": "cde"}) == 5

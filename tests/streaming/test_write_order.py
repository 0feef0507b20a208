"""Of one id, the write handed in last is kept, in whatever order the encodes end."""

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import InvalidSettingError, StoreFullError
from niruhybrid.streaming.documents import Documents
from niruhybrid.streaming.reading import Growing, Part, Reader
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.streaming.write_order import WriteOrder
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Vector
from niruhybrid.windows import Window
from tests.streaming.conftest import WAIT
from tests.streaming.test_stream_processor import ListStore

ROW: Vector = np.array([1.0, 0.0], np.float32)


@given(
    ids=st.lists(st.sampled_from("ab"), min_size=1, max_size=8),
    data=st.data(),
)
def test_any_order_of_ends_keeps_what_the_order_of_arrivals_would(ids: list[str], data: st.DataObject) -> None:
    order = WriteOrder()
    arrivals = {number: order.arrive(name) for number, name in enumerate(ids)}
    fails = {number: data.draw(st.booleans()) for number in arrivals}
    store: dict[str, int] = {}
    written: dict[int, int] = {}
    ends: list[int] = data.draw(st.permutations(list(arrivals)))
    for clock, number in enumerate(ends, 1):
        arrival = arrivals[number]
        if fails[number]:
            continue
        if arrival.superseded is None:
            store[ids[number]] = number
            arrival.written(clock)
            written[number] = clock
        else:
            newer = [clock for other, clock in written.items() if other > number and ids[other] == ids[number]]
            assert arrival.superseded in newer
    expected = {name: max(n for n in fails if ids[n] == name and not fails[n]) for name in store}
    assert store == expected
    assert set(store) == {name for n, name in enumerate(ids) if not fails[n]}
    arrivals.clear()
    arrival = order.arrive("c")
    assert len(order) == 1, "ids that have nothing under way are forgotten"


def test_an_id_is_forgotten_when_its_last_write_has_ended() -> None:
    order = WriteOrder()
    first, second = order.arrive("d"), order.arrive("d")
    second.written(7)
    assert first.superseded == 7
    del second
    gc.collect()
    assert first.superseded == 7
    del first
    gc.collect()
    assert len(order) == 0
    assert order.arrive("d").superseded is None


# --- in the writer -------------------------------------------------------------------------------------------------


def documents(store: object) -> Documents:
    return Documents(Reader(HashEncoder(2), StreamingConfig()), store, None)  # type: ignore[arg-type]  # does what is used


def handed_in(lane: Documents, text: str, name: str = "d") -> object:
    payload = lane.kind.job(Document(name, text)).payload
    lane.arrive(payload)
    return payload


def test_an_older_write_that_comes_later_is_complete_with_the_newer_ones_watermark() -> None:
    store = ListStore()
    lane = documents(store)
    old, new = handed_in(lane, "old"), handed_in(lane, "new")
    assert lane.write([(new, ROW)]) == [1]
    assert lane.write([(old, ROW), (handed_in(lane, "x", "other"), ROW)]) == [1, 2]
    assert store.entries["d"].document.text == "new"


def test_of_one_transaction_the_newer_is_kept_whatever_its_place() -> None:
    store = ListStore()
    lane = documents(store)
    old, new = handed_in(lane, "old"), handed_in(lane, "new")
    assert lane.write([(new, ROW), (old, ROW)]) == [1, 1]
    assert store.entries["d"].document.text == "new"
    assert store.batches == [1]


def test_a_newer_write_that_fails_leaves_the_older() -> None:
    store = ListStore()
    lane = documents(store)
    old, new = handed_in(lane, "old"), handed_in(lane, "new")
    store.full = True
    with pytest.raises(StoreFullError):
        lane.write([(new, ROW)])
    store.full = False
    assert lane.write([(old, ROW)]) == [1]
    assert store.entries["d"].document.text == "old"


def test_a_document_that_was_removed_after_it_was_handed_in_stays_removed() -> None:
    store = ListStore()
    lane = documents(store)
    old = handed_in(lane, "old")
    lane.write([(handed_in(lane, "before"), ROW)])
    removed, watermark = lane.removal(["d", "unknown"])()
    assert removed == 1
    assert lane.write([(old, ROW)]) == [watermark]
    assert "d" not in store.entries
    lane.write([(handed_in(lane, "again"), ROW)])
    assert store.entries["d"].document.text == "again"


def test_a_growing_text_has_one_place_and_yields_to_what_came_after_it() -> None:
    store = ListStore()
    lane = documents(store)
    growing = Growing(Document("d", "", embedding=np.ones(2, np.float32)))
    parts = [Part(Window(at, at, f"part {at}", (at,), (0, 1), (0, 1)), growing) for at in range(3)]
    for part in parts[:2]:
        lane.arrive(part)
    assert lane.write([(parts[0], ROW)]) == [1]
    newer = handed_in(lane, "newer")
    lane.arrive(parts[2])
    assert lane.write([(parts[1], ROW)]) == [2]
    assert lane.write([(newer, ROW)]) == [3]
    assert lane.write([(parts[2], ROW)]) == [3]
    assert store.entries["d"].document.text == "newer"


# --- through the processors ----------------------------------------------------------------------------------------


class HoldsBack(HashEncoder):
    """Lets batches with a held word wait until they are released."""

    def __init__(self) -> None:
        super().__init__(8)
        self.release = threading.Event()
        self.entered = threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        self.entered.set()
        assert not any("OLD" in text for text in texts) or self.release.wait(WAIT)
        return super().encode(texts)


class PartStore(ListStore):
    """Keeps of each document the parts, and tells when an id was written."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, list[str]] = {}

    def upsert(self, entries: Sequence[IndexEntry], /) -> int:
        for entry in entries:
            self.parts.setdefault(entry.document.id, [])[entry.part :] = [entry.document.text]
        return super().upsert(entries)


@pytest.fixture(params=["threads", "asyncio"])
def batch(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    def of_threads(items: Any, **settings: Any) -> list[Any]:
        with StreamProcessor(HashEncoder(8), **settings) as processor:
            return processor.process_data_batch(items)

    def of_asyncio(items: Any, **settings: Any) -> list[Any]:
        async def main() -> list[Any]:
            async with AsyncStreamProcessor(HashEncoder(8), **settings) as processor:
                return await processor.process_data_batch(items)

        return asyncio.run(main())

    return of_threads if request.param == "threads" else of_asyncio


@pytest.mark.parametrize("mode", ["windows", "mean"])
def test_a_short_document_after_a_long_one_of_its_id_in_one_stream_wins(
    batch: Callable[..., list[Any]], mode: str
) -> None:
    store = PartStore()
    items: list[dict[str, str]] = [{"id": f"n{number}", "text": f"short note {number}"} for number in range(40)]
    items += [{"id": "price", "text": "OLD " + "a long talk about costs " * 100}, {"id": "price", "text": "NEW price"}]
    *_, old, new = batch(items, store=store, config=StreamingConfig(long_text=mode))  # type: ignore[arg-type]  # a mode
    assert old.ok
    assert new.ok
    assert store.parts["price"] == ["NEW price"]
    assert new.watermark <= len(store.batches)


def test_between_single_calls_the_one_made_last_wins() -> None:
    encoder = HoldsBack()
    store: Any = PartStore()

    async def main() -> tuple[int | None, int | None]:
        async with AsyncStreamProcessor(encoder, store=store) as processor:
            old = asyncio.ensure_future(processor.process_data("d", "OLD text"))
            await asyncio.to_thread(encoder.entered.wait, WAIT)
            new = await processor.process_data("d", "NEW", embedding=np.ones(8, np.float32))
            encoder.release.set()
            return (await old).watermark, new.watermark

    first, second = asyncio.run(main())
    assert first == second
    assert store.parts["d"] == ["NEW"]


def test_a_removal_needs_a_store_and_removes() -> None:
    store: Any = ListStore()
    with StreamProcessor(HashEncoder(8), store=store) as processor:
        processor.process_data("d", "text")
        assert processor.delete(["d"])[0] == 1
        assert store.count() == 0
    with StreamProcessor(HashEncoder(8)) as processor, pytest.raises(InvalidSettingError, match="store"):
        processor.delete(["d"])

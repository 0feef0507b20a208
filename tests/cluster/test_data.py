import asyncio
import threading
from collections.abc import Sequence

import pytest

from niruhybrid.cluster.broker import Message
from niruhybrid.cluster.operations import backoff, letter
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import InvalidTextError
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Document, IndexEntry, Vector
from tests.cluster.conftest import BrokenStore, Play, Town, heard
from tests.cluster.memory_broker import MemoryBroker

FEW = WorkerConfig(max_deliveries=2)


class PoisonedEncoder(HashEncoder):
    """Raises for any batch that holds a text with `poison`."""

    def encode(self, texts: Sequence[str], /) -> Vector:
        if any("poison" in text for text in texts):
            raise RuntimeError("the model met a text it can't bear")
        return super().encode(texts)


class GatedEncoder(HashEncoder):
    """Encodes only while its gate is open; `entered` tells when it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str], /) -> Vector:
        self.entered.set()
        assert self.gate.wait(10)
        return super().encode(texts)


def test_a_message_is_stored_and_then_acknowledged_and_told(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker() as pipeline:
            sequence = town.send({"id": "tea", "text": "Green tea is brewed at 80 degrees."})
            result = await town.result()
            [document] = await pipeline.get(["tea"])
            assert document is not None
            assert result == {
                "sequence": sequence,
                "id": "tea",
                "watermark": await pipeline.watermark(),
                "windows": 1,
            }
            assert town.stream.timers == {}  # it does not come again

    play(scenario)


def test_a_string_is_a_document(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker() as pipeline:
            town.send("Sourdough proves overnight.")
            [document] = await pipeline.get([(await town.result())["id"]])
            assert document is not None
            assert document.text == "Sourdough proves overnight."

    play(scenario)


def test_who_asks_to_be_told_is_told(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            told = town.listen("mine")
            town.send({"id": "tea", "text": "tea"}, Niru_Reply_To="mine")
            assert (await heard(told))["id"] == "tea"
            town.send({"id": "tea", "text": ""}, Niru_Reply_To="mine")
            assert (await heard(told))["error"]["code"] == "invalid_text"

    play(scenario)


def test_a_document_is_removed_by_a_message(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker() as pipeline:
            town.send({"id": "tea", "text": "tea"}, "niru.data.tea")
            await town.result()
            town.send({"op": "delete", "id": "tea"}, "niru.data.tea")
            await town.result()
            assert await pipeline.get(["tea"]) == [None]

    play(scenario)


def test_messages_that_come_together_are_written_together(play: Play) -> None:
    async def scenario(town: Town) -> None:
        for number in range(40):
            town.send({"id": f"d{number}", "text": f"text {number}"})
        async with town.worker() as pipeline:
            results = [await town.result() for _ in range(40)]
            assert (await pipeline.stats()).documents == 40
            assert len({result["watermark"] for result in results}) < 20

    play(scenario)


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (b"no JSON", "invalid_input"),
        (b"\xff", "invalid_input"),
        ([1], "invalid_input"),
        ({"id": "bad", "text": " "}, "invalid_text"),
        ({"id": "", "text": "text"}, "invalid_id"),
        ({"id": "bad", "text": "t", "color": 1}, "invalid_input"),
        ({"op": "drop", "id": "bad"}, "invalid_input"),
        ({"op": "delete"}, "invalid_input"),
        ({"op": "delete", "id": 5}, "invalid_id"),
        ({"id": "bad", "text": "t", "embedding": [1.0, 2.0]}, "invalid_vector"),
        ({"id": "bad", "text": "poison\nof the encoder"}, "encoder_failed"),
    ],
)
def test_a_poison_message_costs_only_itself(play: Play, poison: object, reason: str) -> None:
    async def scenario(town: Town) -> None:
        before = town.send({"id": "before", "text": "good"})
        bad = town.send(poison, Trace="abc")
        after = town.send({"id": "after", "text": "good"})
        async with town.worker(encoder=PoisonedEncoder()) as pipeline:
            results = {result["sequence"]: result for result in [await town.result() for _ in range(3)]}
            assert (results[before]["id"], results[after]["id"]) == ("before", "after")
            assert results[bad]["error"]["code"] == reason
            assert (await pipeline.stats()).documents == 2
        assert list(town.stream.dead) == [bad]
        buried = town.stream.dead[bad]
        assert buried.headers["Trace"] == "abc"
        assert (buried.headers["Niru-Reason"], buried.headers["Niru-Subject"]) == (reason, "niru.data")
        assert (buried.headers["Niru-Sequence"], buried.headers["Niru-Deliveries"]) == (str(bad), "1")
        assert buried.headers["Niru-Message"].splitlines() == [buried.headers["Niru-Message"]]

    play(scenario)


@pytest.mark.slow
def test_a_store_that_fails_for_a_while_costs_no_message(play: Play) -> None:
    async def scenario(town: Town) -> None:
        store = BrokenStore(failures=1)
        async with town.worker(store) as pipeline:
            town.send({"id": "tea", "text": "tea"})
            assert (await town.result())["id"] == "tea"
            assert (await pipeline.stats()).documents == 1
        assert town.stream.dead == {}

    play(scenario)


def test_a_model_that_is_not_the_store_s_costs_no_message(play: Play) -> None:
    async def scenario(town: Town) -> None:
        store = EmbeddedStore()
        vector = HashEncoder(64).encode(["bread"])[0]
        store.upsert([IndexEntry(Document("bread", "bread"), vector, ["bread"])])
        town.send({"id": "tea", "text": "tea"})
        async with town.worker(store, HashEncoder(32)):
            ending = asyncio.ensure_future(town.result())
            done, _ = await asyncio.wait({ending}, timeout=0.1)
            assert not done
            ending.cancel()
        assert town.stream.dead == {}

    play(scenario)


@pytest.mark.slow
def test_what_fails_too_often_is_a_dead_letter_with_its_last_error(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker(BrokenStore(failures=1000)):
            sequence = town.send({"id": "tea", "text": "tea"})
            assert (await town.result())["error"]["code"] == "store_error"
        buried = town.stream.dead[sequence]
        assert (buried.headers["Niru-Reason"], buried.headers["Niru-Deliveries"]) == ("store_error", "2")

    play(scenario, FEW)


def test_a_message_that_took_its_workers_with_it_is_not_tried_for_ever(play: Play) -> None:
    async def scenario(town: Town) -> None:
        sequence = town.send({"id": "tea", "text": "tea"})
        dying = MemoryBroker(town.stream)
        for _ in range(FEW.max_deliveries):
            [message] = await dying.pull(1)
            await dying.retry(message, 0.0)
        encoder = HashEncoder()
        async with town.worker(encoder=encoder):
            await town.result()
        assert town.stream.dead[sequence].headers["Niru-Reason"] == "undeliverable"
        assert encoder.calls == []

    play(scenario, FEW)


def test_an_old_message_that_comes_again_does_not_undo_a_newer_one(play: Play) -> None:
    async def scenario(town: Town) -> None:
        dying = MemoryBroker(town.stream)
        old = town.send({"id": "tea", "text": "old"}, "niru.data.tea")
        [taken] = await dying.pull(1)
        new = town.send({"id": "tea", "text": "new"}, "niru.data.tea")
        encoder = HashEncoder()
        async with town.worker(encoder=encoder) as pipeline:
            assert (await town.result())["sequence"] == new
            await dying.retry(taken, 0.0)
            result = await town.result()
            assert (result["sequence"], result["superseded_by"]) == (old, new)
            [document] = await pipeline.get(["tea"])
            assert document is not None
            assert document.text == "new"
        assert {text for batch in encoder.calls for text in batch} == {"new"}  # the old one was not even tried

    play(scenario)


def test_an_old_message_that_comes_again_does_not_undo_a_removal(play: Play) -> None:
    async def scenario(town: Town) -> None:
        dying = MemoryBroker(town.stream)
        town.send({"id": "tea", "text": "old"}, "niru.data.tea")
        [taken] = await dying.pull(1)
        town.send({"op": "delete", "id": "tea"}, "niru.data.tea")
        async with town.worker() as pipeline:
            await town.result()
            await dying.retry(taken, 0.0)
            await town.result()
            assert await pipeline.get(["tea"]) == [None]

    play(scenario)


def test_a_slow_worker_does_not_undo_what_a_fast_one_wrote_meanwhile(play: Play) -> None:
    async def scenario(town: Town) -> None:
        store, slow = EmbeddedStore(), GatedEncoder()
        town.send({"id": "tea", "text": "old"}, "niru.data.tea")
        async with town.worker(store, slow) as pipeline:
            assert await asyncio.to_thread(slow.entered.wait, 10)
            new = town.send({"id": "tea", "text": "new"}, "niru.data.tea")
            await MemoryBroker(town.stream).pull(1)  # another worker takes it
            await pipeline.delete(["tea"])  # and has done with it, whatever that was
            slow.gate.set()
            assert (await town.result())["superseded_by"] == new
            [document] = await pipeline.get(["tea"])
            assert document is not None
            assert document.text == "new"

    play(scenario)


def test_documents_that_share_a_subject_do_not_stand_in_for_each_other(play: Play) -> None:
    async def scenario(town: Town) -> None:
        dying = MemoryBroker(town.stream)
        town.send({"id": "tea", "text": "tea"}, "niru.data.shared")
        [taken] = await dying.pull(1)
        town.send({"id": "bread", "text": "bread"}, "niru.data.shared")
        await dying.retry(taken, 0.0)
        async with town.worker() as pipeline:
            assert "superseded_by" not in await town.result()
            assert "superseded_by" not in await town.result()
            assert (await pipeline.stats()).documents == 2

    play(scenario)


@pytest.mark.slow
def test_a_newer_poison_message_does_not_take_an_older_good_one_along(play: Play) -> None:
    async def scenario(town: Town) -> None:
        other = MemoryBroker(town.stream)
        good = town.send({"id": "tea", "text": "good"}, "niru.data.tea")
        bad = town.send({"id": "tea", "text": " "}, "niru.data.tea")
        first, second = await other.pull(2)
        await other.retry(first, 0.0)
        async with town.worker() as pipeline:
            ending = asyncio.ensure_future(town.result())
            done, _ = await asyncio.wait({ending}, timeout=0.2)
            assert not done  # it waits until the newer one is out of the way
            await other.bury(second, {})
            assert (await ending)["sequence"] == good
            assert list(town.stream.dead) == [bad]
            [document] = await pipeline.get(["tea"])
            assert document is not None
            assert document.text == "good"

    play(scenario)


def test_no_more_is_taken_than_may_be_in_flight(play: Play) -> None:
    async def scenario(town: Town) -> None:
        encoder = GatedEncoder()
        for number in range(30):
            town.send({"id": f"d{number}", "text": f"text {number}"})
        async with town.worker(encoder=encoder):
            assert await asyncio.to_thread(encoder.entered.wait, 10)
            assert len(town.stream.ready) == 22
            encoder.gate.set()
            for _ in range(30):
                await town.result()

    play(scenario, WorkerConfig(in_flight=8))


@pytest.mark.slow
def test_a_message_that_takes_long_is_not_given_to_another_worker(play: Play) -> None:
    async def scenario(town: Town) -> None:
        encoder = GatedEncoder()
        sequence = town.send({"id": "tea", "text": "tea"})
        async with town.worker(encoder=encoder):
            assert await asyncio.to_thread(encoder.entered.wait, 10)
            pulling = asyncio.ensure_future(MemoryBroker(town.stream).pull(1))
            done, _ = await asyncio.wait({pulling}, timeout=4.0)
            assert not done
            encoder.gate.set()
            assert (await town.result())["sequence"] == sequence
            pulling.cancel()

    play(scenario, WorkerConfig(in_flight=1, ack_wait=1.0), 2.0)  # extended every third of a second


def test_a_worker_that_is_told_to_stop_finishes_what_it_has_begun(play: Play) -> None:
    async def scenario(town: Town) -> None:
        encoder, store = GatedEncoder(), EmbeddedStore()
        town.send({"id": "tea", "text": "tea"})
        async with town.worker(store, encoder):
            assert await asyncio.to_thread(encoder.entered.wait, 10)
            asyncio.get_running_loop().call_later(0.05, encoder.gate.set)
        assert (await town.result())["id"] == "tea"
        assert town.stream.timers == {}

    play(scenario)


def test_what_is_not_finished_in_time_goes_back_at_once(play: Play) -> None:
    async def scenario(town: Town) -> None:
        encoder = GatedEncoder()
        town.send({"id": "tea", "text": "tea"})
        async with town.worker(encoder=encoder):
            assert await asyncio.to_thread(encoder.entered.wait, 10)
            asyncio.get_running_loop().call_later(0.1, encoder.gate.set)
        [again] = await MemoryBroker(town.stream).pull(1)
        assert again.deliveries == 2

    play(scenario, WorkerConfig(drain=0.01))


def test_the_reason_of_a_dead_letter_is_one_line_for_a_header_and_no_longer_than_it_need_be() -> None:
    said = letter(Message(b"", "niru.data", 7), InvalidTextError("what\r\nhappened: " + "x" * 1000))["Niru-Message"]
    assert said.startswith("what happened: xx")
    assert len(said) == 500


def test_tries_come_further_and_further_apart() -> None:
    waits = [backoff(number) for number in range(1, 1001)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(waits) == waits[-1] == 60.0
    assert waits == sorted(waits)

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from niruhybrid.cluster.broker import Request
from niruhybrid.cluster.questions import Questions
from niruhybrid.cluster.subjects import health_subject
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.pipeline import Pipeline
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Hit, Query, Token
from tests.cluster.conftest import Play, Town, heard
from tests.cluster.memory_broker import MemoryBroker

SHORT = WorkerConfig(lease=1.0)


async def filled(town: Town) -> None:
    town.send({"id": "tea", "text": "Green tea is brewed at 80 degrees.", "metadata": {"page": 3}})
    await town.result()


async def events(replies: "asyncio.Queue[Request]", last: str = "done") -> list[dict[str, Any]]:
    """Return the events of an answer up to the one of a name."""
    found = [await heard(replies)]
    while found[-1]["event"] != last:
        found.append(await heard(replies))
    return found


class Waits:
    """Gives a token, tells that it waits, and gives no other."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def generate(self, query: Query, hits: Sequence[Hit], /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
        yield Token("so far")
        self.waiting.set()
        await asyncio.Event().wait()


def test_a_query_is_answered_as_over_http(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            await filled(town)
            reply = await heard(await town.ask("niru.query", {"query": "green tea", "top_k": 1, "id": "q1"}))
            assert reply["query_id"] == "q1"
            [hit] = reply["hits"]
            assert (hit["id"], hit["rank"], hit["metadata"]) == ("tea", 1, {"page": 3})
            assert (reply["answer"], reply["finish_reason"]) == ("Green tea is brewed at 80 degrees.", "stop")
            assert set(reply["timings"]) >= {"encode", "search", "total"}
            plain = await heard(await town.ask("niru.query", {"query": "green tea", "answer": False}))
            assert "answer" not in plain

    play(scenario)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (b"no JSON", "malformed_json"),
        (["tea"], "invalid_input"),
        ({}, "invalid_input"),
        ({"query": "tea", "top_k": 0}, "invalid_input"),
        ({"query": " "}, "invalid_text"),
        ({"query": "x" * 9000}, "invalid_text"),
        ({"query": "tea", "colour": 1}, "invalid_input"),
        ({"query": "tea", "min_watermark": 10**6}, "unknown_watermark"),
    ],
)
def test_a_query_that_cannot_be_used_is_answered_with_a_problem(play: Play, asked: object, code: str) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            problem = await heard(await town.ask("niru.query", asked))
            assert (problem["code"], problem["status"] >= 400) == (code, True)
            [event] = await events(await town.ask("niru.query.stream", asked), "error")
            assert (event["n"], event["data"]["code"]) == (1, code)

    play(scenario)


def test_an_answer_comes_as_events_sources_first_and_one_end(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            await filled(town)
            replies = await town.ask("niru.query.stream", {"query": "green tea"})
            found = await events(replies)
            assert [event["n"] for event in found] == list(range(1, len(found) + 1))
            assert [event["event"] for event in found] == ["sources", *["token"] * (len(found) - 2), "done"]
            assert found[0]["data"]["hits"][0]["id"] == "tea"
            text = "".join(event["data"]["text"] for event in found[1:-1])
            assert text == "Green tea is brewed at 80 degrees."
        assert replies.empty()

    play(scenario)


def test_an_answer_that_is_cut_off_by_the_end_of_the_worker_says_so(play: Play) -> None:
    async def scenario(town: Town) -> None:
        generator, stopped = Waits(), WorkerConfig(drain=0.01)
        async with Pipeline(HashEncoder(), EmbeddedStore(), generator) as pipeline:
            questions = Questions(pipeline, MemoryBroker(town.stream), stopped)
            await questions.open()
            streamed = await town.ask("niru.query.stream", {"query": "tea"})
            await generator.waiting.wait()
            whole = await town.ask("niru.query", {"query": "tea"})
            await questions.drain(stopped.drain)
            found = await events(streamed, "error")
            assert [event["event"] for event in found] == ["sources", "token", "error"]
            assert found[-1]["data"]["code"] == "shutting_down"
            assert (await heard(whole))["code"] == "shutting_down"
            assert not town.stream.handlers["niru.query"]

    play(scenario)


def test_more_queries_than_may_be_answered_at_a_time_are_refused(play: Play) -> None:
    async def scenario(town: Town) -> None:
        generator = Waits()
        async with Pipeline(HashEncoder(), EmbeddedStore(), generator) as pipeline:
            questions = Questions(pipeline, MemoryBroker(town.stream), WorkerConfig(max_queries=1))
            await questions.open()
            await town.ask("niru.query.stream", {"query": "tea"})
            await generator.waiting.wait()
            problem = await heard(await town.ask("niru.query", {"query": "tea"}))
            assert (problem["code"], problem["retry_after"]) == ("overloaded", 1)
            [event] = await events(await town.ask("niru.query.stream", {"query": "tea"}), "error")
            assert (event["n"], event["data"]) == (1, problem)
            await questions.drain(0.0)

    play(scenario)


@pytest.mark.slow
def test_a_standing_query_is_told_what_arrives_until_its_lease_is_over(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            replies = await town.ask("niru.subscribe", {"query": "green tea", "min_score": 0.3, "id": "s1"})
            subscribed = await heard(replies)
            assert (subscribed["event"], subscribed["data"]["lease"]) == ("subscribed", 1.0)
            await filled(town)
            match = await heard(replies)
            assert (match["event"], match["n"], match["data"]["query_id"]) == ("match", 2, "s1")
            assert match["data"]["hit"]["id"] == "tea"
            ended = await heard(replies)
            assert (ended["event"], ended["data"]["code"]) == ("error", "deadline_exceeded")
            assert not town.stream.handlers[subscribed["data"]["renew"]]

    play(scenario, SHORT)


@pytest.mark.slow
def test_a_lease_that_is_renewed_goes_on(play: Play) -> None:
    async def scenario(town: Town) -> None:
        loop = asyncio.get_running_loop()
        async with town.worker():
            replies = await town.ask("niru.subscribe", {"query": "green tea", "min_score": 0.3})
            renew = (await heard(replies))["data"]["renew"]
            ending, began = asyncio.ensure_future(heard(replies)), loop.time()
            while loop.time() - began < 1.5 * config.lease:
                assert await heard(await town.ask(renew, b"")) == {"lease": config.lease}
                done, _ = await asyncio.wait({ending}, timeout=config.lease / 20)
                assert not done
            assert (await ending)["event"] == "error"

    config = WorkerConfig(lease=3.0)
    play(scenario, config)


def test_a_standing_query_ends_with_its_worker_and_is_told(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            replies = await town.ask("niru.subscribe", {"query": "green tea", "min_score": 0.3})
            await heard(replies)
        assert (await heard(replies))["data"]["code"] == "shutting_down"

    play(scenario)


def test_more_standing_queries_than_allowed_are_refused(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            await town.ask("niru.subscribe", {"query": "green tea"})
            [event] = await events(await town.ask("niru.subscribe", {"query": "black tea"}), "error")
            assert event["data"]["code"] == "overloaded"

    play(scenario, WorkerConfig(max_subscribers=1))


def test_a_worker_tells_how_it_is(play: Play) -> None:
    async def scenario(town: Town) -> None:
        async with town.worker():
            await filled(town)
            told = await heard(await town.ask(health_subject(town.config.prefix), b""))
            assert told.pop("in_flight") <= 1
            assert told == {
                "ready": True,
                "reasons": [],
                "acknowledged": 1,
                "retried": 0,
                "buried": 0,
                "standing_queries": 0,
            }

    play(scenario)


class HangingEncoder(HashEncoder):
    """Encodes when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str], /) -> Any:
        self.entered.set()
        assert self.gate.wait(10)
        return super().encode(texts)


def test_what_was_asked_before_the_end_is_still_answered(play: Play) -> None:
    async def scenario(town: Town) -> None:
        encoder = HangingEncoder()
        async with town.worker(encoder=encoder):
            replies = await town.ask("niru.query", {"query": "tea", "answer": False})
            assert await asyncio.to_thread(encoder.entered.wait, 10)
            asyncio.get_running_loop().call_later(0.05, encoder.gate.set)
        assert (await heard(replies))["hits"] == []

    play(scenario)

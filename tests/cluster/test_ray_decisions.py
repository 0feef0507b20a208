"""What the replicas on Ray decide and carry, without Ray: load, counters, bursts, errors."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from niruhybrid import errors
from niruhybrid.cluster.ray import application
from niruhybrid.cluster.ray.bursts import in_bursts
from niruhybrid.cluster.ray.counters import together
from niruhybrid.cluster.ray.scaling import Meter, policy, wanted
from niruhybrid.cluster_config import RayConfig
from niruhybrid.errors import InvalidSettingError, NiruError, OverloadedError, StreamLostError
from niruhybrid.pipeline import Pipeline
from niruhybrid.pipeline_state import PipelineStats
from niruhybrid.retrieval.store import EmbeddedStore
from niruhybrid.settings import Settings, load_settings
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Query, Token


@pytest.mark.parametrize(
    ("busy", "queries", "data", "replicas"),
    [
        (0.0, 0.0, 0.0, 0),
        (0.7, 0.0, 0.0, 1),
        (0.71, 0.0, 0.0, 2),
        (2.0, 0.0, 0.0, 3),
        (0.1, 0.1, 0.0, 1),
        (0.1, 0.31, 0.0, 4),
        (0.1, 0.0, 10.0, 1),
        (0.1, 0.0, 25.0, 3),
        (1.0, 0.5, 60.0, 6),
    ],
)
def test_replicas_are_wanted_for_the_scarcest_of_encoders_and_patience(
    busy: float, queries: float, data: float, replicas: int
) -> None:
    assert wanted(busy, queries, data) == replicas


def test_the_policy_sums_what_the_replicas_tell() -> None:
    told = {"busy": {"a": 0.9, "b": 0.6}, "query_seconds": {"a": 0.0, "b": 0.05}, "data_seconds": {"a": 31.0}}
    assert policy(SimpleNamespace(aggregated_metrics=told)) == (4, {})
    assert policy(SimpleNamespace(aggregated_metrics=None)) == (0, {})


def lane(encoded: float, tokens: int, waiting: int) -> dict[str, Any]:
    return {"batch": {"encode": {"sum": encoded}, "tokens": tokens}, "waiting_tokens": waiting}


def test_load_is_the_time_that_what_waits_will_take_and_the_share_that_was_worked() -> None:
    meter = Meter(100.0)
    idle = {"interactive": lane(0.0, 0, 50), "bulk": lane(0.0, 0, 0)}
    assert meter.read(idle, 110.0) == {"busy": 0.0, "query_seconds": 0.0, "data_seconds": 0.0}
    working = {"interactive": lane(1.0, 1000, 300), "bulk": lane(4.0, 4000, 20_000)}
    assert meter.read(working, 120.0) == {"busy": 0.5, "query_seconds": 0.3, "data_seconds": 20.0}
    assert meter.read(working, 130.0)["busy"] == 0.0
    assert meter.read(working, 130.0)["busy"] == 0.0  # and no division by the time between


async def counters(questions: int) -> PipelineStats:
    class First:
        async def generate(self, query: Query, hits: Any, /) -> AsyncIterator[Token]:  # noqa: ARG002  # the port
            yield Token("so")

    async with Pipeline(HashEncoder(), EmbeddedStore(), First()) as pipeline:
        for number in range(questions):
            async for _ in pipeline.stream(Query(f"q{number}", f"question {number}")):
                pass
        return await pipeline.stats()


def test_the_counters_of_replicas_add_up_as_those_of_one_pipeline() -> None:
    parts = [asyncio.run(counters(questions)) for questions in (1, 3)]
    whole = together(parts).to_dict()
    queries = whole["processor"]["interactive"]
    assert whole["answers"] == {"done": 4, "error": 0, "cancelled": 0}
    assert (queries["offered"], queries["delivered"], queries["in_flight"]) == (4, 4, 0)
    assert queries["wait"]["bounds"] == parts[0].processor["interactive"]["wait"]["bounds"]
    assert sum(queries["wait"]["counts"]) == 4
    assert 0.0 <= queries["batch"]["padding_waste"] <= 1.0
    assert whole["processor"]["token_ceiling"] == parts[0].processor["token_ceiling"]
    assert whole["processor"]["degraded"] is False
    assert together(parts[:1]) == parts[0]


def test_what_has_come_meanwhile_goes_over_together_and_what_failed_last() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(5):
            yield number
        await asyncio.sleep(0)
        yield 5
        raise OSError("broken")

    async def collect() -> tuple[list[list[int]], str]:
        bursts = []
        try:
            async for burst in in_bursts(source(), 3):
                bursts.append(burst)  # noqa: PERF401  # what came before it failed is wanted
        except OSError as err:
            return bursts, str(err)
        return bursts, ""

    bursts, failure = asyncio.run(collect())
    assert [number for burst in bursts for number in burst] == list(range(6))
    assert max(map(len, bursts)) == 3
    assert failure == "broken"


def test_what_is_not_taken_any_more_is_closed() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async def first() -> None:
        bursts = in_bursts(endless(), 3)
        await anext(bursts)
        await bursts.aclose()

    asyncio.run(first())
    assert closed.is_set()


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_is_the_same_on_the_other_side(name: str) -> None:
    kind: type[NiruError] = getattr(errors, name)
    error = kind("what happened (1 of 2): what to do")
    if isinstance(error, OverloadedError):
        error.retry_after = 2.5
    if isinstance(error, StreamLostError):
        error.partial = "so far"
    other = pickle.loads(pickle.dumps(error))  # noqa: S301  # as Ray does
    assert (type(other), str(other), other.code) == (kind, str(error), error.code)
    assert vars(other) == vars(error)


def test_several_replicas_need_a_store_that_they_can_share() -> None:
    with pytest.raises(InvalidSettingError, match="3 replicas are wanted, and the store belongs to one process"):
        application(Settings(ray=RayConfig(replicas=1, max_replicas=3)))


@pytest.mark.parametrize(
    ("name", "value"), [("ray.replicas", 0), ("ray.max_replicas", 1), ("ray.cpus", -1.0), ("ray.drain", 4000.0)]
)
def test_settings_of_replicas_have_bounds(name: str, value: object) -> None:
    with pytest.raises(InvalidSettingError, match=name.partition(".")[2]):
        load_settings(environ={"NIRU_RAY_REPLICAS": "2"}, arguments={name: value})

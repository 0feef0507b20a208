"""Vectors alone: `embed` of both processors."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import EncoderFailedError, InvalidSettingError, InvalidTextError
from niruhybrid.streaming.stream_processor import AsyncStreamProcessor, StreamProcessor
from niruhybrid.testing import HashEncoder
from niruhybrid.types import Vector
from tests.streaming.conftest import FaultyEncoder, GatedEncoder
from tests.streaming.test_stream_processor import ListStore

Processor = StreamProcessor | AsyncStreamProcessor
KINDS: list[type[Processor]] = [StreamProcessor, AsyncStreamProcessor]


def embed(processor: Processor, *args: Any, **more: Any) -> list[Vector]:
    if isinstance(processor, AsyncStreamProcessor):
        return asyncio.run(processor.embed(*args, **more))
    return processor.embed(*args, **more)


def close(processor: Processor) -> None:
    if isinstance(processor, AsyncStreamProcessor):
        asyncio.run(processor.aclose())
    else:
        processor.close()
    assert processor.stats().lanes.balanced


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[..., Processor]:
    return request.param  # type: ignore[no-any-return]  # a parameter has no type of its own


def test_texts_come_back_as_vectors_in_their_order_and_nothing_is_searched(kind: Callable[..., Processor]) -> None:
    store = ListStore()
    processor = kind(HashEncoder(8), store=store)
    vectors = embed(processor, ["one", "two", "one"])
    np.testing.assert_allclose(vectors, HashEncoder(8).encode(["one", "two", "one"]), atol=1e-6)
    assert embed(processor, []) == []
    assert store.count() == 0
    assert processor.stats().queries.delivered == 3
    close(processor)


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        ("bare", InvalidTextError, "one string"),
        (["fine", " "], InvalidTextError, "text 1 is empty"),
        (["fine", "x" * 101], InvalidTextError, "text 1 has 101 characters of 100"),
        (["fine", None], InvalidTextError, "text 1 is None"),
    ],
)
def test_unusable_texts_are_refused_and_none_is_encoded(
    kind: Callable[..., Processor], texts: Any, error: type[Exception], words: str
) -> None:
    encoder = HashEncoder(8)
    processor = kind(encoder, config=StreamingConfig(max_text_chars=100))
    with pytest.raises(error, match=words):
        embed(processor, texts)
    with pytest.raises(InvalidSettingError):
        embed(processor, ["fine"], timeout=-1)
    assert encoder.calls == []
    assert processor.stats().queries.rejected == {"invalid": 2}
    close(processor)


def test_one_that_fails_is_the_error_of_all(kind: Callable[..., Processor], faulty: FaultyEncoder) -> None:
    processor = kind(faulty)
    with pytest.raises(EncoderFailedError):
        embed(processor, ["one", "poison", "three", "poison too"])
    close(processor)


def test_more_texts_than_there_is_room_for_wait_outside_and_are_all_encoded(kind: Callable[..., Processor]) -> None:
    processor = kind(HashEncoder(8), config=StreamingConfig(queue_size=4))
    assert len(embed(processor, [f"text {number}" for number in range(50)])) == 50
    assert processor.stats().queries.rejected == {}
    close(processor)


def test_embedding_goes_before_generated_data(gated: GatedEncoder) -> None:
    async def main() -> None:
        gated.hold()
        async with AsyncStreamProcessor(gated, batch_size=1) as processor:
            data = asyncio.create_task(processor.process_data_batch(["data 1", "data 2", "data 3"]))
            await asyncio.to_thread(gated.await_call)
            vectors = asyncio.create_task(processor.embed(["query"]))
            while not processor.stats().queries.waiting:  # noqa: ASYNC110  # nobody is told of what only waits
                await asyncio.sleep(0)
            gated.gate.set()
            assert len(await vectors) == 1
            await data

    asyncio.run(main())
    assert gated.calls[1] == ("query",)

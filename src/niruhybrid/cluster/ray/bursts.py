"""What comes one by one, in lists of what has come meanwhile: a hop costs the same for one item as for many."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeVar

from niruhybrid.streaming.stream_buffer import AsyncStreamBuffer

__all__ = ("in_bursts",)

T = TypeVar("T")


async def in_bursts(items: AsyncIterable[T] | Iterable[T], most: int) -> AsyncGenerator[list[T], None]:
    """Yield lists of items, in order, each as soon as it has one; what `items` raises comes after what came before.

    Args:
        items: read no further ahead than `most`; closed in every case, if it can be.
        most: items in a list at the most.
    """
    buffer = AsyncStreamBuffer(batch_size=most, buffer_size=most, timeout=0.0, overflow="block")
    filling = asyncio.ensure_future(_fill(buffer, items))
    try:
        async for batch in buffer:
            yield [item.data for item in batch]
        await filling
    finally:
        filling.cancel()
        await asyncio.wait({filling})


async def _fill(buffer: AsyncStreamBuffer, items: AsyncIterable[T] | Iterable[T]) -> None:
    try:
        if isinstance(items, AsyncIterable):
            async for item in items:
                await buffer.add("", item)
        else:
            for item in items:
                await buffer.add("", item)
    finally:
        buffer.close()
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()

"""Many queries on one connection: a bounded number at a time, each result a line as soon as it is there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from niruhybrid.errors import GenerationError, NiruError
from niruhybrid.server import problems, schemas
from niruhybrid.server.backend import Backend
from niruhybrid.server.ndjson import rendered
from niruhybrid.server.problems import RequestError
from niruhybrid.types import Query

__all__ = ("result_of", "results")

AT_ONCE = 64
"""Queries of one connection that are worked on at a time."""


async def result_of(pipeline: Backend, asked: schemas.PlainRequest, max_chars: int) -> dict[str, Any]:
    """Return a query's hits and, if it is wanted, its answer.

    Raises:
        NiruError: as `Pipeline.stream` does, or the answer broke off.
        RequestError: it broke off, for a reason that only the server knows.
    """
    query = schemas.query_of(asked, max_chars=max_chars)
    if asked.answer:
        return await _with_answer(pipeline, query)
    found = await pipeline.search(query)
    metadata = {"metadata": dict(query.metadata)} if query.metadata else {}
    notes = {"notes": list(found.notes)} if found.notes else {}
    return {
        "query_id": query.id,
        "hits": [hit.to_dict() for hit in found.hits],
        "watermark": found.watermark,
        **metadata,
        **notes,
        "timings": found.timings.to_dict(),
    }


async def _with_answer(pipeline: Backend, query: Query) -> dict[str, Any]:
    result: dict[str, Any] = {}
    texts: list[str] = []
    async with aclosing(pipeline.stream(query)) as events:
        async for event in events:
            match event.event:
                case "sources":
                    result |= event.data
                case "token":
                    texts.append(event.data["text"])
                case "done":
                    return {**result, "answer": "".join(texts), **event.data}
                case "error":
                    code = str(event.data.get("code", "internal"))
                    raise RequestError(code, problems.wire_error(event.data)["detail"])
    raise GenerationError("the answer ended without `done` or `error`")


async def results(
    pipeline: Backend, source: AsyncIterator[tuple[int, Any]], max_chars: int
) -> AsyncGenerator[bytes, None]:
    """Answer each numbered query; yield a line for each as it completes, and a summary at the end."""
    ready: asyncio.Queue[tuple[int, bool, bytes] | BaseException | None] = asyncio.Queue()  # bounded by the slots
    slots = asyncio.Semaphore(AT_ONCE)
    reading = asyncio.ensure_future(_read(pipeline, source, max_chars, ready, slots))
    counts = {True: 0, False: 0}
    try:
        while (found := await ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            _, well, line = found
            counts[well] += 1
            yield line
            slots.release()
        yield rendered({"line": 0, "done": True, "answered": counts[True], "failed": counts[False]})
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(
    pipeline: Backend,
    source: AsyncIterator[tuple[int, Any]],
    max_chars: int,
    ready: "asyncio.Queue[tuple[int, bool, bytes] | BaseException | None]",
    slots: asyncio.Semaphore,
) -> None:
    async def one(number: int, value: Any) -> None:
        ready.put_nowait(await _line(pipeline, number, value, max_chars))

    end: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        try:
            async for number, value in source:
                await slots.acquire()
                group.create_task(one(number, value))
        except Exception as err:  # noqa: BLE001  # handed on to who reads the results
            end = err
    ready.put_nowait(end)


async def _line(pipeline: Backend, number: int, value: Any, max_chars: int) -> tuple[int, bool, bytes]:
    try:
        result = await result_of(pipeline, _asked(value), max_chars)
    except (NiruError, RequestError) as err:
        known = value.get("id") if isinstance(value, dict) else None
        named = {"query_id": known} if isinstance(known, str) else {}
        return number, False, rendered({"line": number, **named, "error": problems.details(err)})
    return number, True, rendered({"line": number, **result})


def _asked(value: Any) -> schemas.PlainRequest:
    if isinstance(value, RequestError):
        raise value
    if not isinstance(value, dict):
        raise RequestError("invalid_input", "the line is not a JSON object: send one with the field `query`")
    return schemas.asked(schemas.PlainRequest, value, strict=True)

"""Many queries on one connection: a bounded number at a time, each result a line as soon as it is there."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from niruhybrid.errors import GenerationError
from niruhybrid.server import problems, schemas
from niruhybrid.server.backend import Backend
from niruhybrid.server.ndjson import rendered
from niruhybrid.server.problems import RequestError
from niruhybrid.types import Query

__all__ = ("result_of", "results")

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Queries of one connection that are worked on at a time."""

_Ready: TypeAlias = "asyncio.Queue[tuple[bool, bytes] | BaseException | None]"


async def result_of(
    pipeline: Backend, asked: schemas.PlainRequest, max_chars: int, owner: str | None = None
) -> dict[str, Any]:
    """Return a query's hits and, if it is wanted, its answer.

    Args:
        pipeline: what is asked.
        asked: the query.
        max_chars: characters of the query at the most.
        owner: whose sessions its `session` is one of; None where all share them.

    Raises:
        NiruError: as `Pipeline.stream` does, or the answer broke off.
        RequestError: it broke off, for a reason that only the server knows.
    """
    query = schemas.query_of(asked, max_chars=max_chars, owner=owner)
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
    pipeline: Backend, source: AsyncIterator[tuple[int, Any]], max_chars: int, owner: str | None = None
) -> AsyncGenerator[bytes, None]:
    """Answer each numbered query; yield a line for each as it completes, and a summary at the end.

    Whatever is raised for one of them is the error of its line.

    Raises:
        Exception: what `source` raised, after the lines of what came before.
    """
    ready: _Ready = asyncio.Queue()  # bounded by the slots
    slots = asyncio.Semaphore(AT_ONCE)

    async def answer(number: int, value: Any) -> tuple[bool, bytes]:
        result = await result_of(pipeline, _asked(value), max_chars, owner)
        return True, rendered({"line": number, **result})

    reading = asyncio.ensure_future(_read(source, answer, ready, slots))
    counts = {True: 0, False: 0}
    try:
        while (found := await ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            well, line = found
            counts[well] += 1
            yield line
            slots.release()
        yield rendered({"line": 0, "done": True, "answered": counts[True], "failed": counts[False]})
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(
    source: AsyncIterator[tuple[int, Any]],
    answer: Callable[[int, Any], Awaitable[tuple[bool, bytes]]],
    ready: "_Ready",
    slots: asyncio.Semaphore,
) -> None:
    """Have each value answered in a task of its own; put the lines into `ready`, and the end in every case."""

    async def one(number: int, value: Any) -> None:
        try:
            found = await answer(number, value)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as err:
            if isinstance(err, asyncio.CancelledError) and _is_cancelled_from_outside():
                raise
            found = False, _failure(number, value, err)
        ready.put_nowait(found)

    end: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            try:
                async for number, value in source:
                    await slots.acquire()
                    group.create_task(one(number, value))
            except Exception as err:  # noqa: BLE001  # handed on to who reads the results
                end = err
    finally:
        ready.put_nowait(end)


def _is_cancelled_from_outside() -> bool:
    """Whether this task was cancelled; else something that it waited for was."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(number: int, value: Any, error: BaseException) -> bytes:
    """Return the line of a query that failed."""
    problem = problems.details(error)
    if problem["code"] == "internal":
        logger.error("line_failed", exc_info=error)
    known = value.get("id") if isinstance(value, dict) else None
    named = {"query_id": known} if isinstance(known, str) else {}
    return rendered({"line": number, **named, "error": problem})


def _asked(value: Any) -> schemas.PlainRequest:
    if isinstance(value, RequestError):
        raise value
    if not isinstance(value, dict):
        raise RequestError("invalid_input", "the line is not a JSON object: send one with the field `query`")
    return schemas.asked(schemas.PlainRequest, value, strict=True)

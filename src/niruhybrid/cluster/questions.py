"""Queries by request and reply, whole or as events, and standing queries on a lease."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import orjson

from niruhybrid.cluster.broker import Broker, End, Request
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import DeadlineExceededError, NiruError, OverloadedError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server import bulk, problems, schemas
from niruhybrid.server.problems import RequestError
from niruhybrid.server.subscriptions import news
from niruhybrid.types import StreamEvent

__all__ = ("Questions",)

logger = logging.getLogger(__name__)

_Answer = Callable[[Request], Coroutine[Any, Any, None]]
_Refuse = Callable[[dict[str, Any]], dict[str, Any]]


class Questions:
    """Answers the requests that this member of the group is given.

    Args:
        pipeline: what is asked.
        broker: where requests come from and replies go.
        config: subjects and bounds.
    """

    def __init__(self, pipeline: Pipeline, broker: Broker, config: WorkerConfig) -> None:
        self._pipeline = pipeline
        self._broker = broker
        self._config = config
        self._queries: set[asyncio.Task[None]] = set()
        self._standing: set[asyncio.Task[None]] = set()
        self._ends: list[End] = []

    @property
    def standing(self) -> int:
        """Standing queries that are held for somebody."""
        return len(self._standing)

    async def open(self) -> None:
        """Take requests from now on."""
        for name, answer, refuse, tasks, most in (
            ("query", self._plain, _whole, self._queries, self._config.max_queries),
            ("query.stream", self._streamed, _only_event, self._queries, self._config.max_queries),
            ("subscribe", self._subscribed, _only_event, self._standing, self._config.max_subscribers),
        ):
            handler = self._taker(answer, refuse, tasks, most)
            self._ends.append(await self._broker.serve(f"{self._config.prefix}.{name}", handler, shared=True))

    async def drain(self, seconds: float) -> None:
        """Take no more requests, end standing queries, and finish the others within `seconds`."""
        for end in self._ends:
            await end()
        for task in self._standing:
            task.cancel()
        tasks = self._queries | self._standing
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        late = self._queries | self._standing
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _taker(self, answer: _Answer, refuse: _Refuse, tasks: set[asyncio.Task[None]], most: int) -> _Answer:
        """Return what begins to answer a request, unless too many are being answered."""

        async def take(request: Request) -> None:
            if len(tasks) >= most:
                busy = OverloadedError(f"{most} of {most} requests are being answered: try again", retry_after=1)
                await self._send(request.reply, refuse(problems.details(busy)))
                return
            task = asyncio.create_task(answer(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return take

    async def _plain(self, request: Request) -> None:
        try:
            asked = schemas.asked(schemas.PlainRequest, _values(request), strict=True)
            reply = await bulk.result_of(self._pipeline, asked, self._config.max_query_chars)
            await self._broker.publish(request.reply, orjson.dumps(reply))
        except asyncio.CancelledError:
            await self._send(request.reply, problems.details(_shutting_down()))
            raise
        except Exception as err:  # noqa: BLE001  # whatever it is, who asked is told the truth
            await self._send(request.reply, _problem(err))

    async def _streamed(self, request: Request) -> None:
        events = _Events(self._send, request.reply)
        async with events:
            asked = schemas.asked(schemas.StreamRequest, _values(request), strict=True)
            query = schemas.query_of(asked, max_chars=self._config.max_query_chars)
            await events.all_of(self._pipeline.stream(query, progressive=asked.progressive))

    async def _subscribed(self, request: Request) -> None:
        lease, renew = self._config.lease, f"{self._config.prefix}.lease.{uuid.uuid4().hex}"
        events = _Events(self._send, request.reply, subscribed={"lease": lease, "renew": renew})
        async with events:
            asked = schemas.asked(schemas.SubscribeRequest, _values(request), strict=True)
            query = schemas.query_of(asked, max_chars=self._config.max_query_chars)
            limit = asyncio.timeout(lease)
            try:
                async with limit:

                    async def renewed(renewal: Request) -> None:
                        if not limit.expired():
                            limit.reschedule(asyncio.get_running_loop().time() + lease)
                        await self._send(renewal.reply, {"lease": lease})

                    end = await self._broker.serve(renew, renewed, shared=False)
                    try:
                        await events.all_of(news(self._pipeline, query, asked))
                    finally:
                        await end()
            except TimeoutError as err:
                if not limit.expired():
                    raise
                raise DeadlineExceededError(f"the lease of {lease:g} s was not renewed: subscribe again") from err

    async def _send(self, subject: str, data: dict[str, Any]) -> None:
        """Publish a reply; nobody is there to be told if it can't be."""
        if not subject:
            return
        try:
            await self._broker.publish(subject, orjson.dumps(data))
        except (NiruError, ValueError) as err:
            logger.warning("reply_lost error=%s: %s", type(err).__name__, err)


class _Events:
    """Sends the events of one answer, numbered from 1. What is raised within is the last of them, an `error`.

    Args:
        send: publishes.
        subject: where to.
        subscribed: what the event `subscribed` says beside its own.
    """

    def __init__(
        self,
        send: Callable[[str, dict[str, Any]], Awaitable[None]],
        subject: str,
        *,
        subscribed: dict[str, Any] | None = None,
    ) -> None:
        self._send = send
        self._subject = subject
        self._subscribed = subscribed or {}
        self._number = 0

    async def all_of(self, events: AsyncGenerator[StreamEvent, None]) -> None:
        """Send all events; close their source in every case."""
        async with aclosing(events):
            async for event in events:
                data = problems.wire_error(event.data) if event.event == "error" else dict(event.data)
                await self._event(event.event, data | (self._subscribed if event.event == "subscribed" else {}))

    async def _event(self, name: str, data: dict[str, Any]) -> None:
        self._number += 1
        await self._send(self._subject, _event(self._number, name, data))

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._event("error", problems.details(_shutting_down()) if cancelled else _problem(error))
        return isinstance(error, Exception)


def _event(number: int, name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"n": number, "event": name, "data": data}


def _whole(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem as the reply to a query that is answered as a whole."""
    return problem


def _only_event(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem as the only event of an answer."""
    return _event(1, "error", problem)


def _values(request: Request) -> dict[str, Any]:
    """Return the fields of a request.

    Raises:
        RequestError: it is not a JSON object.
    """
    try:
        values = orjson.loads(request.data)
    except orjson.JSONDecodeError as err:
        raise RequestError("malformed_json", f"column {err.colno}: {err.msg}") from err
    if not isinstance(values, dict):
        raise RequestError("invalid_input", f"the request is a {type(values).__name__}: send a JSON object")
    return values


def _problem(error: BaseException) -> dict[str, Any]:
    """Return the problem object of an error, and log it if it is nobody's but ours."""
    if not isinstance(error, NiruError | RequestError):
        logger.error("request_failed", exc_info=error)
    return problems.details(error)


def _shutting_down() -> RequestError:
    return RequestError("shutting_down", "the worker is shutting down: ask again, another will answer")

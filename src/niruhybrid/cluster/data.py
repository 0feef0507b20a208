"""Data messages into the pipeline: acknowledged after the commit, tried again where that may help, buried where not."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import orjson

from niruhybrid.cluster.broker import Broker, Message
from niruhybrid.cluster.intake import Intake
from niruhybrid.cluster.operations import Delete, Operation, backoff, concerns, is_lasting, letter, read
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import EncoderError, InvalidVectorError, NiruError, UndeliverableError, UnreachableError
from niruhybrid.pipeline import Pipeline
from niruhybrid.server import problems
from niruhybrid.server.data import reading

__all__ = ("Counts", "DataConsumer")

logger = logging.getLogger(__name__)

_BEATS = 3  # how often a message's time is extended before it would be over


@dataclass(slots=True)
class Counts:
    """What became of the messages this worker took.

    Attributes:
        acknowledged: done.
        retried: given back, to be tried again.
        buried: moved to the dead letters.
    """

    acknowledged: int = 0
    retried: int = 0
    buried: int = 0


@dataclass(slots=True)
class _Current:
    """The message whose wish is being done: the one that was delivered, or a newer one of the same document."""

    message: Message
    document_id: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)


class DataConsumer:
    """Takes messages, a bounded number at a time, and brings the store to what the newest of each document says.

    A broker delivers again what was not acknowledged in time, perhaps to another worker, perhaps after a newer message
    of the same document is done. So after each write, and before it for what comes again, the newest message of the
    document is looked up, and done if there is a newer one, until there is none. Whoever writes last has then written
    the newest, whatever came between; and if it dies before it is sure, its message comes again.

    Args:
        pipeline: where documents go.
        broker: where messages come from.
        config: the bounds.

    Attributes:
        counts: what became of the messages so far.
    """

    def __init__(self, pipeline: Pipeline, broker: Broker, config: WorkerConfig) -> None:
        self.counts = Counts()
        self._pipeline = pipeline
        self._broker = broker
        self._config = config
        self._intake = Intake(pipeline)
        self._tasks: dict[asyncio.Task[None], Message] = {}
        self._room = asyncio.Event()
        self._failing = False
        self._extending = asyncio.create_task(self._extend(), name="niru-worker-extend")

    @property
    def in_flight(self) -> int:
        """Messages being worked on."""
        return len(self._tasks)

    async def run(self) -> None:
        """Take messages until it is cancelled."""
        while True:
            await self._has_room()
            for message in await self._broker.pull(self._config.in_flight - self.in_flight):
                task = asyncio.create_task(self._settle(message))
                self._tasks[task] = message
                task.add_done_callback(self._settled)

    async def drain(self, seconds: float) -> None:
        """Take no more, finish what is in flight within `seconds`, and give back the rest."""
        await self._broker.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        late = dict(self._tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        for message in late.values():
            await self._give_back(message, 0.0)
        self._extending.cancel()
        await asyncio.wait({self._extending})
        await self._intake.aclose()

    async def _has_room(self) -> None:
        """Wait until a quarter of what may be in flight is free: fewer and larger pulls."""
        while self.in_flight and self._config.in_flight - self.in_flight < max(1, self._config.in_flight // 4):
            self._room.clear()
            await self._room.wait()

    def _settled(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._room.set()

    async def _settle(self, message: Message) -> None:
        """See a message to its end: acknowledged, given back, or buried."""
        current = _Current(message)
        try:
            self._refuse_after_too_many(message)
            await self._bring_up_to_date(current)
            await self._broker.acknowledge(message)
        except Exception as err:  # noqa: BLE001  # whatever it is, it concerns this message alone
            await self._failed(current, message, err)
        else:
            self.counts.acknowledged += 1
            if self._failing:
                self._failing = False
                logger.info("data_recovered sequence=%d", message.sequence)
            newer = {} if current.message is message else {"superseded_by": current.message.sequence}
            await self._tell(message, {"id": current.document_id, **current.outcome, **newer})

    def _refuse_after_too_many(self, message: Message) -> None:
        if message.deliveries > self._config.max_deliveries:  # then it took its workers with it
            raise UndeliverableError(
                f"it was delivered {message.deliveries} times of {self._config.max_deliveries} allowed and never "
                "acknowledged: see what became of the workers that took it"
            )

    async def _bring_up_to_date(self, current: _Current) -> None:
        own = current.message
        current.document_id = read(own).id
        if own.deliveries > 1:
            current.message = await self._newest(own, current.document_id)
        while True:
            current.outcome = await self._apply(read(current.message))
            newest = await self._newest(current.message, current.document_id)
            if newest is current.message:
                return
            current.message = newest

    async def _newest(self, known: Message, document_id: str) -> Message:
        """Return the newest message of a document; `known`, if there is no newer one."""
        newest = await self._broker.newest(known)
        if newest is None or newest.sequence <= known.sequence or not concerns(newest, document_id):
            return known
        return newest

    async def _apply(self, operation: Operation) -> dict[str, Any]:
        """Do what is asked for and return what is told of it."""
        if isinstance(operation, Delete):
            _, watermark = await self._pipeline.delete([operation.id])
            return {"watermark": watermark}
        result = await self._intake.store(operation)
        if isinstance(result.error, InvalidVectorError) and operation.embedding is None:
            raise EncoderError(f"vectors of the model can't be stored ({result.error})") from result.error
        if result.error is not None:
            raise result.error
        return {"watermark": result.watermark, **reading(result)}

    async def _failed(self, current: _Current, message: Message, error: Exception) -> None:
        """Bury a message if it is at fault itself, or has been tried often enough; else give it back."""
        at_fault = current.message is message and is_lasting(error)  # a newer one's fault is that one's to answer for
        if not isinstance(error, NiruError):
            logger.error("data_failed sequence=%d", message.sequence, exc_info=error)
        if not at_fault and message.deliveries < self._config.max_deliveries:
            if not self._failing:
                self._failing = True
                logger.warning("data_failing sequence=%d error=%s: %s", message.sequence, type(error).__name__, error)
            await self._give_back(message, backoff(message.deliveries))
            return
        headers = letter(message, error)
        try:
            await self._broker.bury(message, headers)
        except UnreachableError as err:
            logger.warning("bury_failed sequence=%d error=%s", message.sequence, err)
            return  # it comes again, and is buried then
        self.counts.buried += 1
        logger.warning(
            "message_buried sequence=%d reason=%s deliveries=%d",
            message.sequence,
            headers["Niru-Reason"],
            message.deliveries,
        )
        await self._tell(message, {"error": problems.details(error)})

    async def _give_back(self, message: Message, delay: float) -> None:
        try:
            await self._broker.retry(message, delay)
        except UnreachableError as err:  # then it comes again when its time is over
            logger.debug("retry_failed sequence=%d error=%s", message.sequence, err)
        self.counts.retried += 1

    async def _tell(self, message: Message, ended: dict[str, object]) -> None:
        """Publish how a message ended, for all, and for who asked to be told."""
        told = orjson.dumps({"sequence": message.sequence, **ended})
        asked = message.headers.get("Niru-Reply-To")
        try:
            for subject in filter(None, (f"{self._config.prefix}.results", asked)):
                await self._broker.publish(subject, told)
        except (UnreachableError, ValueError) as err:  # what is told is not kept; a subject may be none
            logger.debug("result_lost sequence=%d error=%s", message.sequence, err)

    async def _extend(self) -> None:
        """Extend the time of all that is in flight, over and over."""
        while True:
            await asyncio.sleep(self._config.ack_wait / _BEATS)  # a lease is renewed by the clock, and by nothing else
            for message in tuple(self._tasks.values()):
                try:
                    await self._broker.extend(message)
                except UnreachableError as err:
                    logger.debug("extend_failed sequence=%d error=%s", message.sequence, err)

"""A pipeline as a member of a group of workers, until it is told to stop."""

import asyncio
import logging

import orjson

from niruhybrid.cluster.broker import Broker, Handler, Request
from niruhybrid.cluster.data import DataConsumer
from niruhybrid.cluster.questions import Questions
from niruhybrid.cluster.subjects import health_subject
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.pipeline import Pipeline

__all__ = ("run_worker",)

logger = logging.getLogger(__name__)


async def run_worker(pipeline: Pipeline, broker: Broker, config: WorkerConfig, stopping: asyncio.Event) -> None:
    """Take data messages and queries until `stopping` is set; then finish what was begun, and return.

    What is not finished `drain` seconds later is given back to the group. Pipeline and broker stay open.

    Raises:
        NiruError: requests or messages can't be taken.
    """
    data, questions = DataConsumer(pipeline, broker, config), Questions(pipeline, broker, config)
    consuming = asyncio.create_task(data.run(), name="niru-worker-data")
    asked = asyncio.create_task(stopping.wait())
    try:
        await questions.open()
        telling = await broker.serve(
            health_subject(config.prefix), _health(pipeline, broker, data, questions), shared=False
        )
        logger.info("worker_started group=%s", config.group)
        await asyncio.wait({consuming, asked}, return_when=asyncio.FIRST_COMPLETED)
        await telling()
    finally:
        asked.cancel()
        consuming.cancel()
        await asyncio.wait({asked, consuming})
        logger.info("worker_draining messages=%d", data.in_flight)
        await asyncio.gather(data.drain(config.drain), questions.drain(config.drain))
        logger.info("worker_stopped counts=%s", data.counts)
    if not consuming.cancelled():
        consuming.result()


def _health(pipeline: Pipeline, broker: Broker, data: DataConsumer, questions: Questions) -> Handler:
    async def tell(request: Request) -> None:
        ready = pipeline.ready()
        told = {
            "ready": ready.ready and not ready.degraded,
            "reasons": list(ready.reasons),
            "in_flight": data.in_flight,
            "acknowledged": data.counts.acknowledged,
            "retried": data.counts.retried,
            "buried": data.counts.buried,
            "standing_queries": questions.standing,
        }
        await broker.publish(request.reply, orjson.dumps(told))

    return tell

"""Documents of many tasks, one by one, into the one stream of documents that micro-batches are made of."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from niruhybrid.errors import ClosedError
from niruhybrid.pipeline import Pipeline
from niruhybrid.types import DataResult, Document

__all__ = ("Intake",)

_Waiting = asyncio.Future[DataResult]


class Intake:
    """Hands documents to `Pipeline.ingest` as they come, so that those that come together are written together.

    It holds as many as there are callers waiting.

    Args:
        pipeline: where they go.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._given: asyncio.Queue[tuple[Document, _Waiting]] = asyncio.Queue()  # bounded by its callers
        self._under_way: deque[_Waiting] = deque()
        self._task = asyncio.create_task(self._run(), name="niru-intake")

    async def store(self, document: Document) -> DataResult:
        """Return how a document ended.

        Raises:
            ClosedError: the pipeline or the intake has been closed.
        """
        if self._task.done():
            raise _closed()
        waiting: _Waiting = asyncio.get_running_loop().create_future()
        self._given.put_nowait((document, waiting))
        return await waiting

    async def aclose(self) -> None:
        """Take no more, and give up what is under way."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        error: BaseException = _closed()
        try:
            async for result in self._pipeline.ingest(self._taken()):
                waiting = self._under_way.popleft()
                if not waiting.done():  # else whoever waited was cancelled
                    waiting.set_result(result)
        except Exception as err:  # noqa: BLE001  # told to everybody who waits
            error = err
        finally:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        while not self._given.empty():
            self._under_way.append(self._given.get_nowait()[1])
        for waiting in self._under_way:
            if not waiting.done():
                waiting.set_exception(error)

    async def _taken(self) -> AsyncIterator[Document]:
        while True:
            document, waiting = await self._given.get()
            self._under_way.append(waiting)
            yield document


def _closed() -> ClosedError:
    return ClosedError("the intake is closed: open a new one")

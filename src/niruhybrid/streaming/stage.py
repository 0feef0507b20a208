"""What comes after encoding, search or write, in a thread of its own so that the encoder never waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import StoreError
from niruhybrid.streaming.foreign import as_ours
from niruhybrid.streaming.lanes import Job
from niruhybrid.streaming.retrying import with_retries
from niruhybrid.types import Vector

__all__ = ("Encoded", "Finish", "Finished", "Stage", "isolate")

Finish = Callable[[Sequence[tuple[object, Vector]]], Sequence[object]]
"""Searches or writes a batch of payloads with their vectors: one result each, in their order. May raise."""


class Encoded(NamedTuple):
    """An item that has its vector.

    Attributes:
        job: the item.
        payload: the query or document, kept while the stage works on it.
        vector: its embedding.
    """

    job: Job
    payload: object
    vector: Vector


class Finished(NamedTuple):
    """An item that left the stage.

    Attributes:
        item: what had come in.
        found: the result, or the error it ends with.
        seconds: how long its batch took.
    """

    item: Encoded
    found: object
    seconds: float


class Stage:
    """A thread that finishes encoded items, as many at a time as have gathered.

    Args:
        name: the thread's name.
        finish: what is done with a batch.
        config: how many items make a batch, and what is tried again.
        hand_back: called in the stage's thread with every batch that leaves it. The number waiting is bounded by the
            scheduler, which pauses a lane whose stage is behind.
    """

    def __init__(
        self, name: str, finish: Finish, config: StreamingConfig, hand_back: Callable[[list[Finished]], None]
    ) -> None:
        self._finish = finish
        self._most = config.batch_size
        self._retry = config.retry
        self._hand_back = hand_back
        self._arrived: SimpleQueue[Sequence[Encoded] | None] = SimpleQueue()  # None: the last that there will be
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, items: Sequence[Encoded]) -> None:
        """Let items wait for the stage; never blocks."""
        self._arrived.put(items)

    def close(self) -> None:
        """Let the thread end once nothing waits."""
        self._arrived.put(None)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the thread's end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        waiting: deque[Encoded] = deque()
        while True:
            if not waiting:
                some = self._arrived.get()
                if some is None:
                    return
                waiting.extend(some)
            self._gather(waiting)
            batch = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
            self._hand_back(self._finished(batch))

    def _gather(self, waiting: "deque[Encoded]") -> None:
        """Add what else has come; the end stays where it is."""
        while len(waiting) < self._most and not self._arrived.empty():
            some = self._arrived.get()
            if some is None:
                self._arrived.put(None)
                return
            waiting.extend(some)

    def _finished(self, batch: list[Encoded]) -> list[Finished]:
        wanted = [item for item in batch if item.job.state != "ended"]
        start = time.monotonic()
        deadline = max((item.job.deadline for item in wanted), default=start)

        def finish(items: Sequence[tuple[object, Vector]]) -> Sequence[object]:
            return with_retries(self._retry, deadline, lambda: self._finish(items))

        found = isolate(finish, [(item.payload, item.vector) for item in wanted])
        seconds = time.monotonic() - start
        results = [Finished(item, each, seconds) for item, each in zip(wanted, found, strict=True)]
        given_up = [Finished(item, None, 0.0) for item in batch if item.job.state == "ended" and item not in wanted]
        return results + given_up


def isolate(finish: Finish, items: Sequence[tuple[object, Vector]]) -> list[object]:
    """Return each item's result, or its error: a batch that raises is tried in halves until the culprits are found.

    An error of the store itself (disk full, closed) is every item's error at once; halves would only repeat it.
    """
    if not items:
        return []
    try:
        found = list(finish(items))
    except StoreError as err:
        return [err] * len(items)
    except Exception as err:  # noqa: BLE001  # whatever a store raises is the item's error, never the thread's end
        if len(items) > 1:
            middle = len(items) // 2
            return isolate(finish, items[:middle]) + isolate(finish, items[middle:])
        return [as_ours(err, StoreError, "the store raised {}: see the cause")]
    if len(found) != len(items):
        return [StoreError(f"the store returned {len(found)} results for {len(items)} items: fix it")] * len(items)
    return found

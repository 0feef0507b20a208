"""Messages of a JetStream consumer as they come: pull requests, as the protocol of the server has them.

One request stands at a time and asks for no more than there is room for. What comes is handed on at once, where the
client's own `fetch` waits for a whole batch or for its time.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

__all__ = ("Pulling",)

logger = logging.getLogger(__name__)

_STANDS = 10.0  # seconds a request stands before it is made anew
_LOST = 2.0  # seconds after that, when it counts as lost
_PAUSE = 1.0  # seconds before what was refused is tried again
_DELIVERY = "$JS.ACK."  # what the reply subject of a delivery begins with
_ENDS_AS_IT_SHOULD = frozenset({"404", "408"})


class Pulling:
    """The requests of one member of a group, and what came of them.

    Args:
        client: connected.
        stream: name of the stream.
        group: name of the consumer.
        prepare: makes what a request needs and what may have been taken away.
    """

    def __init__(self, client: Client, stream: str, group: str, prepare: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{group}"
        self._prepare = prepare
        self._inbox = client.new_inbox()
        self._listening: Subscription | None = None
        self._arrived: deque[Msg] = deque()  # bounded by what was asked for
        self._owed = 0  # messages that the server was asked for and that have not come
        self._asked = 0  # requests so far; the number of the last
        self._refused: str | None = None  # what the last one was refused for
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Listen to what comes."""
        self._listening = await self._client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def next(self, most: int) -> Sequence[Msg]:
        """Return the next messages, 1 to `most`, however long it takes.

        Raises:
            InvalidSettingError: as `prepare` does.
        """
        while not self._arrived:
            self._news.clear()
            try:
                await self._ask(most)
                async with asyncio.timeout(_STANDS + _LOST):
                    await self._news.wait()
            except TimeoutError:
                self._owed = 0
            except nats_errors.Error as err:
                self._refused = str(err)
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def reconnected(self) -> None:
        """Take note that what the server was asked for is forgotten."""
        logger.info("broker_reconnected")
        self._owed = 0
        self._news.set()

    async def close(self) -> Sequence[Msg]:
        """Ask for no more, and return what had come and was not taken; a second call does nothing."""
        listening, self._listening = self._listening, None
        if listening is not None and self._client.is_connected:
            with contextlib.suppress(nats_errors.Error):
                await listening.drain()  # type: ignore[no-untyped-call]  # theirs; what is on its way arrives
        left = tuple(self._arrived)
        self._arrived.clear()
        return left

    async def _ask(self, most: int) -> None:
        """Ask for messages, unless some are owed, or nobody is there to be asked: then there will be news."""
        if self._owed > 0 or not self._client.is_connected:
            return
        if self._refused is not None:
            logger.warning("pull_refused reason=%s", self._refused)
            await asyncio.sleep(_PAUSE)  # nothing tells when a broker that refuses has changed its mind
            await self._prepare()
            self._refused = None
        self._asked += 1
        self._owed = most
        asked = b'{"batch":%d,"expires":%d}' % (most, int(_STANDS * 1e9))
        await self._client.publish(self._next, asked, reply=f"{self._inbox}.{self._asked}")

    async def _take(self, message: Msg) -> None:
        if message.reply.startswith(_DELIVERY):
            self._owed -= 1
            self._arrived.append(message)
        elif message.subject == f"{self._inbox}.{self._asked}":  # else of a request that was given up
            status = dict(message.headers or {})
            self._owed = 0
            if status.get("Status") not in _ENDS_AS_IT_SHOULD:
                self._refused = f"{status.get('Status')} {status.get('Description', '')}"
        self._news.set()

"""A broker in memory, for tests of the worker: the stream a list, time the event loop's."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from niruhybrid.cluster.broker import End, Handler, Message, Request

__all__ = ("MemoryBroker", "MemoryStream")


class MemoryStream:
    """What all members share: the messages, who has them, the dead letters, who listens.

    Args:
        ack_wait: seconds after which a message that nobody works on is delivered again.
    """

    def __init__(self, ack_wait: float = 30.0) -> None:
        self.ack_wait = ack_wait
        self.messages: dict[int, Message] = {}
        self.ready: list[int] = []
        self.deliveries: dict[int, int] = defaultdict(int)
        self.timers: dict[int, asyncio.TimerHandle] = {}
        self.dead: dict[int, Message] = {}
        self.listeners: dict[str, list[asyncio.Queue[Request]]] = defaultdict(list)
        self.handlers: dict[str, list[Handler]] = defaultdict(list)
        self.changed = asyncio.Event()
        self.served = asyncio.Event()
        self.last = 0

    def add(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Append a message and return its sequence."""
        self.last += 1
        self.messages[self.last] = Message(data, subject, self.last, headers=headers or {})
        self._make_ready(self.last)
        return self.last

    def later(self, sequence: int, seconds: float) -> None:
        """Deliver a message again after some seconds, unless something else becomes of it."""
        self.forget(sequence)
        self.timers[sequence] = asyncio.get_running_loop().call_later(seconds, self._make_ready, sequence)

    def forget(self, sequence: int) -> None:
        """Deliver a message no more."""
        if (timer := self.timers.pop(sequence, None)) is not None:
            timer.cancel()

    def _make_ready(self, sequence: int) -> None:
        self.timers.pop(sequence, None)
        if sequence in self.messages:
            self.ready.append(sequence)
            self.changed.set()


class MemoryBroker:
    """One member of the group.

    Args:
        stream: shared with the others.
        prefix: what the subjects begin with.
    """

    def __init__(self, stream: MemoryStream, prefix: str = "niru") -> None:
        self.stream = stream
        self._prefix = prefix
        self._stopped = False

    async def pull(self, most: int, /) -> Sequence[Message]:
        while self._stopped or not self.stream.ready:
            self.stream.changed.clear()
            await self.stream.changed.wait()
        taken, self.stream.ready = self.stream.ready[:most], self.stream.ready[most:]
        return [self._delivered(sequence) for sequence in taken]

    async def stop(self) -> None:
        self._stopped = True

    async def acknowledge(self, message: Message, /) -> None:
        self.stream.forget(message.sequence)

    async def extend(self, message: Message, /) -> None:
        self.stream.later(message.sequence, self.stream.ack_wait)

    async def retry(self, message: Message, /, delay: float) -> None:
        self.stream.later(message.sequence, delay)

    async def bury(self, message: Message, headers: Mapping[str, str], /) -> None:
        self.stream.dead[message.sequence] = replace(message, headers={**message.headers, **headers})
        self.stream.messages.pop(message.sequence, None)
        self.stream.forget(message.sequence)

    async def newest(self, message: Message, /) -> Message | None:
        if message.subject == f"{self._prefix}.data":
            return None
        found = [each for each in self.stream.messages.values() if each.subject == message.subject]
        return max(found, key=lambda each: each.sequence, default=None)

    async def publish(self, subject: str, data: bytes, /) -> None:
        for listener in self.stream.listeners[subject]:
            listener.put_nowait(Request(data, ""))

    async def serve(self, subject: str, handler: Handler, /, *, shared: bool) -> End:  # noqa: ARG002  # one member each
        self.stream.handlers[subject].append(handler)
        self.stream.served.set()

        async def end() -> None:
            if handler in self.stream.handlers[subject]:
                self.stream.handlers[subject].remove(handler)

        return end

    def _delivered(self, sequence: int) -> Message:
        self.stream.deliveries[sequence] += 1
        self.stream.later(sequence, self.stream.ack_wait)
        return replace(self.stream.messages[sequence], deliveries=self.stream.deliveries[sequence], receipt=sequence)

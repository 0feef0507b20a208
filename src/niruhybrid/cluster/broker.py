"""What a worker asks of a message broker; tests/contracts/test_broker_contract.py holds each to it.

A broker keeps data messages in a stream, in order, until they are acknowledged, and hands each to one member of a
group of workers. It also carries requests and replies, which are kept nowhere.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

__all__ = ("Broker", "End", "Handler", "Message", "Request")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def _no_headers() -> Mapping[str, str]:
    return _NO_HEADERS


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A message of the stream, as it was delivered to this worker.

    Attributes:
        data: its content.
        subject: where it was published; all messages of one document have the same.
        sequence: its place in the stream, from 1; a later message has a higher one.
        deliveries: how often it was delivered to the group, this time included.
        headers: what was published beside the content.
        receipt: what the broker knows the delivery by; None of a message that was only read.
    """

    data: bytes
    subject: str
    sequence: int
    deliveries: int = 1
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    receipt: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What somebody asks and waits for an answer to.

    Attributes:
        data: its content.
        reply: the subject to answer to; "" where no answer is wanted.
    """

    data: bytes
    reply: str


Handler = Callable[[Request], Awaitable[None]]
"""Takes a request; the next one waits until it returns, so what takes time is to be a task of its own."""

End = Callable[[], Awaitable[None]]
"""Ends what it was returned for."""


class Broker(Protocol):
    """The stream and the requests of one group of workers, as one of its members sees them.

    All calls are of one event loop. Each may raise `UnreachableError` where the broker does not answer in time; a
    delivery that could be neither acknowledged nor given back for that reason comes again by itself.
    """

    async def pull(self, most: int, /) -> Sequence[Message]:
        """Return the next messages of the stream that no other member has, one at the least, however long it takes.

        Cancelling it loses no message: what had come is returned by the next call, or given back by `stop`.

        Args:
            most: messages wanted at the most, from 1. No more than these are asked for ahead of the calls to come.
        """
        ...

    async def stop(self) -> None:
        """Pull no more, and give back what had come and was not returned; a second call does nothing."""
        ...

    async def acknowledge(self, message: Message, /) -> None:
        """Have a message not come again."""
        ...

    async def extend(self, message: Message, /) -> None:
        """Say that a message is still worked on, so that it does not come again yet."""
        ...

    async def retry(self, message: Message, /, delay: float) -> None:
        """Have a message come again, to any member of the group, after `delay` seconds."""
        ...

    async def bury(self, message: Message, headers: Mapping[str, str], /) -> None:
        """Move a message from the stream to the dead letters, beside `headers`; it does not come again.

        Doing so twice, as after a crash amid the first time, leaves one dead letter.
        """
        ...

    async def newest(self, message: Message, /) -> Message | None:
        """Return the newest message of a message's subject; None if it has none, or is one that keeps no order."""
        ...

    async def publish(self, subject: str, data: bytes, /) -> None:
        """Send to whoever listens to `subject` at the moment."""
        ...

    async def serve(self, subject: str, handler: Handler, /, *, shared: bool) -> End:
        """Have `handler` take the requests to `subject` until the returned function is called.

        Args:
            subject: below the prefix of all subjects.
            handler: takes each.
            shared: each goes to one member of the group, else to whoever serves the subject.
        """
        ...

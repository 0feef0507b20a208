"""NATS JetStream as a worker's broker: one stream, one durable pull consumer for the group, one of dead letters."""

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from niruhybrid.cluster.broker import End, Handler, Message, Request
from niruhybrid.cluster.nats.connection import ANSWER, SettledClient, connect, told
from niruhybrid.cluster.nats.pulling import Pulling
from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.errors import InvalidInputError, InvalidSettingError, UnreachableError

__all__ = ("NatsBroker",)

_GROUP = 4096  # messages that all workers together have, those that wait to be tried again included
_KEPT = 7 * 86_400.0  # seconds a message of a stream that was made here is kept
_KEPT_DEAD = 30 * 86_400.0
_SAME_LETTER = 600.0  # seconds within which a dead letter that comes twice is kept once
_NO_SUCH_MESSAGE = 10057


class NatsBroker:
    """A member's connection to NATS. Use it in `async with`, or call `open` and `aclose`.

    The connection is made again by itself whenever it breaks. A stream that is not there is made, with messages kept
    for a week; one that is there is used as it is.

    Args:
        config: address, names of stream, group and subjects, and how long a message may take.
        patience: seconds for the first connection; later ones are tried until they stand.
    """

    def __init__(self, config: WorkerConfig, *, patience: float = 10.0) -> None:
        self._config = config
        self._patience = patience
        self._client = SettledClient()
        self._stream = self._client.jetstream(timeout=ANSWER)
        self._unordered = f"{config.prefix}.data"
        self._pulling = Pulling(self._client, config.stream, config.group, self._prepare)
        self._direct = False

    async def open(self) -> None:
        """Connect, and make stream and group where they are not there.

        Raises:
            UnreachableError: there is no connection after `patience` seconds, or JetStream is not enabled.
            InvalidSettingError: the stream that is there forgets messages when they are acknowledged.
        """
        await connect(self._client, self._config, self._patience, reconnected_cb=self._pulling.reconnected)
        try:
            with told():
                await self._prepare()
                await self._pulling.open()
        except BaseException:
            await self._client.close()
            raise

    async def pull(self, most: int, /) -> Sequence[Message]:
        """Return the next messages, as `Broker.pull` does; waits for as long as there is no connection."""
        return [_received(message) for message in await self._pulling.next(most)]

    async def stop(self) -> None:
        """Pull no more, and give back what had come and was not returned."""
        with contextlib.suppress(UnreachableError):
            for message in await self._pulling.close():
                await self.retry(_received(message), 0.0)

    async def acknowledge(self, message: Message, /) -> None:
        """Have a message not come again; not waited for: an acknowledgement that is lost has it come once more."""
        with told():
            await _delivered(message).ack()

    async def extend(self, message: Message, /) -> None:
        """Say that a message is still worked on."""
        with told():
            await _delivered(message).in_progress()

    async def retry(self, message: Message, /, delay: float) -> None:
        """Have a message come again after `delay` seconds."""
        with told():
            await _delivered(message).nak(delay)

    async def bury(self, message: Message, headers: Mapping[str, str], /) -> None:
        """Move a message to the stream of dead letters, and wait until it is there."""
        own = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
        once = {api.Header.MSG_ID.value: f"{self._config.stream}-{message.sequence}"}
        all_of_them, data = {**own, **headers, **once}, message.data
        if len(data) + _length(all_of_them) > self._client.max_payload:  # NATS would cut the connection
            all_of_them, data = {**headers, **once, "Niru-Left-Out": str(len(data))}, b""
        with told():
            await self._stream.publish(f"{self._config.prefix}.dead", data, headers=all_of_them)
            try:
                await self._stream.delete_msg(self._config.stream, message.sequence)
            except APIError as err:
                if err.err_code != _NO_SUCH_MESSAGE:  # another delivery of it was buried before
                    raise
            await _delivered(message).term()

    async def newest(self, message: Message, /) -> Message | None:
        """Return the newest message of a message's subject; None for the subject without a document's own part."""
        if message.subject == self._unordered:
            return None
        with told():
            try:
                found = await self._stream.get_last_msg(self._config.stream, message.subject, direct=self._direct)
            except NotFoundError:
                return None
        return Message(found.data or b"", message.subject, int(found.seq or 0))

    async def publish(self, subject: str, data: bytes, /) -> None:
        """Send to whoever listens.

        Raises:
            InvalidInputError: NATS takes no message that long, or the subject is one of its own: who names it as reply
                would have us do what he may not.
        """
        if subject.startswith("$"):
            raise InvalidInputError(f"subject {subject!r} is one of NATS itself: give one of your own")
        if len(data) > self._client.max_payload:
            raise InvalidInputError(
                f"the reply has {len(data)} bytes of {self._client.max_payload} that NATS takes: ask for less"
            )
        with told():
            await self._client.publish(subject, data)

    async def serve(self, subject: str, handler: Handler, /, *, shared: bool) -> End:
        """Have `handler` take the requests to `subject`; its end waits for those that have come."""

        async def take(message: Msg) -> None:
            await handler(Request(message.data, message.reply))

        with told():
            serving = await self._client.subscribe(subject, queue=self._config.group if shared else "", cb=take)
            await self._client.flush(int(ANSWER))  # who asks from now on is heard

        async def end() -> None:
            if self._client.is_connected:
                with contextlib.suppress(nats_errors.Error):
                    await serving.drain()  # type: ignore[no-untyped-call]  # theirs

        return end

    async def aclose(self) -> None:
        """Stop, send what is still to be sent, and leave."""
        await self.stop()
        if self._client.is_connected:
            with contextlib.suppress(nats_errors.Error, TimeoutError):
                await self._client.flush(int(ANSWER))
        await self._client.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _prepare(self) -> None:
        """Make what is not there: the stream, that of dead letters, and the group."""
        name, prefix = self._config.stream, self._config.prefix
        stream = await self._made(
            api.StreamConfig(name, subjects=[f"{prefix}.data", f"{prefix}.data.>"], max_age=_KEPT, allow_direct=True)
        )
        if stream.retention not in {None, api.RetentionPolicy.LIMITS}:
            raise InvalidSettingError(
                f"stream {name!r} keeps messages by {stream.retention!r}: make it with the retention `limits`, "
                "or give another `stream`"
            )
        self._direct = bool(stream.allow_direct)
        dead = [f"{prefix}.dead"]
        await self._made(
            api.StreamConfig(f"{name}-dead", subjects=dead, max_age=_KEPT_DEAD, duplicate_window=_SAME_LETTER)
        )
        group = api.ConsumerConfig(
            durable_name=self._config.group, ack_wait=self._config.ack_wait, max_deliver=-1, max_ack_pending=_GROUP
        )
        await self._stream.add_consumer(name, group)

    async def _made(self, wanted: api.StreamConfig) -> api.StreamConfig:
        """Return the stream of a name as it is, having made it if there was none."""
        try:
            return (await self._stream.stream_info(str(wanted.name))).config
        except NotFoundError:
            return (await self._stream.add_stream(wanted)).config


def _length(headers: Mapping[str, str]) -> int:
    """Return the bytes of headers on the wire, at the most."""
    return 16 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())


def _received(message: Msg) -> Message:
    about = message.metadata
    headers = dict(message.headers or {})
    return Message(message.data, message.subject, about.sequence.stream, about.num_delivered, headers, message)


def _delivered(message: Message) -> Msg:
    if not isinstance(message.receipt, Msg):
        raise TypeError("the message was not delivered, it was only read")
    return message.receipt

"""NATS JetStream as a worker's broker: one stream, one durable pull consumer for the group, one of dead letters."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from niruhybrid.cluster.broker import End, Handler, Message, Request
from niruhybrid.cluster.subjects import health_subject
from niruhybrid.config import WorkerConfig
from niruhybrid.errors import InvalidInputError, InvalidSettingError, UnreachableError

try:
    from nats import errors as nats_errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import api
    from nats.js.errors import APIError, NotFoundError
except ModuleNotFoundError as err:
    raise InvalidSettingError(f"the package {err.name!r} is missing: pip install 'niruhybrid[nats]'") from err

__all__ = ("NatsBroker", "ask_health")

logger = logging.getLogger(__name__)

_ANSWER = 5.0  # seconds for one answer of the server
_PULL = 10.0  # seconds a pull request stands before it is made anew
_LOST = 2.0  # seconds after that, when it counts as lost
_PAUSE = 1.0  # seconds before a pull that was refused is tried again
_GROUP = 4096  # messages that all workers together have, those that wait to be tried again included
_KEPT = 7 * 86_400.0  # seconds a message of a stream that was made here is kept
_KEPT_DEAD = 30 * 86_400.0
_SAME_LETTER = 600.0  # seconds within which a dead letter that comes twice is kept once
_NO_SUCH_MESSAGE = 10057
_DELIVERY = "$JS.ACK."  # what the reply subject of a delivery begins with
_ENDS_AS_IT_SHOULD = frozenset({"404", "408"})


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
        self._client = Client()
        self._stream = self._client.jetstream(timeout=_ANSWER)
        self._unordered = f"{config.prefix}.data"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{config.stream}.{config.group}"
        self._inbox = self._client.new_inbox()
        self._pulling: Subscription | None = None
        self._arrived: deque[Message] = deque()  # bounded by what was asked for
        self._wanted = 0  # messages that the server was asked for and that have not come
        self._pulls = 0
        self._refused: str | None = None  # what the last pull was refused for
        self._news = asyncio.Event()
        self._direct = False

    async def open(self) -> None:
        """Connect, and make stream and group where they are not there.

        Raises:
            UnreachableError: there is no connection after `patience` seconds, or JetStream is not enabled.
            InvalidSettingError: the stream that is there forgets messages when they are acknowledged.
        """
        await _connect(self._client, self._config, self._patience, reconnected_cb=self._reconnected)
        try:
            with _told():
                await self._prepare()
        except BaseException:
            await self._client.close()
            raise

    async def pull(self, most: int, /) -> Sequence[Message]:
        """Return the next messages, as `Broker.pull` does; waits for as long as there is no connection."""
        while not self._arrived:
            self._news.clear()
            try:
                await self._ask(most)
                async with asyncio.timeout(_PULL + _LOST):
                    await self._news.wait()
            except TimeoutError:
                self._wanted = 0
            except (UnreachableError, nats_errors.Error) as err:
                self._refused = str(err)
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def stop(self) -> None:
        """Pull no more, and give back what had come and was not returned."""
        pulling, self._pulling = self._pulling, None
        if pulling is not None:
            with contextlib.suppress(nats_errors.Error):
                await pulling.drain()  # type: ignore[no-untyped-call]  # theirs; what is on its way arrives
        with contextlib.suppress(UnreachableError):
            while self._arrived:
                await self.retry(self._arrived.popleft(), 0.0)

    async def acknowledge(self, message: Message, /) -> None:
        """Have a message not come again; not waited for: an acknowledgement that is lost has it come once more."""
        with _told():
            await _delivered(message).ack()

    async def extend(self, message: Message, /) -> None:
        """Say that a message is still worked on."""
        with _told():
            await _delivered(message).in_progress()

    async def retry(self, message: Message, /, delay: float) -> None:
        """Have a message come again after `delay` seconds."""
        with _told():
            await _delivered(message).nak(delay)

    async def bury(self, message: Message, headers: Mapping[str, str], /) -> None:
        """Move a message to the stream of dead letters, and wait until it is there."""
        own = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
        once = {api.Header.MSG_ID.value: f"{self._config.stream}-{message.sequence}"}
        with _told():
            await self._stream.publish(f"{self._config.prefix}.dead", message.data, headers={**own, **headers, **once})
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
        with _told():
            try:
                found = await self._stream.get_last_msg(self._config.stream, message.subject, direct=self._direct)
            except NotFoundError:
                return None
        return Message(found.data or b"", message.subject, int(found.seq or 0))

    async def publish(self, subject: str, data: bytes, /) -> None:
        """Send to whoever listens.

        Raises:
            InvalidInputError: NATS takes no message that long.
        """
        if len(data) > self._client.max_payload:
            raise InvalidInputError(
                f"the reply has {len(data)} bytes of {self._client.max_payload} that NATS takes: ask for less"
            )
        with _told():
            await self._client.publish(subject, data)

    async def serve(self, subject: str, handler: Handler, /, *, shared: bool) -> End:
        """Have `handler` take the requests to `subject`; its end waits for those that have come."""

        async def take(message: Msg) -> None:
            await handler(Request(message.data, message.reply))

        with _told():
            serving = await self._client.subscribe(subject, queue=self._config.group if shared else "", cb=take)

        async def end() -> None:
            with contextlib.suppress(nats_errors.Error):
                await serving.drain()  # type: ignore[no-untyped-call]  # theirs

        return end

    async def aclose(self) -> None:
        """Stop, send what is still to be sent, and leave."""
        await self.stop()
        with contextlib.suppress(nats_errors.Error, TimeoutError):
            await self._client.flush(int(_ANSWER))
        await self._client.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _prepare(self) -> None:
        """Make what is not there: the stream, that of dead letters, the group, the subscription to what is pulled."""
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
        if self._pulling is None:
            self._pulling = await self._client.subscribe(f"{self._inbox}.*", cb=self._took)

    async def _reconnected(self) -> None:
        """Take note that what the server was asked for is forgotten."""
        logger.info("broker_reconnected")
        self._wanted = 0
        self._news.set()

    async def _made(self, wanted: api.StreamConfig) -> api.StreamConfig:
        """Return the stream of a name as it is, having made it if there was none."""
        try:
            return (await self._stream.stream_info(str(wanted.name))).config
        except NotFoundError:
            return (await self._stream.add_stream(wanted)).config

    async def _ask(self, most: int) -> None:
        """Ask the server for messages, unless it owes some: one request at a time, so that no more come than wanted."""
        if self._wanted > 0:
            return
        if self._refused is not None:
            logger.warning("pull_refused reason=%s", self._refused)
            await asyncio.sleep(_PAUSE)  # nothing tells when a broker that refuses has changed its mind
            self._refused = None
            await self._prepare()
        self._pulls += 1
        self._wanted = most
        asked = b'{"batch":%d,"expires":%d}' % (most, int(_PULL * 1e9))
        await self._client.publish(self._next, asked, reply=f"{self._inbox}.{self._pulls}")

    async def _took(self, message: Msg) -> None:
        if message.reply.startswith(_DELIVERY):
            told = message.metadata
            self._wanted -= 1
            self._arrived.append(
                Message(
                    message.data,
                    message.subject,
                    told.sequence.stream,
                    told.num_delivered,
                    dict(message.headers or {}),
                    message,
                )
            )
        elif message.subject == f"{self._inbox}.{self._pulls}":  # else of a request that was given up
            status = dict(message.headers or {})
            self._wanted = 0
            if status.get("Status") not in _ENDS_AS_IT_SHOULD:
                self._refused = f"{status.get('Status')} {status.get('Description', '')}"
        self._news.set()


async def ask_health(config: WorkerConfig) -> dict[str, Any]:
    """Return what a worker of this host says of itself.

    Raises:
        UnreachableError: NATS can't be reached, or no worker of this host answers within five seconds.
    """
    client = Client()
    await _connect(client, config, _ANSWER)
    try:
        with _told():
            reply = await client.request(health_subject(config.prefix), timeout=_ANSWER)
    finally:
        await client.close()
    told: dict[str, Any] = orjson.loads(reply.data)
    return told


async def _connect(client: Client, config: WorkerConfig, patience: float, **options: Any) -> None:
    """Connect within `patience` seconds, and from then on again whenever it breaks.

    Raises:
        UnreachableError: there was no connection in time.
    """
    last = "no answer"

    async def note(error: Exception) -> None:
        """Say what is wrong with the connection once, not at each try."""
        nonlocal last
        said = f"{type(error).__name__}: {error}"
        if said != last:
            logger.warning("broker_error error=%s", said)
        last = said

    urls = config.url.replace(",", " ").split()
    try:
        async with asyncio.timeout(patience):
            await client.connect(urls, error_cb=note, max_reconnect_attempts=-1, reconnect_time_wait=1, **options)
    except BaseException as err:
        await client.close()
        if isinstance(err, TimeoutError):
            raise UnreachableError(f"no connection to {_hosts(urls)} ({last}): check `url`") from err
        raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell an error of NATS as our own."""
    try:
        yield
    except (nats_errors.Error, TimeoutError, OSError) as err:
        raise UnreachableError(f"NATS did not do what it was asked to ({err}): see whether it runs") from err


def _delivered(message: Message) -> Msg:
    if not isinstance(message.receipt, Msg):
        raise TypeError("the message was not delivered, it was only read")
    return message.receipt


def _hosts(urls: Sequence[str]) -> str:
    """Return the addresses in `urls` without what else they hold: users, passwords, tokens."""
    parts = map(urlsplit, urls)
    return ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)

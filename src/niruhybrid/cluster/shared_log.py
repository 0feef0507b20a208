"""The log in which servers share their answers, on the PostgreSQL server that has their store.

Its tables are unlogged: what they hold is wanted for a minute, and a crash of PostgreSQL may lose it. A lease lasts
three beats. Whoever follows a stream says so in its row, with each beat; only then is it told of news.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from niruhybrid.config import StoreConfig
from niruhybrid.errors import StoreError, StoreUnreachableError
from niruhybrid.server.shared_log import Copied, Standing, parsed, wait_within
from niruhybrid.types import StreamEvent

__all__ = ("PostgresSharedLog",)

logger = logging.getLogger(__name__)

BEAT = 2.0
"""Seconds; a server that has not renewed its leases for three beats is taken for dead."""

_AT_ONCE = 256  # events read at a time
_CHANNEL = "niru_streams"
_TABLES = """
SELECT pg_advisory_xact_lock(hashtext('niru.streams'));
CREATE SCHEMA IF NOT EXISTS niru;
CREATE UNLOGGED TABLE IF NOT EXISTS niru.streams (
    id text PRIMARY KEY,
    owner text NOT NULL,
    last integer NOT NULL,
    ended boolean NOT NULL,
    lease timestamptz NOT NULL,
    followed timestamptz NOT NULL DEFAULT '-infinity',
    expires timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS streams_expires ON niru.streams (expires);
CREATE UNLOGGED TABLE IF NOT EXISTS niru.stream_events (
    stream text NOT NULL REFERENCES niru.streams ON DELETE CASCADE,
    number integer NOT NULL,
    frame bytea NOT NULL,
    PRIMARY KEY (stream, number)
);
"""
_APPEND = f"""
WITH kept AS (
    INSERT INTO niru.streams AS s (id, owner, last, ended, lease, expires)
    SELECT id, owner, last, ended, now() + %(lease)s, now() + %(lease)s + %(keep)s
    FROM unnest(%(ids)s::text[], %(owners)s::text[], %(lasts)s::int[], %(ends)s::bool[]) AS t (id, owner, last, ended)
    ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, last = greatest(s.last, excluded.last),
        ended = s.ended OR excluded.ended, lease = excluded.lease, expires = excluded.expires
    RETURNING id, followed > now() AS followed
), events AS (
    INSERT INTO niru.stream_events (stream, number, frame)
    SELECT * FROM unnest(%(streams)s::text[], %(numbers)s::int[], %(frames)s::bytea[])
    ON CONFLICT DO NOTHING
)
SELECT pg_notify('{_CHANNEL}', id) FROM kept WHERE followed
"""
_RENEW = """
UPDATE niru.streams SET lease = now() + %(lease)s, expires = now() + %(lease)s + %(keep)s
WHERE id = ANY(%(ids)s) RETURNING id, followed > now()
"""
_EXPIRE = "DELETE FROM niru.streams WHERE expires < now()"
_FORGET = "WITH gone AS (DELETE FROM niru.streams WHERE id = ANY(%s) RETURNING id) SELECT pg_notify(%s, id) FROM gone"
_EXPECT = """
INSERT INTO niru.streams (id, owner, last, ended, lease, expires)
VALUES (%(id)s, %(owner)s, 0, false, now() + %(beat)s, now() + %(beat)s) ON CONFLICT DO NOTHING
"""
_FIND = "SELECT last, ended FROM niru.streams WHERE id = %s AND owner = %s AND expires > now()"
_FOLLOW = """
UPDATE niru.streams SET followed = now() + %s WHERE id = %s AND owner = %s
RETURNING ended, extract(epoch FROM lease - now())::float8
"""
_EVENTS = f"""
SELECT number, frame FROM niru.stream_events JOIN niru.streams ON id = stream
WHERE stream = %s AND owner = %s AND number > %s ORDER BY number LIMIT {_AT_ONCE}
"""


class PostgresSharedLog:
    """A `SharedLog` on PostgreSQL; `open` makes one.

    Args:
        config: `path` is the URL.
        keep: seconds that a stream is kept after its end.
        beat: seconds between two renewals of a lease.
    """

    def __init__(self, config: StoreConfig, *, keep: float, beat: float = BEAT) -> None:
        self.beat = beat
        self._url = config.path or ""
        self._name = f"store {config.name!r}"
        self._terms = {"lease": timedelta(seconds=3 * beat), "keep": timedelta(seconds=keep)}
        self._pool = AsyncConnectionPool(
            self._url,
            kwargs={"autocommit": True, "application_name": "niruhybrid"},
            min_size=1,
            max_size=4,
            timeout=config.server_timeout,
            name="niru-streams",
            num_workers=1,
            open=False,
        )
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: StoreConfig, *, keep: float, beat: float = BEAT) -> Self:
        """Return a log that is ready, its tables made.

        Raises:
            StoreError: the server can't be reached, or the tables can't be made.
        """
        log = cls(config, keep=keep, beat=beat)
        try:
            async with log._errors():
                await log._pool.open()
                async with log._pool.connection() as connection, connection.transaction():
                    await connection.execute(_TABLES)
        except BaseException:
            await log.aclose()
            raise
        return log

    async def append(self, copies: Sequence[Copied], /) -> None:
        """Keep events, all or none, and tell those who follow their streams."""
        frames = [
            (copied.stream, number, frame)
            for copied in copies
            for number, frame in enumerate(copied.frames, copied.after + 1)
        ]
        values = self._terms | {
            "ids": [copied.stream for copied in copies],
            "owners": [copied.owner for copied in copies],
            "lasts": [copied.after + len(copied.frames) for copied in copies],
            "ends": [copied.ended for copied in copies],
            "streams": [stream for stream, _, _ in frames],
            "numbers": [number for _, number, _ in frames],
            "frames": [frame for _, _, frame in frames],
        }
        await self._asked(_APPEND, values)

    async def renew(self, streams: Sequence[str], /) -> Collection[str]:
        """Begin leases anew, remove what has expired, and return which streams are followed."""
        await self._asked(_EXPIRE, ())
        rows = await self._asked(_RENEW, self._terms | {"ids": list(streams)})
        return {stream for stream, followed in rows if followed}

    async def forget(self, streams: Sequence[str], /) -> None:
        """Remove streams; who follows one finds that it ends there."""
        await self._asked(_FORGET, (list(streams), _CHANNEL))

    async def find(self, stream: str, owner: str, /) -> Standing | None:
        """Return how far an owner's stream has come; None if it is not kept.

        Its reader may be here before the first copy is. So an unknown stream gets a row, by which whoever makes it
        finds that it is followed, and a lease of one beat.
        """
        expected = {"id": stream, "owner": owner, "beat": timedelta(seconds=self.beat)}
        await self._asked(_EXPECT, expected)
        rows = await self._asked(_FIND, (stream, owner))
        return Standing(*rows[0]) if rows else None

    async def follow(self, stream: str, owner: str, after: int, /) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events after number `after` as they come, until the last one, or until the lease is over."""
        news = asyncio.Event()
        self._waiting.setdefault(stream, set()).add(news)
        try:
            while True:
                self._hear()
                news.clear()
                rows, frames = await self._read(stream, owner, after)
                if not rows:
                    return
                for number, frame in frames:
                    if number != after + 1:
                        return
                    yield parsed(bytes(frame))
                    after = number
                [(ended, left)] = rows
                if not frames and (ended or left <= 0):
                    return
                if not frames:
                    await wait_within(news, min(self.beat, left))
        finally:
            self._waiting[stream].discard(news)
            if not self._waiting[stream]:
                del self._waiting[stream]

    async def aclose(self) -> None:
        """Close all connections."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait({self._hearing})
        await self._pool.close()

    async def _read(self, stream: str, owner: str, after: int) -> tuple[list[Any], list[Any]]:
        """Say that a stream is followed, and return its row and what is new. In this order: so none goes unnoticed.

        Both look at the owner: between them the row that a reader has made may become another's stream.
        """
        async with self._errors(), self._pool.connection() as connection:
            row = await connection.execute(_FOLLOW, (self._terms["lease"], stream, owner))
            events = await connection.execute(_EVENTS, (stream, owner, after), binary=True)
            return await row.fetchall(), await events.fetchall()

    async def _asked(self, sql: str, values: Any) -> list[tuple[Any, ...]]:
        async with self._errors(), self._pool.connection() as connection:
            cursor = await connection.execute(sql.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as err:
            raise StoreUnreachableError(f"{self._name} can't be reached: check the server and its address") from err
        except psycopg.Error as err:
            raise StoreError(f"{self._name} refused to share an answer: see the server's log") from err

    def _hear(self) -> None:
        """Listen for news, if nobody does; after a lost connection anew."""
        if self._hearing is None or self._hearing.done():
            self._hearing = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                self._wake(*self._waiting)  # of what was told before
                async for told in connection.notifies():
                    self._wake(told.payload)
        except psycopg.Error as err:
            logger.warning("stream_news_lost error=%s", type(err).__name__)  # looked for with the next beat

    def _wake(self, *streams: str) -> None:
        for stream in streams:
            for news in self._waiting.get(stream, ()):
                news.set()

"""Answers copied for other servers, to a log that may fail."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

import pytest

from niruhybrid.config import ServerConfig
from niruhybrid.errors import StoreError
from niruhybrid.server.shared_log import Copied, Sharing, Standing, parsed
from niruhybrid.server.streams import Stream, Streams, render
from niruhybrid.types import StreamEvent


class Log:
    """A shared log in memory, which fails as long as it is told to; a beat is short."""

    beat = 0.01

    def __init__(self) -> None:
        self.frames: dict[str, list[bytes]] = {}
        self.ended: set[str] = set()
        self.followed: set[str] = set()
        self.failing = False
        self.tried = asyncio.Event()
        self.news = asyncio.Event()

    async def append(self, copies: Sequence[Copied], /) -> None:
        self.tried.set()
        if self.failing:
            raise StoreError("not now: later")
        for copied in copies:
            kept = self.frames.setdefault(copied.stream, [])
            assert len(kept) == copied.after
            kept.extend(copied.frames)
            if copied.ended:
                self.ended.add(copied.stream)
        self.news.set()

    async def renew(self, streams: Sequence[str], /) -> Collection[str]:
        return self.followed & set(streams)

    async def forget(self, streams: Sequence[str], /) -> None:
        for stream in streams:
            self.frames.pop(stream, None)
        self.news.set()

    async def find(self, stream: str, owner: str, /) -> Standing | None:  # noqa: ARG002  # the port
        return Standing(len(self.frames[stream]), stream in self.ended) if stream in self.frames else None

    async def follow(self, stream: str, owner: str, after: int, /) -> AsyncGenerator[StreamEvent, None]:  # noqa: ARG002  # the port
        for frame in self.frames[stream][after:]:
            yield parsed(frame)

    async def aclose(self) -> None:
        self.news.set()


async def answer(tokens: int, go: asyncio.Event) -> AsyncGenerator[StreamEvent, None]:
    yield StreamEvent("sources", {"query_id": "q", "hits": []})
    for number in range(tokens):
        yield StreamEvent("token", {"text": f"{number}"})
    await go.wait()
    yield StreamEvent("done", {"query_id": "q"})


async def until(log: Log, stream: Stream, events: int) -> None:
    """Wait until so many events of a stream are copied."""
    async with asyncio.timeout(5):
        while len(log.frames.get(stream.id, ())) < events:
            log.news.clear()
            await log.news.wait()


def sharing(**settings: int) -> tuple[Log, Streams]:
    log, streams = Log(), Streams(ServerConfig(**settings))  # type: ignore[arg-type]  # whole numbers all
    streams.sharing = Sharing(log)
    return log, streams


async def close(streams: Streams) -> None:
    await streams.aclose()
    assert streams.sharing is not None
    await streams.sharing.aclose()


def test_an_answer_is_copied_as_it_is_made_and_to_its_end() -> None:
    async def main() -> None:
        log, streams = sharing()
        go = asyncio.Event()
        stream = streams.start(answer(3, go), "ann")
        await until(log, stream, 4)
        assert stream.id not in log.ended
        go.set()
        await until(log, stream, 5)
        assert stream.id in log.ended
        assert log.frames[stream.id] == stream.read(0, 1 << 20)
        await close(streams)

    asyncio.run(main())


def test_while_the_log_fails_answers_go_on_and_are_copied_when_it_is_back() -> None:
    async def main() -> None:
        log, streams = sharing()
        log.failing = True
        go = asyncio.Event()
        go.set()
        stream = streams.start(answer(3, go), "ann")
        assert stream.task is not None
        await asyncio.gather(stream.task, log.tried.wait())
        assert stream.log.ended
        assert log.frames == {}
        log.failing = False
        await until(log, stream, 5)
        await close(streams)

    asyncio.run(main())


def test_an_answer_that_could_not_be_copied_in_time_is_shared_no_more() -> None:
    async def main() -> None:
        log, streams = sharing(log_events=16)
        log.failing = True
        go = asyncio.Event()
        stream = streams.start(answer(100, go), "ann")
        streams.join(stream, read := lambda: None)
        after = 0
        while after < 60:  # a reader here makes room, so that events are given up which were never copied
            after += len(stream.read(after, 1 << 20) or ())
            await asyncio.sleep(0)
        log.failing = False
        go.set()
        log.frames[stream.id] = []
        async with asyncio.timeout(5):
            while stream.id in log.frames:
                log.news.clear()
                await log.news.wait()
        streams.leave(stream, read)
        await close(streams)
        assert stream.id not in log.frames

    asyncio.run(main())


def test_an_answer_that_was_given_up_is_not_kept_for_others() -> None:
    async def main() -> None:
        log, streams = sharing(grace=0)
        stream = streams.start(answer(3, asyncio.Event()), "ann")
        streams.join(stream, read := lambda: None)
        await until(log, stream, 4)
        streams.leave(stream, read)
        async with asyncio.timeout(5):
            while stream.id in log.frames:
                log.news.clear()
                await log.news.wait()
        assert streams.kept == 0
        await close(streams)

    asyncio.run(main())


@pytest.mark.parametrize("followed", [True, False])
def test_only_who_reads_elsewhere_makes_room_in_a_full_log(followed: bool) -> None:
    async def main() -> None:
        log, streams = sharing(log_events=16)
        go = asyncio.Event()
        stream = streams.start(answer(100, go), "ann")
        await until(log, stream, 16)
        if followed:
            log.followed.add(stream.id)
            await until(log, stream, 101)
        assert stream.log.last == (101 if followed else 16)
        await close(streams)

    asyncio.run(main())


def test_a_copied_frame_is_the_event_that_was_sent() -> None:
    event = StreamEvent("token", {"text": "a\nb\u2028: c", "source": "d1"})
    frame = render("s", 7, event.event, event.data)
    assert parsed(frame) == event
    assert render("s", 7, parsed(frame).event, parsed(frame).data) == frame

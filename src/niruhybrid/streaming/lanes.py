"""The texts that wait in one lane, in buckets of about equal length. Pure: no clock, no lock."""

import asyncio
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from niruhybrid.errors import NiruError
from niruhybrid.streaming.callers import Done, Outbox
from niruhybrid.streaming.ledger import LaneLedger
from niruhybrid.types import Vector
from niruhybrid.windows import Window

__all__ = ("Batch", "Ended", "Job", "Lane", "LaneName", "Work")

LaneName = Literal["interactive", "bulk"]
"""`interactive`: queries, somebody waits. `bulk`: generated data."""

_EDGES = (
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    20,
    24,
    28,
    32,
    40,
    48,
    64,
    80,
    96,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    512,
    1024,
    4096,
)


@dataclass(slots=True, eq=False)
class Job:
    """One item, from the caller to its end.

    Attributes:
        payload: what the stage after encoding works on, a query or a document; let go of when it came to nothing.
        lane: where it waits and is counted.
        text: what is encoded, a window only where the encoder takes windows; let go of as the payload is.
        timeout: seconds from acceptance until it is given up; infinity for never.
        vector: its vector, if it needs no encoding.
        session: a newer job of the same session supersedes it; None for no session.
        tokens: how many tokens the encoder will read; None has them estimated.
        accepted_at: monotonic seconds at which it was offered.
        deadline: monotonic seconds at which it is given up; infinity for never.
        predicted: seconds that admission reckoned with; 0 where it did not reckon.
        taken_at: monotonic seconds at which its text was first taken for encoding; `accepted_at` if it never waited;
            None until then.
        encoded_in: seconds its batch took to encode.
        state: `waiting`, `in_flight`, then `ended`.
        work: the text it waits for; None for an item that has its vector.
        future: ends with the item; set by whoever hands it in.
        origin: what it belongs to, for a `BatchObserver`.
        outbox: where an event loop's future is told; None for a thread's.
    """

    payload: object
    lane: LaneName
    text: str | Window
    timeout: float
    vector: Vector | None = None
    session: str | None = None
    tokens: int | None = None
    accepted_at: float = field(init=False)
    deadline: float = field(init=False)
    predicted: float = field(default=0.0, init=False)
    taken_at: float | None = field(default=None, init=False)
    encoded_in: float = field(default=0.0, init=False)
    state: Literal["waiting", "in_flight", "ended"] = field(default="waiting", init=False)
    work: "Work | None" = field(default=None, init=False)
    future: "Future[Done] | asyncio.Future[Done]" = field(init=False)
    origin: object = field(default=None, init=False)
    outbox: Outbox | None = field(default=None, init=False)


@dataclass(slots=True, eq=False)
class Work:
    """One text to be encoded, for one job or several.

    Attributes:
        text: what the encoder gets.
        tokens: estimated tokens.
        order: place in the order of arrival.
        lane: the lane it waits in; that of its most urgent job.
        jobs: the live jobs that want its vector.
        split: the part of a failed batch that it waits in, or None.
        waiting: whether it is in a lane now; not so while it is being encoded, and afterwards.
        hung: how often the encoder did not return from a batch with it.
    """

    text: str | Window
    tokens: int
    order: int
    lane: LaneName
    jobs: list[Job]
    split: "list[Work] | None" = None
    waiting: bool = False
    hung: int = 0


@dataclass(slots=True, eq=False)
class Batch:
    """Texts given to the encoder together.

    Attributes:
        lane: the lane they were cut from.
        works: the texts, with their jobs.
        tokens: estimated padded tokens: longest times texts.
        started: monotonic seconds at which it was taken.
        returned: monotonic seconds at which the encoder was done with it; None while it is not.
    """

    lane: LaneName
    works: list[Work]
    tokens: int
    started: float
    returned: float | None = None

    @property
    def texts(self) -> list[str | Window]:
        """The texts, in order."""
        return [work.text for work in self.works]

    @property
    def deadline(self) -> float:
        """When nobody waits for it any more, in monotonic seconds."""
        return max((job.deadline for work in self.works for job in work.jobs), default=self.started)


class Ended(NamedTuple):
    """An item that the scheduler gave up, and the error it ends with."""

    job: Job
    error: NiruError


class Lane:
    """What waits in one lane.

    Attributes:
        ledger: the counters of the lane's items.
        tokens: estimated tokens of the waiting texts.
        works: how many texts wait.
        finishing: items encoded and not yet searched or written.
    """

    __slots__ = ("_buckets", "_splits", "finishing", "ledger", "name", "tokens", "works")

    def __init__(self, name: LaneName) -> None:
        self.name = name
        self.ledger = LaneLedger()
        self.tokens = 0
        self.works = 0
        self.finishing = 0
        self._buckets: dict[int, OrderedDict[int, Work]] = {}
        self._splits: deque[list[Work]] = deque()

    def add(self, work: Work) -> None:
        """Let a text wait."""
        work.lane = self.name
        work.waiting = True
        key = bisect_left(_EDGES, work.tokens)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = OrderedDict()
        bucket[work.order] = work
        self.works += 1
        self.tokens += work.tokens

    def put_back(self, works: list[Work]) -> None:
        """Let texts that were just cut wait again, in their order, before everything else of their length."""
        for work in reversed(works):
            self.add(work)
            self._buckets[bisect_left(_EDGES, work.tokens)].move_to_end(work.order, last=False)

    def add_split(self, works: list[Work]) -> None:
        """Let a part of a failed batch wait, before everything else of the lane."""
        for work in works:
            work.split = works
            work.lane = self.name
            work.waiting = True
            self.tokens += work.tokens
        self.works += len(works)
        self._splits.appendleft(works)

    def remove(self, work: Work) -> None:
        """Take out a text that waits here."""
        if work.split is not None:
            work.split.remove(work)
            if not work.split:
                self._splits.remove(work.split)
            work.split = None
        else:
            key = bisect_left(_EDGES, work.tokens)
            del self._buckets[key][work.order]
            if not self._buckets[key]:
                del self._buckets[key]
        work.waiting = False
        self.works -= 1
        self.tokens -= work.tokens

    def oldest(self) -> Work | None:
        """Return the text that came first, those of split batches aside."""
        heads = [next(iter(bucket.values())) for bucket in self._buckets.values()]
        return min(heads, key=lambda work: work.order) if heads else None

    def oldest_accepted(self) -> float | None:
        """Return when the longest-waiting job was accepted, or None."""
        heads = [part[0] for part in self._splits]
        head = self.oldest()
        if head is not None:
            heads.append(head)
        return min((job.accepted_at for work in heads for job in work.jobs), default=None)

    def cut(self, most: int, budget: int) -> tuple[list[Work], str]:
        """Take the next batch out of the lane: its oldest text, and those of about its length.

        Args:
            most: texts at the most.
            budget: padded tokens (longest times texts) at the most; a lone text may exceed it.

        Returns:
            The texts, at least one if any waits, and why the batch ends there: `split`, `count`, `tokens` or `drained`.
        """
        works, reason = (list(self._splits[0]), "split") if self._splits else self._fitting(most, budget)
        for work in works:
            self.remove(work)
        return works, reason

    def _fitting(self, most: int, budget: int) -> tuple[list[Work], str]:
        head = self.oldest()
        if head is None:
            return [], "drained"
        works: list[Work] = []
        longest = 0
        for work in self._of_about_the_length(head):
            if 2 * work.tokens < longest:
                break
            longest = max(longest, work.tokens)
            if works and longest * (len(works) + 1) > budget:
                return works, "tokens"
            works.append(work)
            if len(works) == most:
                return works, "count"
        return works, "drained"

    def _of_about_the_length(self, head: Work) -> Iterator[Work]:
        """Yield the texts of a text's bucket, oldest first, then those of the next shorter buckets."""
        for key in range(bisect_left(_EDGES, head.tokens), -1, -1):
            yield from self._buckets.get(key, {}).values()

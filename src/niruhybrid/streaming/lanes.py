"""The texts that wait in one lane, in buckets of about equal length. Pure: no clock, no lock."""

from bisect import bisect_left
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from niruhybrid.errors import NiruError
from niruhybrid.streaming.ledger import LaneLedger
from niruhybrid.windows import Window

__all__ = ("Batch", "Ended", "Lane", "LaneName", "Ticket", "Work")

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
class Ticket:
    """One accepted item, from the door to its end.

    Attributes:
        lane: where it is counted.
        deadline: monotonic seconds at which it is given up.
        accepted_at: monotonic seconds at which it was offered.
        payload: what the shell wants back with it; cleared at the end.
        session: the session whose latest query it is, or None.
        taken_at: monotonic seconds at which its text was taken for encoding; `accepted_at` if it never waited.
        encoded_in: seconds its batch took to encode.
        state: `waiting`, `in_flight`, then `ended`.
        work: the text it waits for; None for an item that has its vector.
    """

    lane: LaneName
    deadline: float
    accepted_at: float
    payload: object
    session: str | None = None
    taken_at: float = 0.0
    encoded_in: float = 0.0
    state: Literal["waiting", "in_flight", "ended"] = "waiting"
    work: "Work | None" = None


@dataclass(slots=True, eq=False)
class Work:
    """One text to be encoded, for one ticket or several.

    Attributes:
        text: what the encoder gets.
        tokens: estimated tokens.
        order: place in the order of arrival.
        lane: the lane it waits in; that of its most urgent ticket.
        tickets: the live tickets that want its vector.
        split: the part of a failed batch that it waits in, or None.
        waiting: whether it is in a lane now; not so while it is being encoded, and afterwards.
    """

    text: str | Window
    tokens: int
    order: int
    lane: LaneName
    tickets: list[Ticket] = field(default_factory=list)
    split: "list[Work] | None" = None
    waiting: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """Texts given to the encoder together.

    Attributes:
        lane: the lane they were cut from.
        works: the texts, with their tickets.
        tokens: estimated padded tokens: longest times texts.
        started: monotonic seconds at which it was taken.
    """

    lane: LaneName
    works: list[Work]
    tokens: int
    started: float

    @property
    def texts(self) -> list[str | Window]:
        """The texts, in order."""
        return [work.text for work in self.works]

    @property
    def deadline(self) -> float:
        """When nobody waits for it any more, in monotonic seconds."""
        return max((ticket.deadline for work in self.works for ticket in work.tickets), default=self.started)


class Ended(NamedTuple):
    """An item that the scheduler gave up, and the error it ends with."""

    ticket: Ticket
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
        """Return when the longest-waiting ticket was accepted, or None."""
        heads = [part[0] for part in self._splits]
        head = self.oldest()
        if head is not None:
            heads.append(head)
        return min((ticket.accepted_at for work in heads for ticket in work.tickets), default=None)

    def cut(self, most: int, budget: int) -> tuple[list[Work], str]:
        """Take the next batch out of the lane: its oldest text, and those of about its length.

        Args:
            most: texts at the most.
            budget: padded tokens (longest times texts) at the most; a lone text may exceed it.

        Returns:
            The texts, at least one if any waits, and why the batch ends there: `split`, `count`, `tokens` or `drained`.
        """
        if self._splits:
            works, reason = list(self._splits[0]), "split"
        else:
            works, reason = self._fitting(most, budget)
        for work in works:
            self.remove(work)
        return works, reason

    def _fitting(self, most: int, budget: int) -> tuple[list[Work], str]:
        head = self.oldest()
        if head is None:
            return [], "drained"
        works: list[Work] = []
        longest = 0
        start = bisect_left(_EDGES, head.tokens)
        for key in range(start, -1, -1):
            for work in self._buckets.get(key, {}).values():
                if 2 * work.tokens < longest:
                    return works, "drained"
                longest_then = max(longest, work.tokens)
                if works and longest_then * (len(works) + 1) > budget:
                    return works, "tokens"
                works.append(work)
                longest = longest_then
                if len(works) == most:
                    return works, "count"
        return works, "drained"

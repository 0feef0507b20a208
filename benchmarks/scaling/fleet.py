"""Many replicas behind a router, those who ask them, and what became of what they asked."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from niruhybrid.config import StreamingConfig
from niruhybrid.errors import OverloadedError

from .clock import Clock
from .replica import Cost, Replica, Task, no_backlog
from .routing import ROUTERS

__all__ = ("Fleet", "FleetConfig", "Record", "answered")

PULLED = 64  # documents a replica has from the broker at a time: its in-flight bound
PULL_AGAIN = 1.0  # seconds after which a refused document is pulled again
RETRIES = 5  # tries of a client in all, as `niruhybrid.client` has it
RETRY_AFTER = 0.1  # seconds before a client tries again, doubled each time


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """A fleet and its work.

    Attributes:
        replicas: how many there are at the start.
        cost: what a batch costs each of them.
        router: a name in `ROUTERS`.
        query_tokens: tokens of a query.
        document_tokens: tokens of a document; one of them is drawn for each.
        bulk: whether documents without end wait in the broker.
        timeout: seconds after which an answer is of no use.
        notice: seconds until the router knows of a replica's death; until then it still sends queries there, which
            fail at once and are tried again by their clients.
        streaming: settings of each scheduler.
        seed: of all chance.
    """

    replicas: int
    cost: Cost
    router: str = "better of two"
    query_tokens: int = 12
    document_tokens: tuple[int, ...] = (192,)
    bulk: bool = False
    timeout: float = 1.0
    notice: float = 10.0
    streaming: StreamingConfig = StreamingConfig()  # noqa: RUF009  # frozen
    seed: int = 1


@dataclass(slots=True)
class Record:
    """What became of everything.

    Attributes:
        offered: tasks asked for, by lane.
        ends: how tasks ended, by lane and how.
        queries: of each query that has ended: when it was asked, how it ended, seconds it waited for its batch, seconds
            to its end.
        retried: tries beyond the first.
    """

    offered: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    queries: list[tuple[float, str, float, float]] = field(default_factory=list)
    retried: int = 0


class Fleet:
    """Replicas, router and callers in one simulated time.

    Args:
        config: what there is.

    Attributes:
        clock: simulated time.
        replicas: all that the router may send to.
        record: what became of everything.
    """

    def __init__(self, config: FleetConfig) -> None:
        self.config = config
        self.clock = Clock()
        self.chance = random.Random(config.seed)
        self.record = Record()
        self.replicas: list[Replica] = []
        self._between = 0  # queries that no replica has: their clients wait before they try again
        self._route = ROUTERS[config.router](self.chance)
        for _ in range(config.replicas):
            self.add()

    def add(self) -> None:
        """Have one replica more, from now on."""
        config = self.config
        hungry: Callable[[Replica], None] = self._feed if config.bulk else no_backlog
        replica = Replica(self.clock, config.streaming, config.cost, self.chance, hungry)
        self.replicas.append(replica)
        if config.bulk:
            for _ in range(PULLED):
                self._feed(replica)

    def lose(self, which: int) -> None:
        """Have a replica die now; the router knows after `notice` seconds."""
        replica = self.replicas[which]
        replica.die()
        self.clock.at(self.clock.now + self.config.notice, lambda: self.replicas.remove(replica))

    def ask_at(self, moments: Iterator[float]) -> None:
        """Have a query come at each of the moments."""

        def come() -> None:
            self.ask()
            self._next(moments, come)

        self._next(moments, come)

    def ask(self, then: Callable[[], None] | None = None) -> None:
        """Have a query come now.

        Args:
            then: called when it has ended.
        """
        self.record.offered["interactive"] += 1
        config = self.config

        def ended(task: Task, how: str, now: float) -> None:
            if how == "lost" and self._again(task):
                return
            self._note(task, how, now)
            if then is not None:
                then()

        self._send(Task("interactive", config.query_tokens, config.timeout, self.clock.now, ended))

    def backlog(self, which: int, tokens: Sequence[int]) -> None:
        """Have a replica hold documents, all at once."""
        for each in tokens:
            self._offer_document(self.replicas[which], each)

    def check(self) -> None:
        """Hold the whole fleet to promises 1 and 2: what was asked for has ended once, or is held by one replica."""
        for replica in self.replicas:
            if replica.alive:
                replica.check()
        ended = sum(self.record.ends.values())
        held = sum(len(replica.held) for replica in self.replicas) + self._between
        offered = sum(self.record.offered.values())
        assert offered == ended + held, f"{offered} were offered, {ended} ended, {held} are held"

    # --- queries -----------------------------------------------------------------------------------------------

    def _next(self, moments: Iterator[float], come: Callable[[], None]) -> None:
        moment = next(moments, None)
        if moment is not None:
            self.clock.at(moment, come)

    def _send(self, task: Task) -> None:
        replica = self._route(self.replicas)
        task.tries += 1
        if not replica.alive:
            if not self._again(task):
                task.ended(task, "unreachable", self.clock.now)
            return
        try:
            replica.offer(task)
        except OverloadedError as err:
            task.ended(task, f"refused: {err.code}", self.clock.now)

    def _again(self, task: Task) -> bool:
        """Have a client try again after a while; False if it has no try or no time left."""
        wait = RETRY_AFTER * 2 ** (task.tries - 1)
        if task.tries >= RETRIES or self.clock.now + wait >= task.asked + task.timeout:
            return False
        self.record.retried += 1
        self._between += 1

        def send() -> None:
            self._between -= 1
            self._send(task)

        self.clock.at(self.clock.now + wait, send)
        return True

    def _note(self, task: Task, how: str, now: float) -> None:
        self.record.ends[task.lane, how] += 1
        if task.lane == "interactive":
            self.record.queries.append((task.asked, how, task.taken - task.asked, now - task.asked))

    # --- documents ---------------------------------------------------------------------------------------------

    def _feed(self, replica: Replica) -> None:
        """Pull one document more from the broker, later if there is no room for it."""
        if not self._offer_document(replica, self.chance.choice(self.config.document_tokens)):
            self.clock.at(self.clock.now + PULL_AGAIN, lambda: self._feed(replica) if replica.alive else None)

    def _offer_document(self, replica: Replica, tokens: int) -> bool:
        self.record.offered["bulk"] += 1
        task = Task("bulk", tokens, self.config.streaming.processing_timeout, self.clock.now, self._note)
        try:
            replica.offer(task)
        except OverloadedError as err:
            self._note(task, f"refused: {err.code}", self.clock.now)
            return False
        return True


def answered(record: Record, since: float, until: float) -> dict[str, Any]:
    """Return what became of the queries asked in a span of time."""
    asked = [each for each in record.queries if since <= each[0] < until]
    in_time = [each for each in asked if each[1] == "delivered"]
    ends = Counter(each[1] for each in asked)
    figures: dict[str, Any] = {
        "asked_per_s": round(len(asked) / (until - since), 1),
        "in_time_per_s": round(len(in_time) / (until - since), 1),
        "in_time_share": round(len(in_time) / max(1, len(asked)), 4),
        "waiting": round(sum(each[2] for each in in_time) / (until - since), 1),  # at an instant, by Little's law
        "ends": dict(sorted(ends.items())),
    }
    for name, place in (("wait", 2), ("answer", 3)):
        values = np.array([each[place] for each in in_time]) * 1000
        for percent in (50, 99):
            figures[f"{name}_p{percent}_ms"] = round(float(np.percentile(values, percent)), 1) if len(values) else None
    return figures

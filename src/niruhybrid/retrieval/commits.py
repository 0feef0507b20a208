"""Group commit: writes that wait for each other anyway share one transaction, and so one sync of the file.

Whoever gets the lock commits what all have left in the queue; the others find it done when their turn comes (flat
combining: Hendler, Incze, Shavit and Tzafrir, "Flat Combining and the Synchronization-Parallelism Tradeoff", SPAA
2010). Nobody waits for company: a lone write is committed at once, and a group is what came during the last commit.

Each change has a watermark of its own, in the order of the group. The log, and so any search, goes from the watermark
before the group to that of its last change; all of them are acknowledged after the commit.
"""

from collections import deque

from niruhybrid.errors import StoreError
from niruhybrid.retrieval.changes import Change
from niruhybrid.retrieval.keeper import Keeper
from niruhybrid.retrieval.log import Log
from niruhybrid.retrieval.standing import StandingQueries

__all__ = ("Commits",)

_MOST = 64  # changes of one transaction


class _Waiting:
    """A change in the queue, until it is committed or has failed."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.error: Exception | None = None
        self.done = False


class Commits:
    """Commits the changes of any number of threads.

    Args:
        log: the truth.
        keeper: the states of the indexes.
        standing: who is told of what was added.
    """

    def __init__(self, log: Log, keeper: Keeper, standing: StandingQueries) -> None:
        self._log = log
        self._keeper = keeper
        self._standing = standing
        self._queue: deque[_Waiting] = deque()  # one for each thread that writes

    def run(self, change: Change) -> None:
        """Make a change, all of it or nothing; return when it is durable and searchable, and who waits for it is told.

        Raises:
            InvalidInputError: the change does not fit what is there; nothing was written.
            StoreError: nothing was written; the subclass says why.
            ClosedError: the store has been closed.
        """
        own = _Waiting(change)
        self._queue.append(own)
        try:
            with self._keeper.changing:
                while not own.done:  # a full group may leave it out
                    self._commit_group()
        finally:
            own.done = True  # an interrupt gives up what has not been committed
        if own.error is not None:
            raise own.error
        self._standing.tell()

    def _commit_group(self) -> None:
        waiting = [self._queue[n] for n in range(min(_MOST, len(self._queue)))]
        try:
            self._commit([one for one in waiting if not one.done])
        finally:
            while self._queue and self._queue[0].done:
                self._queue.popleft()

    def _commit(self, group: list[_Waiting]) -> None:
        """Commit changes together, or each alone where one of them fails all."""
        try:
            self._commit_together([one.change for one in group])
        except Exception as err:  # noqa: BLE001  # it is raised where the change came from
            if len(group) > 1:
                for one in group:
                    self._commit([one])
            else:
                group[0].error, group[0].done = err, True
            return
        for one in group:
            one.done = True
            if one.change.news is not None:
                self._standing.note(one.change.news)
        self._keeper.wake()

    def _commit_together(self, changes: list[Change]) -> None:
        with self._log.write() as session:
            before = self._keeper.at(session.state.watermark)
            if before is None:
                raise StoreError("the store's file was put back to an earlier state: close the store and open it again")
            state = before
            for change in changes:
                state = change.apply(session, state)
            if state is not before:
                self._keeper.offer(before, state)

"""A thread that wakes when something is due, and meanwhile does what it is asked to."""

import threading
import time
from collections.abc import Callable
from math import inf
from queue import Empty, SimpleQueue

__all__ = ("Alarm",)


class Alarm:
    """Looks when something is due and at no other time; sleeps until then, or until it is asked for something.

    Args:
        look: does what is due; called in the alarm's thread. Returns when the next thing is due in monotonic seconds,
            infinity for never, None when there will be nothing more: then the thread does what it has been asked, and
            ends.

    Attributes:
        at: when it looks next. `look` sets it under the lock under which others compare it, so that none is missed.
    """

    def __init__(self, look: Callable[[], float | None]) -> None:
        self.at = -inf  # until the thread first sleeps, nobody needs to wake it
        self._look = look
        self._asked: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def start(self, name: str) -> threading.Thread:
        """Begin, in a thread of its own."""
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        thread.start()
        return thread

    def ask(self, call: Callable[[], object]) -> None:
        """Have something done soon, in the alarm's thread; never blocks."""
        self._asked.put(call)

    def look_by(self, due: float) -> None:
        """Have it look no later than `due`, in monotonic seconds."""
        if due < self.at:
            self.look_now()

    def look_now(self) -> None:
        """Have it look."""
        self._asked.put(None)

    def _run(self) -> None:
        while (due := self._look()) is not None:
            try:
                call = self._asked.get(timeout=None if due == inf else max(0.0, due - time.monotonic()))
            except Empty:
                continue
            if call is not None:
                call()
        while not self._asked.empty():
            call = self._asked.get()
            if call is not None:
                call()

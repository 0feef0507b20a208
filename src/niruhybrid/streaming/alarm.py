"""A thread that wakes when something is due, and meanwhile does what it is asked to."""

import logging
import threading
import time
from collections.abc import Callable
from math import inf
from queue import Empty, SimpleQueue

__all__ = ("Alarm",)

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 3600.0  # seconds; Python can't wait for any length
_AFTER_FAILURE = 1.0  # seconds until it looks again after it failed to


class Alarm:
    """Looks when something is due and at no other time; sleeps until then, or until it is asked for something.

    Nothing that `look` or a call raises ends the thread: it is logged, and a `look` that failed is tried again.

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
        self._failing = False  # whether the last look failed; a failure that lasts is logged once
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
        while (due := self._next_due()) is not None:
            wait = None if due == inf else min(max(0.0, due - time.monotonic()), _LONGEST_WAIT)
            try:
                call = self._asked.get(timeout=wait)
            except Empty:
                continue
            self._do(call)
        while not self._asked.empty():
            self._do(self._asked.get())

    def _next_due(self) -> float | None:
        """Look, and return when to look next; soon, if it failed."""
        try:
            due = self._look()
        except BaseException:  # noqa: BLE001  # the thread serves all others, whatever is wrong with one
            if not self._failing:
                _log.exception("alarm_look_failed")
            self._failing = True
            return time.monotonic() + _AFTER_FAILURE
        self._failing = False
        return due

    @staticmethod
    def _do(call: Callable[[], object] | None) -> None:
        if call is None:
            return
        try:
            call()
        except BaseException:  # noqa: BLE001  # same
            _log.exception("alarm_call_failed")

"""Whether to try again, and when. Pure."""

import math
import random
from collections.abc import Callable

from niruhybrid.config import RetryPolicy
from niruhybrid.errors import DeadlineExceededError, NiruError, OverloadedError

__all__ = ("PATIENT", "Backoff")

PATIENT = RetryPolicy(5, 0.1, 5.0, on=(ConnectionError, OverloadedError))
"""What clients do by default: about ten seconds for a connection to come back, longer if the server asks for it."""


class Backoff:
    """Counts failures in a row. stamina can't see that a stream goes on in between, which begins the count anew.

    Args:
        policy: which errors, how often, how long.
        deadline: monotonic seconds after which nobody waits any more; None for ever.
        jitter: returns a number from 0 to 1.
    """

    def __init__(
        self, policy: RetryPolicy, deadline: float | None, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._jitter = jitter
        self._failures = 0

    def succeeded(self) -> None:
        """Begin anew: there was progress."""
        self._failures = 0

    def failed(self, error: NiruError, now: float) -> float:
        """Return in how many seconds to try again: doubled each time, with jitter, and never before `retry_after`.

        Raises:
            NiruError: `error`, if it will not pass, was the last try, or there is no time for another.
        """
        self._failures += 1
        policy = self._policy
        if not isinstance(error, policy.on) or self._failures >= policy.attempts:
            raise error
        wait = max(
            policy.wait(self._failures, error), policy.wait(self._failures) + self._jitter() * policy.wait_initial
        )
        if self._deadline is not None and now + wait >= self._deadline:
            raise error
        return wait

    def again(self, tries: int, error: Exception | None, now: float) -> float | None:
        """Return in how many seconds to try a part again that failed `tries` times; None for not at all.

        Args:
            tries: how often this part failed; what else failed is not counted.
            error: why; the wait is not shorter than its `retry_after`.
            now: monotonic seconds.
        """
        wait = self._policy.wait(tries, error)
        in_time = self._deadline is None or now + wait < self._deadline
        return wait if tries < self._policy.attempts and in_time else None

    def extend(self, deadline: float) -> None:
        """Set a new deadline, in monotonic seconds."""
        self._deadline = deadline

    def left(self, now: float) -> float:
        """Return how many seconds there are; infinity where there is no deadline.

        Raises:
            DeadlineExceededError: there are none.
        """
        if self._deadline is None:
            return math.inf
        if now >= self._deadline:
            raise DeadlineExceededError("the call was not finished in time: raise `timeout`")
        return self._deadline - now

"""Trying again what failed for a passing reason; stamina decides when."""

import time
from collections.abc import Callable
from typing import TypeVar

import stamina

from niruhybrid.config import RetryPolicy

__all__ = ("with_retries",)

_T = TypeVar("_T")


def with_retries(policy: RetryPolicy, deadline: float, call: Callable[[], _T]) -> _T:
    """Return what `call` returns, trying again after an error that `policy` names.

    Args:
        policy: which errors, how often, and how long to wait in between.
        deadline: monotonic seconds after which nobody waits for the result any more; no try begins later.
        call: what is tried; blocks.

    Raises:
        Exception: the last error, once the tries or the time are used up; any other error at once.
    """
    try:
        return call()
    except policy.on as err:
        error = err
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise error
    wait_initial, wait_max = min(policy.wait_initial, left), min(policy.wait_max, left)
    for attempt in stamina.retry_context(
        on=policy.on,
        attempts=policy.attempts,
        timeout=left,
        wait_initial=wait_initial,
        wait_max=wait_max,
        wait_jitter=wait_initial,
    ):
        if time.monotonic() >= deadline:
            break
        with attempt:
            if attempt.num == 1:
                raise error  # the try above was the first; without an error it costs nothing
            return call()
    raise error

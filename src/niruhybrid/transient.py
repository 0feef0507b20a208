"""Which errors pass by themselves, so that trying again may succeed. Pure."""

from niruhybrid.errors import (
    DeadlineExceededError,
    EncoderHungError,
    ItemDroppedError,
    OverloadedError,
    ReplicaLostError,
)

__all__ = ("TRANSIENT", "is_transient")

TRANSIENT: tuple[type[Exception], ...] = (
    ConnectionError,
    DeadlineExceededError,
    EncoderHungError,
    ItemDroppedError,
    OverloadedError,
    ReplicaLostError,
)


def is_transient(error: BaseException | None, *, has_timeout: bool) -> bool:
    """Return whether a document that failed with this error may succeed when it is sent again.

    Args:
        error: what the document failed with; None if it did not fail.
        has_timeout: whether the document has a `timeout` of its own; then a missed deadline is final.
    """
    if has_timeout and isinstance(error, DeadlineExceededError):
        return False
    return isinstance(error, TRANSIENT)

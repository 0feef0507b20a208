"""What the shells drive: one exchange with the server, over as many connections as it takes."""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from niruhybrid.client.backoff import Backoff
from niruhybrid.client.calls import Call
from niruhybrid.client.refusals import refusal, unreachable

__all__ = ("Exchange", "PlainExchange")

_Item_co = TypeVar("_Item_co", covariant=True)


class Exchange(Protocol[_Item_co]):
    """Decides what comes next; the shell sends, receives and waits. `now` is in monotonic seconds.

        send `call()`, no wait longer than `left(now)`
        any status but 200:    wait for `refused(status, headers, body, now)`, then send again
        bytes:                 yield from `received(data, now)`
        closed, or broken:     wait for `lost(error, now)`, then send again; None: it is complete

    Whatever an exchange raises ends it.
    """

    def call(self) -> Call:
        """Return the next request."""
        ...

    def left(self, now: float) -> float:
        """Return how many seconds there are; raises `DeadlineExceededError` if none."""
        ...

    def refused(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> float:
        """Return in how many seconds to send again, or raise why it was refused."""
        ...

    def received(self, data: bytes, now: float) -> Iterator[_Item_co]:
        """Yield what these bytes complete."""
        ...

    def lost(self, error: Exception | None, now: float) -> float | None:
        """Return in how many seconds to send again, None if all has come, or raise."""
        ...


class PlainExchange:
    """One request, one body; repeated as a whole until it is there.

    Args:
        call: the request.
        backoff: whether to send it again, and when.
    """

    def __init__(self, call: Call, backoff: Backoff) -> None:
        self._call = call
        self._backoff = backoff
        self._body = bytearray()

    @property
    def body(self) -> bytes:
        """What came."""
        return bytes(self._body)

    def call(self) -> Call:
        """Return the request, and forget what came of the last one."""
        self._body.clear()
        return self._call

    def left(self, now: float) -> float:
        """Return how many seconds there are."""
        return self._backoff.left(now)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> float:
        """Return in how many seconds to send it again, or raise why it was refused."""
        return self._backoff.failed(refusal(status, headers, body), now)

    def received(self, data: bytes, now: float) -> Iterator[bytes]:
        """Keep these bytes, and yield nothing."""
        self._backoff.left(now)
        self._body += data
        return iter(())

    def lost(self, error: Exception | None, now: float) -> float | None:
        """Return in how many seconds to send it again; None if the body was closed at its end."""
        return None if error is None else self._backoff.failed(unreachable(error), now)

"""Documents on their way: which were sent, which are acknowledged, which are sent again. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import orjson

from niruhybrid.client import events
from niruhybrid.client.backoff import Backoff
from niruhybrid.client.calls import Call
from niruhybrid.client.refusals import refusal, unreachable
from niruhybrid.errors import InvalidInputError, NiruError, StreamLostError
from niruhybrid.transient import is_transient
from niruhybrid.types import DataResult, Document

__all__ = ("Outbox",)

_NDJSON = {"Content-Type": "application/x-ndjson"}
_FIELDS = tuple(field.name for field in fields(Document))


@dataclass(slots=True, eq=False)
class _Line:
    """A document on its way, as it is sent.

    Attributes:
        id: its own; "" if the server makes one.
        data: the line of JSON.
        has_timeout: whether it has a `timeout` of its own.
        tries: how often it failed for a passing reason.
        failed: whether it did so in the request that is under way, so that it is to be sent again.
    """

    id: str
    data: bytes
    has_timeout: bool
    tries: int = 0
    failed: bool = False


class Outbox:
    """Documents in batches, each sent until every document is acknowledged, or has failed for good.

    What a broken connection left without an acknowledgement is sent again, under the same id: at least once, and once
    in the index. A text without an id gets one from the server, made from the text, so that this holds for it too. What
    failed for a passing reason is sent again as well, unless a later document of the same id was stored. What was
    acknowledged is never sent again.

    Args:
        patience: returns, for each batch, what decides whether to send it again, and when.
        timeout: seconds without a byte from the server, all connections together, after which a batch is given up.
        most: documents of one batch.
        most_bytes: bytes of one batch. One document may exceed them, and is then sent alone: a server reads one line
            at once, but may leave further ones unread until there is room for them.
    """

    def __init__(
        self, patience: Callable[[], Backoff], *, timeout: float, most: int, most_bytes: int = 131_072
    ) -> None:
        self._patience = patience
        self._timeout = timeout
        self._backoff = patience()
        self._most = most
        self._most_bytes = most_bytes
        self._lines: dict[int, _Line] = {}  # by number in the request; not yet acknowledged
        self._next: _Line | None = None  # did not fit into the batch
        self._ended: NiruError | None = None  # what the server ended the request with
        self._size = 0
        self._due = 0.0  # when what failed for a passing reason may be sent again
        self._rest = b""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._lines and self._next is None

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be sent before more is added."""
        return self._next is not None or len(self._lines) >= self._most or self._size >= self._most_bytes

    def add(self, item: object) -> DataResult | None:
        """Take a document into the next batch; one that can't be sent comes back as its result.

        Args:
            item: a string, a mapping with the attributes of `Document` as keys, or a `Document`.
        """
        name, timeout = (
            item.get(field) if isinstance(item, Mapping) else getattr(item, field, None) for field in ("id", "timeout")
        )
        document_id = name if isinstance(name, str) else ""
        try:
            line = _Line(document_id, _line(item), timeout is not None)
        except InvalidInputError as err:
            return DataResult(document_id, error=err)
        if self._lines and self._size + len(line.data) > self._most_bytes:
            self._next = line
        else:
            self._take(line)
        return None

    def call(self) -> Call:
        """Return the request that sends what is not acknowledged, numbered anew."""
        if not self._lines and self._next is not None:
            self._take(self._next)
            self._next = None
        self._lines = dict(enumerate(self._lines.values(), 1))
        for line in self._lines.values():
            line.failed = False
        self._rest, self._ended = b"", None
        return Call("POST", "/stream/data", b"".join(line.data for line in self._lines.values()), _NDJSON)

    def received(self, data: bytes, now: float) -> Iterator[DataResult]:
        """Yield the acknowledgements that are whole with these bytes; blank lines only say that the server is alive.

        Raises:
            StreamLostError: one can't be read.
        """
        self._backoff.extend(now + self._timeout)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield from self._acknowledged(line, now)
        if not self._lines:
            self._size = 0
            self._backoff = self._patience()

    def left(self, now: float) -> float:
        """Return how many seconds this batch may still take without a byte from the server.

        Raises:
            DeadlineExceededError: none.
        """
        return self._backoff.left(now)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> float:
        """Return in how many seconds to send again.

        Raises:
            NiruError: why it was refused, if it will not pass.
        """
        return self._backoff.failed(refusal(status, headers, body), now)

    def lost(self, error: Exception | None, now: float) -> float | None:
        """Return in how many seconds to send again what is not acknowledged; None if nothing is left.

        Raises:
            NiruError: this was the last try, or what the server ended the request with will not pass.
        """
        if not self._lines:
            return None
        wait = max(0.0, self._due - now)
        if all(line.failed for line in self._lines.values()):
            return wait
        return max(wait, self._backoff.failed(self._ended or unreachable(error), now))

    def _take(self, line: _Line) -> None:
        self._lines[len(self._lines) + 1] = line
        self._size += len(line.data)

    def _acknowledged(self, data: bytes, now: float) -> Iterator[DataResult]:
        """Yield the results that a line brings. Line 0 is about the request as a whole."""
        try:
            value = dict(orjson.loads(data))
            number = int(value["line"])
            result = events.data_result(value)
        except (KeyError, TypeError, ValueError) as err:
            raise StreamLostError("an acknowledgement can't be read: check that versions match") from err
        if number == 0:
            self._ended = result.error
            return
        line = self._lines.get(number)
        if line is None or line.failed:
            return
        self._backoff.succeeded()
        if is_transient(result.error, has_timeout=line.has_timeout):
            line.tries += 1
            wait = self._backoff.again(line.tries, result.error, now)
            if wait is not None:
                line.failed = True
                self._due = max(self._due, now + wait)
                return
        del self._lines[number]
        result = replace(result, id=result.id or line.id)
        if result.error is None:
            yield from self._replaced(number, result)
        yield result

    def _replaced(self, number: int, result: DataResult) -> Iterator[DataResult]:
        """Yield the results of failed documents that line `number` has taken the place of, as if written before it."""
        older = [each for each, line in self._lines.items() if each < number and line.failed and line.id == result.id]
        for each in older:
            del self._lines[each]
            yield result


def _line(item: object) -> bytes:
    if isinstance(item, str):
        item = {"text": item}
    elif isinstance(item, Document):
        values = {name: getattr(item, name) for name in _FIELDS}
        item = {name: value for name, value in values.items() if value is not None} | {"metadata": dict(item.metadata)}
    if not isinstance(item, Mapping):
        raise InvalidInputError(f"an item is a {type(item).__name__}: give a string, a mapping or a Document")
    try:
        return orjson.dumps(dict(item), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError as err:
        raise InvalidInputError(f"an item is not JSON ({err}): use string keys, JSON values, valid Unicode") from err

"""Documents on their way: which are out, which are acknowledged, what is sent again. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace

import orjson

from niruhybrid.client import events
from niruhybrid.client.backoff import Backoff
from niruhybrid.client.calls import Call
from niruhybrid.client.refusals import refusal, unreachable
from niruhybrid.errors import InvalidInputError, NiruError, StreamLostError
from niruhybrid.types import DataResult, Document

__all__ = ("Outbox",)

_NDJSON = {"Content-Type": "application/x-ndjson"}
_FIELDS = tuple(field.name for field in fields(Document))


class Outbox:
    """Documents in batches, each sent until every one of them is acknowledged or refused.

    What a broken connection left without an acknowledgement is sent again, under the same id: at least once, and once
    in the index. A text without an id gets one from the server, made from the text, so that this holds for it too.

    Args:
        patience: returns, for each batch, what decides whether to send it again, and when.
        most: documents of one batch.
        most_bytes: bytes of one batch; one document may exceed them alone.
    """

    def __init__(self, patience: Callable[[], Backoff], *, most: int, most_bytes: int = 524_288) -> None:
        self._patience = patience
        self._backoff = patience()
        self._most = most
        self._most_bytes = most_bytes
        self._lines: dict[int, tuple[str, bytes]] = {}  # id and line, by number in the request; not yet acknowledged
        self._ended: NiruError | None = None  # what the server ended the request with
        self._size = 0
        self._number = 0
        self._rest = b""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._lines

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be sent before more is added."""
        return len(self._lines) >= self._most or self._size >= self._most_bytes

    def add(self, item: object) -> DataResult | None:
        """Take a document into the next batch; one that can't be sent comes back as its result.

        Args:
            item: a string, a mapping with the attributes of `Document` as keys, or a `Document`.
        """
        named = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", None)
        name = named if isinstance(named, str) else ""
        try:
            line = _line(item)
        except InvalidInputError as err:
            return DataResult(name, error=err)
        self._lines[len(self._lines) + 1] = (name, line)
        self._size += len(line)
        return None

    def call(self) -> Call:
        """Return the request that sends what is not acknowledged, numbered anew."""
        self._lines = dict(enumerate(self._lines.values(), 1))
        self._rest, self._ended = b"", None
        return Call("POST", "/stream/data", b"".join(line for _, line in self._lines.values()), _NDJSON)

    def received(self, data: bytes, now: float) -> Iterator[DataResult]:
        """Yield the acknowledgements that are whole with these bytes.

        Raises:
            StreamLostError: one can't be read.
            DeadlineExceededError: it is too late.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip() and (result := self._acknowledged(line)) is not None:
                self._backoff.succeeded()
                yield result
        if not self._lines:
            self._size = 0
            self._backoff = self._patience()
        else:
            self._backoff.left(now)

    def left(self, now: float) -> float:
        """Return how many seconds this batch may still take.

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
        """Return in how many seconds to send again what was not acknowledged; None if nothing is left.

        Raises:
            NiruError: this was the last try, or what the server ended the request with will not pass.
        """
        if not self._lines:
            return None
        return self._backoff.failed(self._ended or unreachable(error), now)

    def _acknowledged(self, line: bytes) -> DataResult | None:
        """Return what a line acknowledges; None if that is nothing new. Line 0 is about the request as a whole."""
        try:
            value = dict(orjson.loads(line))
            number = int(value["line"])
            result = events.data_result(value)
        except (KeyError, TypeError, ValueError) as err:
            raise StreamLostError("an acknowledgement can't be read: check that versions match") from err
        if number == 0:
            self._ended = result.error
            return None
        if number not in self._lines:
            return None
        name, _ = self._lines.pop(number)
        return replace(result, id=result.id or name)


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

"""Server-Sent Events out of bytes, however they were cut. Pure.

The algorithm is that of the WHATWG HTML standard, "Interpreting an event stream".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from niruhybrid.errors import StreamLostError

__all__ = ("EventDecoder", "ServerEvent")

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of one event at the most: a server that never ends an event must not fill the memory."""

_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)  # a last `\r` waits for what follows it


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One whole event.

    Attributes:
        id: as its own `id` field has it; "" where it has none.
        event: its name.
        data: its data lines, joined by line feeds.
    """

    id: str
    event: str
    data: str


class EventDecoder:
    """Turns the bytes of one connection into events. What a lost connection leaves of an event is no event."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._id = ""
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Yield the events that are whole with these bytes.

        Raises:
            StreamLostError: an event is over 64 MiB.
        """
        looked_at = max(0, len(self._rest) - 1)
        self._rest += data
        self._size += len(data)
        start = 0
        while found := _LINE_END.search(self._rest, looked_at):
            line, start = bytes(self._rest[start : found.start()]), found.end()
            looked_at = start
            if line:
                self._field(line.decode("utf-8", "replace"))
            elif event := self._dispatched():
                self._size = len(self._rest) - start
                yield event
        del self._rest[:start]
        if self._size > MOST_BYTES:
            raise StreamLostError(f"an event is over {MOST_BYTES} bytes: look at the server")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case _:  # comments, `retry`, and what is to come
                pass

    def _dispatched(self) -> ServerEvent | None:
        """Return the event that a blank line ends, if it has data."""
        event = ServerEvent(self._id, self._event or "message", "\n".join(self._data)) if self._data else None
        self._id, self._event, self._data = "", "", []
        return event

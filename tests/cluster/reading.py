"""The events of a stream, as a client reads them."""

import json
from collections.abc import Iterator

import requests


class Event:
    """One event of a stream."""

    def __init__(self, block: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in block)
        self.id, self.name, self.data = fields["id"], fields["event"], json.loads(fields["data"])


def events(response: requests.Response) -> Iterator[Event]:
    """Yield the events of a stream as they come."""
    block: list[str] = []
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line and not line.startswith(":"):
            block.append(line)
        elif block:
            yield Event(block)
            block = []

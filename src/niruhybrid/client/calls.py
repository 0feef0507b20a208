"""What is sent to the server: paths, bodies, time limits; and what plain answers say. Pure."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import orjson

from niruhybrid.client import events
from niruhybrid.config import RetryPolicy
from niruhybrid.errors import InvalidInputError, InvalidSettingError, UnreachableError
from niruhybrid.filters import Filter
from niruhybrid.types import Metadata, QueryResult, SearchMode, Vector
from niruhybrid.types.checks import checked_timeout
from niruhybrid.urls import is_url, request_parts, shown_url

__all__ = (
    "Asked",
    "AskedStream",
    "Call",
    "Connection",
    "Watched",
    "asking",
    "embedding",
    "object_of",
    "result_of",
    "vectors_of",
)


JSON = {"Content-Type": "application/json"}


class Asked(TypedDict, total=False):
    """What may be said of a query, beside its text; what is left out is the server's to choose.

    Attributes:
        top_k: hits wanted, 1 to 1000.
        filter: what a document's metadata must say, see `niruhybrid.filters`.
        mode: what the search goes by.
        min_watermark: the write that the search must see at the least.
        metadata: a JSON object, returned with the sources.
        session: a newer query of the same session supersedes this one.
        id: a name for the query; one is made up without it.
        timeout: seconds the whole answer may take.
    """

    top_k: int
    filter: Filter | None
    mode: SearchMode
    min_watermark: int
    metadata: Metadata | None
    session: str | None
    id: str | None
    timeout: float | None


class AskedStream(Asked, total=False):
    """What may be said of a query whose answer is streamed.

    Attributes:
        progressive: whether what the words alone find is to come first, as provisional `Sources`.
    """

    progressive: bool


class Watched(TypedDict, total=False):
    """What may be said of a standing query, beside its text.

    Attributes:
        min_score: the score that a match must have.
        per_minute: matches in a minute at the most.
        filter: what a document's metadata must say.
        mode: what counts.
        id: its name in every match; one is made up without it.
    """

    min_score: float | None
    per_minute: int | None
    filter: Filter | None
    mode: SearchMode
    id: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        method: of HTTP.
        path: below the base URL.
        body: as it is sent; None for no body.
        headers: what describes the body, and what is wanted.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is, and how patient its client.

    Attributes:
        base_url: such as `http://127.0.0.1:8000`; a path in it precedes the server's own.
        api_key: sent as `Authorization: Bearer …`, or as `X-API-Key` if the URL has a user; None sends none.
        timeout: seconds one plain call may take, all tries together.
        answer_timeout: seconds one streamed answer may take, all connections together; of a batch of documents, seconds
            without a byte from the server.
        connect_timeout: seconds until the connection stands.
        silence_timeout: seconds without a byte after which a connection counts as lost.
        retry: what is tried again, how often in a row, and how long after.

    Raises:
        InvalidSettingError: a value can't be used.
    """

    base_url: str = field(repr=False)
    api_key: str | None = field(repr=False)
    timeout: float
    answer_timeout: float
    connect_timeout: float
    silence_timeout: float
    retry: RetryPolicy

    def __post_init__(self) -> None:
        if not is_url(self.base_url, "http", "https"):
            raise InvalidSettingError(
                f"`base_url` is {shown_url(self.base_url)!r}: give a URL, such as http://127.0.0.1:8000"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise InvalidSettingError("`api_key` has characters that no header can carry: give it as it was issued")
        for seconds in (self.timeout, self.answer_timeout, self.connect_timeout, self.silence_timeout):
            checked_timeout(seconds)

    @property
    def is_secure(self) -> bool:
        """Whether there are certificates to verify; to load them takes a tenth of a second."""
        return self.base_url.startswith("https:")

    def url(self, path: str) -> str:
        """Return where a path of the server's is."""
        return request_parts(self.base_url, None)[0].rstrip("/") + path

    @property
    def headers(self) -> dict[str, str]:
        """What every request has: the key, and user and password of the URL, so that no log shows them."""
        return request_parts(self.base_url, self.api_key)[1]


def asking(path: str, query: str, fields: Mapping[str, Any]) -> Call:
    """Return the request that asks `query`; fields that are None are left out.

    Raises:
        InvalidInputError: a value is not JSON.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return Call("POST", path, orjson.dumps({"query": query, **given}), JSON)
    except TypeError as err:
        raise InvalidInputError(f"the query is not JSON ({err}): use JSON values and valid Unicode") from err


def embedding(texts: Sequence[str]) -> Call:
    """Return the request that has texts encoded.

    Raises:
        InvalidInputError: a text is not one.
    """
    try:
        body = orjson.dumps({"model": "default", "input": list(texts), "encoding_format": "base64"})
    except TypeError as err:
        raise InvalidInputError(f"the texts are not JSON ({err}): give strings of valid Unicode") from err
    return Call("POST", "/v1/embeddings", body, JSON)


def vectors_of(body: bytes) -> list[Vector]:
    """Return the vectors that were asked for, in the texts' order, `(dim,)` each.

    Raises:
        UnreachableError: this is no answer of such a server.
    """
    try:
        rows = sorted(orjson.loads(body)["data"], key=lambda row: row["index"])
        return [np.frombuffer(base64.b64decode(row["embedding"], validate=True), "<f4") for row in rows]
    except (KeyError, TypeError, ValueError, binascii.Error) as err:
        raise _foreign() from err


def result_of(body: bytes, text: str) -> QueryResult:
    """Return the result of a plain query.

    Raises:
        UnreachableError: this is no answer of such a server.
    """
    try:
        return events.query_result(orjson.loads(body), text)
    except (KeyError, TypeError, ValueError) as err:
        raise _foreign() from err


def object_of(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        UnreachableError: this is no answer of such a server.
    """
    try:
        return dict(orjson.loads(body))
    except (TypeError, ValueError) as err:
        raise _foreign() from err


def _foreign() -> UnreachableError:
    return UnreachableError("what answers is no server of this library: check `base_url`")

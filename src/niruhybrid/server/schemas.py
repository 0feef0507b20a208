"""What requests may ask: their fields, checked where they enter, made into queries."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from niruhybrid.server import problems
from niruhybrid.types import Query, SearchMode
from niruhybrid.types.checks import MAX_ID_CHARS, MAX_TOP_K, checked_id, checked_text

__all__ = (
    "FILTER_HERE",
    "NOT_BLANK",
    "PRINTABLE",
    "PlainRequest",
    "QueryRequest",
    "StreamRequest",
    "SubscribeRequest",
    "asked",
    "from_url",
    "query_of",
)

MAX_WATERMARK = 2**53 - 1  # the last whole number that JSON's readers agree on
_SHOWN_ERRORS = 20
_SHOWN_NAME = 60

PRINTABLE = "printable"
"""The format of ids: of printable characters, in Unicode's sense; no pattern that all tools read alike says as much."""

NOT_BLANK = r"\S"
_PER_MINUTE = 60
FILTER_HERE: dict[str, Any] = {"type": "object", "title": "Filter"}

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, json_schema_extra={"format": PRINTABLE})]


def _whole(value: object) -> object:
    """Return 5 for 5.0: to JSON there is no difference."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)

Text = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": NOT_BLANK})]
FilterField = Annotated[
    dict[str, Any] | None,
    WithJsonSchema({"anyOf": [FILTER_HERE, {"type": "null"}], "default": None}),
    Field(description="What a document's metadata must say."),
]


class QueryRequest(BaseModel):
    """A question, as clients send it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[Text, Field(description="What is asked; not blank.")]
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K, description="Hits wanted."), Whole] = 5
    id: Annotated[Id | None, Field(description="Your name for the query; one is made up without it.")] = None
    metadata: Annotated[
        dict[str, Any] | None, Field(description="Any JSON object; returned unchanged in `sources`.")
    ] = None
    timeout: Annotated[float | None, Field(gt=0, le=86_400, description="Seconds the whole answer may take.")] = None
    session: Annotated[Id | None, Field(description="A newer query of the same session supersedes this one.")] = None
    filter: FilterField = None
    mode: Annotated[SearchMode, Field(description="What the search goes by.")] = "hybrid"
    min_watermark: Annotated[
        int, Field(ge=0, le=MAX_WATERMARK, description="The write that the search must see at the least."), Whole
    ] = 0


class StreamRequest(QueryRequest):
    """A question whose answer is to be streamed."""

    progressive: Annotated[
        bool, Field(description="Send what the words alone find as `provisional`, before `sources`.")
    ] = False


class PlainRequest(QueryRequest):
    """A question whose answer is wanted whole."""

    answer: Annotated[bool, Field(description="Whether an answer is to be written; else only hits.")] = True


class SubscribeRequest(BaseModel):
    """A question that stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[Text, Field(description="What is waited for; not blank.")]
    id: Annotated[Id | None, Field(description="Your name for it; one is made up without it.")] = None
    min_score: Annotated[
        float | None,
        Field(description=f"The score that a match must have; without it, {_PER_MINUTE} matches a minute."),
    ] = None
    per_minute: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Matches in a minute at the most, the best of them."), Whole
    ] = None
    filter: FilterField = None
    mode: Annotated[SearchMode, Field(description="What counts.")] = "hybrid"

    @property
    def cap(self) -> int | None:
        """Matches in a minute at the most: as asked, or so many that nobody drowns who names no score either."""
        return _PER_MINUTE if self.per_minute is None and self.min_score is None else self.per_minute


Asked = TypeVar("Asked", bound=BaseModel)


def asked(model: type[Asked], values: Mapping[str, Any], *, strict: bool) -> Asked:
    """Return the request that `values` ask for.

    Args:
        model: its shape.
        values: fields by name.
        strict: take no text for a number; a query string has nothing but text.

    Raises:
        RequestError: a field is unknown, missing or of the wrong type; each is named.
    """
    try:
        return model.model_validate(values, strict=strict)
    except pydantic.ValidationError as err:
        raise _invalid(err) from err


def query_of(request: QueryRequest | SubscribeRequest, *, max_chars: int, owner: str | None = None) -> Query:
    """Return the query that a request asks.

    Args:
        request: as it was sent.
        max_chars: characters of the query at the most.
        owner: whose sessions its `session` is one of; None where all share them.

    Raises:
        InvalidInputError: a value can't be used.
    """
    checked_text(request.query, what="query", max_chars=max_chars)
    more: dict[str, Any] = {}
    if isinstance(request, QueryRequest):
        more = {
            "top_k": request.top_k,
            "metadata": request.metadata or {},
            "timeout": request.timeout,
            "session": _session_of(request.session, owner),
            "min_watermark": request.min_watermark,
        }
    return Query(request.id or uuid.uuid4().hex, request.query, filter=request.filter, mode=request.mode, **more)


def _session_of(session: str | None, owner: str | None) -> str | None:
    """Return a session's name among those of all owners: of one length, so that it is an id like any other."""
    if session is None or owner is None:
        return session
    return hashlib.sha256(f"{owner} {checked_id(session)}".encode()).hexdigest()


def from_url(values: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the fields that a query string gives; `filter` is JSON in it.

    Raises:
        RequestError: it has what only a body can carry, or a filter that is not JSON.
    """
    if "metadata" in values:
        raise problems.RequestError("invalid_input", "`metadata` can't be sent in a query string: use POST")
    if "filter" not in values:
        return values
    try:
        return {**values, "filter": orjson.loads(values["filter"])}
    except orjson.JSONDecodeError as err:
        raise problems.RequestError("invalid_input", f"`filter` is not JSON ({err.msg}): encode it") from err


def _invalid(err: pydantic.ValidationError) -> problems.RequestError:
    """Name each field that is wrong, without repeating its value."""
    errors = [
        {"field": ".".join(str(part) for part in error["loc"])[:_SHOWN_NAME], "detail": error["msg"]}
        for error in err.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_ERRORS]
    ]
    first = "; ".join(
        f"`{error['field']}`: {error['detail']}" if error["field"] else error["detail"] for error in errors
    )
    return problems.RequestError("invalid_input", f"{first}: correct the request", errors=errors)

"""What goes over the wire: the request's model, and the OpenAPI description that is true to the rest."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import orjson
import pydantic
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from niruhybrid.server import problems
from niruhybrid.types import MAX_ID_CHARS, MAX_TOP_K, Query, SearchMode, StandingQuery, checked_text

__all__ = (
    "EVENT_STREAM",
    "PlainRequest",
    "QueryRequest",
    "StreamRequest",
    "SubscribeRequest",
    "asked",
    "openapi",
    "problem_responses",
    "query_of",
)

MAX_WATERMARK = 2**63 - 1
_SHOWN_ERRORS = 20
_SHOWN_NAME = 60

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]


class QueryRequest(BaseModel):
    """A question, as clients send it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str, Field(min_length=1, description="What is asked; not blank.")]
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K, description="Hits wanted.")] = 5
    id: Annotated[Id | None, Field(description="Your name for the query; one is made up without it.")] = None
    metadata: Annotated[
        dict[str, Any] | None, Field(description="Any JSON object; returned unchanged in `sources`.")
    ] = None
    timeout: Annotated[float | None, Field(gt=0, le=86_400, description="Seconds the whole answer may take.")] = None
    session: Annotated[Id | None, Field(description="A newer query of the same session supersedes this one.")] = None
    filter: Annotated[
        dict[str, Any] | None,
        Field(description='What a document\'s metadata must say, such as `{"eq": {"lang": "en"}}`.'),
    ] = None
    mode: Annotated[SearchMode, Field(description="What the search goes by.")] = "hybrid"
    min_watermark: Annotated[
        int, Field(ge=0, le=MAX_WATERMARK, description="The write that the search must see at the least.")
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

    query: Annotated[str, Field(min_length=1, description="What is waited for; not blank.")]
    id: Annotated[Id | None, Field(description="Your name for it; one is made up without it.")] = None
    min_score: Annotated[
        float | None, Field(description="The score that a match must have. This or `per_minute` is needed.")
    ] = None
    per_minute: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Matches in a minute at the most, the best of them.")
    ] = None
    filter: Annotated[dict[str, Any] | None, Field(description="What a document's metadata must say.")] = None
    mode: Annotated[SearchMode, Field(description="What counts.")] = "hybrid"


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


def query_of(request: QueryRequest | SubscribeRequest, *, max_chars: int) -> Query:
    """Return the query that a request asks.

    Raises:
        InvalidInputError: a value can't be used.
    """
    checked_text(request.query, what="query", max_chars=max_chars)
    query = Query(request.id or uuid.uuid4().hex, request.query, filter=request.filter, mode=request.mode)
    if isinstance(request, SubscribeRequest):
        return query
    return replace(
        query,
        top_k=request.top_k,
        metadata=request.metadata or {},
        timeout=request.timeout,
        session=request.session,
        min_watermark=request.min_watermark,
    )


def standing_of(request: SubscribeRequest) -> StandingQuery:
    """Return what a request waits for, not encoded yet.

    Raises:
        InvalidSettingError: neither a score nor a rate is given, or one is out of its range.
    """
    return StandingQuery("new", None, (), request.min_score, request.per_minute, request.filter, request.mode)


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


_HIT = {
    "type": "object",
    "required": ["id", "rank", "score", "text", "title", "metadata", "span"],
    "properties": {
        "id": {"type": "string"},
        "rank": {"type": "integer", "minimum": 1},
        "score": {"type": "number"},
        "text": {"type": "string"},
        "title": {"type": "string"},
        "metadata": {"type": "object"},
        "span": {
            "type": "array",
            "description": "Where the text begins and ends in the document's, in characters.",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 2,
            "maxItems": 2,
        },
    },
}
_TIMINGS = ("queued", "encode", "search", "generate", "total")
_COMPONENTS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(problems.PROBLEMS)},
            "retry_after": {"type": "integer", "minimum": 1, "description": "Seconds, as in Retry-After."},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                },
            },
        },
    },
    "SourcesEvent": {
        "type": "object",
        "description": "event: sources. Always, once, also when nothing was found; first, or after `provisional`.",
        "required": ["query_id", "hits", "watermark"],
        "properties": {
            "query_id": {"type": "string"},
            "hits": {"type": "array", "items": _HIT},
            "watermark": {"type": ["integer", "null"], "description": "The last write that the search could see."},
            "metadata": {"type": "object", "description": "The query's own, where it had any."},
            "notes": {"type": "array", "items": {"type": "string"}, "description": "What was not done, in words."},
        },
    },
    "TokenEvent": {
        "type": "object",
        "description": "event: token. The texts, concatenated, are the answer.",
        "required": ["text"],
        "properties": {"text": {"type": "string"}, "source": {"type": "string", "description": "Id of a hit."}},
    },
    "DoneEvent": {
        "type": "object",
        "description": "event: done. The answer is complete; nothing follows.",
        "required": ["query_id", "finish_reason", "timings"],
        "properties": {
            "query_id": {"type": "string"},
            "finish_reason": {"type": "string", "enum": ["stop", "length", "content_filter"]},
            "notes": {"type": "array", "items": {"type": "string"}, "description": "What was cut or left out."},
            "timings": {
                "type": "object",
                "description": "Seconds.",
                "required": list(_TIMINGS),
                "properties": {name: {"type": "number", "minimum": 0} for name in _TIMINGS},
            },
        },
    },
    "Hit": _HIT,
    "Result": {
        "type": "object",
        "description": "A query's hits and, where one was wanted, its answer.",
        "required": ["query_id", "hits", "watermark", "timings"],
        "properties": {
            "query_id": {"type": "string"},
            "hits": {"type": "array", "items": _HIT},
            "watermark": {"type": ["integer", "null"]},
            "metadata": {"type": "object"},
            "notes": {"type": "array", "items": {"type": "string"}},
            "answer": {"type": "string"},
            "finish_reason": {"type": "string"},
            "timings": {"type": "object", "description": "Seconds.", "additionalProperties": {"type": "number"}},
        },
    },
    "Document": {
        "type": "object",
        "required": ["id", "text", "title", "metadata"],
        "properties": {
            "id": {"type": "string"},
            "text": {"type": "string"},
            "title": {"type": "string"},
            "metadata": {"type": "object"},
        },
    },
    "Removed": {
        "type": "object",
        "required": ["id", "watermark"],
        "properties": {"id": {"type": "string"}, "watermark": {"type": "integer", "minimum": 0}},
    },
    "Acknowledgement": {
        "type": "object",
        "description": "Of one line; line 0 is the summary, or the error that ended the stream.",
        "required": ["line"],
        "properties": {
            "line": {"type": "integer", "minimum": 0},
            "id": {"type": "string"},
            "watermark": {"type": "integer", "description": "A search that sees this write sees the document."},
            "notes": {"type": "array", "items": {"type": "string"}},
            "error": {"$ref": "#/components/schemas/Problem"},
            "done": {"type": "boolean"},
            "stored": {"type": "integer"},
            "answered": {"type": "integer"},
            "failed": {"type": "integer"},
        },
    },
    "SubscribedEvent": {
        "type": "object",
        "description": "event: subscribed. Once, first: every write after `watermark` is looked at.",
        "required": ["query_id", "watermark"],
        "properties": {"query_id": {"type": "string"}, "watermark": {"type": "integer"}},
    },
    "MatchEvent": {
        "type": "object",
        "description": "event: match. A document that has just become searchable.",
        "required": ["query_id", "hit", "watermark"],
        "properties": {"query_id": {"type": "string"}, "hit": _HIT, "watermark": {"type": "integer"}},
    },
    "DroppedEvent": {
        "type": "object",
        "description": "event: dropped. So many matches were given up, because they were not read in time.",
        "required": ["query_id", "count"],
        "properties": {"query_id": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    },
    "StaleEvent": {
        "type": "object",
        "description": "event: stale. The stream can't be gone on with; nothing follows.",
        "required": ["code", "detail"],
        "properties": {"code": {"type": "string", "enum": ["stale"]}, "detail": {"type": "string"}},
    },
    "ErrorEvent": {
        "description": "event: error. The answer is not complete; nothing follows.",
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {
                "type": "object",
                "required": ["partial"],
                "properties": {
                    "query_id": {"type": ["string", "null"]},
                    "partial": {"type": "boolean", "description": "Whether part of the answer was given."},
                },
            },
        ],
    },
}

_ANSWER_EVENTS: dict[str, Any] = {
    "description": (
        "Server-Sent Events. Each has `id: <stream>:<n>`, n from 1, and one line of JSON as data: `sources` "
        "(SourcesEvent) once and first, but for one `provisional` (SourcesEvent) where that was asked for; any number "
        "of `token` (TokenEvent); last one `done` (DoneEvent) or `error` (ErrorEvent). Who asks to go on after an "
        "event that is not kept gets the one event `stale` (StaleEvent). Lines that start with a colon are comments."
    ),
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": (
                'id: kX3:1\nevent: sources\ndata: {"query_id":"q1","hits":[],"watermark":0}\n\n'
                'id: kX3:2\nevent: token\ndata: {"text":"Nothing matches."}\n\n'
                'id: kX3:3\nevent: done\ndata: {"query_id":"q1","finish_reason":"stop","timings":{"queued":0.0,'
                '"encode":0.004,"search":0.001,"generate":0.0,"total":0.006}}\n\n'
            ),
        }
    },
}
_ALL_SENT = {"description": "To who comes back with `Last-Event-ID`: that was the last event."}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {200: _ANSWER_EVENTS, 204: _ALL_SENT}

NEWS_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "Server-Sent Events, as for an answer: `subscribed` (SubscribedEvent) first and once, then `match` "
            "(MatchEvent) and `dropped` (DroppedEvent) as they come, and `error` (ErrorEvent) when the server ends."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: _ALL_SENT,
}

ACKNOWLEDGEMENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line of JSON (Acknowledgement) for each line that came, in their order, and a summary.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "A line of JSON for each query, as it is answered: a Result with the number of its `line`, or an error "
            "(Acknowledgement); and a summary."
        ),
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
_LINES = {"schema": {"type": "string"}}
_DOCUMENT_IN: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
        "text": {"type": "string", "minLength": 1},
        "title": {"type": "string"},
        "metadata": {"type": "object"},
        "embedding": {"type": "array", "items": {"type": "number"}},
        "timeout": {"type": "number", "exclusiveMinimum": 0},
    },
}
DATA_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": _LINES, "application/json": {"schema": {}}},
    }
}
QUERIES_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/x-ndjson": _LINES, "application/json": {"schema": {}}}}
}
DATA_ID: dict[str, Any] = {
    "name": "data_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "The document's id; it may have slashes.",
}

LAST_EVENT_ID: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Go on after this event of an earlier stream, `<stream>:<n>`, instead of asking anew.",
}
STREAM_ID: dict[str, Any] = {
    "name": "stream_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "What precedes the colon in the events' ids.",
}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return how a path's JSON body is documented."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how a path's problem responses are documented; the description lists the codes of each status."""
    return {status: _problem_response(status) for status in statuses}


def _problem_response(status: int) -> dict[str, Any]:
    codes = [code for code, kind in problems.PROBLEMS.items() if kind.status == status]
    documented: dict[str, Any] = {
        "description": f"{problems.PROBLEMS[codes[0]].title}. Codes: {', '.join(f'`{code}`' for code in codes)}.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in {429, 503}:
        documented["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    return documented


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the fields of `model` that a query string can carry, as OpenAPI parameters."""
    schema = model.model_json_schema()
    return [
        {"name": name, "in": "query", "required": name in schema["required"], **_in_url(name, field)}
        for name, field in schema["properties"].items()
        if name != "metadata"
    ]


def _in_url(name: str, field: Mapping[str, Any]) -> dict[str, Any]:
    if name == "filter":
        return {"content": {"application/json": {"schema": {"type": "object"}}}}
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return {"schema": {**kinds[0], "description": field.get("description", "")}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of `app`, with the shapes of events and problems."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document.setdefault("components", {}).setdefault("schemas", {}).update(_COMPONENTS)
    return document

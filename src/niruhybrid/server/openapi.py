"""The OpenAPI description: true to every path, with the shapes of events, lines and problems."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from niruhybrid.server import problems
from niruhybrid.server.schemas import FILTER_HERE, NOT_BLANK, PRINTABLE
from niruhybrid.types import MAX_ID_CHARS

__all__ = (
    "ACKNOWLEDGEMENTS",
    "DATA_BODY",
    "DATA_ID",
    "EVENT_STREAM",
    "LAST_EVENT_ID",
    "NEWS_STREAM",
    "QUERIES_BODY",
    "RESULTS",
    "STREAM_ID",
    "json_body",
    "openapi",
    "problem_responses",
    "query_parameters",
)

_FILTER_REF = {"$ref": "#/components/schemas/Filter"}
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
_SCALAR = {"type": ["string", "number", "boolean", "null"]}


def _operator(name: str, operand: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: operand}}


def _one_field(operand: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": {"minLength": 1},
        "additionalProperties": operand,
    }


def _bounds(kind: str) -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {bound: {"type": kind} for bound in ("gt", "gte", "lt", "lte")},
    }


_COMPONENTS: dict[str, Any] = {
    "Filter": {
        "description": "One operator with its operand; a field within an object is written with a dot.",
        "anyOf": [
            _operator("eq", _one_field(_SCALAR)),
            _operator("ne", _one_field(_SCALAR)),
            _operator("in", _one_field({"type": "array", "items": _SCALAR, "maxItems": 10_000})),
            _operator("range", _one_field({"anyOf": [_bounds("number"), _bounds("string")]})),
            _operator("exists", {"type": "string", "minLength": 1}),
            _operator("and", {"type": "array", "items": _FILTER_REF, "maxItems": 10_000}),
            _operator("or", {"type": "array", "items": _FILTER_REF, "maxItems": 10_000}),
            _operator("not", _FILTER_REF),
        ],
    },
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
            "windows": {"type": "integer", "minimum": 1, "description": "In how many windows it was read."},
            "tokens_seen": {"type": "integer", "minimum": 0, "description": "Tokens of its title and text."},
            "tokens_used": {"type": "integer", "minimum": 0, "description": "Those of them that were read."},
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


def _events(**shapes: str) -> dict[str, Any]:
    """Return the shape of the events of a stream, each with its data."""
    return {
        "oneOf": [
            {
                "type": "object",
                "required": ["id", "event", "data"],
                "properties": {
                    "id": {"type": "string", "pattern": "^[\\w-]+:[0-9]+$"},
                    "event": {"type": "string", "const": name},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": f"#/components/schemas/{shape}"},
                    },
                },
            }
            for name, shape in shapes.items()
        ]
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
            "itemSchema": _events(
                provisional="SourcesEvent",
                sources="SourcesEvent",
                token="TokenEvent",  # noqa: S106  # no password
                done="DoneEvent",
                error="ErrorEvent",
                stale="StaleEvent",
            ),
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
        "content": {
            "text/event-stream": {
                "itemSchema": _events(
                    subscribed="SubscribedEvent",
                    match="MatchEvent",
                    dropped="DroppedEvent",
                    error="ErrorEvent",
                    stale="StaleEvent",
                )
            }
        },
    },
    204: _ALL_SENT,
}

ACKNOWLEDGEMENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line of JSON (Acknowledgement) for each line that came, in their order, and a summary.",
        "content": {"application/x-ndjson": {"itemSchema": {"$ref": "#/components/schemas/Acknowledgement"}}},
    }
}
RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "A line of JSON for each query, as it is answered: a Result with the number of its `line`, or an error "
            "(Acknowledgement); and a summary."
        ),
        "content": {
            "application/x-ndjson": {
                "itemSchema": {
                    "anyOf": [{"$ref": f"#/components/schemas/{shape}"} for shape in ("Acknowledgement", "Result")]
                }
            }
        },
    }
}
_COMPONENTS["DocumentIn"] = {
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
        "description": "What is no document (DocumentIn) is reported by its number; the others are stored.",
        "content": {
            "application/x-ndjson": {"itemSchema": {}, "example": '{"id": "a", "text": "Zebras have stripes."}\\n'},
            "application/json": {"schema": {}, "example": [{"id": "a", "text": "Zebras have stripes."}]},
        },
    }
}
QUERIES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "What is no query, as for `POST /query`, is reported by its number; the others are answered.",
        "content": {
            "application/x-ndjson": {"itemSchema": {}, "example": '{"query": "What has stripes?"}\\n'},
            "application/json": {"schema": {}, "example": [{"query": "What has stripes?"}]},
        },
    }
}
DATA_ID: dict[str, Any] = {
    "name": "data_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS, "format": PRINTABLE},
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
        return {"content": {"application/json": {"schema": _FILTER_REF}}}
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return {"schema": {**kinds[0], "description": field.get("description", "")}}


def openapi(app: FastAPI, max_chars: int) -> dict[str, Any]:
    """Return the OpenAPI description of `app`, with the shapes of events and problems.

    Args:
        app: whose paths are described.
        max_chars: characters of a query at the most.
    """
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.2.0"
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(_COMPONENTS)
    for part in list(_parts(document)):
        if part == FILTER_HERE:
            part.clear()
            part.update(_FILTER_REF)
        if part.get("pattern") == NOT_BLANK:
            part["maxLength"] = max_chars
    return document


def _parts(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)

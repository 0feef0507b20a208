"""The OpenAPI description: true to every path, with the shapes of events, lines and problems."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from niruhybrid.server import problems
from niruhybrid.server.openapi_components import COMPONENTS, FILTER_REF
from niruhybrid.server.schemas import FILTER_HERE, NOT_BLANK, PRINTABLE
from niruhybrid.types.checks import MAX_ID_CHARS

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
        return {"content": {"application/json": {"schema": FILTER_REF}}}
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
    document.setdefault("components", {}).setdefault("schemas", {}).update(COMPONENTS)
    for part in list(_parts(document)):
        if part == FILTER_HERE:
            part.clear()
            part.update(FILTER_REF)
        if part.get("pattern") == NOT_BLANK:
            part["maxLength"] = max_chars
    return document


def _parts(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)

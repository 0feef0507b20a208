"""The shapes that the OpenAPI description names: hits, events, lines, problems, filters."""

from typing import Any

from niruhybrid.server import problems
from niruhybrid.types.checks import MAX_ID_CHARS, MAX_SECONDS, MAX_TITLE_CHARS

__all__ = ("COMPONENTS", "FILTER_REF")

FILTER_REF = {"$ref": "#/components/schemas/Filter"}
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


COMPONENTS: dict[str, Any] = {
    "Filter": {
        "description": "One operator with its operand; a field within an object is written with a dot.",
        "anyOf": [
            _operator("eq", _one_field(_SCALAR)),
            _operator("ne", _one_field(_SCALAR)),
            _operator("in", _one_field({"type": "array", "items": _SCALAR, "maxItems": 10_000})),
            _operator("range", _one_field({"anyOf": [_bounds("number"), _bounds("string")]})),
            _operator("exists", {"type": "string", "minLength": 1}),
            _operator("and", {"type": "array", "items": FILTER_REF, "maxItems": 10_000}),
            _operator("or", {"type": "array", "items": FILTER_REF, "maxItems": 10_000}),
            _operator("not", FILTER_REF),
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
            "notes": {"type": "array", "items": {"type": "string"}, "description": "What could not be sent, in words."},
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
        "properties": {
            "query_id": {"type": "string"},
            "hit": _HIT,
            "watermark": {"type": "integer"},
            "notes": {"type": "array", "items": {"type": "string"}, "description": "What could not be sent, in words."},
        },
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
    "DocumentIn": {
        "type": "object",
        "required": ["text"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
            "text": {"type": "string", "minLength": 1},
            "title": {"type": "string", "maxLength": MAX_TITLE_CHARS},
            "metadata": {"type": "object"},
            "embedding": {"type": "array", "items": {"type": "number"}},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
        },
    },
}

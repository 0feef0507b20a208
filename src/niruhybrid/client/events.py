"""The events of a stream as values, read from what the wire brings. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from niruhybrid.client.refusals import error_from
from niruhybrid.types import DataResult, Hit, Match, Metadata, QueryResult, StreamEvent, Timings, Token

__all__ = (
    "AnswerEvent",
    "Done",
    "Dropped",
    "News",
    "Sources",
    "answer_event",
    "data_result",
    "news",
    "query_result",
    "stream_event",
)


@dataclass(frozen=True, slots=True)
class Sources:
    """What an answer is made from.

    Attributes:
        query_id: the query's id.
        hits: best first; may be empty.
        watermark: the last write that the search could see; None without a store.
        notes: what was cut or left out, in words.
        metadata: the query's own.
        provisional: whether only the words were searched so far; the fused hits follow.
    """

    query_id: str
    hits: tuple[Hit, ...]
    watermark: int | None = None
    notes: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete.

    Attributes:
        query_id: the query's id.
        finish_reason: `stop`, `length` or `content_filter`.
        timings: seconds, by stage.
        notes: what was cut or left out, in words.
    """

    query_id: str
    finish_reason: str
    timings: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """Matches of a standing query that this client was too slow for.

    Attributes:
        count: how many since the last time.
    """

    count: int


AnswerEvent = Sources | Token | Done
"""An answer's event: `Sources` once, perhaps a provisional one before, any number of `Token`, `Done` last."""

News = Match | Dropped
"""What a standing query brings."""


def answer_event(name: str, data: str) -> AnswerEvent | None:
    """Return an event of an answer; None for one that a later version knows.

    Raises:
        NiruError: it is the event `error`, and this is its error.
        KeyError, TypeError, ValueError: the data is not what the event's name says.
    """
    value = _object(data)
    match name:
        case "sources" | "provisional":
            return _sources(value, provisional=name == "provisional")
        case "token":
            return Token(value["text"], value.get("source"))
        case "done":
            return Done(value["query_id"], value["finish_reason"], value["timings"], tuple(value.get("notes", ())))
        case "error":
            raise error_from(value)
        case _:
            return None


def stream_event(event: AnswerEvent) -> StreamEvent:
    """Return an event of an answer as a pipeline yields it, and as it was on the wire."""
    if isinstance(event, Token):
        return StreamEvent("token", {"text": event.text} | ({"source": event.source} if event.source else {}))
    notes = {"notes": list(event.notes)} if event.notes else {}
    if isinstance(event, Done):
        return StreamEvent(
            "done",
            {"query_id": event.query_id, "finish_reason": event.finish_reason, **notes, "timings": dict(event.timings)},
        )
    metadata = {"metadata": dict(event.metadata)} if event.metadata else {}
    hits = [hit.to_dict() for hit in event.hits]
    return StreamEvent(
        "provisional" if event.provisional else "sources",
        {"query_id": event.query_id, "hits": hits, "watermark": event.watermark, **notes, **metadata},
    )


def news(name: str, data: str) -> News | None:
    """Return an event of a standing query; None for one that says nothing new.

    Raises:
        NiruError: it is the event `error`, and this is its error.
        KeyError, TypeError, ValueError: the data is not what the event's name says.
    """
    value = _object(data)
    match name:
        case "match":
            return Match(value["query_id"], _hit(value["hit"]), value["watermark"])
        case "dropped":
            return Dropped(value["count"])
        case "error":
            raise error_from(value)
        case _:
            return None


def query_result(value: Mapping[str, Any], text: str) -> QueryResult:
    """Return the result of a plain query.

    Raises:
        KeyError, TypeError: it is not one.
    """
    timings = value.get("timings") or {}
    return QueryResult(
        value["query_id"],
        text,
        hits=tuple(_hit(hit) for hit in value["hits"]),
        metadata=value.get("metadata", {}),
        timings=Timings(**{name: timings[name] for name in Timings._fields if name in timings}),
        watermark=value.get("watermark"),
        notes=tuple(value.get("notes", ())),
    )


def data_result(value: Mapping[str, Any]) -> DataResult:
    """Return the acknowledgement of a document.

    Raises:
        KeyError, TypeError: it is not one.
    """
    problem = value.get("error")
    return DataResult(
        str(value.get("id") or ""),
        watermark=value.get("watermark"),
        notes=tuple(value.get("notes", ())),
        error=None if problem is None else error_from(problem),
        windows=value.get("windows", 0),
        tokens_seen=value.get("tokens_seen"),
        tokens_used=value.get("tokens_used"),
    )


def _sources(value: Mapping[str, Any], *, provisional: bool) -> Sources:
    return Sources(
        value["query_id"],
        tuple(_hit(hit) for hit in value["hits"]),
        value.get("watermark"),
        tuple(value.get("notes", ())),
        value.get("metadata", {}),
        provisional,
    )


def _hit(value: Mapping[str, Any]) -> Hit:
    start, end = value.get("span", (0, 0))
    return Hit(
        value["id"],
        value["rank"],
        value["score"],
        value["text"],
        value.get("title", ""),
        value.get("metadata", {}),
        (start, end),
    )


def _object(data: str) -> dict[str, Any]:
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise TypeError("an event's data is not a JSON object")
    return value

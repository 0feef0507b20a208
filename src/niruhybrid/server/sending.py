"""JSON as it leaves the server: metadata that can't be written spoils nothing but itself. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ("json_bytes",)

_LISTS = ("hits", "sources")


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return `value` as JSON.

    Metadata that is nested too deeply, or has a value that JSON does not know, is sent as an empty object, and `notes`
    name its hit or document: one such document must not spoil the answers that find it.

    Raises:
        TypeError: something else in it is not JSON.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_without_bad_metadata(value))


def _without_bad_metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    notes: list[str] = []
    sendable = dict(_checked(value, notes))
    for name in _LISTS:
        if isinstance(records := sendable.get(name), list):
            sendable[name] = [_checked(record, notes) for record in records]
    if isinstance(hit := sendable.get("hit"), Mapping):
        sendable["hit"] = _checked(hit, notes)
    return sendable | {"notes": [*sendable.get("notes", ()), *notes]}


def _checked(record: Mapping[str, Any], notes: list[str]) -> Mapping[str, Any]:
    """Return a record with its metadata, or without what can't be sent of it; then `notes` says so."""
    try:
        orjson.dumps({"hits": [{"metadata": record.get("metadata")}]})  # as deep as it will stand
    except TypeError as err:
        notes.append(
            f"the metadata of {record.get('id', 'the query')!r} can't be sent ({err}): hand in simpler metadata"
        )
        return {**record, "metadata": {}}
    return record

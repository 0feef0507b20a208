"""Derived indexes in a file beside the log, so that a large store opens without building them again.

The file is named by the watermark it shows and a random token, and the log says which one counts: a copy of the log
that was put back never meets a file of another history. A file that is missing or damaged costs time and nothing else.

    magic, length of the header | header: JSON | arrays, one behind the other, each with its CRC-32 in the header
"""

import secrets
from collections.abc import Mapping
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import orjson
from numpy.typing import NDArray

from niruhybrid.retrieval.columns import Column, Columns
from niruhybrid.retrieval.dense import DenseIndex
from niruhybrid.retrieval.growing import Growing
from niruhybrid.retrieval.lexical import LexicalIndex
from niruhybrid.retrieval.ordering import Ordering
from niruhybrid.retrieval.postings import Postings
from niruhybrid.retrieval.sieve import Sieve
from niruhybrid.retrieval.snapshot import Snapshot

__all__ = ("CheckpointError", "file_of", "read", "remove_others", "write")

_MAGIC = b"NIRUIX04"
_SEPARATOR = "\x1f"  # never in a term that comes from the log
_ROOM = 1.25  # arrays are read with room to grow, or the first write would copy them

Arrays = dict[str, NDArray[Any]]


class CheckpointError(Exception):
    """A file can't be used; the message says why."""


def file_of(store: Path, name: str) -> Path:
    """Return the path of a checkpoint of a store."""
    return store.with_name(f"{store.name}.index-{name}")


def remove_others(store: Path, name: str | None) -> None:
    """Remove all checkpoints of a store but one."""
    for path in store.parent.glob(f"{escape(store.name)}.index-*"):
        if name is None or path != file_of(store, name):
            path.unlink(missing_ok=True)


def write(store: Path, snapshot: Snapshot) -> str:
    """Write a snapshot whose lexical index has no journal, and return the checkpoint's name.

    Raises:
        OSError: there is no room, or no permission; nothing is left behind.
    """
    facts, arrays = _taken_apart(snapshot)
    name = f"{snapshot.watermark:012d}-{secrets.token_hex(4)}"
    described = [(key, str(array.dtype), array.shape, crc32(_bytes(array))) for key, array in arrays.items()]
    header = orjson.dumps({"facts": facts, "arrays": described})
    path = file_of(store, name)
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("wb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(_bytes(array))
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return name


def read(path: Path) -> Snapshot:
    """Return the snapshot that was written.

    Raises:
        CheckpointError: there is no such file, or it is not what was written.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise CheckpointError("it is of another format")
            header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
            arrays: Arrays = {}
            for key, dtype, shape, checksum in header["arrays"]:
                arrays[key] = _read(file, np.dtype(dtype), shape, checksum, key)
        return _put_together(header["facts"], arrays)
    except OSError as err:
        raise CheckpointError(f"it can't be read ({err.strerror})") from err
    except (ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError) as err:
        raise CheckpointError(f"it is damaged ({err})") from err


def _read(file: Any, dtype: np.dtype[Any], shape: list[int], checksum: int, key: str) -> NDArray[Any]:
    size = shape[0]
    grows = key in _GROWING or key.startswith("column")
    array = np.empty((int(size * _ROOM) if grows else size, *shape[1:]), dtype)
    known = _bytes(array[:size])
    if file.readinto(known) != len(known) or crc32(known) != checksum:
        raise CheckpointError(f"its {key} are damaged")
    return array if grows else array[:size]


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


_GROWING = ("rows", "owners", "live", "vectors", "lengths")


def _taken_apart(snapshot: Snapshot) -> tuple[dict[str, Any], Arrays]:
    """Return a snapshot as JSON and arrays."""
    lexical, dense = snapshot.lexical, snapshot.dense
    arrays: Arrays = {
        "rows": snapshot.rows.items,
        "owners": snapshot.owners.items,
        "live": snapshot.live.items,
        "vectors": dense.vectors.items,
        "lengths": lexical.lengths.items,
        "frequencies": lexical.frequencies,
        "repeats": lexical.repeats,
        "vocabulary": np.frombuffer(_SEPARATOR.join(lexical.vocabulary).encode(), np.uint8),
    }
    facts: dict[str, Any] = {"watermark": snapshot.watermark, "slots": len(snapshot.rows), "learnt": None}
    facts["documents"] = snapshot.documents
    if dense.sieve is not None:
        arrays["sieve"], facts["learnt"] = dense.sieve.saved(), dense.sieve.learnt
    facts["parts"] = [(part.span.start, part.span.stop, part.average, list(part.common)) for part in lexical.parts]
    for at, part in enumerate(lexical.parts):
        arrays |= {f"part {at} {name}": getattr(part, name) for name in _PART}
    facts["columns"] = [
        (name, len(one.slots), list(islice(one.values, len(one.strings))))
        for name, one in snapshot.columns.fields.items()
    ]
    for at, column in enumerate(snapshot.columns.fields.values()):
        arrays |= {f"column {at} {name}": getattr(column, name).items for name in _COLUMN}
        arrays[f"order {at} strings"], arrays[f"order {at} numbers"] = column.order.codes()
    return facts, arrays


_PART = ("terms", "starts", "slots", "counts", "table", "rough", "tops")
_COLUMN = ("slots", "codes")


def _put_together(facts: Mapping[str, Any], arrays: Arrays) -> Snapshot:
    slots = facts["slots"]
    live = Growing.of(arrays["live"], slots)
    vocabulary = bytes(arrays["vocabulary"]).decode()
    terms = vocabulary.split(_SEPARATOR) if vocabulary else []
    parts = [
        Postings(
            slice(start, stop),
            common={term: row for row, term in enumerate(common)},
            average=average,
            **{name: arrays[f"part {at} {name}"] for name in _PART},
        )
        for at, (start, stop, average, common) in enumerate(facts["parts"])
    ]
    lexical = LexicalIndex.of(
        {term: number for number, term in enumerate(terms)},
        parts,
        arrays["frequencies"],
        Growing.of(arrays["lengths"], slots),
        live=live.items,
        repeats=arrays["repeats"],
        owners=facts["documents"],
    )
    sieve = None if facts["learnt"] is None else Sieve.loaded(arrays["sieve"], facts["learnt"])
    columns = {name: _column(at, size, values, arrays) for at, (name, size, values) in enumerate(facts["columns"])}
    dense = DenseIndex.of(Growing.of(arrays["vectors"], slots), sieve)
    rows, owners = (Growing.of(arrays[name], slots) for name in ("rows", "owners"))
    passages = bool(np.any(rows.items != owners.items))
    return Snapshot(facts["watermark"], rows, owners, passages, live, dense, lexical, Columns(columns))


def _column(at: int, size: int, values: list[tuple[str, Any]], arrays: Arrays) -> Column:
    codes = {(kind, value): code for code, (kind, value) in enumerate(values)}
    strings = Growing.of(np.array([kind == "string" for kind, _ in values], np.bool_))
    order = Ordering.of([value for _, value in values], arrays[f"order {at} strings"], arrays[f"order {at} numbers"])
    slots, held = (Growing.of(arrays[f"column {at} {name}"], size) for name in _COLUMN)
    return Column(codes, strings, order, slots, held)

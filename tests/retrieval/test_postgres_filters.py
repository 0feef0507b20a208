"""Filters in SQL, and metadata as they ask for it: what can be said of them without a server."""

import sys
from typing import Any

import orjson
import pytest

from niruhybrid.config import StoreConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.parts import open_store
from niruhybrid.retrieval.postgres.filters import fields_of, kin_of, where


def test_a_field_has_a_list_of_its_values_under_its_dotted_name() -> None:
    metadata = {"tags": ["x", None, {"deep": 1}], "author": {"name": "N"}, "empty": {}, "year": 1.5, "draft": True}
    assert orjson.loads(fields_of(metadata)) == {
        "tags": ["x", None], "tags.deep": [1], "author": [], "author.name": ["N"], "empty": [], "year": [1.5],
        "draft": [True],
    }  # fmt: skip


def test_what_jsonb_can_not_hold_is_written_otherwise_and_stays_apart_and_in_order() -> None:
    texts = ["", "\0", "\0a", "\1", "\1a", "\2", "a", "a\0", "a\1"]
    written = [orjson.loads(fields_of({"t": text}))["t"][0] for text in texts]
    assert not any("\0" in text for text in written)
    assert written == sorted(set(written))


@pytest.mark.parametrize(
    ("metadata", "kin"),
    [
        ({"document": "D"}, 'string "D"'),
        ({"document": 1}, "number 1"),
        ({"document": 1.0}, "number 1"),
        ({"document": True}, "bool true"),
        ({"document": None}, None),
        ({"document": ["D"]}, None),
        ({"document": {"id": "D"}}, None),
        ({}, None),
    ],
)
def test_passages_with_the_same_value_are_kin(metadata: dict[str, Any], kin: str | None) -> None:
    assert kin_of(metadata) == kin


@pytest.mark.parametrize(
    "wanted",
    [
        {"eq": {"x'; DROP TABLE niru.state; --": "y'; DROP"}},
        {"range": {"x'": {"gte": "') --"}}},
        {"in": {"x'": ["'", '"', "\0", "\ud800"]}},
        {"exists": "x' OR true"},
    ],
)
def test_nothing_of_a_filter_gets_into_the_sql_itself(wanted: dict[str, Any]) -> None:
    condition, values = where({"and": [wanted, {"not": wanted}]})
    assert not any(sign in condition for sign in ("'x", "DROP", "OR true", '"'))
    assert len(values) > 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (None, None),
        ("notes.db", "notes.db"),
        ("postgresql://db.example/notes", "postgresql://db.example/notes"),
        ("postgres://me:secret@db.example:5433/notes?sslmode=require", "postgresql://db.example:5433/notes"),
        ("postgresql://me:se@cr/et@db.example/notes", "postgresql://db.example/notes"),
        ("postgresql://db.example/notes?user=me&password=secret", "postgresql://db.example/notes"),
        ("postgresql://me:se?cret@db.example/notes", "postgresql://…"),
        ("postgresql://db.example/notes?password=se@cret", "postgresql://…"),
    ],
)
def test_a_stores_name_has_no_password(path: str | None, name: str | None) -> None:
    config = StoreConfig(path=path)
    assert config.name == name
    assert f"path={name!r}" in repr(config)
    assert config.on_server == (path is not None and path.startswith("postgres"))


def test_a_store_on_a_server_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("niruhybrid.retrieval.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidSettingError, match=r"//db/notes'.*pip install 'niruhybrid\[postgres\]'"):
        open_store(StoreConfig(path="postgresql://me:s3cret@db/notes"))

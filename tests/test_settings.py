import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from niruhybrid.config import ServerConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.server.auth import find_key
from niruhybrid.server.front import Front, configured_keys
from niruhybrid.settings import Settings, cache_directory, load_settings
from tools.reference import settings as settings_table

TOML = """
model = "from-file"
[streaming]
batch_size = 16
processing_timeout = 5
[store]
path = "file.db"
[server]
port = 9000
host = "::1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "niru.toml"
    path.write_text(TOML)
    return path


def test_without_any_source_there_are_the_defaults() -> None:
    assert load_settings(environ={}) == Settings()


def test_a_later_source_wins(file: Path) -> None:
    environ = {"NIRU_SERVER_PORT": "9001", "NIRU_MODEL": "from-environment", "HOME": "/x"}
    settings = load_settings(file, environ=environ, arguments={"model": "from-argument", "server.host": None})
    assert settings.model == "from-argument"
    assert settings.server.port == 9001
    assert settings.server.host == "::1"
    assert settings.streaming.batch_size == 16
    assert settings.store.path == "file.db"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("NIRU_STREAMING_BATCH_SIZE", "8", 8),
        ("NIRU_STREAMING_BULK_SHARE", "0.25", 0.25),
        ("NIRU_STREAMING_PROCESSING_TIMEOUT", "3", 3.0),
        ("NIRU_STREAMING_BUFFER_BYTES", "4096", 4096),
        ("NIRU_STREAMING_BUFFER_BYTES", "none", None),
        ("NIRU_STREAMING_OVERFLOW", "block", "block"),
    ],
)
def test_a_variable_has_the_type_of_its_setting(variable: str, text: str, value: object) -> None:
    streaming = load_settings(environ={variable: text}).streaming
    found = getattr(streaming, variable.removeprefix("NIRU_STREAMING_").lower())
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("NIRU_SERVER_PORT", "many", "many"),
        ("NIRU_SERVER_PORT", "70000", "70000"),
        ("NIRU_MODEL", "", None),
        ("NIRU_STREAMING_OVERFLOW", "explode", "explode"),
        ("NIRU_STREAMING_PROCESSING_TIMEOUT", "nan", "nan"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(variable: str, text: str, said: str | None) -> None:
    if said is None:
        assert load_settings(environ={variable: text}).model is None
        return
    with pytest.raises(InvalidSettingError, match=said):
        load_settings(environ={variable: text})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[server]\nprot = 1", "did you mean `server.port`"),
        ("server = 1", "`server`"),
        ("colour = 'red'", "`colour`"),
        ("[server]\nport = '1'", "`port`"),
        ("[server", "not TOML"),
        ("model = 5", "`model`"),
    ],
)
def test_a_file_is_checked_as_well(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "niru.toml"
    path.write_text(content)
    with pytest.raises(InvalidSettingError, match=said):
        load_settings(path, environ={})


def test_a_variable_that_is_no_setting_is_logged_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"NIRU_SERVER_PORTT": "1", "NIRU_EVAL_DATA": "somewhere", "NIRU_SERVER_PORT": "9001"}
    assert load_settings(environ=environ).server.port == 9001
    (record,) = caplog.records
    assert record.getMessage() == "unknown_setting variable=NIRU_SERVER_PORTT nearest=NIRU_SERVER_PORT"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml", environ={})


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"did you mean `server\.port`"):
        load_settings(environ={}, arguments={"server.prt": 1})


def test_the_cache_is_where_the_user_wants_it() -> None:
    assert cache_directory({"XDG_CACHE_HOME": "/var/c"}) == Path("/var/c/niruhybrid")
    assert cache_directory({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "niruhybrid"
    assert cache_directory({}) == Path.home() / ".cache" / "niruhybrid"


NAMES = [f"{table}.{row.name}" if table else row.name for table, rows in settings_table().items() for row in rows]
ODD_VALUES: list[Any] = [
    *(True, -1, 5, 1.5, 10**400, 1 << 40_000, float("nan"), float("inf"), "", "text", "\0", "a b", "ä" * 1000),
    *([], [1], ["a"], ["a", ["b"]], ["a b"], [None], {}, {"a": 1}),
    *(dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.time(1)),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_takes_a_value_or_refuses_it_clearly(name: str) -> None:
    for value in ODD_VALUES:
        try:
            settings = load_settings(environ={}, arguments={name: value})
        except InvalidSettingError as err:
            said = str(err)
            assert name.rpartition(".")[2] in said
            assert ": " in said
            assert len(said) < 1000
        else:
            section, _, key = name.rpartition(".")
            taken = getattr(getattr(settings, section) if section else settings, key)
            assert taken is None or isinstance(taken, str | int | float)
            assert type(value) is not dict
            assert type(taken) is type(value) or isinstance(value, list) or value is True or isinstance(value, int)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_file_takes_a_value_or_refuses_it_clearly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "niru.toml"
    table, _, key = name.rpartition(".")
    for value in (
        "true",
        "5",
        "1.5",
        "0x" + "f" * 5000,
        "9" * 5000,
        '""',
        "[]",
        "[1]",
        '["a"]',
        "{a = 1}",
        "2026-01-01",
    ):
        path.write_text((f"[{table}]\n" if table else "") + f"{key} = {value}\n")
        said = ""
        try:
            load_settings(path, environ={})
        except InvalidSettingError as err:
            said = str(err)
        assert not said or key in said or "is not TOML" in said


def test_a_setting_of_several_entries_may_be_a_list(tmp_path: Path) -> None:
    path = tmp_path / "niru.toml"
    path.write_text(
        """
[server]
api_keys = ["reader:read:a-secret-of-the-reader", "writer:read+write:a-secret-of-the-writer"]
cors_origins = ["https://a.example", "https://b.example"]
allowed_hosts = ["search.example.org"]
[worker]
url = ["nats://one:4222", "nats://two:4222"]
"""
    )
    settings = load_settings(path, environ={})
    keys = configured_keys(settings.server)
    assert [key.name for key in keys] == ["reader", "writer"]
    assert find_key(keys, b"a-secret-of-the-writer") == keys[1]
    Front(settings.server)
    assert settings.server.cors_origins is not None
    assert settings.server.cors_origins.split() == ["https://a.example", "https://b.example"]
    assert settings.server.allowed_hosts == "search.example.org"
    assert settings.worker.url.split() == ["nats://one:4222", "nats://two:4222"]


@pytest.mark.parametrize(
    "keys", [["a:read:s3cret-s3cret-s3cret", 5], ["a:read:s3cret-s3cret-s3cret b:read:x"], ["a:read:s3cret#s3cret"]]
)
def test_a_list_that_cannot_be_used_is_refused_without_its_secrets(keys: list[object]) -> None:
    with pytest.raises(InvalidSettingError, match=r"entry \d of `server\.api_keys`") as caught:
        load_settings(environ={}, arguments={"server.api_keys": keys})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["api_keys", "api_keys_file", "cors_origins", "allowed_hosts", "tls_cert"])
def test_a_text_of_another_type_is_refused_in_code_too(name: str) -> None:
    values: dict[str, Any] = {name: ["s3cret"]}
    with pytest.raises(InvalidSettingError, match=f"`{name}` is of type list: give text") as caught:
        ServerConfig(**values)
    assert "s3cret" not in str(caught.value)

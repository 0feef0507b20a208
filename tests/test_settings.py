from pathlib import Path

import pytest

from niruhybrid.errors import InvalidSettingError
from niruhybrid.settings import Settings, cache_directory, load_settings

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

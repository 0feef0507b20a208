"""URLs with a password: never shown, and sent as a header."""

import base64

import pytest

from niruhybrid.cluster_config import WorkerConfig
from niruhybrid.config import GenerationConfig, StoreConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.settings import Settings
from niruhybrid.urls import is_url, request_parts, shown_url, split_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://user:s3cret@host:1/v1", "http://host:1/v1"),
        ("https://user:s3cret@host/v1?key=s3cret#s3cret", "https://host/v1"),
        ("postgresql://user:s3@cret@host/db", "postgresql://host/db"),
        ("http://user:s3?cret@host/db", "http://…"),
        ("user:s3cret@host", "…"),
        ("host", "host"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_user_and_password_are_sent_apart_from_the_url() -> None:
    url, login = split_credentials("http://user%40:s%3A3cret@host:1/v1/")
    assert url == "http://host:1/v1/"
    assert login is not None
    assert base64.b64decode(login.removeprefix("Basic ")) == b"user@:s:3cret"
    assert split_credentials("http://host/a@b") == ("http://host/a@b", None)


def test_settings_never_show_a_password() -> None:
    generation = GenerationConfig(base_url="http://user:s3cret@host/v1?key=s3cret", model="m")
    store = StoreConfig(path="postgresql://user:s3cret@host/db?password=s3cret")
    worker = WorkerConfig(url="nats://user:s3cret@host:4222")
    settings = Settings(generation=generation, store=store, worker=worker)
    assert "s3cret" not in f"{settings!r} {settings} {generation}"
    assert "http://host/v1" in repr(settings)
    for url, model in (("http://user:s3cret@host", None), ("ftp://user:s3cret@host", "m")):
        with pytest.raises(InvalidSettingError) as caught:
            GenerationConfig(base_url=url, model=model)
        assert "s3cret" not in str(caught.value)


def test_a_key_and_a_password_can_be_sent_together() -> None:
    assert request_parts("http://host", "k") == ("http://host", {"Authorization": "Bearer k"})
    assert request_parts("http://host", None) == ("http://host", {})
    url, headers = request_parts("http://user:s3cret@host", "k")
    assert (url, sorted(headers)) == ("http://host", ["Authorization", "X-API-Key"])
    assert headers["X-API-Key"] == "k"


def test_a_password_that_would_be_taken_for_the_host_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="as %40") as caught:
        StoreConfig(path="postgresql://user:s3@cret@host/db")
    assert "cret" not in str(caught.value)
    assert StoreConfig(path="postgresql://user:s3%40cret@host/db").name == "postgresql://host/db"


@pytest.mark.parametrize(
    "url", ["http://user:s3/cret@host/v1", "http://host:port", "http://", "http://[::1/v1", "host:1", "ftp://host"]
)
def test_what_is_no_url_is_refused_by_all_settings_without_a_password(url: str) -> None:
    assert not is_url(url, "http", "https")
    with pytest.raises(InvalidSettingError) as caught:
        GenerationConfig(base_url=url, model="m")
    assert "s3" not in str(caught.value)
    with pytest.raises(InvalidSettingError) as caught:
        WorkerConfig(url=url.replace("http", "nats"))
    assert "s3" not in str(caught.value)


def test_every_scheme_with_a_host_is_a_url() -> None:
    assert all(is_url(url, "nats", "ws") for url in ("nats://h", "ws://u:p@h:1", "nats://[::1]:4222"))

"""Options that several commands have, and the settings that they set."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from niruhybrid.errors import InvalidSettingError
from niruhybrid.settings import Settings

__all__ = (
    "DEFAULT_URL",
    "api_key_option",
    "arguments",
    "examples",
    "llm_options",
    "model_option",
    "need_store",
    "store_option",
    "url_option",
)

DEFAULT_URL = "http://127.0.0.1:8000"
_SETTINGS = {
    "store": "store.path",
    "model": "model",
    "host": "server.host",
    "port": "server.port",
    "replicas": "ray.replicas",
    "max_replicas": "ray.max_replicas",
    "ingress": "ray.ingress",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
    "api_keys_file": "server.api_keys_file",
    "broker": "worker.url",
    "traces": "observe.traces",
    "llm_url": "generation.base_url",
    "llm_model": "generation.model",
    "llm_key_env": "generation.api_key_env",
}


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store`."""
    words = "File of the store, or URL of a PostgreSQL database; one with a password is better in NIRU_STORE_PATH."
    return click.option("--store", type=click.Path(dir_okay=False), help=words)(command)


def model_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--model`."""
    return click.option("--model", help="Folder or hub name of the encoder's model.")(command)


def url_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--url`."""
    return click.option("--url", help="A running server, instead of a store file.")(command)


def api_key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--api-key`, which a variable gives as well."""
    words = "Key of the server; others can see what you type here."
    return click.option("--api-key", envvar="NIRU_API_KEY", show_envvar=True, help=words)(command)


def llm_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which model writes answers."""
    for option in (
        click.option("--llm-key-env", metavar="VARIABLE", help="The variable that holds the endpoint's key."),
        click.option("--llm-model", metavar="NAME", help="Name of the model there."),
        click.option("--llm-url", metavar="URL", help="OpenAI-compatible endpoint whose model writes the answers."),
    ):
        command = option(command)
    return command


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted name, from options by theirs."""
    return {_SETTINGS[name]: value for name, value in given.items()}


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def need_store(settings: Settings, *, must_exist: bool) -> None:
    """Refuse settings without a store.

    Raises:
        UsageError: none is given.
        InvalidSettingError: its file must exist and does not; a server is asked when the store is opened.
    """
    store = settings.store
    if store.path is None:
        raise click.UsageError("no store is given: add --store FILE, or --url URL for a running server")
    if must_exist and not store.on_server and not Path(store.path).is_file():
        raise InvalidSettingError(f"there is no store {store.path!r}: make it with niru ingest")

"""Settings of a whole pipeline, from four sources: defaults < TOML file < environment < arguments."""

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from niruhybrid.cluster_config import RayConfig, WorkerConfig
from niruhybrid.config import GenerationConfig, ObserveConfig, ServerConfig, StoreConfig, StreamingConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.ranges import shown

__all__ = ("Settings", "cache_directory", "library_version", "load_settings")

_SECTIONS = {
    "streaming": StreamingConfig,
    "store": StoreConfig,
    "generation": GenerationConfig,
    "server": ServerConfig,
    "observe": ObserveConfig,
    "worker": WorkerConfig,
    "ray": RayConfig,
}
_LISTS = frozenset({"server.api_keys", "server.cors_origins", "server.allowed_hosts", "worker.url"})
"""Settings of several entries: a list in a file, or one text with blanks or commas between them."""

_PREFIX = "NIRU_"
_OTHERS = frozenset({"NIRU_API_KEY", "NIRU_EVAL_DATA"})  # the client's key; where benchmarks find their data
_log = logging.getLogger(__name__)

Values = dict[str, Any]
"""Settings by dotted name, such as `server.port`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a pipeline and its server are built from.

    Attributes:
        model: folder or hub name of the encoder's model; None for the default.
        streaming: how items are buffered, batched and given up on.
        store: where documents are kept.
        generation: who writes answers.
        server: where the server listens and what it takes from one client.
        observe: who is told of what happens.
        worker: which broker a worker takes messages from, and how many at a time.
        ray: how it is spread over a cluster.
    """

    model: str | None = None
    streaming: StreamingConfig = field(default_factory=StreamingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    ray: RayConfig = field(default_factory=RayConfig)


def load_settings(
    file: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Settings:
    """Build settings; a later source wins over an earlier one: defaults, file, environment, arguments.

    Args:
        file: a TOML file with `model` and the tables `[streaming]`, `[store]`, `[generation]`, `[server]`, `[observe]`,
            `[worker]` and `[ray]`; None for no file. What has several entries may be a list.
        environ: variables such as `NIRU_MODEL` and `NIRU_SERVER_PORT`; None takes the process's own.
        arguments: values by dotted name, such as `{"server.port": 9000}`; None values are passed over.

    Raises:
        InvalidSettingError: a source can't be read, or has a value out of range; or file or arguments have a name that
            is not known. An unknown variable is only logged: others may have set it.
    """
    values: Values = {}
    if file is not None:
        values |= _from_file(Path(file))
    values |= _from_environment(os.environ if environ is None else environ)
    values |= {name: value for name, value in (arguments or {}).items() if value is not None}
    for name in values:
        _known(name, "argument", _hints())
    return _build(values)


def cache_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return where files may be kept that can be made again: `$XDG_CACHE_HOME/niruhybrid`, by default in `~/.cache`."""
    base = (os.environ if environ is None else environ).get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "niruhybrid"


def library_version() -> str:
    """Return the version of this library; `0+source` where it runs from a source tree that was never installed."""
    try:
        return version("niruhybrid")
    except PackageNotFoundError:
        return "0+source"


def _build(values: Values) -> Settings:
    values = {name: _joined(name, value) if name in _LISTS else value for name, value in values.items()}
    sections = {
        section: kind(**{name.split(".")[1]: value for name, value in values.items() if name.startswith(f"{section}.")})
        for section, kind in _SECTIONS.items()
    }
    model = values.get("model")
    if model is not None and (not isinstance(model, str) or not model):
        raise InvalidSettingError(f"`model` is {shown(model)}: give a folder or a hub name")
    return Settings(model=model, **sections)


def _joined(name: str, value: object) -> object:
    """Return a list of entries as one text, and anything else as it is.

    Raises:
        InvalidSettingError: an entry is not one. The message does not show it, as it may be secret.
    """
    if not isinstance(value, list | tuple):
        return value
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, str):
            raise InvalidSettingError(f"entry {number} of `{name}` is of type {type(entry).__name__}: give text")
        if not entry or re.search(r"[\s,#]", entry):
            raise InvalidSettingError(
                f"entry {number} of `{name}` is empty, or has a blank, a comma or a #: give one entry each"
            )
    return "\n".join(value) or None


def _hints() -> dict[str, Any]:
    """Return the type of each setting by its dotted name."""
    hints: dict[str, Any] = {"model": str | None}
    for section, kind in _SECTIONS.items():
        types = get_type_hints(kind)
        plain = (
            item.name for item in fields(kind) if not is_dataclass(types[item.name])
        )  # `retry` is set in code only
        hints |= {f"{section}.{name}": types[name] for name in plain}
    return hints


def _from_file(path: Path) -> Values:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as err:
        raise InvalidSettingError(
            f"settings file {str(path)!r} can't be read ({err.strerror}): check the path"
        ) from err
    except ValueError as err:  # not TOML, not UTF-8, or a number that is too long
        raise InvalidSettingError(f"settings file {str(path)!r} is not TOML ({err}): correct it") from err
    values: Values = {}
    for key, value in content.items():
        if isinstance(value, dict):
            values |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            values[key] = value
    hints = _hints()
    for name in values:
        _known(name, f"{str(path)!r}", hints)
    return values


def _from_environment(environ: Mapping[str, str]) -> Values:
    hints = _hints()
    names = {_PREFIX + name.replace(".", "_").upper(): name for name in hints}
    values: Values = {}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _OTHERS:
            continue
        if variable not in names:  # not refused: others set variables too, an orchestrator for a service of this name
            near = difflib.get_close_matches(variable, names, n=1)
            _log.warning("unknown_setting variable=%s nearest=%s", variable, near[0] if near else None)
            continue
        values[names[variable]] = _parsed(variable, text, hints[names[variable]])
    return values


def _known(name: str, where: str, names: Mapping[str, Any]) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "remove it"
    raise InvalidSettingError(f"`{name}` in {where} is not a setting: {hint}")


def _parsed(variable: str, text: str, hint: Any) -> Any:
    """Return a variable's text as the type of its setting; an empty text or `none` as None, where that is allowed."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if type(None) in kinds and text.lower() in {"", "none"}:
        return None
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError as err:
                raise InvalidSettingError(f"`{variable}` is {text!r}: give a number") from err
    return text

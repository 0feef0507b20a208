"""Whether this machine can serve what the settings ask for: each thing looked at, and what to do where it is wrong."""

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from niruhybrid.encoding.processor import processor_flags
from niruhybrid.errors import NiruError
from niruhybrid.settings import Settings, library_version

__all__ = ("Finding", "examine")

Verdict = Literal["well", "warning", "wrong"]

_LEAST_DISK = 100_000_000
_GOOD_DISK = 1_000_000_000
_SPARE_DESCRIPTORS = 64  # beside one for each stream: files, the listener, threads' pipes
_HELPFUL = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has shown.

    Attributes:
        subject: what was looked at.
        verdict: `wrong` keeps the server from starting, or from starting as asked.
        detail: what it is like, and after a colon what to do about it.
    """

    subject: str
    verdict: Verdict
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one thing after the other; loads the model and opens the store, and changes neither."""
    yield Finding("version", "well", f"niruhybrid {library_version()} on Python {platform.python_version()}")
    yield _cpu()
    looks: dict[str, Callable[[Settings], Finding]] = {
        "model": _model,
        "store": _store,
        "disk": _disk,
        "answers": _answers,
        "address": _address,
        "descriptors": _descriptors,
    }
    for subject, look in looks.items():
        try:
            yield look(settings)
        except (NiruError, OSError, ImportError) as err:
            yield Finding(subject, "wrong", f"{err}")


def _cpu() -> Finding:
    flags = processor_flags()
    found = [flag for flag in _HELPFUL if flag in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if flags and "avx2" not in found:
        return Finding("cpu", "warning", f"{cores} cores without AVX2: encoding will be slow, use another machine")
    fast = "bfloat16 in hardware" if {"avx512_bf16", "amx_bf16"} & set(found) else "float32"
    return Finding("cpu", "well", f"{cores} cores, {', '.join(found) or platform.machine()}: {fast}")


def _model(settings: Settings) -> Finding:
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder  # noqa: PLC0415  # loads OpenVINO
    from niruhybrid.encoding.weights import locate  # noqa: PLC0415  # same

    folder = locate(settings.model)
    began = time.monotonic()
    encoder = HybridEncoder(str(folder))
    vector = encoder.encode(["Is this model well?"])[0]
    checked = " with its published checksum" if settings.model is None else ""
    seconds = time.monotonic() - began
    return Finding("model", "well", f"{folder}{checked}, {vector.size} dimensions, loaded in {seconds:.1f} s")


def _store(settings: Settings) -> Finding:
    if settings.store.path is None:
        return Finding("store", "warning", "kept in memory, and lost at the end: set `store.path` to keep it")
    if settings.store.on_server:
        return _server(settings)
    path = Path(settings.store.path)
    if not path.exists():
        if not os.access(path.absolute().parent, os.W_OK):
            return Finding("store", "wrong", f"{path} can't be made: create its folder, or make it writable")
        return Finding("store", "well", f"{path} is not there yet and can be made")
    from niruhybrid.retrieval.store import EmbeddedStore  # noqa: PLC0415  # loads SQLite

    with EmbeddedStore(path, config=settings.store) as store:
        return Finding("store", "well", f"{path}, {store.count():,} documents, {path.stat().st_size:,} bytes")


def _server(settings: Settings) -> Finding:
    try:
        from niruhybrid.retrieval.postgres.looking import look  # noqa: PLC0415  # an extra
    except ImportError:
        return Finding("store", "wrong", "the client of PostgreSQL is missing: pip install 'niruhybrid[postgres]'")
    seen = look(settings.store)
    detail = f"{settings.store.name}, PostgreSQL {seen.version}, pgvector {seen.vectors or 'missing'}"
    if seen.vectors is None:
        return Finding("store", "wrong", f"{detail}: install the extension `vector` on the server")
    if not seen.writable:
        return Finding("store", "wrong", f"{detail}, may not write: grant the user its rights, or name the primary")
    if not seen.synced:
        return Finding("store", "warning", f"{detail}, a loss of power loses writes: set `fsync` and restart it")
    there = "no tables yet" if seen.documents is None else f"{seen.documents:,} documents"
    return Finding("store", "well", f"{detail}, {there}, answers in {seen.seconds * 1e3:.1f} ms")


def _disk(settings: Settings) -> Finding:
    if settings.store.on_server:
        return Finding("disk", "well", "the store is on a server: see its own disk")
    place = Path(settings.store.path or ".").absolute().parent
    free = shutil.disk_usage(place).free
    detail = f"{free / 1e9:.1f} GB free at {place}"
    if free < _LEAST_DISK:
        return Finding("disk", "wrong", f"{detail}: make room")
    return Finding("disk", "well" if free >= _GOOD_DISK else "warning", detail)


def _answers(settings: Settings) -> Finding:
    config = settings.generation
    if config.base_url is None:
        return Finding("answers", "well", "sentences of the hits, word for word, by no model")
    from niruhybrid.parts import open_generator  # noqa: PLC0415  # loads the endpoint's client

    open_generator(config)  # refuses a key or a package that is missing
    where = urlsplit(config.base_url)
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        socket.create_connection((where.hostname, port), config.connect_timeout).close()
    except OSError as err:
        return Finding("answers", "wrong", f"nothing listens at {config.shown_url} ({err}): start it, or correct it")
    return Finding("answers", "well", f"{config.model} at {config.shown_url}, which listens")


def _address(settings: Settings) -> Finding:
    from niruhybrid.server.front import configured_keys  # noqa: PLC0415  # loads FastAPI
    from niruhybrid.server.run import listen  # noqa: PLC0415  # same

    config = settings.server
    listen(config).close()
    keys = len(configured_keys(config))
    return Finding("address", "well", f"{config.host}:{config.port} is free, {keys or 'no'} API keys")


def _descriptors(settings: Settings) -> Finding:
    try:
        import resource  # noqa: PLC0415  # not on every system
    except ImportError:
        return Finding("descriptors", "well", f"{platform.system()} has no limit on open files that could be read")
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.server.max_streams + settings.server.max_subscribers + _SPARE_DESCRIPTORS
    if soft < needed:
        return Finding(
            "descriptors", "warning", f"{soft:,} of {needed:,} that all streams together need: raise `ulimit -n`"
        )
    return Finding("descriptors", "well", f"{soft:,}, and all streams together need {needed:,}")

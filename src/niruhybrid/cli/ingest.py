"""`niru ingest`: files and folders, into a store file or to a running server."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from niruhybrid.cli.options import (
    api_key_option,
    arguments,
    examples,
    model_option,
    need_store,
    store_option,
    url_option,
)
from niruhybrid.cli.remote import client_of
from niruhybrid.settings import Settings, load_settings

if TYPE_CHECKING:
    from niruhybrid.ingest import IngestReport
    from niruhybrid.types import Document

__all__ = ("documents_of", "ingest")

Show = Callable[["IngestReport"], None]

_STDIN = "-"
_READ_AHEAD = 256


@click.command(
    short_help="Bring files into a store, or to a server.",
    epilog=examples(
        "niru ingest notes/ more.jsonl --store notes.db",
        "niru ingest notes/ --url http://127.0.0.1:8000",
        "tail -f messages.jsonl | niru ingest - --url http://127.0.0.1:8000",
    ),
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(allow_dash=True))
@store_option
@url_option
@api_key_option
@model_option
@click.pass_obj
def ingest(
    config: str | None,
    /,
    *,
    paths: tuple[str, ...],
    store: str | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
) -> None:
    """Bring files and folders into a store, or send them to a server.

    A store passes over what it has already. With --url, the path - reads lines of JSON from the standard input and
    sends each as soon as it is there; the server's pace is the reader's.
    """
    if url is not None and (store is not None or model is not None):
        raise click.UsageError(f"--url and --{'store' if store else 'model'} can't be used together: choose one")
    if url is None and _STDIN in paths:
        raise click.UsageError("- is for a running server: add --url URL, or name a file")
    bad: list[str] = []
    if url is None:
        settings = load_settings(config, arguments=arguments({"store": store, "model": model}))
        need_store(settings, must_exist=False)
        with _progress("opening the model and the store") as show:
            report = asyncio.run(_stored(settings, paths, bad, show))
    else:
        with _progress(f"sending to {url}") as show:
            report = asyncio.run(_sent(url, api_key, paths, bad, show))
    _say(report, bad)


async def _stored(settings: Settings, paths: tuple[str, ...], bad: list[str], show: Show) -> "IngestReport":
    from niruhybrid.ingest import ingest_new  # noqa: PLC0415  # heavy
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy

    async with await Pipeline.open(settings) as pipeline:
        return await ingest_new(pipeline, documents_of(paths, bad.append), on_progress=show)


async def _sent(url: str, api_key: str | None, paths: tuple[str, ...], bad: list[str], show: Show) -> "IngestReport":
    from niruhybrid.ingest import IngestReport  # noqa: PLC0415  # heavy

    report = IngestReport()
    async with client_of(url, api_key, patient=True) as client:
        async for result in client.ingest(_read_aside(_piped_or(paths, bad.append)), batch=_READ_AHEAD):
            report = report.with_result(result)
            show(report)
    return report


def documents_of(paths: tuple[str, ...], on_bad: Callable[[str], None]) -> "Iterator[Document]":
    """Yield the documents of files and folders."""
    from niruhybrid.corpus.files import read_documents  # noqa: PLC0415  # heavy

    return read_documents(paths, on_bad=lambda source: on_bad(str(source)))


def _piped_or(paths: tuple[str, ...], on_bad: Callable[[str], None]) -> "Iterator[Document]":
    """Yield the documents of files and folders, and where a path is `-` of the standard input's lines of JSON."""
    from niruhybrid.corpus.records import jsonl_documents  # noqa: PLC0415  # heavy

    for path in paths:
        if path == _STDIN:
            yield from jsonl_documents(
                sys.stdin.buffer, "stdin", lambda line, error: on_bad(f"line {line} of stdin: {error}")
            )
        else:
            yield from documents_of((path,), on_bad)


async def _read_aside(documents: "Iterator[Document]") -> "AsyncIterator[Document]":
    """Yield what a thread of its own reads, one document ahead: a pipe may keep it waiting for ever.

    The thread ends with the documents, or with the process.
    """
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[Document | BaseException | None] = asyncio.Queue(1)

    def put(item: "Document | BaseException | None") -> None:
        asyncio.run_coroutine_threadsafe(read.put(item), loop).result()

    def run() -> None:
        try:
            for document in documents:
                put(document)
            put(None)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
        except BaseException as err:  # noqa: BLE001  # raised again where it is waited for
            put(err)

    threading.Thread(target=run, name="niru-reader", daemon=True).start()
    while (item := await read.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _say(report: "IngestReport", bad: list[str]) -> None:
    for line in (*bad, *report.failures):
        click.echo(f"not stored: {line}", err=True)
    failed = len(bad) + report.failed
    click.echo(f"{report.stored:,} stored, {report.unchanged:,} unchanged, {failed:,} failed")
    if not report.stored and not report.unchanged:
        raise click.ClickException("nothing was stored: check the paths")


@contextmanager
def _progress(opening: str) -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415  # only where it draws
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  # same

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(opening)
        began = time.monotonic()

        def show(report: "IngestReport") -> None:
            done = f"{report.stored:,} stored, {report.unchanged:,} unchanged, {report.failed:,} failed"
            speed = (report.stored + report.unchanged) / max(1e-3, time.monotonic() - began)
            progress.update(task, description=f"{done} ({speed:,.0f} a second)")

        yield show

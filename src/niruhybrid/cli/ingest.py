"""`niru ingest`: files and folders, into a store file or to a running server."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
from niruhybrid.cli.outcome import Outcome, failures_option, summed_up
from niruhybrid.cli.remote import client_of
from niruhybrid.settings import Settings, load_settings
from niruhybrid.urls import shown_url

if TYPE_CHECKING:
    from niruhybrid.corpus.files import BadSource
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
@failures_option
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
    failures: str | None,
) -> None:
    """Bring files and folders into a store, or send them to a server; exit code 1 if a document failed.

    A store passes over what it has already. With --url, the path - reads lines of JSON from the standard input and
    sends each as soon as it is there; the server's pace is the reader's. A document that fails for a passing reason is
    tried again.
    """
    if url is not None and (store is not None or model is not None):
        raise click.UsageError(f"--url and --{'store' if store else 'model'} can't be used together: choose one")
    if url is None and _STDIN in paths:
        raise click.UsageError("- is for a running server: add --url URL, or name a file")
    if url is None:
        settings = load_settings(config, arguments=arguments({"store": store, "model": model}))
        need_store(settings, must_exist=False)
        with summed_up(failures) as outcome, _progress("opening the model and the store", outcome) as show:
            asyncio.run(_stored(settings, paths, outcome, show))
    else:
        with summed_up(failures) as outcome, _progress(f"sending to {shown_url(url)}", outcome) as show:
            asyncio.run(_sent(url, api_key, paths, outcome, show))


async def _stored(settings: Settings, paths: tuple[str, ...], outcome: Outcome, show: Show) -> None:
    from niruhybrid.ingest import ingest_new  # noqa: PLC0415  # heavy
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy

    async with await Pipeline.open(settings) as pipeline:
        documents = documents_of(paths, outcome.add_source)
        show(await ingest_new(pipeline, documents, on_progress=show, on_failure=outcome.add))


async def _sent(url: str, api_key: str | None, paths: tuple[str, ...], outcome: Outcome, show: Show) -> None:
    from niruhybrid.ingest import Failure, IngestReport  # noqa: PLC0415  # heavy

    report = IngestReport()
    sent: dict[str, Document] = {}  # not yet acknowledged

    async def documents() -> "AsyncIterator[Document]":
        async for document in _read_aside(_piped_or(paths, outcome.add_source)):
            sent[document.id] = document
            yield document

    async with client_of(url, api_key, patient=True) as client:
        async for result in client.ingest(documents(), batch=_READ_AHEAD):
            document = sent.pop(result.id, None)
            if result.error is None:
                report = report.with_stored()
            else:
                failure = Failure.of(result.error, result.id, document)
                report = report.with_failure(failure)
                outcome.add(failure)
            show(report)


def documents_of(paths: tuple[str, ...], on_bad: "Callable[[BadSource], None]") -> "Iterator[Document]":
    """Yield the documents of files and folders."""
    from niruhybrid.corpus.files import read_documents  # noqa: PLC0415  # heavy

    return read_documents(paths, on_bad=on_bad)


def _piped_or(paths: tuple[str, ...], on_bad: "Callable[[BadSource], None]") -> "Iterator[Document]":
    """Yield the documents of files and folders, and where a path is `-` of the standard input's lines of JSON."""
    from niruhybrid.corpus.files import BadSource  # noqa: PLC0415  # heavy
    from niruhybrid.corpus.records import jsonl_documents  # noqa: PLC0415  # heavy

    for path in paths:
        if path == _STDIN:
            yield from jsonl_documents(
                sys.stdin.buffer, "stdin", lambda line, error: on_bad(BadSource(Path("stdin"), line, error))
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


@contextmanager
def _progress(opening: str, outcome: Outcome) -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415  # only where it draws
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  # same

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(opening)
        began = time.monotonic()

        def show(report: "IngestReport") -> None:
            outcome.progressed(report)
            speed = (report.stored + report.unchanged) / max(1e-3, time.monotonic() - began)
            progress.update(task, description=f"{outcome} ({speed:,.0f} a second)")

        yield show

"""`niru serve`: a pipeline behind HTTP, until it is told to stop."""

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from niruhybrid.cli.ingest import documents_of
from niruhybrid.cli.options import arguments, examples, llm_options, model_option, store_option
from niruhybrid.cli.outcome import Outcome
from niruhybrid.settings import Settings, library_version, load_settings

if TYPE_CHECKING:
    from niruhybrid.ingest import IngestReport
    from niruhybrid.pipeline import Pipeline

__all__ = ("LEVELS", "freeze_what_is_loaded", "loop_factory", "serve")

LEVELS = ("debug", "info", "warning", "error")
"""Of logs, the lowest first."""

_REPORT_EVERY = 2.0
_COLLECTED_AFTER = 5_000, 500, 4  # objects that came and stayed; then, each time, so often the step before


@click.command(
    short_help="Answer queries over HTTP.",
    epilog=examples(
        "niru serve --demo",
        "niru serve --data notes/ --store notes.db --port 9000",
        "niru serve --store notes.db --llm-url http://127.0.0.1:11434/v1 --llm-model llama3.2",
        "niru serve --store notes.db --host 0.0.0.0 --api-keys-file keys.txt --tls-cert c.pem --tls-key k.pem",
    ),
)
@click.option("--data", "paths", multiple=True, type=click.Path(), help="File or folder to serve; may be repeated.")
@click.option("--demo", is_flag=True, help="Serve the documentation of this Python's standard library.")
@store_option
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8000); 0 takes a free one.")
@click.option("--tls-cert", type=click.Path(dir_okay=False), help="Certificate chain; serves HTTPS.")
@click.option("--tls-key", type=click.Path(dir_okay=False), help="Key of the certificate.")
@click.option("--api-keys-file", type=click.Path(dir_okay=False), help="API keys, lines of name:read+write:secret.")
@click.option(
    "--workers", type=int, default=1, help="Only 1: one process owns the store, and its encoder uses one core."
)
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", help="debug shows each request (info).")
@click.option("--traces", type=click.Choice(("off", "otlp", "provider")), help="Where spans of OpenTelemetry go.")
@model_option
@llm_options
@click.pass_obj
def serve(
    config: str | None,
    /,
    *,
    paths: tuple[str, ...],
    demo: bool,
    workers: int,
    log_json: bool,
    log_level: str,
    **given: Any,
) -> None:
    """Answer queries over HTTP until Ctrl-C or SIGTERM."""
    if demo and paths:
        raise click.UsageError("--demo and --data can't be used together: choose one")
    if workers != 1:
        raise click.UsageError(
            f"--workers is {workers}: one process serves a store in a file, and its encoder uses one core; "
            "run more servers, each with a store of its own or all with one on PostgreSQL"
        )
    gc.disable()  # until all is loaded, which is kept anyway
    from niruhybrid.server import logs  # noqa: PLC0415  # heavy

    logs.set_up(as_json=log_json, level=log_level.upper())
    wanted = arguments(given)
    settings = load_settings(config, arguments=wanted)
    if demo and settings.store.path is None:
        from niruhybrid.demo import demo_store  # noqa: PLC0415  # only for this option

        kept = demo_store(settings)
        settings = load_settings(config, arguments=wanted | {"store.path": None if kept is None else str(kept)})
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, paths, demo=demo))


async def _serve(settings: Settings, paths: tuple[str, ...], *, demo: bool) -> None:
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy
    from niruhybrid.server import run  # noqa: PLC0415  # heavy

    listener = run.listen(settings.server)
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.server.tls_cert is None else "https"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    click.echo(f"niru {library_version()} listens on {url} and opens the model and the store")
    began = time.monotonic()

    async def when_ready(pipeline: "Pipeline") -> None:
        freeze_what_is_loaded()
        count = (await pipeline.stats()).documents
        click.echo(f"ready after {time.monotonic() - began:.1f} s with {count:,} documents; see {url}/docs, or ask:")
        click.echo(
            f"""  curl -N {url}/stream/query -H 'Content-Type: application/json' \\\n    -d '{_example(demo=demo)}'"""
        )
        await _fill(pipeline, settings, paths, demo=demo)

    stopping = asyncio.Event()
    with run.set_on_signal(stopping):
        await run.serve(
            lambda: Pipeline.open(settings),
            settings.server,
            listener=listener,
            stopping=stopping,
            when_ready=when_ready,
        )


def freeze_what_is_loaded() -> None:
    """Have the garbage collector pass over it, and look at all the rest seldom.

    Whenever it looks at everything, everybody waits: a tenth of a second for what is loaded, and as long for the
    documents under way of an ingest, every second or two with Python's own thresholds.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)
    gc.enable()


def _example(*, demo: bool) -> str:
    return '{"query": "How do I read a CSV file?", "top_k": 5}' if demo else '{"query": "Your question", "top_k": 5}'


async def _fill(pipeline: "Pipeline", settings: Settings, paths: tuple[str, ...], *, demo: bool) -> None:
    """Bring in what is to be served, while it is being served already."""
    if not demo and not paths:
        return
    with Outcome() as outcome:
        if demo:
            from niruhybrid.demo import fill_demo  # noqa: PLC0415  # only for this option

            store = settings.store
            file = None if store.path is None or store.on_server else Path(store.path)
            report = await fill_demo(pipeline, file, on_progress=_now_and_then(), on_failure=outcome.add)
        else:
            from niruhybrid.ingest import ingest_new  # noqa: PLC0415  # heavy

            documents = documents_of(paths, outcome.add_source)
            report = await ingest_new(pipeline, documents, on_progress=_now_and_then(), on_failure=outcome.add)
        if report is None:
            return
        outcome.progressed(report)
        count = (await pipeline.stats()).documents
        if outcome.failed:
            outcome.show_failures()
            click.echo(f"{count:,} documents are searchable ({report.stored:,} new); {outcome.failures}")
        else:
            click.echo(f"all {count:,} documents are searchable ({report.stored:,} new, 0 failed)")


def _now_and_then() -> Callable[["IngestReport"], None]:
    """Return a progress function that prints a line every few seconds."""
    last = time.monotonic()

    def progress(report: "IngestReport") -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _REPORT_EVERY:
            last = now
            click.echo(f"indexing: {report.stored + report.unchanged:,} documents are searchable")

    return progress


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed, else None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop

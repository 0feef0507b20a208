"""The command `niru`: parse, call, print."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from niruhybrid.errors import InvalidSettingError, NiruError
from niruhybrid.settings import Settings, library_version, load_settings

try:
    import click
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from niruhybrid.evaluation.command import eval_command
except ModuleNotFoundError as err:
    sys.exit(f"niru: the package {err.name!r} is missing: pip install 'niruhybrid[server]'")

if TYPE_CHECKING:
    from niruhybrid.ingest import IngestReport
    from niruhybrid.pipeline import Pipeline
    from niruhybrid.types import Query, SearchMode, StreamEvent

__all__ = ("main",)

_DEFAULT_URL = "http://127.0.0.1:8000"
_REPORT_EVERY = 2.0
_LEVELS = ("debug", "info", "warning", "error")
_SERVE_SETTINGS = {
    "store": "store.path",
    "host": "server.host",
    "port": "server.port",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
    "api_keys_file": "server.api_keys_file",
    "model": "model",
}
_HELP = {"help_option_names": ["-h", "--help"]}


def main() -> None:
    """Run the command; errors are one line on stderr, with exit code 1 (2 for wrong usage, 130 for Ctrl-C)."""
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # before NumPy loads: its threads would fight the encoder for the cores
    try:
        code = _niru.main(standalone_mode=False)
    except click.ClickException as err:
        err.show()
        code = err.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except (NiruError, OSError) as err:
        click.echo(f"niru: {err}", err=True)
        code = 1
    sys.exit(code)


@click.group(name="niru", context_settings=_HELP)
@click.version_option(library_version(), prog_name="niru")
@click.option("--config", type=click.Path(dir_okay=False), help="Settings, as a TOML file.")
@click.pass_context
def _niru(context: click.Context, config: str | None) -> None:
    """Ask, feed and serve a NiruHybrid pipeline."""
    context.obj = config


_niru.add_command(eval_command)

_store_option = click.option("--store", type=click.Path(dir_okay=False), help="File of the store.")
_model_option = click.option("--model", help="Folder or hub name of the encoder's model.")


@_niru.command()
@click.option("--data", "paths", multiple=True, type=click.Path(), help="File or folder to serve; may be repeated.")
@click.option("--demo", is_flag=True, help="Serve the documentation of this Python's standard library.")
@_store_option
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8000); 0 takes a free one.")
@click.option("--tls-cert", type=click.Path(dir_okay=False), help="Certificate chain; serves HTTPS.")
@click.option("--tls-key", type=click.Path(dir_okay=False), help="Key of the certificate.")
@click.option("--api-keys-file", type=click.Path(dir_okay=False), help="API keys, lines of name:read+write:secret.")
@click.option("--workers", type=int, default=1, help="1: one process owns the store and the encoder.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", help="debug shows each request (info).")
@_model_option
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
            f"--workers is {workers}: a store belongs to one process, which uses every core by itself; "
            "run more servers, each with a store of its own"
        )
    from niruhybrid.server import logs  # noqa: PLC0415  # heavy

    logs.set_up(as_json=log_json, level=log_level.upper())
    arguments = {_SERVE_SETTINGS[name]: value for name, value in given.items()}
    settings = load_settings(config, arguments=arguments)
    if demo and settings.store.path is None:
        from niruhybrid.demo import demo_store  # noqa: PLC0415  # only for this option

        kept = demo_store(settings)
        settings = load_settings(config, arguments=arguments | {"store.path": None if kept is None else str(kept)})
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, paths, demo=demo))


@_niru.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@_store_option
@_model_option
@click.pass_obj
def ingest(config: str | None, paths: tuple[str, ...], store: str | None, model: str | None) -> None:
    """Bring files and folders into a store; what is there already is skipped."""
    settings = load_settings(config, arguments={"store.path": store, "model": model})
    _store_of(settings, must_exist=False)
    bad: list[str] = []
    with _progress() as show:
        report = asyncio.run(_ingest(settings, paths, bad, show))
    for line in (*bad, *report.failures):
        click.echo(f"not stored: {line}", err=True)
    failed = len(bad) + report.failed
    click.echo(f"{report.stored:,} stored, {report.unchanged:,} unchanged, {failed:,} failed")
    if not report.stored and not report.unchanged:
        raise click.ClickException("nothing was stored: check the paths")


@_niru.command()
@click.argument("text")
@_store_option
@click.option("--top-k", type=int, default=5, show_default=True, help="Hits wanted.")
@click.option("--mode", type=click.Choice(("hybrid", "dense", "lexical")), default="hybrid", help="What counts.")
@click.option("--filter", "wanted", help='What metadata must say, as JSON: {"eq": {"lang": "en"}}.')
@click.option("--json", "as_json", is_flag=True, help="Print the events, one JSON object a line.")
@_model_option
@click.pass_obj
def query(
    config: str | None,
    *,
    text: str,
    store: str | None,
    top_k: int,
    mode: "SearchMode",
    wanted: str | None,
    as_json: bool,
    model: str | None,
) -> None:
    """Ask a store; the sources come first, then the answer as it is made."""
    from niruhybrid.types import Query  # noqa: PLC0415  # heavy

    asked = Query("cli", text, top_k, mode=mode, filter=None if wanted is None else _as_json(wanted))
    settings = load_settings(config, arguments={"store.path": store, "model": model})
    _store_of(settings, must_exist=True)
    failure = asyncio.run(_query(settings, asked, _print_json if as_json else _print_event))
    if failure is not None:
        raise click.ClickException(failure)


@_niru.command()
@click.option("--url", help=f"A running server ({_DEFAULT_URL}).")
@_store_option
@click.pass_obj
def stats(config: str | None, url: str | None, store: str | None) -> None:
    """Print the counters of a running server, or what a store file holds, as JSON."""
    if url is not None and store is not None:
        raise click.UsageError("--url and --store can't be used together: choose one")
    counters = _fetched(url or _DEFAULT_URL) if store is None else _counted(config, store)
    click.echo(orjson.dumps(counters, option=orjson.OPT_INDENT_2))


@_niru.command()
@_store_option
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8000).")
@_model_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def doctor(config: str | None, /, *, as_json: bool, **given: Any) -> None:
    """Say whether this machine can serve; exit code 1 if something is wrong."""
    from niruhybrid.doctor import examine  # noqa: PLC0415  # only here

    settings = load_settings(config, arguments={_SERVE_SETTINGS[name]: value for name, value in given.items()})
    well = True
    for finding in examine(settings):
        well = well and finding.verdict != "wrong"
        click.echo(orjson.dumps(finding) if as_json else f"{finding.verdict:<8} {finding.subject:<12} {finding.detail}")
    if not well:
        sys.exit(1)


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


def _example(*, demo: bool) -> str:
    return '{"query": "How do I read a CSV file?", "top_k": 5}' if demo else '{"query": "Your question", "top_k": 5}'


async def _fill(pipeline: "Pipeline", settings: Settings, paths: tuple[str, ...], *, demo: bool) -> None:
    """Bring in what is to be served, while it is being served already."""
    from niruhybrid.ingest import ingest_new  # noqa: PLC0415  # heavy

    report: IngestReport | None = None
    if demo:
        from niruhybrid.demo import fill_demo  # noqa: PLC0415  # only for this option

        kept = settings.store.path
        report = await fill_demo(pipeline, None if kept is None else Path(kept), on_progress=_now_and_then())
    elif paths:
        documents = _documents(paths, lambda line: click.echo(f"not stored: {line}", err=True))
        report = await ingest_new(pipeline, documents, on_progress=_now_and_then())
    if report is not None:
        for line in report.failures:
            click.echo(f"not stored: {line}", err=True)
        count = (await pipeline.stats()).documents
        click.echo(f"all {count:,} documents are searchable ({report.stored:,} new, {report.failed:,} failed)")


def _now_and_then() -> Callable[["IngestReport"], None]:
    """Return a progress function that prints a line every few seconds."""
    last = time.monotonic()

    def progress(report: "IngestReport") -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _REPORT_EVERY:
            last = now
            click.echo(f"indexing: {report.stored + report.unchanged:,} documents are searchable")

    return progress


async def _ingest(
    settings: Settings, paths: tuple[str, ...], bad: list[str], show: Callable[["IngestReport"], None]
) -> "IngestReport":
    from niruhybrid.ingest import ingest_new  # noqa: PLC0415  # heavy
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy

    async with await Pipeline.open(settings) as pipeline:
        return await ingest_new(pipeline, _documents(paths, bad.append), on_progress=show)


def _documents(paths: tuple[str, ...], on_bad: Callable[[str], None]) -> Iterator[Any]:
    from niruhybrid.corpus.files import read_documents  # noqa: PLC0415  # heavy

    return read_documents(paths, on_bad=lambda source: on_bad(str(source)))


def _as_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise click.UsageError(f"--filter is not JSON ({err}): quote it as a whole") from err


async def _query(settings: Settings, asked: "Query", show: Callable[["StreamEvent"], None]) -> str | None:
    """Print an answer's events and return what went wrong, if anything did."""
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy

    async with await Pipeline.open(settings) as pipeline, contextlib.aclosing(pipeline.stream(asked)) as events:
        async for event in events:
            show(event)
            if event.event == "error":
                return f"the answer is not complete: {event.data['detail']}"
    return None


def _print_json(event: "StreamEvent") -> None:
    click.echo(orjson.dumps({"event": event.event, "data": event.data}))


def _print_event(event: "StreamEvent") -> None:
    if event.event == "sources":
        for hit in event.data["hits"]:
            click.echo(f"[{hit['rank']}] {hit['score']:.3f}  {_harmless(hit['title'] or hit['id'])}")
        click.echo()
    elif event.event == "token":
        click.echo(_harmless(event.data["text"]), nl=False)
    else:
        click.echo()


def _harmless(text: str) -> str:
    """Return text that can't steer the terminal: no control characters but line ends and tabs."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _fetched(url: str) -> Any:
    from urllib.error import URLError  # noqa: PLC0415  # only here
    from urllib.request import ProxyHandler, build_opener  # noqa: PLC0415  # only here

    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url is {url!r}: give one that starts with http:// or https://")
    try:
        with build_opener(ProxyHandler({})).open(f"{url.rstrip('/')}/stats", timeout=10) as answer:
            return orjson.loads(answer.read())
    except (URLError, TimeoutError, orjson.JSONDecodeError) as err:
        raise click.ClickException(f"no counters from {url} ({err}): is the server running there?") from err


def _counted(config: str | None, store: str) -> dict[str, Any]:
    from niruhybrid.retrieval.store import EmbeddedStore  # noqa: PLC0415  # heavy

    settings = load_settings(config, arguments={"store.path": store})
    path = _store_of(settings, must_exist=True)
    with EmbeddedStore(path, config=settings.store) as opened:
        return {"documents": opened.count(), "bytes": path.stat().st_size}


def _store_of(settings: Settings, *, must_exist: bool) -> Path:
    if settings.store.path is None:
        raise click.UsageError("no store is given: add --store FILE")
    path = Path(settings.store.path)
    if must_exist and not path.is_file():
        raise InvalidSettingError(f"there is no store {str(path)!r}: make it with niru ingest")
    return path


@contextlib.contextmanager
def _progress() -> Iterator[Callable[["IngestReport"], None]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("opening the model and the store")

        def show(report: "IngestReport") -> None:
            done = f"{report.stored:,} stored, {report.unchanged:,} unchanged, {report.failed:,} failed"
            progress.update(task, description=done)

        yield show


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed, else None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop

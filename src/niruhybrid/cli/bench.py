"""`niru bench`: load for one's own server, and what came of it."""

import asyncio
import gzip
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from niruhybrid.cli.ingest import documents_of
from niruhybrid.cli.options import DEFAULT_URL, api_key_option, examples
from niruhybrid.errors import InvalidSettingError
from niruhybrid.urls import shown_url

if TYPE_CHECKING:
    from niruhybrid.load.drive import Load, Sample

__all__ = ("bench",)

_SEED = 1


@click.command(
    short_help="Put a running server under load.",
    epilog=examples(
        "niru bench --clients 8 --seconds 30",
        "niru bench --rate 100 --queries questions.txt --json result.json --plot result.html",
        "niru bench --rate 20 --ingest notes/ --ingest-rate 50",
        "niru bench --trace arrivals.csv.gz --speed 4 --queries questions.txt",
    ),
)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The server; yours, not somebody else's.")
@api_key_option
@click.option("--queries", type=click.Path(), help="Questions, one a line (.gz too); made up without it.")
@click.option("--clients", type=click.IntRange(1, 10_000), help="Closed loop: each asks when it has its answer (1).")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Open loop: queries a second, at random times.")
@click.option("--trace", type=click.Path(), help="Open loop: CSV (.gz too) whose first column has arrival times.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), default=1.0, help="How much faster than the trace.")
@click.option("--ingest", "documents", type=click.Path(), help="Also send the documents of this file or folder.")
@click.option("--ingest-rate", type=click.FloatRange(0, min_open=True), default=10.0, help="Documents a second (10).")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="How long.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=256, show_default=True, help="At the most.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write the figures here.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False), help="Write pictures here: .html or .svg.")
def bench(*, json_file: str | None, picture: str | None, **given: Any) -> None:
    """Ask a server as fast as it answers, or as often as people would, and tell how long they would have waited.

    In an open loop a request's time counts from when it was due, so that a server that stalls can't hide it.
    """
    from niruhybrid.load.summary import summary  # noqa: PLC0415  # loads NumPy

    chosen = [name for name in ("clients", "rate", "trace") if given[name] is not None]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} can't be used together: choose one")
    draw = None if picture is None else _plotter(Path(picture))
    samples, seconds = asyncio.run(_driven(given))
    found = summary(samples, seconds)
    _print(found)
    if json_file is not None:
        asked = {name: value for name, value in given.items() if name != "api_key"} | {"url": shown_url(given["url"])}
        Path(json_file).write_bytes(orjson.dumps({"asked": asked, **found}, option=orjson.OPT_INDENT_2))
    if draw is not None:
        draw(samples)
    if not found["query"]["complete"]:
        raise click.ClickException(f"no answer was whole ({found['query']['status']}): check the server and the key")


async def _driven(given: dict[str, Any]) -> tuple[list["Sample"], float]:
    from niruhybrid.load.connection import Address  # noqa: PLC0415  # heavy
    from niruhybrid.load.drive import Load, drive_open  # noqa: PLC0415  # same

    address = Address(given["url"])
    samples: list[Sample] = []
    queries = (
        address.request("/stream/query", orjson.dumps({"query": text}), given["api_key"])
        for text in _questions(given["queries"])
    )
    with _progress(samples) as note:
        load = Load(address, given["connections"], note)
        await load.reach()
        async with asyncio.TaskGroup() as group:
            group.create_task(_asked(load, queries, given))
            if given["documents"] is not None:
                documents = _documents(given["documents"])
                posts = (address.request("/stream/data", body, given["api_key"]) for body in documents)
                times = _poisson(given["ingest_rate"], given["seconds"])
                group.create_task(drive_open(load, "ingest", posts, times))
        seconds = load.now()
        load.close()
    return samples, seconds


async def _asked(load: "Load", queries: Iterator[bytes], given: dict[str, Any]) -> None:
    from niruhybrid.load.arrivals import read_trace, replayed  # noqa: PLC0415  # only here
    from niruhybrid.load.drive import drive_closed, drive_open  # noqa: PLC0415  # same

    seconds = given["seconds"]
    if given["rate"] is not None:
        await drive_open(load, "query", queries, _poisson(given["rate"], seconds))
    elif given["trace"] is not None:
        times = read_trace(_lines(given["trace"]))
        await drive_open(load, "query", queries, replayed(times, seconds, given["speed"]))
    else:
        await drive_closed(load, "query", queries, clients=given["clients"] or 1, seconds=seconds)


def _poisson(rate: float, seconds: float) -> Iterator[float]:
    from niruhybrid.load.arrivals import poisson  # noqa: PLC0415  # only here

    return poisson(rate, seconds, _SEED)


def _questions(path: str | None) -> Iterator[str]:
    if path is None:
        return (f"What is said about matter number {number}?" for number in itertools.count(1))
    texts = [line.strip() for line in _lines(path) if line.strip()]
    if not texts:
        raise InvalidSettingError(f"{path!r} has no questions: write one a line")
    return itertools.cycle(texts)


def _documents(path: str) -> Iterator[bytes]:
    bodies = [
        orjson.dumps({"id": each.id, "text": each.text, "title": each.title, "metadata": dict(each.metadata)})
        for each in documents_of((path,), lambda source: click.echo(f"not sent: {source}", err=True))
    ]
    if not bodies:
        raise InvalidSettingError(f"{path!r} has no documents: check the path")
    return itertools.cycle(bodies)


def _lines(path: str) -> list[str]:
    try:
        opened = gzip.open if path.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidSettingError(f"{path!r} can't be read ({err}): check the path") from err


def _plotter(path: Path) -> Callable[[Sequence["Sample"]], None]:
    try:
        from niruhybrid.load.plot import checked_plot, plot  # noqa: PLC0415  # heavy
    except ModuleNotFoundError as err:
        raise click.ClickException(f"the package {err.name!r} is missing: pip install 'niruhybrid[eval]'") from err
    checked = checked_plot(path)
    return lambda samples: plot(samples, checked)


def _print(found: dict[str, Any]) -> None:
    for kind in ("query", "ingest"):
        figures = found[kind]
        if figures["unsent"]:
            click.echo(f"{kind:<7} {figures['unsent']:,} not sent: too many before them had no answer yet")
        if not figures["sent"]:
            continue
        click.echo(
            f"{kind:<7} {figures['sent']:,} sent, {figures['complete']:,} whole, "
            f"{figures['complete_per_second']:,} a second; status {figures['status']}"
        )
        for name, words in (("first_byte_ms", "first byte"), ("done_ms", "whole"), ("late_ms", "sent late")):
            spread = "  ".join(f"{percent} {value:,.1f}" for percent, value in figures[name].items())
            click.echo(f"  {words:<11} ms  {spread}")


@contextmanager
def _progress(samples: list["Sample"]) -> Iterator[Callable[["Sample"], None]]:
    """Show a line of progress meanwhile; gives the function that takes samples."""
    from rich.console import Console  # noqa: PLC0415  # only where it draws
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn  # noqa: PLC0415  # same
    from rich.text import Text  # noqa: PLC0415  # same

    from niruhybrid.load.summary import recent  # noqa: PLC0415  # loads NumPy

    class Latest(ProgressColumn):
        """Reckons when the line is drawn, a few times a second, and not with each sample."""

        max_refresh = 0.25

        def render(self, task: Task) -> Text:  # noqa: ARG002  # rich's own name
            return Text(recent(samples))

    columns = (SpinnerColumn(), Latest(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("asking")
        yield samples.append

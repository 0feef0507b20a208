"""`niru top`: the live pipeline in a terminal."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from niruhybrid.cli.options import DEFAULT_URL, api_key_option, examples
from niruhybrid.cli.remote import counters_of

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ("shown", "top")

_LANES = {"interactive": "queries", "bulk": "data"}


@click.command(short_help="Watch a running server.", epilog=examples("niru top", "niru top --every 0.5 --count 10"))
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The server.")
@api_key_option
@click.option("--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--count", type=click.IntRange(1), help="How often to look; without it until Ctrl-C.")
def top(*, url: str, api_key: str | None, every: float, count: int | None) -> None:
    """Show what waits, what is encoded and what was refused, as it happens."""
    from rich.live import Live  # noqa: PLC0415  # only where it draws

    before, since = counters_of(url, api_key), time.monotonic()
    looks = 0
    with Live(shown(before, before, every), auto_refresh=False, screen=False) as live:
        while count is None or looks < count:
            time.sleep(max(0.0, since + every - time.monotonic()))  # a person's pace, in a process of its own
            now, at = counters_of(url, api_key), time.monotonic()
            live.update(shown(now, before, at - since), refresh=True)
            before, since, looks = now, at, looks + 1


def shown(now: Mapping[str, Any], before: Mapping[str, Any], seconds: float) -> "Group":
    """Return what two looks at the counters say, `seconds` apart, ready to be drawn."""
    from rich.console import Group  # noqa: PLC0415  # only where it draws
    from rich.table import Table  # noqa: PLC0415  # same
    from rich.text import Text  # noqa: PLC0415  # same

    table = Table(
        *("lane", "done/s", "waiting", "taken", "oldest s", "batch", "encode ms", "refused", "failed"), box=None
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for lane, name in _LANES.items():
        here, there = now["processor"][lane], before["processor"][lane]
        batches = _grown(here, there, "encode", "counts")
        items = here["batch"]["items"] - there["batch"]["items"]
        spent = here["batch"]["encode"]["sum"] - there["batch"]["encode"]["sum"]
        table.add_row(
            name,
            f"{(here['delivered'] - there['delivered']) / seconds:,.1f}",
            f"{here['waiting']:,}",
            f"{here['in_flight']:,}",
            f"{here['oldest_age']:.2f}",
            f"{items / batches:.1f}" if batches else "",
            f"{spent / batches * 1e3:.1f}" if batches else "",
            f"{sum(here['rejected'].values()) + sum(here['dropped'].values()):,}",
            f"{sum(here['failed'].values()):,}",
        )
    answers = now["answers"]
    line = (
        f"{now['documents']:,} documents  {now['open_streams']:,} streams open  "
        f"{answers['done']:,} answers whole, {answers['error']:,} failed, {answers['cancelled']:,} left"
    )
    worse = [Text("degraded: the last encode hung", style="bold red")] if now["processor"]["degraded"] else []
    return Group(Text(line), table, *worse)


def _grown(now: Mapping[str, Any], before: Mapping[str, Any], name: str, field: str) -> int:
    return int(sum(now["batch"][name][field]) - sum(before["batch"][name][field]))

"""`niru stats`: counters, once."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click
import orjson

from niruhybrid.cli.options import DEFAULT_URL, api_key_option, examples, need_store, store_option
from niruhybrid.cli.remote import counters_of
from niruhybrid.settings import load_settings

__all__ = ("stats",)


@click.command(short_help="Print counters, once.", epilog=examples("niru stats", "niru stats --store notes.db"))
@click.option("--url", help=f"A running server ({DEFAULT_URL}).")
@store_option
@api_key_option
@click.pass_obj
def stats(config: str | None, url: str | None, store: str | None, api_key: str | None) -> None:
    """Print the counters of a running server, or what a store holds, as JSON."""
    if url is not None and store is not None:
        raise click.UsageError("--url and --store can't be used together: choose one")
    counters = counters_of(url or DEFAULT_URL, api_key) if store is None else _counted(config, store)
    click.echo(orjson.dumps(counters, option=orjson.OPT_INDENT_2))


def _counted(config: str | None, store: str) -> dict[str, Any]:
    from niruhybrid.parts import open_store  # noqa: PLC0415  # heavy

    settings = load_settings(config, arguments={"store.path": store})
    need_store(settings, must_exist=True)
    with closing(open_store(settings.store)) as opened:
        counters = {"documents": opened.count()}
    return counters if settings.store.on_server else counters | {"bytes": Path(store).stat().st_size}

"""`niru doctor`: what is well and what is not."""

import sys
from typing import Any

import click
import orjson

from niruhybrid.cli.options import arguments, examples, llm_options, model_option, store_option
from niruhybrid.settings import load_settings

__all__ = ("doctor",)


@click.command(
    short_help="Say whether this machine can serve.", epilog=examples("niru doctor --store notes.db --port 8000")
)
@store_option
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8000).")
@model_option
@llm_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def doctor(config: str | None, /, *, as_json: bool, **given: Any) -> None:
    """Say whether this machine can serve; exit code 1 if something is wrong."""
    from niruhybrid.doctor import examine  # noqa: PLC0415  # only here

    settings = load_settings(config, arguments=arguments(given))
    well = True
    for finding in examine(settings):
        well = well and finding.verdict != "wrong"
        click.echo(orjson.dumps(finding) if as_json else f"{finding.verdict:<8} {finding.subject:<12} {finding.detail}")
    if not well:
        sys.exit(1)

"""`niru worker`: a pipeline fed and asked through a message broker, until it is told to stop."""

import asyncio
import json
from typing import Any

import click

from niruhybrid.cli.options import arguments, examples, llm_options, model_option, store_option
from niruhybrid.cli.serve import LEVELS, freeze_what_is_loaded, loop_factory
from niruhybrid.errors import UnreachableError
from niruhybrid.settings import Settings, library_version, load_settings

__all__ = ("worker",)


@click.command(
    short_help="Take data and queries from NATS JetStream.",
    epilog=examples(
        "niru worker --store notes.db",
        "niru worker --broker nats://10.0.0.5:4222 --store notes.db",
        "niru worker --check",
    ),
)
@click.option("--broker", metavar="URL", help="Address of NATS (nats://127.0.0.1:4222).")
@store_option
@click.option("--check", is_flag=True, help="Ask the worker of this host how it is, and print it; 1 if it is not well.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", help="The lowest that is shown (info).")
@click.option("--traces", type=click.Choice(("off", "otlp", "provider")), help="Where spans of OpenTelemetry go.")
@model_option
@llm_options
@click.pass_obj
def worker(config: str | None, /, *, check: bool, log_json: bool, log_level: str, **given: Any) -> None:
    """Store what comes as messages, and answer what is asked, as one of a group, until Ctrl-C or SIGTERM.

    Then what was begun is finished, and the rest given back to the group.
    """
    from niruhybrid.server import logs  # noqa: PLC0415  # heavy

    logs.set_up(as_json=log_json, level="ERROR" if check else log_level.upper())
    settings = load_settings(config, arguments=arguments(given))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_check(settings) if check else _work(settings))


async def _work(settings: Settings) -> None:
    from niruhybrid.cluster.nats import NatsBroker  # noqa: PLC0415  # heavy, and an extra of its own
    from niruhybrid.cluster.worker import run_worker  # noqa: PLC0415  # heavy
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy
    from niruhybrid.server.run import set_on_signal  # noqa: PLC0415  # heavy

    click.echo(f"niru {library_version()} opens the model and the store")
    stopping = asyncio.Event()
    with set_on_signal(stopping):
        async with await Pipeline.open(settings) as pipeline, NatsBroker(settings.worker) as broker:
            freeze_what_is_loaded()
            count = (await pipeline.stats()).documents
            click.echo(f"ready with {count:,} documents; takes messages from {settings.worker.prefix}.data")
            await run_worker(pipeline, broker, settings.worker, stopping)


async def _check(settings: Settings) -> None:
    from niruhybrid.cluster.nats import ask_health  # noqa: PLC0415  # heavy, and an extra of its own

    told = await ask_health(settings.worker)
    click.echo(json.dumps(told))
    if not told["ready"]:
        raise UnreachableError("the worker is not well: see above, and its log")

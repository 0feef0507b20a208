"""`niru deploy`: replicas of the pipeline on a cluster."""

import signal
import threading
from typing import Any

import click

from niruhybrid.cli.options import arguments, examples, llm_options, model_option
from niruhybrid.settings import load_settings

__all__ = ("deploy",)


@click.group(short_help="Run replicas on a cluster.")
def deploy() -> None:
    """Run replicas of the pipeline, and HTTP servers in front of them, on a cluster."""


@deploy.command(
    short_help="Run replicas on Ray Serve.",
    epilog=examples(
        "niru deploy ray --store notes.db",
        "niru deploy ray --address auto --store postgresql://niru@db/niru --replicas 2 --max-replicas 8 --ingress 2",
        "niru deploy ray --address auto --stop",
    ),
)
@click.option("--address", help="A cluster: host:port, or auto; without it one is made here, until Ctrl-C.")
@click.option("--store", help="URL of a PostgreSQL database, or for one replica a file.")
@click.option("--replicas", type=int, help="Pipelines at the least (1).")
@click.option("--max-replicas", type=int, help="Pipelines at the most, as the load asks for.")
@click.option("--ingress", type=int, help="HTTP servers (1).")
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8000).")
@click.option("--api-keys-file", type=click.Path(dir_okay=False), help="API keys, lines of name:read+write:secret.")
@click.option("--stop", "stopping", is_flag=True, help="Stop what runs on the cluster, after what it has begun.")
@model_option
@llm_options
@click.pass_obj
def ray(config: str | None, /, *, address: str | None, stopping: bool, **given: Any) -> None:
    """Run replicas of the pipeline on Ray Serve, or update those that run; on a cluster they stay when this ends."""
    if stopping and address is None:
        raise click.UsageError("--stop needs --address: a cluster that was made here ends with Ctrl-C")
    settings = load_settings(config, arguments=arguments(given))
    try:
        from niruhybrid.cluster.ray import application, deploying  # noqa: PLC0415  # heavy

        made = None if stopping else application(settings)  # what is wrong with it is told at once
        with deploying.connected(address):
            if stopping:
                deploying.stop()
                return
            deploying.run(made, settings.server, everywhere=address is not None)
            scheme = "http" if settings.server.tls_cert is None else "https"
            click.echo(f"niru answers on {scheme}://{settings.server.host}:{settings.server.port}")
            if address is None:
                _until_told_to_stop()
                deploying.stop()
    except ModuleNotFoundError as err:
        raise click.ClickException(f"the package {err.name!r} is missing: pip install 'niruhybrid[ray]'") from err


def _until_told_to_stop() -> None:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    told.wait()

"""`niru query`: one question, of a store file or of a running server."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click
import orjson

from niruhybrid.cli.options import (
    api_key_option,
    arguments,
    examples,
    llm_options,
    model_option,
    need_store,
    store_option,
    url_option,
)
from niruhybrid.cli.remote import client_of
from niruhybrid.errors import NiruError
from niruhybrid.settings import Settings, load_settings

if TYPE_CHECKING:
    from niruhybrid.types import Query, SearchMode, StreamEvent

__all__ = ("query",)


@click.command(
    short_help="Ask a store or a server.",
    epilog=examples(
        'niru query "How long does tea keep?" --store notes.db',
        'niru query "rain" --url http://127.0.0.1:8000 --mode lexical --top-k 3',
        """niru query "tea" --store notes.db --filter '{"eq": {"lang": "en"}}' --json""",
    ),
)
@click.argument("text")
@store_option
@url_option
@api_key_option
@click.option("--top-k", type=int, default=5, show_default=True, help="Hits wanted.")
@click.option("--mode", type=click.Choice(("hybrid", "dense", "lexical")), default="hybrid", help="What counts.")
@click.option("--filter", "wanted", help='What metadata must say, as JSON: {"eq": {"lang": "en"}}.')
@click.option("--timeout", type=float, help="Seconds the whole answer may take.")
@click.option("--json", "as_json", is_flag=True, help="Print the events, one JSON object a line.")
@model_option
@llm_options
@click.pass_obj
def query(
    config: str | None,
    /,
    *,
    text: str,
    url: str | None,
    api_key: str | None,
    top_k: int,
    mode: "SearchMode",
    wanted: str | None,
    timeout: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Ask a store or a server; the sources come first, then the answer as it is made."""
    from niruhybrid.types import Query  # noqa: PLC0415  # loads NumPy

    asked = Query("cli", text, top_k, timeout=timeout, mode=mode, filter=None if wanted is None else _json_of(wanted))
    if url is None:
        settings = load_settings(config, arguments=arguments(given))
        need_store(settings, must_exist=True)
        events = _from_store(settings, asked)
    else:
        if local := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(f"--url and --{local[0].replace('_', '-')} can't be used together: choose one")
        events = _from_server(url, api_key, asked)
    failure = asyncio.run(_shown(events, as_json=as_json))
    if failure is not None:
        raise click.ClickException(f"the answer is not complete: {failure}")


def _json_of(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise click.UsageError(f"--filter is not JSON ({err}): quote it as a whole") from err


async def _from_store(settings: Settings, asked: "Query") -> "AsyncGenerator[StreamEvent, None]":
    from niruhybrid.pipeline import Pipeline  # noqa: PLC0415  # heavy

    async with await Pipeline.open(settings) as pipeline, aclosing(pipeline.stream(asked)) as events:
        async for event in events:
            yield event


async def _from_server(url: str, api_key: str | None, asked: "Query") -> "AsyncGenerator[StreamEvent, None]":
    async with client_of(url, api_key, patient=False) as client:
        from niruhybrid.client.events import stream_event  # noqa: PLC0415  # known to be there

        answer = client.stream(
            asked.text, top_k=asked.top_k, mode=asked.mode, filter=asked.filter, timeout=asked.timeout
        )
        async with aclosing(answer) as events:
            async for event in events:
                yield stream_event(event)


async def _shown(source: "AsyncGenerator[StreamEvent, None]", *, as_json: bool) -> str | None:
    """Print an answer's events; return what it broke off with, None if it is complete.

    Raises:
        NiruError: it was refused; nothing was printed.
    """
    began = False
    async with aclosing(source) as events:
        try:
            async for event in events:
                began = True
                (_print_json if as_json else _print)(event)
                sys.stdout.flush()
                if event.event == "error":
                    return str(event.data["detail"])
        except NiruError as err:
            if not began:
                raise
            if not as_json:
                click.echo()  # the answer may have stopped in the middle of a line
            return str(err)
    return None


def _print_json(event: "StreamEvent") -> None:
    click.echo(orjson.dumps({"event": event.event, "data": event.data}))


def _print(event: "StreamEvent") -> None:
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

"""`niru migrate`: all documents of one store into another, as they are."""

from contextlib import closing
from dataclasses import replace

import click

from niruhybrid.cli.options import examples, need_store
from niruhybrid.settings import Settings, load_settings

__all__ = ("migrate",)


@click.command(
    short_help="Move a store to another place.",
    epilog=examples(
        "niru migrate notes.db postgresql://niru@db.example/notes", "niru migrate postgresql://127.0.0.1/notes copy.db"
    ),
)
@click.argument("source", type=click.Path(dir_okay=False))
@click.argument("target", type=click.Path(dir_okay=False))
@click.pass_obj
def migrate(config: str | None, source: str, target: str) -> None:
    """Copy all documents of SOURCE into TARGET, an empty store; each is a file or the URL of a PostgreSQL database.

    Vectors and words go along, so no model is needed. Interrupted, it goes on where it was when it is called again. At
    the end both stores are read and compared, and the exit code is 0 only if they hold the same. SOURCE stays as it is.
    """
    from niruhybrid.migration import move  # noqa: PLC0415  # loads NumPy
    from niruhybrid.parts import open_store  # noqa: PLC0415  # loads NumPy

    settings = load_settings(config)
    need_store(_at(settings, source), must_exist=True)
    there = 0

    def tell(passages: int) -> None:
        nonlocal there
        there = passages
        click.echo(f"{passages:,} passages are there", err=True)

    with (
        closing(open_store(_at(settings, source).store)) as old,
        closing(open_store(_at(settings, target).store)) as new,
    ):
        try:
            moved = move(old, new, tell)
        except KeyboardInterrupt:
            click.echo(f"stopped with {there:,} passages in the target: run the same command again to go on", err=True)
            raise
    contents = moved.contents
    click.echo(
        f"{contents.documents:,} documents in {contents.passages:,} passages are in both stores "
        f"({moved.already:,} passages were there before); SHA-256 {contents.digest}"
    )


def _at(settings: Settings, path: str) -> Settings:
    return replace(settings, store=replace(settings.store, path=path))

"""`niru backup`: a copy of a store's file, while the store may be in use."""

import click

from niruhybrid.cli.options import examples
from niruhybrid.config import StoreConfig
from niruhybrid.errors import InvalidSettingError

__all__ = ("backup",)


@click.command(
    short_help="Copy a store's file while it is in use.",
    epilog=examples("niru backup /var/lib/niru/store.db /var/backups/niru.db"),
)
@click.argument("store", type=click.Path(dir_okay=False))
@click.argument("target", type=click.Path(dir_okay=False))
def backup(store: str, target: str) -> None:
    """Copy STORE, a store's file, to TARGET, a new file; a server may serve the store and write to it meanwhile.

    The copy has all documents up to the watermark that is printed. TARGET appears when it is whole, and is never a file
    that was there before.
    """
    if StoreConfig(path=store).on_server:
        raise InvalidSettingError("this store is on a server: copy its database with pg_dump")
    from niruhybrid.retrieval.backup import back_up  # noqa: PLC0415  # loads NumPy

    made = back_up(store, target)
    click.echo(
        f"{made.documents:,} documents, up to watermark {made.watermark}, are in {target} ({made.size / 1e6:,.1f} MB)"
    )

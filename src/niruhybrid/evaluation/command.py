"""The command `niru eval`: how well a model and these settings find what people judged to be relevant."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from niruhybrid.settings import Settings, cache_directory, library_version, load_settings

if TYPE_CHECKING:
    from niruhybrid.evaluation.collection import Collection
    from niruhybrid.evaluation.measure import Evaluation

__all__ = ("eval_command",)

_FEWEST_COLUMNS = 72


@click.command(name="eval", short_help="Measure search on judged collections.")
@click.argument("folders", nargs=-1, required=True, type=click.Path())
@click.option("--model", help="Folder or hub name of the encoder's model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False), help="Draw nDCG@10 into a file: .svg, .png, .pdf.")
@click.option(
    "--losers",
    type=click.IntRange(0),
    default=0,
    help="Show this many queries of each folder that hybrid search answers worse than one of its halves.",
)
@click.pass_obj
def eval_command(
    config: str | None, *, folders: tuple[str, ...], model: str | None, as_json: bool, picture: str | None, losers: int
) -> None:
    """Measure search on folders in BEIR form, by words, by meaning and by both.

    A folder has corpus.jsonl and queries.jsonl (either may end in .gz) and qrels.tsv or qrels/test.tsv: query,
    document and grade with tabs between them. Vectors are kept in the cache folder, up to 2 GiB, so that the next
    run is quick.
    """
    settings = load_settings(config, arguments={"model": model})
    try:
        from niruhybrid.evaluation import measure  # noqa: F401, PLC0415  # before the long work: is all there?
        from niruhybrid.evaluation.plot import checked_plot, plot  # noqa: PLC0415  # heavy
    except ModuleNotFoundError as err:
        raise click.ClickException(f"the package {err.name!r} is missing: pip install 'niruhybrid[eval]'") from err
    from niruhybrid.evaluation.collection import read_collection  # noqa: PLC0415  # after the check

    drawn = None if picture is None else checked_plot(Path(picture))
    evaluations = _evaluated([read_collection(folder) for folder in folders], settings)
    if drawn is not None:
        plot(evaluations, drawn)
    if as_json:
        click.echo(orjson.dumps(_as_dict(evaluations, settings, losers), option=orjson.OPT_INDENT_2))
    else:
        _print(evaluations, losers)


def _evaluated(collections: Sequence["Collection"], settings: Settings) -> list["Evaluation"]:
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder  # noqa: PLC0415  # heavy
    from niruhybrid.evaluation.measure import evaluate  # noqa: PLC0415  # heavy
    from niruhybrid.evaluation.vectors import VectorCache  # noqa: PLC0415  # heavy

    with _progress() as show:
        vectors = VectorCache(HybridEncoder(settings.model), cache_directory() / "vectors")
        return [evaluate(each, vectors, settings.store, show(each.name)) for each in collections]


def _as_dict(evaluations: Sequence["Evaluation"], settings: Settings, losers: int) -> dict[str, Any]:
    from niruhybrid.evaluation.measure import mean_of  # noqa: PLC0415  # heavy

    return {
        "version": library_version(),
        "model": settings.model,
        "collections": [each.to_dict(losers) for each in evaluations],
        "mean": mean_of(evaluations),
    }


def _print(evaluations: Sequence["Evaluation"], losers: int) -> None:
    from niruhybrid.evaluation.measure import MEASURES, MODES, mean_of  # noqa: PLC0415  # heavy

    console = Console()
    if not console.is_terminal:  # a file has no width to fit
        console.width = max(console.width, _FEWEST_COLUMNS)
    table = Table("collection", "documents", "queries", "mode", *MEASURES)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:3] + table.columns[4:]:
        column.justify = "right"
    rows = [(Text(each.name), f"{each.documents:,}", f"{each.queries:,}", each.means) for each in evaluations]
    if len(rows) > 1:
        rows.append((Text("mean"), "", "", mean_of(evaluations)))
    for name, documents, queries, means in rows:
        for mode in MODES:
            figures = [f"{means[mode][measure]:.4f}" for measure in MEASURES]
            first = (name, documents, queries) if mode == MODES[0] else ("", "", "")
            table.add_row(*first, mode, *figures, end_section=mode == MODES[-1])
    console.print(table)
    for each in evaluations:
        for note in each.notes:
            console.print(Text(f"{each.name}: {note}"), soft_wrap=True)
        if losers:
            console.print(_losers_table(each, losers))


def _losers_table(evaluation: "Evaluation", count: int) -> Table:
    shown = evaluation.losers[:count]
    title = f"{evaluation.name}: {len(shown)} of {len(evaluation.losers)} queries where hybrid is behind (nDCG@10)"
    table = Table("query", "lexical", "dense", "hybrid", "text", title=Text(title), title_justify="left")
    for loser in shown:
        figures = (f"{figure:.3f}" for figure in (loser.lexical, loser.dense, loser.hybrid))
        table.add_row(Text(loser.query), *figures, Text("".join(c if c.isprintable() else " " for c in loser.text)))
    return table


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Show a bar on stderr for each step of each collection; give the function to tell it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("opening the model", total=None)

        def of(name: str) -> Callable[[str, int, int], None]:
            def show(what: str, done: int, total: int) -> None:
                progress.update(task, description=f"{name}: {what}", completed=done, total=total)

            return show

        yield of

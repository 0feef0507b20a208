"""The tables, the form in which figures are kept for pages to quote, and the plot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ("draw", "keyed", "show")

Results = dict[str, Any]
Rows = list[dict[str, Any]]
KEYS = {
    "ladder": ("replicas", "router", "load"),
    "loss": ("router", "load"),
    "scaling": ("metric", "starts"),
    "split": ("how",),
    "bursts": ("replicas", "load", "moments"),
}
COLOURS = ("#1f6f8b", "#c8553d", "#7a9e4f", "#8a6fb0")


def keyed(results: Results) -> Results:
    """Return the results with rows under names instead of numbers, so that a page's quotation survives a new row."""
    simulated = results["simulated"]
    named = {part: _under(simulated[part], names) for part, names in KEYS.items() if part in simulated}
    return results | {"simulated": simulated | named, "store_waits": _under(results["store_waits"], ("cores", "share"))}


def _under(rows: Rows, names: tuple[str, ...]) -> Results:
    tree: Results = {}
    for row in rows:
        place = tree
        for name in names[:-1]:
            place = place.setdefault(_key(row[name]), {})
        place[_key(row[names[-1]])] = {key: value for key, value in row.items() if key not in names}
    return tree


def _key(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def show(results: Results) -> None:
    """Print everything, a table for each part."""
    absent = ", ".join(results["measured"]["absent"])
    print(f"not measured yet: {absent}" if absent else "everything is measured")
    _table(list(results["checks"].values()))
    _table([{"size": size, **each} for size, each in results["plans"].items()])
    for size, figures in results["sensitivity"].items():
        _table([{size: name, **each} for name, each in figures.items()])
    print("one machine of 2 cores and 8 GB:", {name: round(value) for name, value in results["bends"].items()})
    _table(results["store_waits"])
    for part in KEYS:
        print(part)
        _table([_flat(row) for row in results["simulated"].get(part, [])])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its spans' share in time and 99th percentile beside the rest."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and "in_time_share" in value:
            flat |= {f"{name}: in time": value["in_time_share"], f"{name}: p99": value["answer_p99_ms"]}
        elif name != "ends":
            flat[name] = value
    return flat


def _table(rows: Iterable[dict[str, Any]]) -> None:
    for place, row in enumerate(rows):
        if not place:
            print("  ", " | ".join(row))
        print("  ", " | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))


def draw(results: Results, path: Path) -> None:
    """Draw six of the tables."""
    try:
        import matplotlib as mpl
    except ImportError:
        print(f"{path.name} was not drawn: matplotlib is not installed")
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    simulated = results["simulated"]
    _goodput(axes[0][0], simulated["ladder"], simulated["capacity_per_s"])
    _waits(axes[0][1], simulated["ladder"])
    _share(axes[0][2], simulated["ladder"])
    _loss(axes[1][0], simulated["loss"])
    _plans(axes[1][1], results["plans"])
    _store(axes[1][2], results["store_waits"])
    picture.savefig(path, metadata={"Date": None})
    print(f"{path.name} drawn")


def _goodput(axis: Any, ladder: Rows, capacity: float) -> None:
    for colour, replicas in zip(COLOURS, (1, 10, 100), strict=False):
        rows = [row for row in ladder if row["replicas"] == replicas and row["router"] == "better of two"]
        shares = [row["in_time_per_s"] / replicas / capacity for row in rows]
        axis.plot(
            [row["load"] for row in rows],
            shares,
            "o-",
            color=colour,
            label=f"{replicas} replica" + "s" * (replicas > 1),
        )
    axis.plot([0.5, 1.0, 1.5], [0.5, 1.0, 1.0], ":", color="#888888", label="ideal")
    _named(axis, "answered within 1 s, share of capacity", "offered, share of capacity")


def _waits(axis: Any, ladder: Rows) -> None:
    ten = [row for row in ladder if row["replicas"] == 10]
    for colour, router in zip(COLOURS, dict.fromkeys(row["router"] for row in ten), strict=True):
        rows = [row for row in ten if row["router"] == router]
        slowest = [row["answer_p99_ms"] for row in rows]
        axis.plot([row["load"] for row in rows], slowest, "o-", color=colour, label=router)
    axis.set_yscale("log")
    _named(axis, "10 replicas: answer, p99, ms", "offered, share of capacity")


def _share(axis: Any, ladder: Rows) -> None:
    rows = [row for row in ladder if row["replicas"] == 10 and row["router"] == "better of two"]
    axis.plot(
        [row["load"] for row in rows], [100 * row["bulk_share_of_encoder"] for row in rows], "o-", color=COLOURS[0]
    )
    axis.axhline(10, linestyle=":", color="#888888")
    axis.set_ylim(bottom=0)
    _named(axis, "10 replicas: encoder time for bulk, %", "offered, share of capacity")


def _loss(axis: Any, loss: Rows) -> None:
    spans = {"before": "before", "unknown": "router does\nnot know", "known": "router\nknows", "replaced": "replaced"}
    for colour, row in zip(COLOURS, loss, strict=False):
        values = [100 * row[span]["in_time_share"] for span in spans]
        axis.plot(list(spans.values()), values, "o-", color=colour, label=row["router"])
    axis.set_ylim(bottom=0)
    _named(axis, "1 of 10 replicas dies at .7: answered within 1 s, %", "")


def _plans(axis: Any, plans: Results) -> None:
    parts = {"servers": "server_cores", "store": "store_cores", "workers": "worker_cores"}
    for place, (colour, (label, key)) in enumerate(zip(COLOURS, parts.items(), strict=False)):
        heights = [plan[key] for plan in plans.values()]
        bars = axis.bar([n + 0.27 * (place - 1) for n in range(len(plans))], heights, 0.25, color=colour, label=label)
        axis.bar_label(bars, [f"{each:,}" for each in heights], fontsize=7)
    axis.set_xticks(range(len(plans)), [f"{size} documents" for size in plans])
    axis.set_yscale("log")
    _named(axis, "10,000 queries per s: cores", "")


def _store(axis: Any, rows: Rows) -> None:
    for colour, cores in zip(COLOURS, dict.fromkeys(row["cores"] for row in rows), strict=False):
        mine = [row for row in rows if row["cores"] == cores]
        shares = [row["share"] for row in mine]
        axis.plot(
            shares, [row["mean_ms"] for row in mine], "o", color=colour, label=f"{cores} core" + "s" * (cores > 1)
        )
        axis.plot(shares, [row["formula_ms"] for row in mine], "-", color=colour)
    axis.set_yscale("log")
    _named(
        axis,
        "wait for a core of the store, mean ms (dots: simulated, lines: formula)",
        "share of its time that is asked for",
    )


def _named(axis: Any, title: str, below: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below, fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)

"""The table, what is wanted of us in it, and the plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Rows = dict[str, Any]


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        label: what was measured.
        row: the row that it is read from.
        path: where in the row the figure is.
        wanted: what is wanted of our figure, in words; nothing is wanted of the rivals'.
        good: whether our figure is as wanted; it may look at everyone's.
    """

    label: str
    row: str
    path: str
    wanted: str = ""
    good: Callable[[Any, list[Any]], bool] = lambda _mine, _theirs: True


def most(limit: float) -> Callable[[Any, list[Any]], bool]:
    return lambda mine, _: mine <= limit


def least(limit: float) -> Callable[[Any, list[Any]], bool]:
    return lambda mine, _: mine >= limit


def _beats_all(mine: Any, theirs: list[Any]) -> bool:
    return all(mine > each for each in theirs)


def _faults() -> list[Line]:
    lines = []
    for kind in ("raise", "hang", "die", "short"):
        row = f"fault_{kind}"
        lines += [
            Line(f"encoder: {kind}; of 8 callers settled within 1 s", row, "settled_in_time", "8", least(8)),
            Line("  the next query succeeds", row, "next_query_succeeds", "True", least(1)),
        ]
    return lines


LINES = [
    Line("query behind 2,000 documents, p50 ms", "query_behind_bulk", "query_ms.p50"),
    Line("  p99 ms", "query_behind_bulk", "query_ms.p99", "<= 42", most(42.0)),
    Line("  documents refused", "query_behind_bulk", "documents_refused", "0", most(0)),
    Line("  bulk rate, share of bulk alone", "query_behind_bulk", "bulk_share_of_alone", ">= 0.9", least(0.9)),
    Line("lone request, overhead p50 ms", "lone_request", "overhead_ms.p50"),
    Line("  overhead p95 ms", "lone_request", "overhead_ms.p95", "<= 0.5", most(0.5)),
    Line("idle, % of a core", "idle", "cpu_percent_of_a_core", "<= 0.1", most(0.1)),
    Line("64 clients, share of 1600/s", "saturated", "share_of_ideal", ">= 0.97", least(0.97)),
    Line("  failed", "saturated", "failed", "0", most(0)),
    Line("  the same from 64 threads", "saturated_threads", "share_of_ideal"),
    Line("free encoder, 256 clients, per s", "free_encoder", "per_second", "most of all", _beats_all),
    Line("  p99 ms", "free_encoder", "request_ms.p99"),
    Line("  without the cache, per s", "free_encoder_without_cache", "per_second"),
    Line("  64 threads, per s", "free_encoder_threads", "per_second"),
    Line("400 at once, in 500 ms, share", "burst_400", "share_of_feasible", ">= 0.95", least(0.95)),
    Line("  refused, p99 ms", "burst_400", "refusal_ms.p99", "<= 10", most(10.0)),
    Line("800 at once, in 500 ms, share", "burst_800", "share_of_feasible", ">= 0.9", least(0.9)),
    Line("  refused, p99 ms", "burst_800", "refusal_ms.p99", "<= 10", most(10.0)),
    Line("1 poison of 32, answered at the least", "poison", "one_of_32.answered_least", "31", least(31)),
    Line("  extra encodes at the most", "poison", "one_of_32.extra_encodes_most", "<= 10", most(10)),
    Line("3 poisons of 32, answered at the least", "poison", "three_of_32.answered_least", "29", least(29)),
    Line("  extra encodes at the most", "poison", "three_of_32.extra_encodes_most", "<= 30", most(30)),
    *_faults(),
    Line("half of 10,000 cancelled: encoded after it", "cancellations", "encoded_after_cancel", "0", most(0)),
    Line("  failed", "cancellations", "failed", "0", most(0)),
    Line("  texts encoded", "cancellations", "texts_encoded"),
    Line("  tickets left", "cancellations", "after.tickets", "0", most(0)),
    Line("with HybridEncoder, a batch of 32 documents, ms", "hybrid_direct", "document_batch_ms"),
    Line("  query behind 320 documents, p50 ms", "hybrid_query_behind_bulk", "query_ms.p50"),
    Line("  p99 ms", "hybrid_query_behind_bulk", "query_ms.p99"),
    Line("  documents refused", "hybrid_query_behind_bulk", "documents_refused", "0", most(0)),
    Line("  bulk rate alone, per s", "hybrid_query_behind_bulk", "bulk_rate_alone"),
    Line("  bulk rate, share of bulk alone", "hybrid_query_behind_bulk", "bulk_share_of_alone"),
    Line("  lone request, overhead p95 ms", "hybrid_lone_request", "overhead_ms.p95"),
    Line("  64 clients, per s", "hybrid_saturated", "per_second"),
    Line("  burst of half of what is feasible, share", "hybrid_burst_50_percent", "share_of_feasible"),
    Line("  burst of what is feasible, share", "hybrid_burst_100_percent", "share_of_feasible"),
]


def figure(rows: Rows, row: str, path: str) -> Any:
    """Return a contender's figure; None where the row was not run, `failed` where it could not be."""
    found: Any = rows.get(row)
    if found is None:
        return None
    if "error" in found:
        return "failed"
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def show(results: Rows) -> list[str]:
    """Print the table and the errors; return the lines in which ours is not as wanted."""
    rows: dict[str, Rows] = results["results"]
    missed = []
    print(f"{'':50}{'wanted':>14}", *(f"{name:>12}" for name in rows))
    for line in LINES:
        found = {name: figure(rows[name], line.row, line.path) for name in rows}
        mine = found.get("niruhybrid")
        theirs = [each for name, each in found.items() if name != "niruhybrid" and isinstance(each, int | float)]
        bad = mine == "failed" or (isinstance(mine, int | float) and not line.good(mine, theirs))
        if bad:
            missed.append(line.label)
        cells = (f"{'-' if each is None else each!s:>12}" for each in found.values())
        print(f"{line.label:50}{line.wanted:>14}", *cells, "  MISSED" if bad else "")
    for name, its in rows.items():
        for row, figures in its.items():
            if "error" in figures:
                print(f"{name}, {row}: {figures['error']}")
    return missed


def draw(results: Rows, path: Path) -> None:
    """Draw six of the lines as bars."""
    try:
        import matplotlib as mpl
    except ImportError:
        print(f"{path.name} was not drawn: matplotlib is not installed")
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scheduler"
    from matplotlib import pyplot as plt

    chosen = {
        "query behind 2,000 documents, p99, ms (log)": ("query_behind_bulk", "query_ms.p99"),
        "lone request, overhead p95, ms (log)": ("lone_request", "overhead_ms.p95"),
        "free encoder, 256 clients, requests per s (log)": ("free_encoder", "per_second"),
        "800 at once in 500 ms, answered, share": ("burst_800", "share_of_feasible"),
        "1 poison of 32, answered": ("poison", "one_of_32.answered_least"),
        "with HybridEncoder: query behind 320 documents, p99, ms (log)": ("hybrid_query_behind_bulk", "query_ms.p99"),
    }
    rows: dict[str, Rows] = results["results"]
    picture, axes = plt.subplots(2, 3, figsize=(13, 6), layout="constrained")
    for axis, (title, place) in zip(axes.flat, chosen.items(), strict=True):
        values = [figure(rows[name], *place) for name in rows]
        numbers = [each if isinstance(each, int | float) else 0 for each in values]
        bars = axis.bar(list(rows), numbers, color=["#1f6f8b"] + ["#b8b8b8"] * (len(rows) - 1))
        axis.bar_label(bars, [f"{each:g}" if isinstance(each, int | float) else "failed" for each in values])
        axis.set_title(title, fontsize=9)
        if "(log)" in title:
            axis.set_yscale("log")
        axis.margins(y=0.15)
    picture.savefig(path, metadata={"Date": None})
    print(f"{path.name} drawn")

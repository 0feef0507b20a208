"""The table, what is wanted of ours in it, and the plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Rows = dict[str, Any]
US = "niruhybrid"


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        label: what was measured.
        path: where in a contender's rows the figure is, the part first.
        wanted: what is wanted of ours, in words; nothing is wanted of the rivals'.
        good: whether our figure is as wanted; it may look at everyone's.
    """

    label: str
    path: tuple[str, ...]
    wanted: str = ""
    good: Callable[[Any, dict[str, Any]], bool] = lambda _mine, _all: True


def most(limit: float) -> Callable[[Any, dict[str, Any]], bool]:
    return lambda mine, _: mine <= limit


def least(limit: float) -> Callable[[Any, dict[str, Any]], bool]:
    return lambda mine, _: mine >= limit


def times(rival: str, factor: float) -> Callable[[Any, dict[str, Any]], bool]:
    return lambda mine, everyone: everyone.get(rival) is None or mine >= factor * everyone[rival]


LINES = [
    Line("server's own part, ms of CPU, 1 client", ("own", "1 client", "server_cpu_ms"), "<= 0.5", most(0.5)),
    Line("  32 clients", ("own", "32 clients", "server_cpu_ms")),
    Line("1 client: queries/s", ("serving", "1 client", "queries_per_s")),
    Line("  first event, p50 ms", ("serving", "1 client", "first_p50_ms")),
    Line("  first event, p99 ms", ("serving", "1 client", "first_p99_ms")),
    Line("  whole, p50 ms", ("serving", "1 client", "last_p50_ms")),
    Line("  whole, p99 ms", ("serving", "1 client", "last_p99_ms")),
    Line("  server CPU, ms", ("serving", "1 client", "server_cpu_ms")),
    Line(
        "32 clients: queries/s",
        ("serving", "32 clients", "queries_per_s"),
        "2.7 x mosec, torch",
        times("mosec, torch", 2.7),
    ),
    Line("  first event, p50 ms", ("serving", "32 clients", "first_p50_ms")),
    Line("  first event, p99 ms", ("serving", "32 clients", "first_p99_ms")),
    Line("  whole, p50 ms", ("serving", "32 clients", "last_p50_ms")),
    Line("  whole, p99 ms", ("serving", "32 clients", "last_p99_ms")),
    Line("  server CPU, ms", ("serving", "32 clients", "server_cpu_ms")),
    Line("  the generator's core was busy", ("serving", "32 clients", "generator_share"), "<= 0.7", most(0.7)),
    Line("peak, queries/s", ("overload", "peak_queries_per_s")),
    Line(
        "twice as much offered: answered in 1 s, share of peak",
        ("overload", "goodput_share_of_peak"),
        ">= 0.9",
        least(0.9),
    ),
    Line("  answered in time or refused with Retry-After", ("overload", "truly_ended_share"), ">= 0.99", least(0.99)),
    Line("  refusal, p50 ms", ("overload", "refusal_p50_ms")),
    Line("20 queries/s during an ingest: p50 ms", ("ingest", "query_p50_ms")),
    Line("  p99 ms", ("ingest", "query_p99_ms"), "<= 60", most(60)),
    Line("  documents/s alone", ("ingest", "documents_per_s_alone")),
    Line("  documents/s beside the queries", ("ingest", "documents_per_s_beside_queries")),
    Line("  share of alone", ("ingest", "share_of_alone"), ">= 0.9", least(0.9)),
    Line("ready, s", ("footprint", "ready_s"), "<= 1.5", most(1.5)),
    Line("resident after load, MB", ("footprint", "rss_after_load_mb"), "<= 400", most(400)),
    Line("idle, % of a core", ("footprint", "idle_percent_of_a_core"), "<= 0.1", most(0.1)),
    Line("1,000 idle subscribers: KB each", ("subscribers", "kb_each")),
    Line("  % of a core", ("subscribers", "percent_of_a_core")),
]


def figure(results: Rows, name: str, path: tuple[str, ...]) -> Any:
    """Return a contender's figure, the median of several; words where it was not measured, None where not run."""
    found: Any = results.get(path[0], {}).get(name)
    for key in path[1:]:
        if isinstance(found, dict) and ("skipped" in found or "error" in found):
            return found.get("skipped", "failed")
        found = found.get(key) if isinstance(found, dict) else None
    return found["median"] if isinstance(found, dict) else found


def show(results: Rows) -> list[str]:
    """Print the table; return the lines in which ours is not as wanted."""
    names = list(dict.fromkeys(name for part in results.values() for name in part))
    print(f"{'':54}{'wanted':>19}", *(f"{name.replace('vectors alone', 'enc.'):>21}" for name in names))
    missed = []
    for line in LINES:
        found = {name: figure(results, name, line.path) for name in names}
        numbers = {name: each for name, each in found.items() if isinstance(each, int | float)}
        bad = US in numbers and not line.good(numbers[US], numbers)
        if bad or found.get(US) == "failed":
            missed.append(line.label)
        cells = (f"{'-' if each is None else _shown(each):>21}" for each in found.values())
        if any(each is not None for each in found.values()):
            print(f"{line.label:54}{line.wanted:>19}", *cells, "  MISSED" if bad else "")
    for part, rows in results.items():
        for name, found in rows.items():
            if "error" in found:
                print(f"{name}, {part}: {found['error']}")
    return missed


def _shown(each: Any) -> str:
    return (
        f"{each:.3g}"
        if isinstance(each, float) and abs(each) < 10
        else f"{each:.1f}"
        if isinstance(each, float)
        else str(each)
    )


def draw(results: Rows, path: Path) -> None:
    """Draw six of the lines as bars."""
    try:
        import matplotlib as mpl
    except ImportError:
        print(f"{path.name} was not drawn: matplotlib is not installed")
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "load"
    from matplotlib import pyplot as plt

    chosen = {
        "32 clients, queries per s": ("serving", "32 clients", "queries_per_s"),
        "32 clients, whole answer, p99, ms": ("serving", "32 clients", "last_p99_ms"),
        "1 client, whole answer, p50, ms": ("serving", "1 client", "last_p50_ms"),
        "twice the capacity offered: answered in 1 s, share of peak": ("overload", "goodput_share_of_peak"),
        "20 queries per s during an ingest, p99, ms (log)": ("ingest", "query_p99_ms"),
        "documents per s beside them": ("ingest", "documents_per_s_beside_queries"),
    }
    picture, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for axis, (title, place) in zip(axes.flat, chosen.items(), strict=True):
        found = {name: figure(results, name, place) for part in [results.get(place[0], {})] for name in part}
        bars = {name: each for name, each in found.items() if isinstance(each, int | float)}
        labels = [name.replace(", ", "\n") for name in bars]
        drawn = axis.bar(labels, list(bars.values()), color=["#1f6f8b" if US in name else "#b8b8b8" for name in bars])
        axis.bar_label(drawn, [f"{each:.3g}" for each in bars.values()])
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="x", labelsize=6)
        if "(log)" in title:
            axis.set_yscale("log")
        axis.margins(y=0.15)
    picture.savefig(path, metadata={"Date": None})
    print(f"{path.name} drawn")

"""Pictures of a load. matplotlib comes with the extra `eval`."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from niruhybrid.errors import InvalidSettingError
from niruhybrid.load.drive import Sample

__all__ = ("checked_plot", "plot")

_COLOURS = {"query": "#3b6e4f", "ingest": "#e0a458"}


def checked_plot(path: Path) -> Path:
    """Return the path of a picture to be, if one can be written there.

    Raises:
        InvalidSettingError: its ending is neither .html nor .svg, or its folder is missing.
    """
    if path.suffix.lower() not in {".html", ".svg"} or not path.parent.is_dir():
        raise InvalidSettingError(f"`--plot` is {str(path)!r}: give a file that ends in .html or .svg, in a folder")
    return path


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Draw each answer's time by when it was due, and all times by their percentile; the file needs no other.

    Raises:
        OSError: the file can't be written.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    course, spread = figure.subplots(2)
    for kind, colour in _COLOURS.items():
        whole = [each for each in samples if each.kind == kind and each.complete]
        if whole:
            times = np.array([(each.last - each.due) * 1e3 for each in whole])
            course.plot([each.due for each in whole], times, ".", color=colour, label=kind, markersize=3)
            ranks = np.arange(1, len(times) + 1) / (len(times) + 1)
            spread.plot(1 / (1 - ranks), np.sort(times), color=colour, label=kind)
    for axes in (course, spread):
        axes.set_yscale("log")
        axes.set_ylabel("milliseconds until whole")
        axes.spines[["top", "right"]].set_visible(False)
    course.set_xlabel("seconds, by when requests were due")
    course.legend(frameon=False)
    spread.set_xscale("log")
    spread.set_xlabel("one answer in … took longer")
    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "niru"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    if path.suffix.lower() == ".html":
        svg = f'<!doctype html><meta charset="utf-8"><title>niru bench</title>{svg[svg.index("<svg") :]}'
    path.write_text(svg, encoding="utf-8")

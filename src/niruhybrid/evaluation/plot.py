"""A picture of an evaluation: nDCG@10 by collection and mode. matplotlib comes with the extra `eval`."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from niruhybrid.errors import InvalidSettingError
from niruhybrid.evaluation.measure import MODES, Evaluation

__all__ = ("checked_plot", "plot")

_COLOURS = {"lexical": "#7aa6c2", "dense": "#e0a458", "hybrid": "#3b6e4f"}
_WIDTH = 0.27
_INCHES_A_COLLECTION = 1.3


def checked_plot(path: Path) -> Path:
    """Return the path of a picture to be, if one can be written there.

    Raises:
        InvalidSettingError: its ending names no picture format that is known, or its folder is missing.
    """
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise InvalidSettingError(f"`--plot` is {str(path)!r}: give a file that ends in .svg, .png or .pdf")
    if not path.parent.is_dir():
        raise InvalidSettingError(f"`--plot` is {str(path)!r}: give a file in a folder that is there")
    return path


def plot(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw bars, three a collection, and write them to a file of the kind its ending names.

    The same evaluations give the same file.

    Raises:
        OSError: the file can't be written.
    """
    figure = Figure(figsize=(2.5 + _INCHES_A_COLLECTION * len(evaluations), 3.6), layout="constrained")
    axes = figure.subplots()
    for at, mode in enumerate(MODES):
        heights = [each.means[mode]["nDCG@10"] for each in evaluations]
        places = [place + (at - 1) * _WIDTH for place in range(len(evaluations))]
        bars = axes.bar(places, heights, _WIDTH, label=mode, color=_COLOURS[mode])
        axes.bar_label(bars, fmt="%.3f", fontsize=6, padding=1)
    axes.set_xticks(range(len(evaluations)), [_folded(each.name) for each in evaluations], fontsize=8)
    axes.set_ylabel("nDCG@10")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(MODES), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    dated = {"Date": None} if path.suffix.lower() == ".svg" else None
    with mpl.rc_context({"svg.hashsalt": "niru"}):
        figure.savefig(path, metadata=dated)


def _folded(name: str) -> str:
    return name.replace("-", "-\n").replace("$", r"\$")

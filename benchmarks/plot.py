"""Draws how the cost of a full index grows with the tree, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")  # no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Name -> colour, line style, line width; in the order in which they are drawn.
_STYLES = {
    "find": ("#6b7280", "-", 1.6),
    "alfwatchd, one process": ("#2563eb", (0, (4, 2)), 1.6),
    "alfwatchd": ("#2563eb", "-", 2.6),
    "ONE-api": ("#d97706", "-", 2.0),
}
_SIZES = {10_000: "10 k", 100_000: "100 k", 1_000_000: "1 M"}
_SECONDS = {0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
_GRID, _TEXT = "#e5e7eb", "#374151"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "svg.fonttype": "none",  # text stays text: a tenth of the size
    "svg.hashsalt": "alfwatchd",  # the same figures give the same file
}
_LINE_HEIGHT = 0.05
"""Of a label, as a part of the height of the axes."""


def draw(costs: Mapping[int, Mapping[str, float]], file: Path) -> None:
    """Draw wall times.

    Parameters
    ----------
    costs : mapping
        Number of datasets -> name of the program -> seconds; a program may lack at some sizes.
    file : Path
        SVG file to write.
    """
    lines = {name: [(size, costs[size][name]) for size in sorted(costs) if name in costs[size]] for name in _STYLES}
    lines = {name: points for name, points in lines.items() if points}
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.3), layout="constrained")
        for name, points in lines.items():
            colour, style, width = _STYLES[name]
            axes.plot(*zip(*points, strict=True), color=colour, ls=style, lw=width, marker="o", ms=4.5, label=name)
        _set_axes(axes, sorted(costs), [seconds for points in lines.values() for _, seconds in points])
        _label_ends(axes, lines)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _set_axes(axes: Axes, sizes: Sequence[int], seconds: Sequence[float]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="datasets in the tree", ylabel="wall time of the whole process")
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 14)  # room for the labels
    axes.set_ylim(min(seconds) / 1.7, max(seconds) * 1.7)
    axes.set_xticks(sizes, [_SIZES.get(size, str(size)) for size in sizes])
    ticks = {value: word for value, word in _SECONDS.items() if axes.get_ylim()[0] < value < axes.get_ylim()[1]}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.grid(visible=True, color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Full index, page cache warm", loc="left", fontsize=12, fontweight="bold")


def _label_ends(axes: Axes, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Write the name and the last figure of each line at its end, no two over each other."""
    bottom, top = axes.get_ylim()
    lowest, gap = bottom, (top / bottom) ** _LINE_HEIGHT
    for name, points in sorted(lines.items(), key=lambda item: item[1][-1][1]):
        size, seconds = points[-1]
        lowest = max(seconds, lowest * gap)
        axes.annotate(
            f"{name}  {seconds:.2f} s" if seconds < 10 else f"{name}  {seconds:.0f} s",
            (size * 1.12, lowest),
            color=_STYLES[name][0],
            va="center",
            fontweight="bold" if name == "alfwatchd" else "normal",
        )

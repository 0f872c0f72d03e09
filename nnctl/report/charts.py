"""SVG charts, drawn with matplotlib. The only module that imports it.

Colors are variables of the page's style sheet, so that charts follow its light and dark modes.
Legends are HTML text next to the SVG.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import re
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnctl.nn.metrics import CalibrationBin
from nnctl.nn.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLORS = 8
"""Number of line colors; further lines are gray."""

# All charts have the same width, so that their type has the same size on the page: 9 points of 240
# are 12 pixels of 320 (see `.chart svg` in page.css), which also fit on a phone.
_WIDTH, _HEIGHT = 240, 156  # points
_LEFT, _RIGHT, _BELOW, _ABOVE = 42, 16, 32, 14  # margins in points
_TYPE = 9  # points
_MAX_POINTS = 500  # per line: more would not be visible
_BOTTOM = 1e-12  # lowest value on a logarithmic axis, which cannot show 0
_PANELS = 5  # small multiples in a row
_LEVEL_NAMES = 3  # values of a parameter whose names fit next to each other

# matplotlib draws with these placeholder colors; the page replaces them with its CSS variables.
_CSS_COLORS = {
    "#010101": "var(--text)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    **{f"#04040{i}": f"var(--series-{i})" for i in range(COLORS)},
}
_TEXT, _MUTED, _LINE, *_SERIES = _CSS_COLORS

_STYLE: Any = {
    "svg.fonttype": "none",  # keep text as text, not as paths
    "svg.hashsalt": "nnctl",  # the same chart gets the same element IDs
    "text.parse_math": False,  # a dollar sign does not start a formula
    "font.size": _TYPE,
    "axes.labelsize": _TYPE,
    "axes.titlesize": _TYPE,
    "xtick.labelsize": _TYPE,
    "ytick.labelsize": _TYPE,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Parameters
    ----------
    name : str
        Name in the legend.
    x, y : sequence of float
        Coordinates of the points; points whose y is None are left out.
    color : int
        Index of the color, from 0.
    thin : bool
        Whether to draw a thin gray line behind the others, without an entry in the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: int
    thin: bool = False

    @property
    def series(self) -> int:
        """Number of the color on the page."""
        return self.color % COLORS

    @property
    def style(self) -> str:
        """Style of the line: four lines in turn are the same, for readers who see few colors."""
        return ("solid", "dashed", "dotted")[self.color // 4 % 3]


@dataclass(frozen=True)
class Chart:
    """A chart for the page.

    Parameters
    ----------
    title : str
        What the chart shows.
    svg : str
        The SVG element, without the title.
    legend : tuple of Line
        Lines to list in the legend.
    finding : str
        What the chart says about these data, in a sentence; empty if nothing is to be said.
    """

    title: str
    svg: str
    legend: tuple[Line, ...] = ()
    finding: str = ""


def draw_lines(
    title: str,
    lines: Sequence[Line],
    *,
    x: str = "epoch",
    percent: bool = False,
    log: bool = False,
    finding: str = "",
    best: int | None = None,
    guide: tuple[float, str] | None = None,
) -> Chart | None:
    """Return a line chart; None without any points.

    Parameters
    ----------
    title, finding : str
        See `Chart`.
    lines : sequence of Line
        The lines.
    x : str
        Label of the horizontal axis.
    percent, log : bool
        Whether to show y in percent, or on a logarithmic axis.
    best : int, optional
        The best epoch, to be marked.
    guide : pair of float and str, optional
        A value to compare with, and its label.
    """
    drawn = [(line, points) for line in lines if len(points := _points(line, log))]
    if not drawn:
        return None

    def plot(axes: Axes) -> None:
        # Draw thin lines first, so that they are behind the others.
        for line, points in sorted(drawn, key=lambda pair: not pair[0].thin):
            axes.plot(
                points[:, 0],
                points[:, 1],
                color=_MUTED if line.thin else _SERIES[line.series],
                linewidth=0.6 if line.thin else 1.5,
                linestyle="solid" if line.thin else line.style,
                marker="o" if len(points) == 1 else "",
                markersize=4,
            )
        axes.set_xlabel(x)
        if x == "epoch":
            _as_epochs(axes, np.concatenate([line.x for line, _ in drawn]))
        if guide:
            axes.axhline(guide[0], color=_MUTED, linewidth=0.8, linestyle=":")
            # The label is above the axes, where no line crosses it.
            axes.text(1, 1.02, guide[1], transform=axes.transAxes, ha="right", color=_MUTED)
        if best is not None:
            _mark(axes, best)
        if log:
            axes.set_yscale("log")
            _as_plain_numbers(axes.yaxis, *axes.get_ylim())
        if percent:
            _as_percent(axes.yaxis)

    legend = tuple(line for line, _ in drawn if not line.thin)
    return Chart(title, _draw(plot), legend, finding)


def draw_panels(
    title: str, lines: Sequence[Line], *, finding: str = "", best: int | None = None
) -> Chart | None:
    """Return small multiples: a panel per line, with all other lines in gray.

    Parameters
    ----------
    title, finding : str
        See `Chart`.
    lines : sequence of Line
        Shares by epoch, each with the name of its panel.
    best : int, optional
        The best epoch, to be marked.
    """
    points = [_points(line, log=False) for line in lines]
    every = np.concatenate([np.empty((0, 2)), *points])
    if not len(every):
        return None
    columns = min(len(lines), _PANELS)
    rows = math.ceil(len(lines) / columns)
    width, height = 1 / columns, 1 / rows

    def plot(axes: Axes) -> None:
        axes.axis("off")
        low = min(every[:, 1].min(), 1 - 1e-3)
        for i, (line, own) in enumerate(zip(lines, points, strict=True)):
            left, below = i % columns * width, 1 - (i // columns + 1) * height
            panel = axes.inset_axes((left, below + 0.1 * height, 0.88 * width, 0.7 * height))
            for other in points:
                panel.plot(other[:, 0], other[:, 1], color=_LINE, linewidth=0.6)
            marker = "o" if len(own) == 1 else ""
            panel.plot(own[:, 0], own[:, 1], color=_SERIES[0], marker=marker, markersize=3)
            if best is not None:
                panel.axvline(best, color=_MUTED, linewidth=0.8, linestyle=":")
            panel.set_title(_shortened(line.name, 8), pad=2)
            panel.set_ylim(low - 0.05 * (1 - low), 1 + 0.05 * (1 - low))
            panel.set_yticks([low, 1], labels=[f"{100 * low:.0f} %", "100 %"])
            ends = sorted({every[:, 0].min(), every[:, 0].max()})
            panel.set_xticks(ends, labels=["", "", ""][: len(ends)])
            panel.tick_params(labelleft=i % columns == 0)
        first, last = (f"{epoch:.0f}" for epoch in (every[:, 0].min(), every[:, 0].max()))
        epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        where: Any = {"transform": axes.transAxes, "ha": "center", "va": "top"}
        axes.text(0.5, -0.02, epochs, **where, color=_MUTED)

    return Chart(title, _draw(plot), finding=finding)


def draw_histogram(title: str, values: Array, *, bins: int = 40, finding: str = "") -> Chart | None:
    """Return a histogram of values; None if any of them is not finite."""
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high, bins + 1) if low < high else low + np.linspace(-1, 1, bins + 2)
    counts, _ = np.histogram(values, edges)
    shares = counts / values.size

    def plot(axes: Axes) -> None:
        axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=_SERIES[0])
        axes.set_xlabel("activation")
        axes.grid(visible=False, axis="x")
        _as_percent(axes.yaxis)

    return Chart(title, _draw(plot), finding=finding)


def draw_calibration(title: str, bins: Sequence[CalibrationBin], finding: str = "") -> Chart | None:
    """Return a reliability diagram: accuracy by confidence, and the diagonal that is ideal.

    None without any bins.
    """
    if not bins:
        return None

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=":")
        axes.bar(
            [one.low for one in bins],
            [one.accuracy for one in bins],
            [one.high - one.low for one in bins],
            align="edge",
            color=_SERIES[0],
            edgecolor=_LINE,
            alpha=0.6,
        )
        means = [(one.confidence, one.accuracy) for one in bins]
        axes.plot(*zip(*means, strict=True), color=_SERIES[1], marker="o", markersize=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence")
        _as_percent(axes.xaxis)
        _as_percent(axes.yaxis)

    return Chart(title, _draw(plot), finding=finding)


def draw_points(
    title: str,
    x: Sequence[Any],
    y: Sequence[float],
    *,
    percent: bool,
    best: int,
    finding: str = "",
) -> Chart:
    """Return a scatter plot of a metric by the value of a parameter.

    Parameters
    ----------
    title : str
        Name of the parameter.
    x : sequence
        Values of the parameter: numbers, or anything else, which gets a categorical axis.
    y : sequence of float
        The metric for each value.
    percent : bool
        Whether to show y in percent.
    best : int
        Index of the point to highlight.
    finding : str
        See `Chart`.
    """
    positions, names = _positions(x)

    def plot(axes: Axes) -> None:
        axes.scatter(positions, y, s=12, color=_SERIES[0], alpha=0.7, linewidths=0)
        axes.scatter([positions[best]], [y[best]], s=30, color=_SERIES[1], linewidths=0)
        if names:
            axes.set_xticks(range(len(names)), [_shortened(name) for name in names])
            if len(names) > _LEVEL_NAMES:  # slanted names do not touch each other
                axes.tick_params(axis="x", labelrotation=30)
                axes.set_xticklabels(axes.get_xticklabels(), ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.grid(visible=False, axis="x")
        elif _is_logarithmic(positions):
            axes.set_xscale("log")
            _as_plain_numbers(axes.xaxis, *axes.get_xlim())
        if percent:
            _as_percent(axes.yaxis)

    return Chart(title, _draw(plot), finding=finding)


def _positions(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Return the positions of values on an axis, and its tick labels if they are not numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    names = list(dict.fromkeys(map(str, values)))
    return [float(names.index(str(value))) for value in values], names


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    """Return whether numbers span a factor of 20 and most are small, as if drawn log-uniformly."""
    low, high = min(numbers), max(numbers)
    return low > 0 and high >= 20 * low and statistics.median(numbers) < (low + high) / 4


def _shortened(name: str, length: int = 12) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _points(line: Line, log: bool) -> Array:
    """Return the points of a line to draw, ``(n, 2)``, thinned out to `_MAX_POINTS`."""
    pairs = [
        (x, y)
        for x, y in zip(line.x, line.y, strict=True)
        if y is not None and math.isfinite(y) and (not log or y > _BOTTOM)
    ]
    step = max(1, math.ceil(len(pairs) / _MAX_POINTS))
    return np.array(pairs[::-step][::-1], np.float64).reshape(-1, 2)  # keeps the last point


def _as_plain_numbers(axis: Axis, low: float, high: float) -> None:
    """Label ticks as 0.01 instead of powers of ten, and add ticks if the range is short."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high < 8 * low:  # too short for 1, 2 and 5
        axis.set_major_locator(MaxNLocator(4))
    elif high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda number, _: f"{number:g}")
    axis.set_minor_formatter(lambda *_: "")


def _as_epochs(axes: Axes, epochs: Array) -> None:
    """Show all epochs, also those without a point, and label whole ones; one is in the middle."""
    axes.locator_params(axis="x", integer=True)
    first, last = epochs.min(), epochs.max()
    if first == last:
        axes.set_xticks([first])
    else:
        margin = 0.05 * (last - first)
        axes.set_xlim(first - margin, last + margin)


def _mark(axes: Axes, epoch: int) -> None:
    """Mark the best epoch by a vertical line with a label above the axes."""
    axes.axvline(epoch, color=_MUTED, linewidth=0.8, linestyle=":")
    low, high = axes.get_xlim()
    share = (epoch - low) / (high - low)
    align = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    above = axes.get_xaxis_transform()
    axes.text(epoch, 1.02, f"best: {epoch}", transform=above, ha=align, color=_MUTED)


def _as_percent(axis: Axis) -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")


@functools.cache
def import_matplotlib() -> Any:
    """Import matplotlib with its default settings, ignoring files and environment variables.

    Otherwise it reads ``matplotlibrc`` in the working directory, which can make it start LaTeX or
    block, if the file is a pipe.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    elsewhere = contextlib.chdir(Path(__file__).parent)  # no variable disables that file
    with elsewhere if os.access("matplotlibrc", os.F_OK) else contextlib.nullcontext():
        import matplotlib
    return matplotlib


def _draw(plot: Callable[[Axes], None]) -> str:
    """Return a plot as SVG in the colors of the page."""
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Warnings are about letters missing from fonts, and numbers too far apart.
        warnings.simplefilter("ignore")
        figure = Figure((_WIDTH / 72, _HEIGHT / 72))
        # Fixed margins align the charts in a row, and take half the time of a computed layout.
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BELOW - _ABOVE
        box = (_LEFT / _WIDTH, _BELOW / _HEIGHT, width / _WIDTH, height / _HEIGHT)
        plot(figure.add_axes(box))
        content = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", metadata=no_metadata)
    return _for_page(content.getvalue())


def _for_page(svg: str) -> str:
    """Return an SVG to embed in a page: with its colors and fonts, without element IDs."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z0-9]+_\d+"', "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    for color, name in _CSS_COLORS.items():
        svg = svg.replace(color, name)
    return re.sub(r"\n\s*", "\n", svg)

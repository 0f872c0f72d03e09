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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nnctl.nn.metrics import CalibrationBin
from nnctl.nn.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLORS = 8
"""Number of line colors; further lines are gray."""

_SIZE = (3.5, 2.2)  # inches
_MAX_POINTS = 500  # per line: more would not be visible
_BOTTOM = 1e-12  # lowest value on a logarithmic axis, which cannot show 0

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
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
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

Kind = Literal["line", "dashes", "thin"]


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
    kind : str
        "line", "dashes", or "thin" for a thin gray line behind the others.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: int
    kind: Kind = "line"


@dataclass(frozen=True)
class Chart:
    """A chart for the page.

    Parameters
    ----------
    title : str
        Title.
    svg : str
        The SVG element, without the title.
    legend : tuple of Line
        Lines to list in the legend.
    """

    title: str
    svg: str
    legend: tuple[Line, ...] = ()


def draw_lines(
    title: str, lines: Sequence[Line], *, x: str = "epoch", percent: bool = False, log: bool = False
) -> Chart | None:
    """Return a line chart; None without any points."""
    drawn = [(line, points) for line in lines if len(points := _points(line, log))]
    if not drawn:
        return None

    def plot(axes: Axes) -> None:
        # Draw thin lines first, so that they are behind the others.
        for line, points in sorted(drawn, key=lambda pair: pair[0].kind != "thin"):
            axes.plot(
                points[:, 0],
                points[:, 1],
                color=_MUTED if line.kind == "thin" else _SERIES[line.color % COLORS],
                linewidth=0.6 if line.kind == "thin" else 1.5,
                linestyle="--" if line.kind == "dashes" else "-",
                marker="o" if len(points) == 1 else "",
                markersize=4,
            )
        axes.set_xlabel(x)
        if x == "epoch":
            axes.locator_params(axis="x", integer=True)
        if log:
            axes.set_yscale("log")
            _as_plain_numbers(axes.yaxis, *axes.get_ylim())
        if percent:
            _as_percent(axes.yaxis)

    return Chart(title, _draw(plot), tuple(line for line, _ in drawn if line.kind != "thin"))


def draw_histogram(title: str, values: Array, bins: int = 40) -> Chart | None:
    """Return a histogram of values; None if any of them is not finite."""
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts, _ = np.histogram(values, edges)
    shares = counts / values.size

    def plot(axes: Axes) -> None:
        axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=_SERIES[0])
        axes.set_xlabel("activation")
        axes.grid(visible=False, axis="x")
        _as_percent(axes.yaxis)

    return Chart(title, _draw(plot))


def draw_calibration(title: str, bins: Sequence[CalibrationBin]) -> Chart:
    """Return a reliability diagram: accuracy by confidence, and the diagonal that is ideal."""

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

    return Chart(title, _draw(plot))


def draw_points(
    title: str, x: Sequence[Any], y: Sequence[float], *, percent: bool, best: int
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
    """
    positions, names = _positions(x)

    def plot(axes: Axes) -> None:
        axes.scatter(positions, y, s=12, color=_SERIES[0], alpha=0.7, linewidths=0)
        axes.scatter([positions[best]], [y[best]], s=30, color=_SERIES[1], linewidths=0)
        if names:
            axes.set_xticks(range(len(names)), [_shortened(name) for name in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.grid(visible=False, axis="x")
        elif _is_logarithmic(positions):
            axes.set_xscale("log")
            _as_plain_numbers(axes.xaxis, *axes.get_xlim())
        if percent:
            _as_percent(axes.yaxis)

    return Chart(title, _draw(plot))


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
    from matplotlib.ticker import LogLocator

    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda number, _: f"{number:g}")
    axis.set_minor_formatter(lambda *_: "")


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
        warnings.simplefilter(
            "ignore"
        )  # about letters missing from fonts, and numbers too far apart
        figure = Figure(_SIZE, layout="constrained")
        plot(figure.add_subplot())
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

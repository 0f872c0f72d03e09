"""Charts as SVG, drawn by matplotlib: the only module that knows it.

Colours are names of the page's style sheet, so that charts follow its light and dark sides.
Legends are the page's own text, beside the picture.
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

from nnctl.nn.activations import Array
from nnctl.nn.metrics import CalibrationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = 8
"""Of lines; more of them are grey."""

_SIZE = (3.5, 2.2)  # inches
_MOST_POINTS = 500  # of a line: more are not seen
_BOTTOM = 1e-12  # of a logarithmic axis: 0 has no place on it

# What matplotlib is told, and what the page is told instead.
_NAMED = {
    "#010101": "var(--text)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    **{f"#04040{i}": f"var(--series-{i})" for i in range(COLOURS)},
}
_TEXT, _MUTED, _LINE, *_SERIES = _NAMED

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nnctl",  # the same chart has the same names inside
    "text.parse_math": False,  # a dollar in a name is a dollar
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

Kind = Literal["line", "dashes", "faint"]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Parameters
    ----------
    name : str
        For the legend.
    x, y : sequence of float
        Its points; those whose y is None are left out.
    colour : int
        Its number, from 0.
    kind : str
        Whether it is dashed, or one of many behind the others.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int
    kind: Kind = "line"


@dataclass(frozen=True)
class Chart:
    """A picture for the page.

    Parameters
    ----------
    title : str
        What it shows.
    svg : str
        The picture, without a title.
    legend : tuple of Line
        The lines that a legend explains.
    """

    title: str
    svg: str
    legend: tuple[Line, ...] = ()


def draw_lines(
    title: str, lines: Sequence[Line], *, x: str = "epoch", percent: bool = False, log: bool = False
) -> Chart | None:
    """Return lines over a common axis; None if there is not a point to draw."""
    drawn = [(line, points) for line in lines if len(points := _points(line, log))]
    if not drawn:
        return None

    def plot(axes: Axes) -> None:
        # The faint ones first, so that they are behind.
        for line, points in sorted(drawn, key=lambda one: one[0].kind != "faint"):
            axes.plot(
                points[:, 0],
                points[:, 1],
                color=_MUTED if line.kind == "faint" else _SERIES[line.colour % COLOURS],
                linewidth=0.6 if line.kind == "faint" else 1.5,
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
            _as_percent(axes)

    return Chart(title, _draw(plot), tuple(line for line, _ in drawn if line.kind != "faint"))


def draw_histogram(title: str, values: Array, bins: int = 40) -> Chart | None:
    """Return how values are distributed; None if they are not all finite."""
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
        _as_percent(axes)

    return Chart(title, _draw(plot))


def draw_calibration(title: str, bins: Sequence[CalibrationBin]) -> Chart:
    """Return the accuracy of answers by their confidence, beside what it should be."""

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
        axes.xaxis.set_major_formatter(_percent)
        _as_percent(axes)

    return Chart(title, _draw(plot))


def draw_points(
    title: str, x: Sequence[Any], y: Sequence[float], *, percent: bool, best: int
) -> Chart:
    """Return points of a value, a number or something else, and of what came of it.

    Parameters
    ----------
    title : str
        The name of the value.
    x : sequence
        Numbers, or texts.
    y : sequence of float
        What came of each.
    percent : bool
        Whether y are shares.
    best : int
        The point to show in another colour.
    """
    places, names = _places(x)

    def plot(axes: Axes) -> None:
        axes.scatter(places, y, s=12, color=_SERIES[0], alpha=0.7, linewidths=0)
        axes.scatter([places[best]], [y[best]], s=30, color=_SERIES[1], linewidths=0)
        if names:
            axes.set_xticks(range(len(names)), [_shortened(name) for name in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.grid(visible=False, axis="x")
        elif _is_logarithmic(places):
            axes.set_xscale("log")
            _as_plain_numbers(axes.xaxis, *axes.get_xlim())
        if percent:
            _as_percent(axes)

    return Chart(title, _draw(plot))


def _places(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Return where values stand on an axis, and its names, if they are no numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    names = list(dict.fromkeys(map(str, values)))
    return [float(names.index(str(value))) for value in values], names


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    """Tell whether numbers are of many sizes, most of them small, as drawn from a log-uniform."""
    low, high = min(numbers), max(numbers)
    return low > 0 and high >= 20 * low and statistics.median(numbers) < (low + high) / 4


def _shortened(name: str, most: int = 12) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _points(line: Line, log: bool) -> Array:
    """Return the points of a line that can be drawn, no more than are seen, ``(n, 2)``."""
    pairs = [
        (x, y)
        for x, y in zip(line.x, line.y, strict=True)
        if y is not None and math.isfinite(y) and (not log or y > _BOTTOM)
    ]
    step = max(1, math.ceil(len(pairs) / _MOST_POINTS))
    return np.array(pairs[::-step][::-1], np.float64).reshape(-1, 2)  # the last one is kept


def _as_plain_numbers(axis: Axis, low: float, high: float) -> None:
    """Write 0.01 instead of a power of ten, and more numbers than those, if there are few."""
    from matplotlib.ticker import LogLocator

    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda number, _: f"{number:g}")
    axis.set_minor_formatter(lambda *_: "")


def _as_percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(_percent)


def _percent(share: float, _: object) -> str:
    return f"{100 * share:.4g} %"


@functools.cache
def import_matplotlib() -> Any:
    """Import matplotlib as it is shipped, whatever files and the environment want of it.

    It reads a ``matplotlibrc`` of the working folder, which can have it start LaTeX, or be a pipe.

    Raises
    ------
    ImportError
        It is not installed.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    aside = contextlib.chdir(Path(__file__).parent)  # no variable makes it read over such a file
    with aside if os.access("matplotlibrc", os.F_OK) else contextlib.nullcontext():
        import matplotlib
    return matplotlib


def _draw(plot: Callable[[Axes], None]) -> str:
    """Return what is plotted as SVG, in the colours of the page."""
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that no font has, and of numbers too far apart
        figure = Figure(_SIZE, layout="constrained")
        plot(figure.add_subplot())
        content = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", metadata=nothing)
    return _for_page(content.getvalue())


def _for_page(svg: str) -> str:
    """Return an SVG as a part of a page: its own colours and fonts, no name of an element twice."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z0-9]+_\d+"', "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    for colour, name in _NAMED.items():
        svg = svg.replace(colour, name)
    return re.sub(r"\n\s*", "\n", svg)

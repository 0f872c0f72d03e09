"""Prints the result of a learning-rate range test: the loss by learning rate, and a suggestion."""

from __future__ import annotations

import math

import numpy as np
from rich.text import Text

from nnctl.runs.lr_range_test import RangeTest
from nnctl.views.console import is_unicode, results, say
from nnctl.views.plots import draw_curve

_ROWS = 10  # height of the curve in characters
_WIDEST = 100


def show_range_test(result: RangeTest) -> None:
    """Print the curve of the smoothed loss, and what it shows, on stdout."""
    console = results()
    if len(result.steps) > 1:
        say(console, Text("Smoothed loss by learning rate", "bold"))
        width = min(console.width, _WIDEST)
        for line in _draw(result, width, braille=is_unicode(console)):
            say(console, line)
    if result.suggestion is not None:
        console.print(f"suggested learning rate: {result.suggestion:g}, {result.reason}")


def _draw(result: RangeTest, width: int, *, braille: bool) -> list[str]:
    """Return the lines of the curve with its axes, and a mark below the suggested rate."""
    logs = [math.log10(step.learning_rate) for step in result.steps]
    losses = np.array([step.smoothed for step in result.steps])
    labels = [f"{losses.max():.3g}", f"{losses.min():.3g}"]
    margin = max(map(len, labels)) + 2
    columns = max(width - margin - 1, 10)
    grid = np.linspace(logs[0], logs[-1], 2 * columns)
    curve = draw_curve(np.interp(grid, logs, losses), _ROWS, columns, braille=braille)
    bar, corner, dash, mark = "│└─▲" if braille else "|+-^"
    left = [labels[0], *[""] * (_ROWS - 2), labels[1]]
    lines = [f"{text:>{margin - 1}} {bar}{row}" for text, row in zip(left, curve, strict=True)]
    lines.append(f"{'':{margin}}{corner}{dash * columns}")

    def column(log: float) -> int:
        return margin + 1 + round((log - logs[0]) / (logs[-1] - logs[0]) * (columns - 1))

    ticks = ""
    for decade in range(math.ceil(logs[0] - 1e-9), math.floor(logs[-1] + 1e-9) + 1):
        text = f"{10.0**decade:g}"
        start = min(column(decade) - len(text) // 2, width - len(text))
        if start > len(ticks):
            ticks = f"{ticks:{start}}{text}"
    lines.append(ticks)
    if result.suggestion is not None:
        place, text = column(math.log10(result.suggestion)), f"{result.suggestion:g}"
        fits = place + 2 + len(text) <= width
        lines.append(f"{'':{place}}{mark} {text}" if fits else f"{f'{text} {mark}':>{place + 1}}")
    return [line.rstrip() for line in lines]

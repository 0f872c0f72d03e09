"""Draws ``docs/pages/images/activations.svg``: each activation and its derivative.

The file is text of about 20 kB without matplotlib's many elements, and a test compares it with the
table of activations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.types import Array
from tests.processes import ROOT

FILE = ROOT / "docs" / "pages" / "images" / "activations.svg"

COLUMNS = 4
CELL_WIDTH, CELL_HEIGHT = 190, 170
SIDE = 130  # width and height of a plot, in pixels
REACH = 4.0  # z is from -REACH to REACH
LOW, HIGH = -2.0, 3.0  # range of the vertical axis; curves outside of it are cut off
POINTS = 81
GRAY, BLUE, ORANGE = "#7a7f87", "#2f81d6", "#d9731a"  # legible on white and on black


def draw_all() -> str:
    """Return the picture as SVG."""
    kinds = [kind for kind in dict.fromkeys(ACTIVATIONS.values()) if _has_one_input(kind())]
    rows = -(-len(kinds) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {COLUMNS * CELL_WIDTH} {rows * CELL_HEIGHT}" '
        f'font-family="sans-serif" font-size="13" fill="none" stroke-width="2">',
        f'<defs><clipPath id="plot"><rect width="{SIDE}" height="{SIDE}"/></clipPath></defs>',
    ]
    for index, kind in enumerate(kinds):
        row, column = divmod(index, COLUMNS)
        parts.append(
            f'<g transform="translate({column * CELL_WIDTH + 30} {row * CELL_HEIGHT + 24})">'
        )
        parts.extend(_draw(kind()))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _has_one_input(activation: Activation) -> bool:
    """Return whether a unit has one weighted input: not softmax and maxout."""
    return activation.pieces == 1 and activation.place != "output"


def _draw(activation: Activation) -> Iterator[str]:
    """Yield the elements of a plot: name, axes with marks at 1, curve and derivative."""
    text = f'fill="{GRAY}" font-size="10"'
    x0, y0, x1, y1 = _x(0.0), _y(0.0), _x(1.0), _y(1.0)
    yield f'<text y="-8" fill="{GRAY}" font-weight="bold">{activation.name}</text>'
    axes = f"M0 {y0:.1f}H{SIDE}M{x0:.1f} 0V{SIDE}M{x1:.1f} {y0 - 3:.1f}v6M{x0 - 3:.1f} {y1:.1f}h6"
    yield f'<path d="{axes}" stroke="{GRAY}" stroke-width="1"/>'
    yield f'<text x="{x1 - 3:.1f}" y="{y0 + 14:.1f}" {text}>1</text>'
    yield f'<text x="{x0 - 12:.1f}" y="{y1 + 4:.1f}" {text}>1</text>'
    z = np.linspace(-REACH, REACH, POINTS)[:, None]
    outputs, slopes = np.empty_like(z), np.empty_like(z)
    activation.forward(z.copy(), outputs)
    activation.backward(z, outputs, np.ones_like(z), slopes)
    for values, color in ((slopes, ORANGE), (outputs, BLUE)):
        points = " ".join(
            f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(z[:, 0], _within(values[:, 0]), strict=True)
        )
        yield f'<polyline points="{points}" stroke="{color}" clip-path="url(#plot)"/>'


def _within(values: Array) -> Array:
    return np.clip(values, LOW - 1, HIGH + 1)


def _x(z: float) -> float:
    return (z + REACH) / (2 * REACH) * SIDE


def _y(value: float) -> float:
    return (HIGH - value) / (HIGH - LOW) * SIDE

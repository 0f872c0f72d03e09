"""Draws curves in the terminal with the dots of braille characters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of the dots of a braille character, 4 rows of 2 columns, above U+2800."""


def draw_curve(
    values: NDArray[np.floating],
    rows: int,
    columns: int,
    *,
    braille: bool = True,
    limits: tuple[float, float] | None = None,
) -> list[str]:
    """Return the lines that draw a curve.

    Parameters
    ----------
    values : array, shape (2 * columns,)
        Heights of the curve from left to right; it is scaled to fill the rows.
    rows, columns : int
        Size in characters.
    braille : bool
        Draw with 2 x 4 dots per character; otherwise with stars.
    limits : pair of float, optional
        Heights of the bottom and the top (default: those of the curve).
    """
    height = 4 * rows
    low, high = limits or (float(values.min()), float(values.max()))
    scale = (height - 1) / (high - low) if high > low else 0.0
    levels = (
        np.rint((high - values) * scale).astype(int) if scale else np.full(len(values), height // 2)
    )
    dots = np.zeros((height, 2 * columns), bool)
    for x, level in enumerate(levels):
        before = levels[max(0, x - 1)]
        # Connect a steep curve to the previous column without gaps.
        begin = level if abs(level - before) <= 1 else before + int(np.sign(level - before))
        dots[min(begin, level) : max(begin, level) + 1, x] = True
    cells = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    if braille:
        codes = (cells * _DOTS).sum(axis=(2, 3))
        return ["".join(chr(0x2800 + code) for code in row) for row in codes]
    letters = np.where(cells.any(axis=(2, 3)), "*", " ")
    return ["".join(row) for row in letters]

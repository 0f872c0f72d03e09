"""Sprite sheets: many small images in one PNG, which takes far less space than one PNG each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.types import Array

Position = tuple[int, int]
"""Column and row of an image on its sheet."""

_COLUMNS = 40  # per sheet
_NEGATIVE, _POSITIVE = (217, 95, 2), (31, 119, 180)  # orange and blue, as in units.js and page.css


@dataclass
class SpriteSheet:
    """A sprite sheet: a grid of square images of the same size.

    Parameters
    ----------
    side : int
        Side of each image, in pixels.
    """

    side: int
    _images: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, picture: NDArray[np.uint8]) -> Position:
        """Add an image, ``(side, side)`` or ``(side, side, 4)``, and return its column and row."""
        row, column = divmod(len(self._images), _COLUMNS)
        self._images.append(picture)
        return column, row

    @property
    def columns(self) -> int:
        """Number of columns."""
        return min(len(self._images), _COLUMNS)

    def to_url(self) -> str:
        """Return the sheet, which must not be empty, as a PNG in a ``data:`` URL."""
        from PIL import Image

        rows = [
            np.concatenate(self._filled(self._images[begin : begin + _COLUMNS]), axis=1)
            for begin in range(0, len(self._images), _COLUMNS)
        ]
        content = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(content, "png", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"

    def _filled(self, row: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Return a row padded with empty images to the number of columns."""
        return row + [np.zeros_like(row[0])] * (self.columns - len(row))


def diverging(weights: Array) -> NDArray[np.uint8]:
    """Return weights as colors: blue above 0, orange below, more transparent near 0.

    Parameters
    ----------
    weights : array, shape (height, width)
        The weights; the one with the largest absolute value is opaque.

    Returns
    -------
    array of uint8, shape (height, width, 4)
        Red, green, blue and opacity.
    """
    sizes = np.abs(weights)
    colors = np.where(weights[..., None] < 0, _NEGATIVE, _POSITIVE)
    opacity = np.rint(255 * sizes / (sizes.max() or 1))
    return np.concatenate([colors, opacity[..., None]], axis=2).astype(np.uint8)


def largest_norm(weights: Array, count: int) -> Iterable[int]:
    """Return the columns of weights ``(inputs, units)`` with the largest norms, in column order."""
    norms = np.linalg.norm(weights.astype(np.float64), axis=0)
    return sorted(np.argsort(-norms, kind="stable")[:count].tolist())

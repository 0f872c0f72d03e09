"""Small pictures in the page: many on one sheet, which costs a fraction of a file each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array

Place = tuple[int, int]
"""The column and the row of a picture on its sheet."""

_COLUMNS = 40  # of a sheet
_NEGATIVE, _POSITIVE = (59, 130, 246), (234, 88, 12)  # blue and orange, as of canvases


@dataclass
class Sheet:
    """Pictures of one size, beside and below each other.

    Parameters
    ----------
    side : int
        Of each of them, in pixels.
    """

    side: int
    _pictures: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def places(self) -> list[Place]:
        """Where each picture is."""
        return [self._place(number) for number in range(len(self._pictures))]

    def add(self, picture: NDArray[np.uint8]) -> Place:
        """Add a picture ``(side, side)``, grey, or with four channels; return column and row."""
        self._pictures.append(picture)
        return self._place(len(self._pictures) - 1)

    @property
    def columns(self) -> int:
        """The pictures beside each other."""
        return min(len(self._pictures), _COLUMNS)

    def to_url(self) -> str:
        """Return the sheet as a PNG in a ``data:`` URL, with at least one picture."""
        from PIL import Image

        rows = [
            np.concatenate(self._filled(self._pictures[begin : begin + _COLUMNS]), axis=1)
            for begin in range(0, len(self._pictures), _COLUMNS)
        ]
        content = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(content, "png", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"

    def _place(self, number: int) -> Place:
        return number % _COLUMNS, number // _COLUMNS

    def _filled(self, row: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Return a row of as many pictures as the first one has; those that it lacks are empty."""
        return row + [np.zeros_like(row[0])] * (self.columns - len(row))


def diverging(weights: Array) -> NDArray[np.uint8]:
    """Return weights as colours: orange above 0, blue below, the fainter the nearer to it.

    Parameters
    ----------
    weights : array, shape (height, width)
        The largest of which is opaque.

    Returns
    -------
    array of uint8, shape (height, width, 4)
        Red, green, blue and opacity.
    """
    sizes = np.abs(weights)
    colours = np.where(weights[..., None] < 0, _NEGATIVE, _POSITIVE)
    opacity = np.rint(255 * sizes / (sizes.max() or 1))
    return np.concatenate([colours, opacity[..., None]], axis=2).astype(np.uint8)


def strongest(weights: Array, most: int) -> Iterable[int]:
    """Return the columns of weights ``(inputs, units)`` with the most length, in their order."""
    lengths = np.linalg.norm(weights.astype(np.float64), axis=0)
    return sorted(np.argsort(-lengths, kind="stable")[:most].tolist())

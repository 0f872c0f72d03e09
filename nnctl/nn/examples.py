"""Labeled examples, the input of training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnctl.nn.types import Array


@dataclass(frozen=True, eq=False)
class Examples:
    """A set of labeled examples.

    Parameters
    ----------
    inputs : array of uint8, shape (n, features)
        Pixels, 0 to 255. They are scaled to 0..1 one block at a time, because uint8 takes a quarter
        of the memory of float32.
    labels : array of integer, shape (n,)
        Classes, counted from 0.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.labels)


def scale(pixels: NDArray[np.uint8], out: Array) -> None:
    """Scale pixels from 0..255 to 0..1 and write them to `out`."""
    np.multiply(pixels, out.dtype.type(1 / 255), out=out)


def scaled(pixels: NDArray[np.uint8], dtype: DTypeLike = np.float32) -> Array:
    """Return a copy of pixels, scaled from 0..255 to 0..1."""
    out: Array = np.empty(pixels.shape, dtype)
    scale(pixels, out)
    return out

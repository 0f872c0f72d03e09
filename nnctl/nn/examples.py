"""Inputs with their labels, as the training loop and the evaluation take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnctl.nn.activations import Array


@dataclass(frozen=True)
class Examples:
    """A set of labelled examples.

    Parameters
    ----------
    inputs : array of uint8, shape (n, features)
        Pixels; they are scaled to 0..1 when a block of them is needed, which reads a quarter of the
        memory that float32 would.
    labels : array of integer, shape (n,)
        Classes, from 0.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.labels)


def scale(pixels: NDArray[np.uint8], out: Array) -> None:
    """Write pixels 0..255 to `out` as 0..1."""
    np.copyto(out, pixels)  # a fifth faster than multiplying what is converted on the way
    out *= out.dtype.type(1 / 255)


def scaled(pixels: NDArray[np.uint8], dtype: DTypeLike = np.float32) -> Array:
    """Return pixels 0..255 as new numbers 0..1."""
    out: Array = np.empty(pixels.shape, dtype)
    scale(pixels, out)
    return out

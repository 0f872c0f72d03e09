"""Labeled examples, the input of training and evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnctl.errors import UsageError
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


def as_batch(values: ArrayLike, inputs: int) -> tuple[NDArray[Any], bool]:
    """Return the inputs of one example or of several as a batch, and whether there is only one.

    Parameters
    ----------
    values : array-like
        Numbers, shape (n, inputs) or (n, height, width); for one example (inputs,) or
        (height, width).
    inputs : int
        Number of inputs of an example.

    Returns
    -------
    batch : array of integer or of float32, shape (n, inputs)
        The inputs; truth values are numbers of float32.
    is_one : bool
        Whether `values` is one example without the first axis.

    Raises
    ------
    UsageError
        The values have another shape, or are not finite numbers.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise UsageError("the inputs are not an array: their rows have different lengths") from None
    if array.dtype.kind not in "biuf":
        kind = {"U": "text", "O": "objects"}.get(array.dtype.kind, array.dtype.name)
        raise UsageError(f"the inputs must be an array of numbers, got {kind}")
    shape, n = array.shape, len(array) if array.ndim else 0
    # An array whose rows are whole examples is a batch, even if it has as many numbers as one.
    is_batch = n > 0 and array.size == n * inputs and (array.ndim == 3 or shape[1:] == (inputs,))
    is_one = not is_batch and array.ndim in (1, 2) and array.size == inputs
    if not (is_batch or is_one):
        side = math.isqrt(inputs)
        image = f" or ({side}, {side})" if side > 1 and side**2 == inputs else ""
        raise UsageError(
            f"expected one example of shape ({inputs},){image}, or n examples of shape "
            f"(n, {inputs}), got {shape}"
        )
    batch = array.reshape(-1, inputs)
    if array.dtype.kind in "iu":
        return batch, is_one
    with np.errstate(over="ignore"):
        batch = batch.astype(np.float32, copy=False)
    if not np.isfinite(batch).all():
        raise UsageError("the inputs contain numbers that are not finite in float32")
    return batch, is_one

"""Corruptions of test images, in five strengths each, to measure the robustness of a network.

After Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (2019), with corruptions that are typical of handwritten digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.augmentation import GROUP, Deformations, grid
from nnctl.nn.types import Array

Images = NDArray[np.uint8]

_DIRECTIONS = np.radians(np.arange(0, 360, 45))


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption.

    Parameters
    ----------
    name : str
        Name in reports.
    unit : str
        Unit of the amounts.
    amounts : tuple of float
        Strengths, from the weakest to the strongest.
    apply : callable
        Function of images ``(n, side * side)``, an amount and a random generator; returns
        corrupted images of the same shape.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    apply: Callable[[Images, float, np.random.Generator], Images]


def add_noise(images: Images, std: float, rng: np.random.Generator) -> Images:
    """Add Gaussian noise with this standard deviation, where white is 1."""
    return _as_bytes(images / 255 + std * rng.standard_normal(images.shape, np.float32))


def rotate(images: Images, degrees: float, rng: np.random.Generator) -> Images:
    """Rotate images about their center, left or right at random."""
    angles = math.radians(degrees) * rng.choice([-1, 1], math.ceil(len(images) / GROUP))
    turns = np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]])
    return _take_from(images, np.moveaxis(turns, 2, 0) @ grid(_side(images)))


def shift(images: Images, pixels: float, rng: np.random.Generator) -> Images:
    """Move images by this many pixels, in one of eight random directions."""
    angles = rng.choice(_DIRECTIONS, math.ceil(len(images) / GROUP))
    offsets = pixels * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return _take_from(images, grid(_side(images)) + offsets[:, :, None])


def blur(images: Images, sigma: float, rng: np.random.Generator) -> Images:
    """Blur images with a Gaussian of this standard deviation, in pixels."""
    side = _side(images)
    distances = np.subtract.outer(np.arange(side), np.arange(side))
    matrix = np.exp(-0.5 * (distances / sigma) ** 2)
    matrix /= np.exp(-0.5 * (np.arange(-side, side + 1) / sigma) ** 2).sum()
    blurred = matrix @ (images.reshape(-1, side, side) / 255) @ matrix
    return _as_bytes(blurred.reshape(images.shape))


def thicken(images: Images, pixels: float, rng: np.random.Generator) -> Images:
    """Make strokes wider, by this many pixels on each side."""
    return _over_directions(np.maximum, images, pixels)


def thin(images: Images, pixels: float, rng: np.random.Generator) -> Images:
    """Make strokes narrower, by this many pixels on each side."""
    return _over_directions(np.minimum, images, pixels)


CORRUPTIONS = (
    Corruption("noise", "std, white = 1", (0.1, 0.2, 0.3, 0.4, 0.5), add_noise),
    Corruption("rotation", "degrees", (10, 20, 30, 40, 50), rotate),
    Corruption("shift", "pixels", (1, 2, 3, 4, 5), shift),
    Corruption("blur", "pixels", (0.5, 1, 1.5, 2, 2.5), blur),
    Corruption("thinner", "pixels", (0.25, 0.5, 0.75, 1, 1.25), thin),
    Corruption("thicker", "pixels", (0.25, 0.5, 0.75, 1, 1.25), thicken),
)
"""All corruptions, with five strengths each."""


def _over_directions(extreme: np.ufunc, images: Images, pixels: float) -> Images:
    """Return for each pixel the extreme value among the pixels at this distance around it."""
    result, groups = images, math.ceil(len(images) / GROUP)
    for angle in _DIRECTIONS:
        offset = pixels * np.array([[math.sin(angle)], [math.cos(angle)]])
        places = np.broadcast_to(grid(_side(images)) + offset, (groups, 2, images.shape[1]))
        moved = _take_from(images, places)
        result = extreme(result, moved)
    return result


def _take_from(images: Images, places: NDArray[np.float64]) -> Images:
    """Return images whose pixels are read at positions (y, x) relative to the center."""
    side = _side(images)
    out = np.empty(images.shape, np.float32)
    Deformations((places + (side - 1) / 2).astype(np.float32), side).apply(images, 0, out)
    return _as_bytes(out)


def _side(images: Images) -> int:
    return math.isqrt(images.shape[1])


def _as_bytes(images: Array | NDArray[np.float64]) -> Images:
    levels: Images = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    return levels

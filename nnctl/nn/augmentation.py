"""Data augmentation: random deformations of the training images.

A deformation maps each pixel of the new image to a position in the original image and interpolates
bilinearly between the pixels around it. `GROUP` consecutive images share one deformation, so that
their pixels are gathered together: this costs a few microseconds per image. The examples are
shuffled, so the images of a group differ in each epoch.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.types import Array

GROUP = 8
"""Number of images that share a deformation."""
_CHUNK = 8 * GROUP  # images that are deformed at once


@dataclass(frozen=True)
class Elastic:
    """A smooth random field of displacements (Simard et al., 2003).

    Parameters
    ----------
    alpha : float
        Factor on the displacements, which are drawn from -1 to 1 for each pixel and axis.
    sigma : float
        Standard deviation, in pixels, of the Gaussian that smooths the displacements.
    """

    alpha: float = 34.0
    sigma: float = 4.0

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Array:
        """Return displacements (y, x) in pixels, shape ``(count, 2, side, side)``."""
        noise = 2 * rng.random((count, 2, side, side), np.float32) - 1
        blur = _blur(side, self.sigma)
        fields: Array = self.alpha * (blur @ noise @ blur)
        return fields


@dataclass(frozen=True)
class Augmentation:
    """Limits of the random deformations; each amount is drawn uniformly from -limit to limit.

    Parameters
    ----------
    shift : float
        Translation along each axis, in pixels.
    rotate : float
        Rotation about the center, in degrees.
    scale : float
        Relative stretching of each axis: 0.1 is up to 10 %.
    shear : float
        Slant of vertical lines, in degrees.
    elastic : Elastic, optional
        Elastic distortion.
    noise : float
        Standard deviation of the Gaussian noise added to each pixel, where white is 1.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: Elastic | None = None
    noise: float = 0.0

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Deformations:
        """Return random deformations for `count` images of ``side * side`` pixels."""
        groups = math.ceil(count / GROUP)
        places = self._matrices(groups, rng) @ grid(side)
        places += rng.uniform(-self.shift, self.shift, (groups, 2, 1)) + (side - 1) / 2
        if self.elastic:
            places += self.elastic.draw(groups, side, rng).reshape(places.shape)
        noise = None
        if self.noise:
            noise = rng.standard_normal((count, side * side), np.float32)
            noise *= self.noise
        return Deformations(places.astype(np.float32), side, noise)

    def _matrices(self, groups: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the matrices that map new positions (y, x) to old ones, ``(groups, 2, 2)``."""
        angle, lean = (
            np.radians(rng.uniform(-limit, limit, groups)) for limit in (self.rotate, self.shear)
        )
        shard = 1 + rng.uniform(-self.scale, self.scale, (groups, 2))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        slant = np.array([[np.ones(groups), np.zeros(groups)], [np.tan(lean), np.ones(groups)]])
        linear = np.moveaxis(turn, 2, 0) @ np.moveaxis(slant, 2, 0)
        scaled: NDArray[np.float64] = linear / shard[:, None, :]
        return scaled


class Deformations:
    """Deformations of a number of images: where each new pixel comes from.

    Parameters
    ----------
    places : array of float32, shape (groups, 2, side * side)
        Position (y, x) in the original image for each new pixel; outside of the image all is black.
    side : int
        Width and height of the images, in pixels.
    noise : array, shape (n, side * side), optional
        Noise added to the deformed images; the sum is clipped to 0..1.
    """

    def __init__(self, places: Array, side: int, noise: Array | None = None) -> None:
        self._places = places
        self._side = side
        self._noise = noise

    def apply(self, pixels: NDArray[np.uint8], first: int, out: Array) -> None:
        """Write deformed images to `out`, with values from 0 to 1.

        Parameters
        ----------
        pixels : array of uint8, shape (n, side * side)
            Images to deform.
        first : int
            Index of the first image among all that the deformations were drawn for.
        out : array, shape (n, side * side)
            Deformed images.
        """
        end = first + len(pixels)
        bounds = [first, *range((first // _CHUNK + 1) * _CHUNK, end, _CHUNK), end]
        for begin, stop in itertools.pairwise(bounds):
            rows = slice(begin - first, stop - first)
            self._apply_to_chunk(pixels[rows], begin, out[rows])
        if self._noise is not None:
            out += self._noise[first:end]
            np.clip(out, 0, 1, out=out)

    def _apply_to_chunk(self, pixels: NDArray[np.uint8], first: int, out: Array) -> None:
        """Deform a chunk: small enough for the cache, large enough for efficient NumPy calls."""
        side, end = self._side, first + len(pixels)
        row = side + 3  # width of a padded image: positions are clipped to its margins
        groups = slice(first // GROUP, math.ceil(end / GROUP))
        count = groups.stop - groups.start
        wanted = slice(first - GROUP * groups.start, end - GROUP * groups.start)

        images = np.zeros((count * GROUP, side, side), np.uint8)  # complete groups
        images[wanted] = pixels.reshape(-1, side, side)
        padded = np.zeros((count, row, row, GROUP), out.dtype)
        middle = slice(1, side + 1)
        padded[:, middle, middle] = images.reshape(count, GROUP, side, side).transpose(0, 2, 3, 1)
        values = padded.reshape(-1, GROUP)

        places = np.clip(self._places[groups], -1, side)
        corners = np.floor(places)
        down, right = np.moveaxis(places - corners, 1, 0)
        up, left = 1 - down, 1 - right
        y, x = np.moveaxis(corners.astype(np.intp) + 1, 1, 0)
        indices = ((np.arange(count)[:, None] * row + y) * row + x).ravel()
        sums: Array | None = None
        for offset, weights in (
            (0, up * left),
            (1, up * right),
            (row, down * left),
            (row + 1, down * right),
        ):
            product = np.take(values, indices + offset, 0, mode="clip")
            product *= weights.reshape(-1, 1)
            sums = product if sums is None else np.add(sums, product, out=sums)
        assert sums is not None
        deformed = sums.reshape(count, side * side, GROUP).transpose(0, 2, 1).reshape(-1, side**2)
        np.multiply(deformed[wanted], out.dtype.type(1 / 255), out=out)


@functools.cache
def grid(side: int) -> NDArray[np.float64]:
    """Return the positions (y, x) of the pixels relative to the center, ``(2, side * side)``."""
    line = np.arange(side) - (side - 1) / 2
    return np.stack(np.meshgrid(line, line, indexing="ij")).reshape(2, -1)


@functools.cache
def _blur(side: int, sigma: float) -> NDArray[np.float32]:
    """Return the matrix that blurs a column of pixels; outside of the image all values are 0."""
    line = np.arange(side)
    offsets = np.arange(-10 * side, 10 * side + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    distances = line[:, None] - line[None, :] + 10 * side
    matrix: NDArray[np.float32] = (kernel / kernel.sum())[distances].astype(np.float32)
    return matrix

"""Deformed copies of training images, so that a network learns what does not change a digit.

Each deformation is a map from the pixels of the new image to places in the old one, between whose
pixels it interpolates. A few images share one: then their pixels are gathered in runs, and all
deformations together cost a few microseconds an image. Which images those are is the shuffling's
choice, another one each epoch.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array

GROUP = 8
"""Images that share a deformation."""
_CHUNK = 8 * GROUP  # images that are deformed at a time


@dataclass(frozen=True)
class Elastic:
    """A smooth random field of displacements (Simard et al., 2003).

    Parameters
    ----------
    alpha : float
        The factor on the field: each pixel draws a displacement from -1 to 1 along either axis...
    sigma : float
        ...which a Gaussian of this standard deviation, in pixels, makes smooth.
    """

    alpha: float = 34.0
    sigma: float = 4.0

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Array:
        """Return displacements in pixels, down and across, ``(count, 2, side, side)``."""
        noise = 2 * rng.random((count, 2, side, side), np.float32) - 1
        blur = _blur(side, self.sigma)
        fields: Array = self.alpha * (blur @ noise @ blur)
        return fields


@dataclass(frozen=True)
class Augmentation:
    """How training images may be deformed; each amount is drawn from -limit to limit.

    Parameters
    ----------
    shift : float
        Pixels, along either axis.
    rotate : float
        Degrees, about the middle.
    scale : float
        The share by which either axis is longer or shorter.
    shear : float
        Degrees by which upright lines lean.
    elastic : Elastic, optional
        A random field of displacements.
    noise : float
        Standard deviation of what is added to each pixel, as a share of white.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: Elastic | None = None
    noise: float = 0.0

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Deformations:
        """Return deformations for so many images of ``side * side`` pixels."""
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
        """Return the linear part of each map, from new to old places (y, x), ``(groups, 2, 2)``."""
        angle, lean = (
            np.radians(rng.uniform(-limit, limit, groups)) for limit in (self.rotate, self.shear)
        )
        stretch = 1 + rng.uniform(-self.scale, self.scale, (groups, 2))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        slant = np.array([[np.ones(groups), np.zeros(groups)], [np.tan(lean), np.ones(groups)]])
        linear = np.moveaxis(turn, 2, 0) @ np.moveaxis(slant, 2, 0)
        scaled: NDArray[np.float64] = linear / stretch[:, None, :]
        return scaled


class Deformations:
    """Where the pixels of new images come from.

    Parameters
    ----------
    places : array of float32, shape (groups, 2, side * side)
        For each new pixel the place in the old image, down and across; outside of it all is black.
    side : int
        Of the images.
    noise : array, shape (n, side * side), optional
        What is added in the end; the sum is cut off at black and white.
    """

    def __init__(self, places: Array, side: int, noise: Array | None = None) -> None:
        self._places = places
        self._side = side
        self._noise = noise

    def apply(self, pixels: NDArray[np.uint8], first: int, out: Array) -> None:
        """Write deformed images to `out`, from 0 to 1.

        Parameters
        ----------
        pixels : array of uint8, shape (n, side * side)
            The images.
        first : int
            The number of the first of them, which tells their deformations.
        out : array, shape (n, side * side)
            Where to.
        """
        end = first + len(pixels)
        cuts = [first, *range((first // _CHUNK + 1) * _CHUNK, end, _CHUNK), end]
        for begin, stop in itertools.pairwise(cuts):
            rows = slice(begin - first, stop - first)
            self._apply_to_chunk(pixels[rows], begin, out[rows])
        if self._noise is not None:
            out += self._noise[first:end]
            np.clip(out, 0, 1, out=out)

    def _apply_to_chunk(self, pixels: NDArray[np.uint8], first: int, out: Array) -> None:
        """Deform some images: few enough for the cache, in calls large enough for NumPy."""
        side, end = self._side, first + len(pixels)
        row = side + 3  # of a padded image: no place is further out than its margins
        groups = slice(first // GROUP, math.ceil(end / GROUP))
        count = groups.stop - groups.start
        mine = slice(first - GROUP * groups.start, end - GROUP * groups.start)

        images = np.zeros((count * GROUP, side, side), np.uint8)  # whole groups
        images[mine] = pixels.reshape(-1, side, side)
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
            part = np.take(values, indices + offset, 0, mode="clip")
            part *= weights.reshape(-1, 1)
            sums = part if sums is None else np.add(sums, part, out=sums)
        assert sums is not None
        deformed = sums.reshape(count, side * side, GROUP).transpose(0, 2, 1).reshape(-1, side**2)
        np.multiply(deformed[mine], out.dtype.type(1 / 255), out=out)


@functools.cache
def grid(side: int) -> NDArray[np.float64]:
    """Return the places of pixels, down and across, from the middle, ``(2, side * side)``."""
    line = np.arange(side) - (side - 1) / 2
    return np.stack(np.meshgrid(line, line, indexing="ij")).reshape(2, -1)


@functools.cache
def _blur(side: int, sigma: float) -> NDArray[np.float32]:
    """Return the matrix that blurs a column; outside of the image there is nothing to blur in."""
    line = np.arange(side)
    reach = np.arange(-10 * side, 10 * side + 1)
    bell = np.exp(-0.5 * (reach / sigma) ** 2)
    distances = line[:, None] - line[None, :] + 10 * side
    matrix: NDArray[np.float32] = (bell / bell.sum())[distances].astype(np.float32)
    return matrix

"""Preprocessing a picture of a handwritten digit to an image like MNIST's, light on black.

Yann LeCun's page on MNIST: the digits "were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the
anti-aliasing technique", and were "centered in a 28x28 image by computing the center of mass of the
pixels, and translating the image so as to position this point at the center of the 28x28 field".

All functions take and return arrays; `normalise` applies them in order. Pictures are float32, from
0 (black) to 1 (white). Ink is measured as the difference from the paper, from 0 to 1.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from nnctl.errors import DataError

Picture = NDArray[np.float32]

SIDE, BOX = 28, 20
"""Side of an image in MNIST, and of the box that a digit fills, in pixels."""

WORKING_SIDE = 480
"""Longer side in pixels of the reduced picture: detailed enough for a digit, and fast."""

_MIN_CONTRAST = 0.04  # black to white is 1; a smaller difference from the paper is not ink
_MIN_SIGNAL = 6.0  # minimum contrast of a stroke, in standard deviations of the paper's noise
_PAPER, _INK = 0.2, 0.85  # fractions of a stroke's contrast: below is paper, above is full ink
_EDGE = 0.3  # fraction of a stroke's contrast at which the box around a digit ends
_CENTER = 14.5  # average center of mass in MNIST, which is the middle of a pixel
_MIN_WIDTH = 1.6  # pixels in the box of 20; MNIST has no thinner strokes, so they are thickened
_MIN_PART = 0.04  # fraction of the largest part's ink; smaller parts are specks


def normalise(picture: Picture, side: int = SIDE) -> NDArray[np.uint8]:
    """Return the image of a digit as a network trained on MNIST expects it.

    Parameters
    ----------
    picture : array of float32, shape (height, width)
        Picture, 0 (black) to 1 (white); dark on light or light on dark.
    side : int
        Side of the image; the digit fills 20/28 of it.

    Raises
    ------
    DataError
        The picture contains no stroke.

    Returns
    -------
    array of uint8, shape (side, side)
        0 is the paper, 255 the stroke.
    """
    image = as_it_is(picture, side)
    if image is not None:
        return image
    ink = find_ink(reduce(picture))
    return center(thicken(crop(ink)), side)


def as_it_is(picture: Picture, side: int) -> NDArray[np.uint8] | None:
    """Return a picture that already has the right size and a black or white border, else None."""
    if picture.shape != (side, side):
        return None
    pixels = np.rint(picture * 255).astype(np.uint8)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if not border.any() and pixels.any():
        return pixels
    if (border == 255).all() and not (pixels == 255).all():
        return 255 - pixels
    return None


def reduce(picture: Picture) -> Picture:
    """Shrink a picture whose longer side exceeds `WORKING_SIDE`."""
    longer = max(picture.shape)
    if longer <= WORKING_SIDE:
        return picture
    height, width = (max(1, round(size * WORKING_SIDE / longer)) for size in picture.shape)
    return resample(picture, height / picture.shape[0], (0.0, 0.0), (height, width))


def find_ink(picture: Picture) -> Picture:
    """Return the amount of ink in each pixel, 0 to 1, for any colors of paper and ink.

    Raises
    ------
    DataError
        The picture contains no ink.
    """
    size = max(picture.shape)
    smooth = blur(picture, max(size / 250, 1.0 if size > 120 else 0.0))
    contrast = smooth - fit_paper(smooth)
    contrast = contrast if is_light_on_dark(contrast) else -contrast
    strength = _strength(contrast)
    # The first estimate shows where the ink is. The pixels between give a second estimate of the
    # paper, which follows shadows that a quadratic surface cannot.
    paper = fill_from_paper(contrast, contrast < 0.5 * _PAPER * strength + _noise(contrast))
    contrast = contrast - paper
    strength = _strength(contrast)
    floor = max(_PAPER * strength, 3 * _noise(contrast))
    ink = np.clip((contrast - floor) / (_INK * strength - floor), 0, 1, dtype=np.float32)
    digit = keep_large_parts(ink)
    if not digit.any():
        raise _no_digit()
    return digit


def fit_paper(picture: Picture) -> Picture:
    """Return the paper's brightness: a robust fit of a quadratic surface to all pixels.

    Pixels far from the surface, which are ink, get less weight in each iteration.
    """
    height, width = picture.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    step = max(1, max(height, width) // 80)  # a few thousand pixels are enough
    basis, values = terms[::step, ::step].reshape(-1, 6), picture[::step, ::step].ravel()
    # The first surfaces are a constant and a plane, so that a stroke does not bend them.
    surface = np.array([np.median(values), 0, 0, 0, 0, 0])
    for used in (1, 3, *[6] * 12):
        residuals = values - basis @ surface
        scale = max(1.4826 * float(np.median(np.abs(residuals))), 0.004)
        weight = 1 / (1 + (residuals / (1.5 * scale)) ** 2) ** 2
        weighted = basis[:, :used] * weight[:, None]
        surface[:used] = np.linalg.lstsq(
            weighted.T @ basis[:, :used] + 1e-6 * np.eye(used), weighted.T @ values, rcond=None
        )[0]
        surface[used:] = 0
    return np.asarray(terms @ surface, np.float32)


def is_light_on_dark(contrast: Picture) -> bool:
    """Return whether the ink is lighter than the paper, which is the side with the heavier tail."""
    noise = 3 * _noise(contrast)
    lighter, darker = (
        float((np.maximum(side * contrast - noise, 0) ** 2).sum()) for side in (1, -1)
    )
    return lighter > darker


def fill_from_paper(picture: Picture, is_paper: NDArray[np.bool_]) -> Picture:
    """Return the smooth brightness of the paper, interpolated beneath the ink."""
    sigma = max(picture.shape) / 10
    weight = blur(is_paper.astype(np.float32), sigma)
    paper = blur(np.where(is_paper, picture, 0).astype(np.float32), sigma)
    return np.where(weight > 0.02, paper / np.maximum(weight, 0.02), 0).astype(np.float32)


def keep_large_parts(ink: Picture) -> Picture:
    """Remove specks, and parts that run along an edge, such as the border of a table."""
    parts = label(ink > 0)
    count = int(parts.max()) + 1
    amounts = np.bincount(parts.ravel(), ink.ravel(), count)
    strongest = np.zeros(count, np.float32)
    np.maximum.at(strongest, parts.ravel(), ink.ravel())
    amounts[0] = 0
    amounts[strongest < 0.6] = 0
    edges = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    along = sum(np.bincount(edge, minlength=count) for edge in edges)
    frames = (along > 0.5 * min(ink.shape)) & (amounts > 0)
    if (amounts[~frames] > 1e-3 * ink.size).any():
        amounts[frames] = 0
    amounts[amounts < max(_MIN_PART * amounts.max(), 1e-4 * ink.size, 3)] = 0
    return np.where(amounts[parts] > 0, ink, 0).astype(np.float32)


def label(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Label the connected components of a mask from 1 (8-connectivity); 0 is the background."""
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    rows, begins = np.nonzero(np.diff(padded, axis=1) == 1)
    _, ends = np.nonzero(np.diff(padded, axis=1) == -1)
    firsts = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    lefts, rights = begins.tolist(), ends.tolist()
    for (above, here), (_, below) in itertools.pairwise(itertools.pairwise(firsts)):
        i, j = above, here
        while i < here and j < below:
            if lefts[i] <= rights[j] and lefts[j] <= rights[i]:
                parents[root(j)] = root(i)
            if rights[i] < rights[j]:
                i += 1
            else:
                j += 1
    roots = np.array([root(run) for run in range(len(rows))], np.int64)
    _, numbers = np.unique(roots, return_inverse=True)
    marks = np.zeros((mask.shape[0], mask.shape[1] + 1), np.int64)
    np.add.at(marks, (rows, begins), numbers + 1)
    np.add.at(marks, (rows, ends), -(numbers + 1))
    return marks.cumsum(axis=1)[:, :-1]


def crop(ink: Picture) -> Picture:
    """Crop to the bounding box of the digit."""
    inside = ink > _EDGE
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def thicken(ink: Picture) -> Picture:
    """Thicken the strokes of a thin pen, which would disappear in a box of 20 pixels."""
    solid = np.pad(ink, 1) > 0.5
    area = int(solid.sum())
    outline = sum(int((np.diff(solid, axis=axis) != 0).sum()) for axis in (0, 1))
    # A line of length l and width w has the area lw and an outline of about 2l. Counted along the
    # grid, the outline is longer: by 4/pi on average over all directions.
    width = 2 * area / max(1.0, outline * np.pi / 4)
    missing = _MIN_WIDTH * max(ink.shape) / BOX - width
    radius = round(missing / 2)
    if radius < 1:
        return ink
    padded = np.pad(ink, radius)
    thick = padded.copy()
    for down in range(-radius, radius + 1):
        reach = int((radius**2 - down**2) ** 0.5)
        row = padded
        for _ in range(reach):
            row = np.maximum(row, np.maximum(_shifted(row, 1, 1), _shifted(row, -1, 1)))
        thick = np.maximum(thick, _shifted(row, down, 0))
    return thick


def center(ink: Picture, side: int = SIDE) -> NDArray[np.uint8]:
    """Return an image of the digit with its center of mass in the middle."""
    scale = side * BOX / SIDE / max(ink.shape)
    mass = float(ink.sum(dtype=np.float64))
    middles = [
        float(ink.sum(axis=1 - axis, dtype=np.float64) @ (np.arange(ink.shape[axis]) + 0.5)) / mass
        for axis in (0, 1)
    ]
    target = side * _CENTER / SIDE
    offset = (target - scale * middles[0], target - scale * middles[1])
    image = resample(ink, scale, offset, (side, side))
    return np.asarray(np.rint(255 * np.clip(image / image.max(), 0, 1)), np.uint8)


def resample(
    picture: Picture, scale: float, offset: tuple[float, float], shape: tuple[int, int]
) -> Picture:
    """Scale and move a picture; each new pixel is the mean of the area it covers, 0 outside.

    Parameters
    ----------
    picture : array of float32, shape (height, width)
        The picture.
    scale : float
        Pixels of the result per pixel of the picture.
    offset : pair of float
        Position of the upper left corner in the result, (down, across).
    shape : pair of int
        Shape of the result.
    """
    down, across = (
        _overlaps(size, scale, begin, new_size)
        for size, begin, new_size in zip(picture.shape, offset, shape, strict=True)
    )
    return np.asarray(down @ picture @ across.T, np.float32)


def _overlaps(size: int, scale: float, offset: float, new_size: int) -> Picture:
    """Return the overlap of each new pixel with each old pixel, shape (new_size, size)."""
    begins = offset + scale * np.arange(size)
    pixels = np.arange(new_size)[:, None]
    covered = np.minimum(begins + scale, pixels + 1) - np.maximum(begins, pixels)
    return np.asarray(np.maximum(covered, 0), np.float32)


def blur(picture: Picture, sigma: float) -> Picture:
    """Blur with three box filters, almost a Gaussian; edge pixels are repeated outside."""
    # Three boxes of width b together have the variance (b^2 - 1) / 4.
    radius = round(((4 * sigma**2 + 1) ** 0.5 - 1) / 2)
    if radius < 1:
        return picture
    result = picture.astype(np.float64)
    for _ in range(3):
        for axis in (0, 1):
            margins = [(0, 0), (0, 0)]
            margins[axis] = (radius + 1, radius)
            sums = np.pad(result, margins, mode="edge").cumsum(axis=axis)
            size, width = picture.shape[axis], 2 * radius + 1
            upper = sums.take(range(width, width + size), axis=axis)
            result = (upper - sums.take(range(size), axis=axis)) / width
    return result.astype(np.float32)


def _shifted(picture: Picture, by: int, axis: int) -> Picture:
    """Move a picture by whole pixels, and fill with 0."""
    result = np.roll(picture, by, axis)
    filled = slice(None, by) if by > 0 else slice(by, None)
    if by:
        result[(filled, slice(None)) if axis == 0 else (slice(None), filled)] = 0
    return result


def _noise(contrast: Picture) -> float:
    """Return the standard deviation of the paper's noise, estimated by the median deviation."""
    return 1.4826 * float(np.median(np.abs(contrast)))


def _strength(contrast: Picture) -> float:
    """Return the contrast of the strokes: the 75th percentile of pixels above Otsu's threshold.

    Raises
    ------
    DataError
        The contrast is too small for a stroke.
    """
    visible = max(_MIN_CONTRAST, _MIN_SIGNAL * _noise(contrast))
    threshold = otsu(contrast[contrast > -visible])
    strength = float(np.percentile(contrast[contrast >= threshold], 75))
    if strength < visible:
        raise _no_digit()
    return strength


def otsu(values: Picture) -> float:
    """Return Otsu's threshold: it minimizes the variance within the two classes of values."""
    counts, edges = np.histogram(values, bins=128)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts.sum() - counts.cumsum()
    sums = (counts * centers).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nan_to_num(between).argmax())])


def _no_digit() -> DataError:
    return DataError(
        "no digit is visible in the image",
        hint="Use a picture of a single large digit, dark on light.",
    )

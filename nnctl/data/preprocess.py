"""Preprocessing of pictures of handwritten digits to images like those of MNIST, light on black.

Yann LeCun's page on MNIST: the digits "were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the
anti-aliasing technique", and were "centered in a 28x28 image by computing the center of mass of the
pixels, and translating the image so as to position this point at the center of the 28x28 field".

Pictures are float32, from 0 (black) to 1 (white). Ink is measured as the difference from the paper,
from 0 to 1. Lengths are in pixels. This module requires Pillow and SciPy.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nnctl.errors import DataError

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE, BOX = 28, 20
"""Side of an image in MNIST, and of the box that a digit fills, in pixels."""

_MIN_CONTRAST = 0.04  # black to white is 1; a smaller difference from the paper is not ink
_MIN_SIGNAL = 6.0  # minimum contrast of a stroke, in standard deviations of the paper's noise
_MIN_SEPARATION = 0.77  # fraction of the variance between two levels; a gradient has 0.75
_MIN_PAPER = 0.1  # minimum fraction of paper at the edges of a picture cropped to its strokes
_PAPER, _INK = 0.2, 0.85  # fractions of a stroke's contrast: below is paper, above is full ink
_EDGE = 0.3  # fraction of a stroke's contrast at which the box around a digit ends
_CENTER = 14.5  # average center of mass in MNIST, which is the middle of a pixel
_MIN_WIDTH = 1.6  # pixels in the box of 20; MNIST has no thinner strokes, so they are thickened

_MIN_PEAK = 0.6  # fraction of a stroke's contrast that a component reaches somewhere
_MIN_COMPONENT = 0.04  # fraction of the largest component's ink; smaller ones are specks
_MIN_DIGIT = 1e-3  # fraction of the picture's pixels; with less ink there is only a frame or line
_MAX_LINE = 0.05  # thickness of a line across the picture, as a fraction of its length
_MIN_FRAME = 0.3  # fraction of the picture's longer side
_MIN_FRAMED = 0.25  # height of the strokes in a frame, as a fraction of its height
_MIN_DEEP = 0.02  # fraction of the pixels deep inside a frame that are ink
_MAX_GAP = 0.04  # fraction of the ink's height; closer strokes belong to the same digit
_MIN_HEIGHT = 0.5  # fraction of the ink's height; lower strokes belong to the digit next to them
_MIN_OVERLAP = 0.3  # fraction of the narrower width; such strokes are above each other

_NEIGHBORS = np.ones((3, 3))  # diagonal neighbors are connected


class Box(NamedTuple):
    """Position of a digit in a picture: the first row and column, and those after the last."""

    left: int
    top: int
    right: int
    bottom: int


class DigitImage(NamedTuple):
    """A digit of a picture.

    Parameters
    ----------
    image : array of uint8, shape (side, side)
        Image of the digit; 0 is the paper, 255 the stroke.
    box : Box
        Position of the digit in the picture.
    """

    image: NDArray[np.uint8]
    box: Box


def find_digits(picture: Pixels, side: int = SIDE) -> list[DigitImage]:
    """Return images of all digits, from left to right, as a network trained on MNIST expects them.

    Parameters
    ----------
    picture : array of float32, shape (height, width)
        Picture, 0 (black) to 1 (white), of a digit or of a row of digits that do not touch; dark
        on light or light on dark.
    side : int
        Side of an image; a digit fills 20/28 of it.

    Raises
    ------
    DataError
        The picture contains no stroke.
    """
    height, width = picture.shape
    image = as_mnist_image(picture, side)
    if image is not None:
        return [DigitImage(image, Box(0, 0, width, height))]
    ink, margin = find_ink(picture)
    ink = keep_digits(ink)
    digits = []
    for strokes in split(ink):
        digit, box = crop(np.where(strokes, ink, 0))
        box = Box(*(max(0, edge - margin) for edge in box))
        digits.append(DigitImage(normalize(digit, side), box))
    return digits


def as_mnist_image(picture: Pixels, side: int) -> NDArray[np.uint8] | None:
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


def find_ink(picture: Pixels) -> tuple[Pixels, int]:
    """Return the amount of ink in each pixel, 0 to 1, for any colors of paper and ink.

    If the picture is cropped to its strokes, a margin is added; its width is also returned.

    Raises
    ------
    DataError
        The picture contains no ink.
    """
    try:
        ink = measure_ink(picture)
    except DataError:
        ink = None
    if ink is not None and not all(edge.any() for edge in _edges(ink)):
        return ink, 0
    # The picture may be cropped to its strokes. With a margin, most of it is paper.
    paper = even_paper(picture)
    if paper is not None:
        margin = max(picture.shape) // 4 + 1
        return measure_ink(np.pad(picture, margin, constant_values=paper)), margin
    if ink is None:
        raise _no_digit()
    return ink, 0


def measure_ink(picture: Pixels) -> Pixels:
    """Return the ink of a picture that consists mostly of paper; see `find_ink`."""
    smooth = _smooth(picture)
    noise = _noise(smooth)
    contrast = smooth - fit_paper(smooth)
    contrast = contrast if is_light_on_dark(contrast) else -contrast
    strength = _strength(contrast, noise)
    # The first estimate shows where the ink is. The other pixels give a second estimate of the
    # paper, which also fits shadows that a quadratic surface does not fit.
    contrast -= fill_from_paper(contrast, contrast < 0.5 * _PAPER * strength + noise)
    strength = _strength(contrast, noise)
    floor = max(_PAPER * strength, 3 * noise)
    ink = (contrast - floor) / (_INK * strength - floor)
    return np.asarray(np.clip(ink, 0, 1), np.float32)


def even_paper(picture: Pixels) -> float | None:
    """Return the paper's brightness if a picture has two clearly different levels, else None.

    The paper is the level of most pixels at the edges. But if strokes extend to all four edges, the
    paper is the level that the strokes divide into several pieces along the edges.
    """
    smooth = _smooth(picture)
    threshold, separation = otsu(smooth)
    if separation < _MIN_SEPARATION:
        return None
    is_dark = smooth < threshold
    is_light_edge = np.concatenate(_edges(is_dark)).mean() < 0.5
    is_light = _is_divided(~is_dark) or (is_light_edge and not _is_divided(is_dark))
    return float(np.median(picture[is_dark != is_light]))


def _is_divided(paper: Mask) -> bool:
    """Return whether strokes extend to all four edges and divide the paper there into pieces."""
    pieces, _ = ndimage.label(paper)
    edges = _edges(pieces)
    border = np.concatenate(edges)
    is_reached = all((edge == 0).any() for edge in edges)
    return is_reached and len({*border.tolist()}) > 2 and (border > 0).mean() > _MIN_PAPER


def fit_paper(picture: Pixels) -> Pixels:
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


def is_light_on_dark(contrast: Pixels) -> bool:
    """Return whether the ink is lighter than the paper.

    Ink differs more from the paper than noise does, so the sum of its squared contrasts is larger.
    """
    noise = 3 * 1.4826 * float(np.median(np.abs(contrast)))
    lighter, darker = (
        float((np.maximum(side * contrast - noise, 0) ** 2).sum()) for side in (1, -1)
    )
    return lighter > darker


def fill_from_paper(picture: Pixels, is_paper: Mask) -> Pixels:
    """Return the smooth brightness of the paper, interpolated beneath the ink."""
    width = max(picture.shape) // 3 + 1
    weight, paper = (
        ndimage.uniform_filter(values.astype(np.float32), width, mode="nearest")
        for values in (is_paper, np.where(is_paper, picture, 0))
    )
    return np.where(weight > 0.02, paper / np.maximum(weight, 0.02), 0).astype(np.float32)


def keep_digits(ink: Pixels) -> Pixels:
    """Remove specks and printed lines.

    Raises
    ------
    DataError
        Nothing remains.
    """
    ink = remove_frames(ink)
    labels, count = ndimage.label(ink > 0, _NEIGHBORS)
    components = range(count + 1)  # 0 is the paper
    amounts = ndimage.sum_labels(ink, labels, components)
    amounts[ndimage.maximum(ink, labels, components) < _MIN_PEAK] = 0
    lines = find_lines(labels)
    if (np.delete(amounts, lines) > _MIN_DIGIT * ink.size).any():
        amounts[lines] = 0
    amounts[amounts < max(_MIN_COMPONENT * amounts.max(), 1e-4 * ink.size, 3)] = 0
    if not amounts.any():
        raise _no_digit()
    return np.where(amounts[labels] > 0, ink, 0)


def remove_frames(ink: Pixels) -> Pixels:
    """Remove closed lines around other strokes, such as a printed frame, also if strokes touch it.

    The outline of a digit is not a frame, because it has no strokes deep inside.
    """
    labels, _ = ndimage.label(ink > 0, _NEIGHBORS)
    result = ink.copy()
    for component, region in enumerate(ndimage.find_objects(labels), start=1):
        outline = labels[region] == component
        if max(outline.shape) < _MIN_FRAME * max(ink.shape):
            continue
        filled = ndimage.binary_fill_holes(outline)
        if outline.sum() > 0.5 * filled.sum():
            continue
        depth = np.ceil(ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1]).astype(int)
        areas = np.maximum(np.bincount(depth.ravel()), 1)
        shares = np.bincount(depth.ravel(), outline.ravel()) / areas
        thickness = 1 + int((shares[1:] < 0.5).argmax())
        strokes = (ink[region] > 0) & (depth > thickness + 1)
        rows = np.flatnonzero(strokes.any(axis=1))
        is_tall = rows.size and np.ptp(rows) > _MIN_FRAMED * len(strokes)
        if is_tall and strokes[depth > 0.5 * depth.max()].mean() > _MIN_DEEP:
            result[region][outline & ~strokes] = 0
    return result


def find_lines(labels: NDArray[np.int32]) -> list[int]:
    """Return the components that run along an edge, or are thin lines from left to right edge.

    Examples are the edge of a table, and the lines of ruled paper.
    """
    height, width = labels.shape
    areas = np.bincount(labels.ravel())
    along = np.bincount(np.concatenate(_edges(labels)), minlength=len(areas))
    across = set(labels[:, 0].tolist()) & set(labels[:, -1].tolist())
    return [
        component
        for component, area in enumerate(areas)
        if along[component] > 0.5 * min(height, width)
        or (component in across and area < _MAX_LINE * width**2)
    ]


def split(ink: Pixels) -> list[Mask]:
    """Return the strokes of each digit, from left to right.

    Strokes close to each other or above each other belong to the same digit, and low strokes to the
    digit next to them.
    """
    strokes = ink > 0
    height = np.ptp(np.flatnonzero(strokes.any(axis=1))) + 1
    near = ndimage.distance_transform_edt(~strokes) <= _MAX_GAP / 2 * height
    labels, _ = ndimage.label(near, _NEIGHBORS)
    labels[~strokes] = 0
    digits = sorted(
        (
            _Strokes([component], columns.start, columns.stop, rows.stop - rows.start)
            for component, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
        ),
        key=lambda digit: digit.left,
    )

    def gap(i: int) -> float:
        """Return the gap between two neighbors if they are one digit, else infinity."""
        one, other = digits[i : i + 2]
        gap = other.left - one.right
        narrower = min(one.right - one.left, other.right - other.left)
        is_one = -gap > _MIN_OVERLAP * narrower
        return gap if is_one or min(one.height, other.height) < _MIN_HEIGHT * height else math.inf

    while len(digits) > 1 and gap(i := min(range(len(digits) - 1), key=gap)) < math.inf:
        digits[i : i + 2] = [digits[i].merged(digits[i + 1])]
    return [np.isin(labels, digit.components) for digit in digits]


class _Strokes(NamedTuple):
    """Connected components that are one digit: their labels, columns and height."""

    components: list[int]
    left: int
    right: int
    height: int

    def merged(self, other: _Strokes) -> _Strokes:
        return _Strokes(
            self.components + other.components,
            min(self.left, other.left),
            max(self.right, other.right),
            max(self.height, other.height),
        )


def crop(ink: Pixels) -> tuple[Pixels, Box]:
    """Return the ink within the bounding box of a digit, and the box."""
    inside = ink > _EDGE
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return ink[box.top : box.bottom, box.left : box.right], box


def normalize(ink: Pixels, side: int = SIDE) -> NDArray[np.uint8]:
    """Return the image of a digit: its longer side is 20/28, its center of mass in the middle."""
    ink = thicken(ink)
    scale = side * BOX / SIDE / max(ink.shape)
    middle = [position + 0.5 for position in ndimage.center_of_mass(ink)]
    # The source of the image is a square, which extends beyond the box of the digit.
    margin = max(ink.shape)
    length = side / scale
    top, left = (margin + position - length * _CENTER / SIDE for position in middle)
    source = Image.fromarray(np.pad(ink, margin))
    box = (left, top, left + length, top + length)
    image = np.asarray(source.resize((side, side), Image.Resampling.HAMMING, box))
    return np.asarray(np.rint(255 * np.clip(image / image.max(), 0, 1)), np.uint8)


def thicken(ink: Pixels) -> Pixels:
    """Thicken the strokes of a thin pen, which would disappear in a box of 20 pixels."""
    solid = np.pad(ink, 1) > 0.5
    # The distances to the nearest edge are from 0 to half the width: a quarter on average.
    width = 4 * float(ndimage.distance_transform_edt(solid)[solid].mean())
    radius = (_MIN_WIDTH * max(ink.shape) / BOX - width) / 2
    if radius < 0.5:
        return ink
    padded = np.pad(ink, math.ceil(radius))
    distance = ndimage.distance_transform_edt(padded <= 0.5)
    return np.asarray(np.maximum(padded, np.clip(radius + 0.5 - distance, 0, 1)), np.float32)


def otsu(values: Pixels) -> tuple[float, float]:
    """Return Otsu's threshold, and the fraction of the variance between the two classes."""
    counts, edges = np.histogram(values, bins=128)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts.sum() - counts.cumsum()
    sums = (counts * centers).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = int(np.nan_to_num(between).argmax())
    total = float(counts @ (centers - sums[-1] / below[-1]) ** 2) * below[-1]
    return float(edges[1 + best]), float(np.nan_to_num(between)[best]) / max(total, 1e-12)


def _edges(picture: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the pixels at the four edges."""
    return [picture[0], picture[-1], picture[:, 0], picture[:, -1]]


def _smooth(picture: Pixels) -> Pixels:
    """Blur a picture a little, against noise and the artifacts of JPEG."""
    size = max(picture.shape)
    sigma = max(size / 250, 1.0) if size > 120 else 0.0
    return np.asarray(ndimage.gaussian_filter(picture, sigma, mode="nearest"), np.float32)


def _noise(smooth: Pixels) -> float:
    """Return the standard deviation of the paper's noise, from differences of pixels nearby."""
    step = max(1, max(smooth.shape) // 60)
    differences = [smooth[step:] - smooth[:-step], smooth[:, step:] - smooth[:, :-step]]
    sizes = np.abs(np.concatenate([values.ravel() for values in differences]))
    return 1.4826 / math.sqrt(2) * float(np.median(sizes)) if sizes.size else 0.0


def _strength(contrast: Pixels, noise: float) -> float:
    """Return the contrast of the strokes: the 75th percentile of pixels above Otsu's threshold.

    Raises
    ------
    DataError
        The contrast is too small for a stroke.
    """
    visible = max(_MIN_CONTRAST, _MIN_SIGNAL * noise)
    threshold, _ = otsu(contrast[contrast > -visible])
    strength = float(np.percentile(contrast[contrast >= threshold], 75))
    if strength < visible:
        raise _no_digit()
    return strength


def _no_digit() -> DataError:
    return DataError(
        "no digit is visible in the image",
        hint="Use a picture of large digits, dark on light.",
    )

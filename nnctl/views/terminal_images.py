"""Draws images in the terminal, with half-block characters or with ASCII characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from nnctl.nn.types import Array
from nnctl.text import percent
from nnctl.views.console import is_unicode

_WIDEST = 36  # pixels; leaves room for text to the right in 80 columns
_RAMP = " .:-=+*#%@"
_GAP = "   "
_NEGATIVE, _POSITIVE = (255, 140, 0), (70, 150, 255)  # orange and blue, brighter than in reports
_WEAK, _STRONG = 0.08, 0.4  # parts of the largest number, for its characters


def is_plain(console: Console) -> bool:
    """Return whether a console lacks shades of gray or half-block characters."""
    has_grays = console.color_system in ("256", "truecolor")
    return not (has_grays and is_unicode(console))


def draw(image: NDArray[np.uint8], *, plain: bool) -> list[Text]:
    """Return the lines that draw an image, each with two rows of pixels.

    Parameters
    ----------
    image : array of uint8, shape (height, width)
        The image.
    plain : bool
        Use ASCII characters only; see `is_plain`.
    """
    if not plain:
        return _draw_colors(np.repeat(image[..., None], 3, axis=2))
    even = np.pad(image, ((0, len(image) % 2), (0, 0))).astype(int)
    levels = (even[::2] + even[1::2]) * len(_RAMP) // 511  # the lighter a pixel, the denser
    return [Text("".join(_RAMP[level] for level in row)) for row in levels]


def print_side_by_side(
    console: Console, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> None:
    """Print images with captions below them, as many in a row as the window is wide."""
    plain = is_plain(console)
    print_drawings(console, [draw(shrink(image), plain=plain) for image in images], captions)


def print_drawings(
    console: Console, drawings: Sequence[Sequence[Text]], captions: Sequence[str]
) -> None:
    """Print the lines of drawings with captions below them, as many in a row as there is room."""
    width = max([*(drawn[0].cell_len for drawn in drawings), *map(len, captions)], default=1)
    in_row = max(1, (console.width + len(_GAP)) // (width + len(_GAP)))
    for begin in range(0, len(drawings), in_row):
        row = slice(begin, begin + in_row)
        for parts in itertools.zip_longest(*drawings[row], fillvalue=Text("")):
            print_cut(console, _join_columns(parts, width))
        print_cut(console, _join_columns([Text(caption) for caption in captions[row]], width))


def _join_columns(parts: Sequence[Text], width: int) -> Text:
    line = Text()
    for part in parts:
        line.append_text(part)
        line.append(" " * (width - part.cell_len) + _GAP)
    return line


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image scaled down to leave room for text next to it, by averaging blocks."""
    factor = -(-image.shape[1] // _WIDEST)
    height, width = (-(-size // factor) * factor for size in image.shape)
    padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])))
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), np.uint8)


def _draw_colors(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image of red, green and blue, ``(height, width, 3)``.

    Each character shows two pixels, upper and lower.
    """
    even = np.pad(image, ((0, len(image) % 2), (0, 0), (0, 0)))
    lines = []
    for upper, lower in zip(even[::2].tolist(), even[1::2].tolist(), strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            colors = Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below))
            line.append("▀", colors)
        lines.append(line)
    return lines


def draw_signed(numbers: Array, *, plain: bool) -> list[Text]:
    """Return the lines that draw positive and negative numbers, each with two rows of them.

    Parameters
    ----------
    numbers : array, shape (height, width)
        The numbers. Positive ones are blue, negative ones orange; the largest is the brightest.
    plain : bool
        Draw with ``+`` and ``#`` for positive numbers, and ``-`` and ``=`` for negative ones.
    """
    largest = float(np.abs(numbers).max())
    relative = numbers / largest if 0 < largest < np.inf else np.zeros_like(numbers)
    if plain:
        even = np.pad(relative, ((0, len(relative) % 2), (0, 0)))
        upper, lower = even[::2], even[1::2]
        stronger = np.where(np.abs(upper) >= np.abs(lower), upper, lower)
        levels = np.digitize(stronger, [-_STRONG, -_WEAK, _WEAK, _STRONG])
        return [Text("".join("=- +#"[level] for level in row)) for row in levels]
    colors = np.where(relative[..., None] < 0, _NEGATIVE, _POSITIVE)
    return _draw_colors(np.rint(colors * np.abs(relative)[..., None]).astype(np.uint8))


def print_cut(console: Console, line: Text) -> None:
    """Print a line of an image; it is cut at the window's edge, since wrapping would ruin it."""
    console.print(line, no_wrap=True, overflow="crop", crop=True)


def share(output: float) -> str:
    """Return an output as a percentage if it is from 0 to 1, else as a number."""
    return percent(output, 1) if 0 <= output <= 1 else f"{output:.3g}"

"""Draws images in the terminal, with half-block characters or with ASCII characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.style import Style
from rich.text import Text

from nnctl.text import percent
from nnctl.views.console import is_unicode

_WIDEST = 36  # pixels; leaves room for text to the right in 80 columns
_RAMP = " .:-=+*#%@"
_GAP = "   "


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
    return _draw_letters(image) if plain else _draw_half_blocks(image)


def print_side_by_side(
    console: Console, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> None:
    """Print images with captions below them, as many in a row as the window is wide."""
    shown = [shrink(image) for image in images]
    width = max([*(image.shape[1] for image in shown), *map(len, captions)], default=1)
    in_row = max(1, (console.width + len(_GAP)) // (width + len(_GAP)))
    plain = is_plain(console)
    for begin in range(0, len(shown), in_row):
        row = slice(begin, begin + in_row)
        drawn = [draw(image, plain=plain) for image in shown[row]]
        for parts in itertools.zip_longest(*drawn, fillvalue=Text("")):
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


def _draw_half_blocks(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in gray; each character shows two pixels, upper and lower."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0)))
    lines = []
    for upper, lower in zip(even[::2].tolist(), even[1::2].tolist(), strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", Style(color=_gray(above), bgcolor=_gray(below)))
        lines.append(line)
    return lines


def _draw_letters(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in ASCII characters: the lighter a pixel, the denser."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0))).astype(int)
    levels = (even[::2] + even[1::2]) * len(_RAMP) // 511
    return [Text("".join(_RAMP[level] for level in row)) for row in levels]


def _gray(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


def print_cut(console: Console, line: Text) -> None:
    """Print a line of an image; it is cut at the window's edge, since wrapping would ruin it."""
    console.print(line, no_wrap=True, overflow="crop", crop=True)


def share(output: float) -> str:
    """Return an output as a percentage if it is from 0 to 1, else as a number."""
    return percent(output, 1) if 0 <= output <= 1 else f"{output:.3g}"

"""Images drawn in the terminal, in half blocks or in letters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.style import Style
from rich.text import Text

_WIDEST = 36  # pixels that leave room for words beside them in 80 columns
_RAMP = " .:-=+*#%@"
_GAP = "   "


def is_plain(console: Console) -> bool:
    """Tell whether a console has letters alone: no greys, or no half blocks."""
    greys = console.color_system in ("256", "truecolor")
    return not (greys and console.encoding.startswith("utf"))


def draw(image: NDArray[np.uint8], *, plain: bool) -> list[Text]:
    """Return lines that draw an image, two rows of pixels in each."""
    return _draw_letters(image) if plain else _draw_half_blocks(image)


def print_side_by_side(
    console: Console, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> None:
    """Print images with captions below them, as many in a row as there is room for."""
    shown = [shrink(image) for image in images]
    width = max([*(image.shape[1] for image in shown), *map(len, captions)], default=1)
    in_row = max(1, (console.width + len(_GAP)) // (width + len(_GAP)))
    plain = is_plain(console)
    for begin in range(0, len(shown), in_row):
        row = slice(begin, begin + in_row)
        drawn = [draw(image, plain=plain) for image in shown[row]]
        for parts in itertools.zip_longest(*drawn, fillvalue=Text("")):
            print_cut(console, _beside(parts, width))
        print_cut(console, _beside([Text(caption) for caption in captions[row]], width))


def _beside(parts: Sequence[Text], width: int) -> Text:
    line = Text()
    for part in parts:
        line.append_text(part)
        line.append(" " * (width - part.cell_len) + _GAP)
    return line


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that leaves room for words beside it, in means of as many pixels."""
    factor = -(-image.shape[1] // _WIDEST)
    height, width = (-(-size // factor) * factor for size in image.shape)
    padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])))
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), np.uint8)


def _draw_half_blocks(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in grey, two pixels a character, one above the other."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0)))
    lines = []
    for upper, lower in zip(even[::2].tolist(), even[1::2].tolist(), strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", Style(color=_grey(above), bgcolor=_grey(below)))
        lines.append(line)
    return lines


def _draw_letters(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in letters that are the darker, the lighter a pixel is."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0))).astype(int)
    levels = (even[::2] + even[1::2]) * len(_RAMP) // 511
    return [Text("".join(_RAMP[level] for level in row)) for row in levels]


def _grey(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


def print_cut(console: Console, line: Text) -> None:
    """Print a line of a picture, which would be none if it were wrapped."""
    console.print(line, no_wrap=True, overflow="crop", crop=True)


def share(output: float) -> str:
    """Return an output as a share, if it is one."""
    return f"{100 * output:.1f} %" if 0 <= output <= 1 else f"{output:.3g}"

"""What a network sees, and what it says of it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.style import Style
from rich.text import Text

from nnctl.runs.prediction import Prediction
from nnctl.views.console import notices, results, say

_WIDEST = 36  # pixels that leave room for the answer in 80 columns
_BAR = 20
_RAMP = " .:-=+*#%@"


class PredictionView:
    """Shows predictions on stdout as they come: pictures in a terminal, else a line each."""

    def __init__(self) -> None:
        self._console = results()
        self._errors = notices()

    def show(self, prediction: Prediction) -> None:
        """Show what is said of an image; or an error, on stderr."""
        if prediction.error is not None:
            self._show_error(prediction)
        elif self._console.is_terminal:
            self._show_picture(prediction)
        else:
            name, digit = _printable(prediction.name), prediction.best[0][0]
            best = ", ".join(f"{what} {_share(output)}" for what, output in prediction.best)
            # rich would make spaces of tabs.
            self._console.file.write(f"{name}\t{digit}\t{best}\n")

    def _show_error(self, prediction: Prediction) -> None:
        error = prediction.error
        assert error is not None
        name = _printable(prediction.name)
        message = Text(f"Error: {name}: {_printable(error.message)}", "red")
        say(self._errors, message)
        if error.hint:
            say(self._errors, f"Hint: {error.hint}")

    def _show_picture(self, prediction: Prediction) -> None:
        assert prediction.answer is not None
        shown = shrink(prediction.answer.image)
        plain = self._console.color_system not in (
            "256",
            "truecolor",
        ) or not self._console.encoding.startswith("utf")
        picture = draw_letters(shown) if plain else draw_half_blocks(shown)
        said = [Text.assemble("digit ", (prediction.best[0][0], "bold green")), Text("")]
        for name, output in prediction.best:
            full = round(_BAR * min(max(output, 0.0), 1.0))
            bar = ("#" if plain else "█") * full
            said.append(Text(f"{name:>5}  {_share(output):>7}  {bar}"))
        say(self._console, Text(_printable(prediction.name), "bold"))
        above = max(0, len(picture) - len(said)) // 2
        aside = [*itertools.repeat(Text(""), above), *said]
        for line, words in itertools.zip_longest(picture, aside):
            left = line or Text(" " * shown.shape[1])
            _print_cut(self._console, Text.assemble(left, "   ", words or ""))
        say(self._console, "")


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that leaves room for words beside it, in means of as many pixels."""
    factor = -(-image.shape[1] // _WIDEST)
    height, width = (-(-size // factor) * factor for size in image.shape)
    padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])))
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), np.uint8)


def draw_half_blocks(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in grey, two pixels a character, one above the other."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0)))
    lines = []
    for upper, lower in zip(even[::2].tolist(), even[1::2].tolist(), strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", Style(color=_grey(above), bgcolor=_grey(below)))
        lines.append(line)
    return lines


def draw_letters(image: NDArray[np.uint8]) -> list[Text]:
    """Return lines that draw an image in letters that are the darker, the lighter a pixel is."""
    even = np.pad(image, ((0, len(image) % 2), (0, 0))).astype(int)
    levels = (even[::2] + even[1::2]) * len(_RAMP) // 511
    return [Text("".join(_RAMP[level] for level in row)) for row in levels]


def _grey(level: int) -> str:
    return f"#{level:02x}{level:02x}{level:02x}"


def _share(output: float) -> str:
    """Return an output as a share, if it is one."""
    return f"{100 * output:.1f} %" if 0 <= output <= 1 else f"{output:.3g}"


def _print_cut(console: Console, line: Text) -> None:
    """Print a line of a picture, which would be none if it were wrapped."""
    console.print(line, no_wrap=True, overflow="crop", crop=True)


def _printable(text: str) -> str:
    """Return a name without what would move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)

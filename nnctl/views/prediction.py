"""Prints predictions: the image as the network sees it, and its most likely classes."""

from __future__ import annotations

import itertools

from rich.text import Text

from nnctl.analysis.prediction import FilePrediction
from nnctl.text import one_line
from nnctl.views.console import notices, results, say
from nnctl.views.terminal_images import draw, is_plain, print_cut, share, shrink

_BAR = 20  # characters of a bar for 100 %


class PredictionView:
    """Prints predictions on stdout one by one: images in a terminal, a line for each in a file."""

    def __init__(self) -> None:
        self._console = results()
        self._errors = notices()

    def show(self, prediction: FilePrediction) -> None:
        """Print the prediction for an image, or its error on stderr."""
        if prediction.error is not None:
            self._show_error(prediction)
        elif self._console.is_terminal:
            self._show_picture(prediction)
        else:
            name, digit = one_line(prediction.name), prediction.best[0][0]
            best = ", ".join(f"{label} {share(output)}" for label, output in prediction.best)
            # rich would replace tabs by spaces.
            self._console.file.write(f"{name}\t{digit}\t{best}\n")

    def _show_error(self, prediction: FilePrediction) -> None:
        error = prediction.error
        assert error is not None
        message = Text(f"Error: {one_line(prediction.name)}: {one_line(error.message)}", "red")
        say(self._errors, message)
        if error.hint:
            say(self._errors, f"Hint: {error.hint}")

    def _show_picture(self, prediction: FilePrediction) -> None:
        assert prediction.prediction is not None
        shown = shrink(prediction.prediction.image)
        plain = is_plain(self._console)
        picture = draw(shown, plain=plain)
        lines = [Text.assemble("digit ", (prediction.best[0][0], "bold green")), Text("")]
        for name, output in prediction.best:
            full = round(_BAR * min(max(output, 0.0), 1.0))
            bar = ("#" if plain else "█") * full
            lines.append(Text(f"{name:>5}  {share(output):>7}  {bar}"))
        say(self._console, Text(one_line(prediction.name), "bold"))
        above = max(0, len(picture) - len(lines)) // 2
        right = [*itertools.repeat(Text(""), above), *lines]
        for pixels, text in itertools.zip_longest(picture, right):
            left = pixels or Text(" " * shown.shape[1])
            print_cut(self._console, Text.assemble(left, "   ", text or ""))
        say(self._console, "")

"""Prints predictions: the image as the network sees it, and its most likely classes."""

from __future__ import annotations

import itertools

from rich.text import Text

from nnctl.analysis.prediction import FilePrediction, Prediction, Score
from nnctl.text import one_line, percent
from nnctl.views.console import GREEN, ORANGE, notices, results, say
from nnctl.views.terminal_images import draw, is_plain, print_cut, share, shrink

NO_DIGIT = "no digit"
"""Text in place of a prediction that is below the threshold."""

_BAR = 20  # characters of a bar for 100 %


class PredictionView:
    """Prints predictions on stdout one by one: images in a terminal, a line for each in a file."""

    def __init__(self) -> None:
        self._console = results()
        self._errors = notices()

    def show_bundled(self) -> None:
        """Print on stderr that no run is given."""
        say(self._errors, "No RUN is given: using the network that ships with nnctl.")

    def show(self, prediction: FilePrediction) -> None:
        """Print the prediction for an image, or its error on stderr."""
        if error := prediction.error:
            message = f"Error: {one_line(prediction.name)}: {one_line(error.message)}"
            say(self._errors, Text(message, "red"))
            if error.hint:
                say(self._errors, f"Hint: {error.hint}")
        elif self._console.is_terminal:
            say(self._console, Text(one_line(prediction.name), "bold"))
            if len(prediction.digits) > 1:
                say(self._console, Text.assemble(*_headline(prediction)))
            for digit in prediction.digits:
                self._show_digit(prediction, digit)
        else:
            name, predicted = one_line(prediction.name), prediction.predicted or NO_DIGIT
            if len(prediction.digits) == 1:
                shown = prediction.best(prediction.digits[0])
            else:
                shown = [prediction.best(digit)[0] for digit in prediction.digits]
            outputs = ", ".join(f"{label} {share(output)}" for label, output in shown)
            # rich would replace tabs by spaces.
            self._console.file.write(f"{name}\t{predicted}\t{outputs}\n")

    def show_score(self, score: Score) -> None:
        """Print the accuracy for the pictures with a label."""
        rejected = f", {score.rejected} without a prediction" if score.rejected else ""
        say(
            self._console,
            f"accuracy {percent(score.accuracy)} ({score.correct} of {score.labeled} "
            f"correct{rejected})",
        )

    def _show_digit(self, prediction: FilePrediction, digit: Prediction) -> None:
        shown = shrink(digit.image)
        plain = is_plain(self._console)
        picture = draw(shown, plain=plain)
        single = len(prediction.digits) == 1
        lines = [Text.assemble(*_headline(prediction)), Text("")] if single else []
        for name, output in prediction.best(digit):
            full = round(_BAR * min(max(output, 0.0), 1.0))
            bar = ("#" if plain else "█") * full
            lines.append(Text(f"{name:>5}  {share(output):>7}  {bar}"))
        above = max(0, len(picture) - len(lines)) // 2
        right = [*itertools.repeat(Text(""), above), *lines]
        for pixels, text in itertools.zip_longest(picture, right):
            left = pixels or Text(" " * shown.shape[1])
            print_cut(self._console, Text.assemble(left, "   ", text or ""))
        say(self._console, "")


def _headline(prediction: FilePrediction) -> list[str | tuple[str, str]]:
    """Return the prediction, in the form of `Text.assemble`."""
    if prediction.predicted is None:
        return [(NO_DIGIT, f"bold {ORANGE}")]
    name = prediction.predicted
    what = "number" if len(prediction.digits) > 1 else "digit" if name.isdigit() else "class"
    return [f"{what} ", (name, f"bold {GREEN}")]

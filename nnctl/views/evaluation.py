"""Prints an evaluation: accuracy, metrics of each class, confusion matrix and mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nnctl.analysis.evaluation import Evaluation, Mistake, Selective
from nnctl.text import percent
from nnctl.views.console import GREEN, ORANGE, heading, make_table, results, say
from nnctl.views.terminal_images import print_side_by_side, share

_MAX_COLUMNS = 12  # of a confusion matrix that fits into a terminal
_MOST = 5  # pairs of classes in the list of most frequent mistakes


def show_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation on stdout.

    The accuracy and the loss are followed by the metrics of each class and, unless there are too
    many classes, the confusion matrix; for a single digit by its metrics and the matrix; for a
    logic gate by the truth table.
    """
    console = results()
    right = int(evaluation.confusion.trace())
    what = f"{evaluation.dataset}, {evaluation.split} split, {evaluation.checkpoint} checkpoint"
    say(console, f"{evaluation.run_dir} on {what}")
    say(
        console,
        Text.assemble(
            ("accuracy ", ""),
            (percent(evaluation.accuracy), f"bold {GREEN}"),
            f" ({right:,} of {evaluation.n:,} correct), loss {evaluation.loss:.4f}",
        ),
    )
    if evaluation.selective:
        _show_selective(console, evaluation.selective, evaluation.n)
    if evaluation.amplified:
        _show_gains(console, evaluation)
    if evaluation.corrupted:
        _print_table(console, "Accuracy on corrupted images", _corrupted(evaluation))
    if evaluation.truth_table:
        _print_table(console, "Truth table", _truth_table(evaluation))
        return
    kind = "digit" if evaluation.has_digits else "class"
    if evaluation.is_binary:
        _show_question(console, evaluation)
    else:
        _print_table(console, f"Each {kind}", _classes(evaluation, kind))
    title = f"Confusion matrix: true {kind} (rows), predicted {kind} (columns)"
    if len(evaluation.classes) <= _MAX_COLUMNS:
        _print_table(console, title, _confusion(evaluation))
    mistakes = [] if evaluation.is_binary else _mistakes(evaluation)
    if mistakes:
        text = Text(f"most frequent mistakes: {', '.join(mistakes)}")
        console.print(text, soft_wrap=not console.is_terminal)  # a single line in a file
    if evaluation.mistakes:
        _show_worst(console, evaluation.mistakes)


def _show_selective(console: Console, selective: Selective, n: int) -> None:
    """Print the coverage and the accuracy at the confidence threshold, of `n` predictions."""
    correct = f", {percent(selective.accuracy)} of them correct" if selective.answered else ""
    say(
        console,
        f"confidence at least {100 * selective.threshold:.12g} %: {selective.answered:,} of "
        f"{n:,} predictions ({percent(selective.coverage)}){correct}",
    )
    error = f"expected calibration error {percent(selective.calibration_error)}"
    say(console, f"{error}: average gap between confidence and accuracy")


def _corrupted(evaluation: Evaluation) -> Table:
    """Return the accuracy on corrupted images: a row for each kind, the strongest on the right."""
    strengths = range(1, 1 + len(evaluation.corrupted[0].amounts))
    table = make_table("", "none", *map(str, strengths))
    table.columns[0].justify = "left"
    for row in evaluation.corrupted:
        cells = [
            Text.assemble(f"{percent(accuracy, 1)}\n", (f"{amount:g}", "dim"))
            for amount, accuracy in zip(row.amounts, row.accuracies, strict=True)
        ]
        name = Text.assemble(f"{row.corruption}\n", (row.unit, "dim"))
        table.add_row(name, percent(evaluation.accuracy, 1), *cells)
    return table


def _show_worst(console: Console, mistakes: Sequence[Mistake]) -> None:
    """Print the worst mistakes: images in a terminal, a line for each in a file."""
    heading(console, "Worst mistakes")
    captions = [
        f"{mistake.expected} predicted as {mistake.answer}, {share(mistake.output)}"
        for mistake in mistakes
    ]
    if console.is_terminal:
        print_side_by_side(console, [mistake.image for mistake in mistakes], captions)
        return
    for mistake, caption in zip(mistakes, captions, strict=True):
        say(console, f"image {mistake.index}: {caption}, loss {mistake.loss:.3g}")


def _truth_table(evaluation: Evaluation) -> Table:
    """Return the network's prediction for each example, and whether it is correct."""
    first = evaluation.truth_table[0]
    inputs = [f"x{i}" for i in range(1, len(first.inputs) + 1)]
    outputs = ["output", *(len(first.outputs) - 1) * [""]]
    table = make_table(*inputs, "expected", *outputs, "answer", left=[""])
    for row in evaluation.truth_table:
        right = row.answer == row.expected
        table.add_row(
            *(f"{number:g}" for number in row.inputs),
            f"{row.expected}",
            *(f"{number:.3g}" for number in row.outputs),
            f"{row.answer}",
            Text("right", GREEN) if right else Text("wrong", "bold red"),
        )
    return table


def _show_question(console: Console, evaluation: Evaluation) -> None:
    """Print precision, recall and F1 of the positive class."""
    name, row = evaluation.classes[1], evaluation.per_class[1]
    true_positives, predicted = evaluation.confusion[1, 1], evaluation.confusion[:, 1].sum()
    say(console, "")
    say(
        console,
        f"precision {row.precision:.4f}: {true_positives:,} of {predicted:,} predictions "
        f'"{name}" are correct',
    )
    say(
        console,
        f"recall    {row.recall:.4f}: {true_positives:,} of {row.support:,} images of {name} "
        "are recognized",
    )
    say(console, f"F1        {row.f1:.4f}: the harmonic mean of the two")


def _show_gains(console: Console, evaluation: Evaluation) -> None:
    """Print accuracy and loss of the network with its weights and biases multiplied by gains."""
    table = make_table("gain", "accuracy", "loss")
    for row in evaluation.amplified:
        limit = "" if math.isfinite(row.gain) else " (step units)"
        loss = "-" if row.loss is None else f"{row.loss:{'.4f' if row.loss < 1e6 else '.4g'}}"
        table.add_row(f"{row.gain:g}{limit}", percent(row.accuracy), loss)
    _print_table(console, "All weights and biases multiplied by a gain", table)


def _print_table(console: Console, title: str, table: Table) -> None:
    """Print a title and a table below it; the title may be wider than the table."""
    heading(console, title)
    console.print(table)


def _classes(evaluation: Evaluation, kind: str) -> Table:
    table = make_table(kind, "precision", "recall", "F1", "examples")
    worst = min((row.f1 for row in evaluation.per_class if row.support), default=None)
    for name, row in zip(evaluation.classes, evaluation.per_class, strict=True):
        table.add_row(
            name,
            f"{row.precision:.4f}",
            f"{row.recall:.4f}",
            f"{row.f1:.4f}",
            f"{row.support:,}",
            style=ORANGE if row.support and row.f1 == worst else "",
        )
    return table


def _confusion(evaluation: Evaluation) -> Table:
    """Return the confusion matrix: zeros as dots, the most frequent mistakes in red.

    Columns with long names are numbered, and the rows have the number and the name.
    """
    names = evaluation.classes
    is_long = not evaluation.is_binary and max(map(len, names)) > 2
    table = make_table("", *(map(str, range(len(names))) if is_long else names))
    most = max(1, int(_off_diagonal(evaluation).max()))
    for digit, name in enumerate(names):
        cells = []
        for predicted, count in enumerate(evaluation.confusion[digit].tolist()):
            if digit == predicted:
                cells.append(Text(f"{count}", GREEN))
            elif count:
                cells.append(Text(f"{count}", "bold red" if count > most / 2 else ORANGE))
            else:
                cells.append(Text("·", "dim"))
        table.add_row(Text(f"{digit} {name}" if is_long else name, "bold"), *cells)
    return table


def _off_diagonal(evaluation: Evaluation) -> NDArray[np.integer]:
    """Return the confusion matrix without the correct predictions."""
    matrix = evaluation.confusion
    return matrix - np.diag(np.diag(matrix))


def _mistakes(evaluation: Evaluation) -> list[str]:
    """Return the most frequent mistakes, as in ``4 predicted as 9 (12x)``."""
    off_diagonal = _off_diagonal(evaluation)
    order = np.argsort(off_diagonal, axis=None, kind="stable")[::-1][:_MOST]
    pairs = zip(*np.unravel_index(order, off_diagonal.shape), strict=True)
    return [
        f"{evaluation.classes[digit]} predicted as {evaluation.classes[predicted]} "
        f"({off_diagonal[digit, predicted]}x)"
        for digit, predicted in pairs
        if off_diagonal[digit, predicted]
    ]

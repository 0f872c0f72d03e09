"""An evaluation as people see it: tables in which the eye finds the mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nnctl.runs.evaluation import Evaluation, Mistake
from nnctl.views.console import results, say
from nnctl.views.pictures import print_side_by_side, share

_MOST = 5  # kinds of mistake that are listed


def show_evaluation(evaluation: Evaluation) -> None:
    """Print on stdout how good a network is, and where it errs.

    That is accuracy and loss, and of digits the metrics of each and the confusion matrix; of a
    single digit its own metrics, and the matrix; of a logic gate the truth table.
    """
    console = results()
    right = int(evaluation.confusion.trace())
    what = f"{evaluation.dataset}, {evaluation.split} split, {evaluation.checkpoint} checkpoint"
    say(console, f"{evaluation.run_dir} on {what}")
    say(
        console,
        Text.assemble(
            ("accuracy ", ""),
            (f"{100 * evaluation.accuracy:.2f} %", "bold green"),
            f" ({right:,} of {evaluation.n:,} right), loss {evaluation.loss:.4f}",
        ),
    )
    if evaluation.selective:
        _show_selective(console, evaluation)
    if evaluation.amplified:
        _show_gains(console, evaluation)
    if evaluation.corrupted:
        _print_table(console, "Accuracy on images with faults", _corrupted(evaluation))
    if evaluation.truth_table:
        _print_table(console, "Truth table", _truth_table(evaluation))
        return
    if evaluation.is_binary:
        _show_question(console, evaluation)
    else:
        _print_table(console, "Each digit", _digits(evaluation))
    kind = "class" if evaluation.is_binary else "digit"
    _print_table(console, f"True {kind} (rows) by answer (columns)", _confusion(evaluation))
    mistakes = [] if evaluation.is_binary else _mistakes(evaluation)
    if mistakes:
        told = Text(f"most frequent mistakes: {', '.join(mistakes)}")
        console.print(told, soft_wrap=not console.is_terminal)  # in a file it is one line
    if evaluation.mistakes:
        _show_worst(console, evaluation.mistakes)


def _show_selective(console: Console, evaluation: Evaluation) -> None:
    """Print how many answers are sure enough, and how many of these are right."""
    selective = evaluation.selective
    assert selective is not None
    of_these = "" if selective.accuracy is None else f", {100 * selective.accuracy:.2f} % right"
    say(
        console,
        f"at least {100 * selective.threshold:.12g} % sure: {selective.answered:,} of "
        f"{evaluation.n:,} answers ({100 * selective.coverage:.2f} %){of_these}",
    )
    error = 100 * selective.calibration_error
    say(
        console,
        f"expected calibration error {error:.2f} %: by so much it is surer than right, or less "
        "sure, in the mean",
    )


def _corrupted(evaluation: Evaluation) -> Table:
    """Return the accuracy on images with faults, a kind a row, the strongest on the right."""
    table = Table(box=box.SIMPLE)
    table.add_column("")
    table.add_column("none", justify="right")
    for strength in range(1, 1 + len(evaluation.corrupted[0].amounts)):
        table.add_column(str(strength), justify="right")
    for row in evaluation.corrupted:
        cells = [
            Text.assemble(f"{100 * accuracy:.1f} %\n", (f"{amount:g}", "dim"))
            for amount, accuracy in zip(row.amounts, row.accuracies, strict=True)
        ]
        told = Text.assemble(f"{row.corruption}\n", (row.unit, "dim"))
        table.add_row(told, f"{100 * evaluation.accuracy:.1f} %", *cells)
    return table


def _show_worst(console: Console, mistakes: Sequence[Mistake]) -> None:
    """Print the worst mistakes: pictures in a terminal, else a line each."""
    say(console, Text("\nWorst mistakes", "bold"))
    if console.is_terminal:
        captions = [f"{it.expected} taken for {it.answer}, {share(it.output)}" for it in mistakes]
        print_side_by_side(console, [mistake.image for mistake in mistakes], captions)
        return
    for it in mistakes:
        told = f"image {it.index}: {it.expected} taken for {it.answer}, {share(it.output)}"
        say(console, f"{told}, loss {it.loss:.3g}")


def _truth_table(evaluation: Evaluation) -> Table:
    """Return what the network answers to each example, and whether that is right."""
    table = Table(box=box.SIMPLE)
    first = evaluation.truth_table[0]
    inputs = [f"x{i}" for i in range(1, len(first.inputs) + 1)]
    outputs = ["output", *(len(first.outputs) - 1) * [""]]
    for name in (*inputs, "expected", *outputs, "answer"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in evaluation.truth_table:
        right = row.answer == row.expected
        table.add_row(
            *(f"{number:g}" for number in row.inputs),
            f"{row.expected}",
            *(f"{number:.3g}" for number in row.outputs),
            f"{row.answer}",
            Text("right", "green") if right else Text("wrong", "bold red"),
        )
    return table


def _show_question(console: Console, evaluation: Evaluation) -> None:
    """Print how well the one digit that was asked for is told from all others."""
    name, row = evaluation.classes[1], evaluation.per_class[1]
    found, answers = (
        int(counts[1]) for counts in (evaluation.confusion[1], evaluation.confusion.sum(axis=0))
    )
    say(console, "")
    say(
        console,
        f'precision {row.precision:.4f}: of {answers:,} answers "{name}", {found:,} are right',
    )
    say(
        console,
        f"recall    {row.recall:.4f}: of {row.support:,} images of {name}, {found:,} are found",
    )
    say(console, f"F1        {row.f1:.4f}: the harmonic mean of the two")


def _show_gains(console: Console, evaluation: Evaluation) -> None:
    """Print what becomes of the network when its weights and biases grow."""
    table = Table(box=box.SIMPLE)
    for name in ("gain", "accuracy", "loss"):
        table.add_column(name, justify="right")
    for row in evaluation.amplified:
        limit = "" if math.isfinite(row.gain) else " (step units)"
        loss = "-" if row.loss is None else f"{row.loss:{'.4f' if row.loss < 1e6 else '.4g'}}"
        table.add_row(f"{row.gain:g}{limit}", f"{100 * row.accuracy:.2f} %", loss)
    _print_table(console, "All weights and biases multiplied by a gain", table)


def _print_table(console: Console, title: str, table: Table) -> None:
    """Print a table below its title, which may be the wider one."""
    say(console, "")
    say(console, Text(title, "bold"))
    console.print(table)


def _digits(evaluation: Evaluation) -> Table:
    table = Table(box=box.SIMPLE)
    for name in ("digit", "precision", "recall", "F1", "examples"):
        table.add_column(name, justify="right")
    worst = min((row.f1 for row in evaluation.per_class if row.support), default=None)
    for name, row in zip(evaluation.classes, evaluation.per_class, strict=True):
        table.add_row(
            name,
            f"{row.precision:.4f}",
            f"{row.recall:.4f}",
            f"{row.f1:.4f}",
            f"{row.support:,}",
            style="yellow" if row.support and row.f1 == worst else "",
        )
    return table


def _confusion(evaluation: Evaluation) -> Table:
    """Return the confusion matrix: zeros as dots, the most frequent mistakes in red."""
    table = Table(box=box.SIMPLE)
    table.add_column("")
    classes = len(evaluation.classes)
    for name in evaluation.classes:
        table.add_column(name, justify="right")
    off_diagonal = evaluation.confusion.copy()
    np.fill_diagonal(off_diagonal, 0)
    most = max(1, int(off_diagonal.max()))
    for digit in range(classes):
        cells = []
        for answer in range(classes):
            count = int(evaluation.confusion[digit, answer])
            if digit == answer:
                cells.append(Text(f"{count}", "green"))
            elif count:
                cells.append(Text(f"{count}", "bold red" if count > most / 2 else "yellow"))
            else:
                cells.append(Text("·", "dim"))
        table.add_row(Text(evaluation.classes[digit], "bold"), *cells)
    return table


def _mistakes(evaluation: Evaluation) -> list[str]:
    """Return the most frequent kinds of mistake in words."""
    off_diagonal = evaluation.confusion.copy()
    np.fill_diagonal(off_diagonal, 0)
    order = np.argsort(off_diagonal, axis=None, kind="stable")[::-1][:_MOST]
    pairs = zip(*np.unravel_index(order, off_diagonal.shape), strict=True)
    return [
        f"{evaluation.classes[digit]} taken for {evaluation.classes[answer]} "
        f"({off_diagonal[digit, answer]}x)"
        for digit, answer in pairs
        if off_diagonal[digit, answer]
    ]

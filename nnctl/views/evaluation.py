"""An evaluation as people see it: tables in which the eye finds the mistakes."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from nnctl.runs.evaluation import Evaluation
from nnctl.views.console import results, say

_MOST = 5  # kinds of mistake that are listed


def show_evaluation(evaluation: Evaluation) -> None:
    """Print accuracy and loss, the metrics of each digit, and the confusion matrix on stdout."""
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
    say(console, "")
    console.print(_classes(evaluation))
    console.print(_confusion(evaluation))
    mistakes = _mistakes(evaluation)
    if mistakes:
        say(console, f"most frequent mistakes: {', '.join(mistakes)}")


def _classes(evaluation: Evaluation) -> Table:
    table = Table(box=box.SIMPLE, title="Each digit", title_justify="left", title_style="bold")
    for name in ("digit", "precision", "recall", "F1", "images"):
        table.add_column(name, justify="right")
    worst = min((row.f1 for row in evaluation.per_class if row.support), default=None)
    for digit, row in enumerate(evaluation.per_class):
        table.add_row(
            str(digit),
            f"{row.precision:.4f}",
            f"{row.recall:.4f}",
            f"{row.f1:.4f}",
            f"{row.support:,}",
            style="yellow" if row.support and row.f1 == worst else "",
        )
    return table


def _confusion(evaluation: Evaluation) -> Table:
    """Return the confusion matrix: zeros as dots, the most frequent mistakes in red."""
    table = Table(
        box=box.SIMPLE,
        title="True digit (rows) by answer (columns)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("")
    classes = len(evaluation.confusion)
    for answer in range(classes):
        table.add_column(str(answer), justify="right")
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
        table.add_row(Text(str(digit), "bold"), *cells)
    return table


def _mistakes(evaluation: Evaluation) -> list[str]:
    """Return the most frequent kinds of mistake in words."""
    off_diagonal = evaluation.confusion.copy()
    np.fill_diagonal(off_diagonal, 0)
    order = np.argsort(off_diagonal, axis=None, kind="stable")[::-1][:_MOST]
    pairs = zip(*np.unravel_index(order, off_diagonal.shape), strict=True)
    return [
        f"{digit} taken for {answer} ({off_diagonal[digit, answer]}x)"
        for digit, answer in pairs
        if off_diagonal[digit, answer]
    ]

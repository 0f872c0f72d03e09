"""Writes results as Markdown to the summary page of a GitHub Actions step, if there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnctl.text import duration, percent, short_value
from nnctl.views.console import warn

if TYPE_CHECKING:  # a training needs neither evaluations nor sweeps, whose models take 30 ms
    from nnctl.analysis.evaluation import Evaluation
    from nnctl.runs.training_run import TrainingRun
    from nnctl.sweeps.results import Setting

_LEADERS = 10


def summarize_training(training: TrainingRun) -> None:
    """Add the result of a training, and the problems that were found."""
    summary = training.summary
    kind = "validation"
    accuracy, loss = summary.best_val_accuracy, summary.best_val_loss
    if accuracy is None:  # no validation examples
        kind = "training"
        accuracy, loss = summary.final_train_accuracy, summary.final_train_loss
    cells = (
        percent(accuracy),
        "-" if loss is None else f"{loss:.4f}",
        "-" if summary.best_epoch is None else str(summary.best_epoch),
        str(summary.epochs),
        duration(summary.seconds),
        summary.status.replace("_", " "),
    )
    titles = (f"{kind} accuracy", f"{kind} loss", "best epoch", "epochs", "time", "status")
    problems = [
        f"- **{problem.title}**: {problem.evidence}. Try: {problem.cure}."
        for problem in summary.diagnoses
    ]
    _append(f"Training of {training.run.directory.name}", titles, [cells], problems)


def summarize_evaluation(evaluation: Evaluation) -> None:
    """Add the result of an evaluation."""
    cells = (percent(evaluation.accuracy), f"{evaluation.loss:.4f}", f"{evaluation.n:,}")
    title = f"{evaluation.run_dir.name} on {evaluation.dataset}, {evaluation.split} split"
    _append(title, ("accuracy", "loss", "images"), [cells])


def summarize_sweep(name: str, settings: Sequence[Setting], metric: str) -> None:
    """Add the best settings of a sweep, which is ranked by a metric."""
    kind = "training" if metric == "train_loss" else "validation"
    keys = list(settings[0].point) if settings else []
    rows = [
        (
            str(setting.best.trial),
            percent(setting.accuracy),
            f"{setting.loss:.4f}",
            *(short_value(setting.point[key]) for key in keys),
        )
        for setting in settings[:_LEADERS]
    ]
    _append(f"Sweep {name}", ("trial", f"{kind} accuracy", f"{kind} loss", *keys), rows)


def _append(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    paragraphs: Sequence[str] = (),
) -> None:
    """Append a table, and paragraphs; a file that cannot be written is a warning."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    table = [columns, ["---"] * len(columns), *rows]
    lines = [f"### {title}", "", *(_row(cells) for cells in table), ""]
    if paragraphs:
        lines += [*paragraphs, ""]
    try:
        with open(path, "a", encoding="utf-8", errors="replace", newline="\n") as file:  # noqa: PTH123
            file.write("\n".join(lines) + "\n")
    except (OSError, ValueError) as error:
        warn(f"GITHUB_STEP_SUMMARY: {path} cannot be written: {error}")


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"

"""Compares trained runs: their settings, accuracies, and the digits that only one gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnctl.analysis.comparison import mcnemar
from nnctl.analysis.evaluation import Evaluation, evaluate
from nnctl.errors import UsageError
from nnctl.runs.differences import varied_settings
from nnctl.runs.history import epochs_of
from nnctl.runs.resolve import Notify
from nnctl.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run, its results, and its difference from the first run.

    Parameters
    ----------
    run_dir : str
        Run directory.
    settings : dict
        Values of the keys in which the runs differ.
    val_accuracy, test_accuracy : float, optional
        Best validation accuracy, and accuracy on the test set.
    test_loss : float
        Mean loss on the test set.
    epochs : int
        Number of complete epochs.
    best_epoch : int
        Epoch of the evaluated network.
    seconds : float
        Wall time of the training.
    only_this, only_first : int
        Number of test images that only this run, or only the first run, classifies correctly.
    p : float
        p-value of McNemar's test of the difference; see `nnctl.analysis.comparison.mcnemar`.
    gained, lost : dict of str to int
        For each class, the images that only this run, or only the first run, gets right.
    """

    run_dir: str
    settings: dict[str, Any]
    val_accuracy: float | None
    test_accuracy: float
    test_loss: float
    epochs: int
    best_epoch: int
    seconds: float
    only_this: int
    only_first: int
    p: float
    gained: dict[str, int]
    lost: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


def compare_runs(runs: Sequence[Run], *, notify: Notify) -> list[ComparedRun]:
    """Compare runs with the first of them, on the test images.

    Raises
    ------
    UsageError
        A run is given twice, fewer than two runs are given, or their test images differ.
    DataError
        A run or its dataset cannot be read.
    """
    if len({run.directory.resolve() for run in runs}) < max(2, len(runs)):
        raise UsageError("expected two or more different runs to compare")
    evaluations = [evaluate(run, notify=notify) for run in runs]
    first = evaluations[0]
    for other in evaluations[1:]:
        if not first.predictions.has_same_examples(other.predictions):
            raise UsageError(
                f"{first.run_dir} and {other.run_dir} have different test images or labels "
                f"({first.dataset} and {other.dataset}), so they cannot be compared"
            )
    varied = varied_settings(run.config for run in runs)
    return [
        _compare(run, first, evaluation, settings)
        for run, evaluation, settings in zip(runs, evaluations, varied, strict=True)
    ]


def _compare(
    run: Run, first: Evaluation, evaluation: Evaluation, settings: dict[str, Any]
) -> ComparedRun:
    history, summary, right = run.history, run.summary, evaluation.predictions.right
    only_this = right & ~first.predictions.right
    only_first = first.predictions.right & ~right
    accuracies = [epoch.val_accuracy for epoch in history if epoch.val_accuracy is not None]

    def by_class(images: Any) -> dict[str, int]:
        counts = np.bincount(evaluation.predictions.labels[images])
        return {evaluation.classes[i]: int(n) for i, n in enumerate(counts) if n}

    return ComparedRun(
        run_dir=str(run.directory),
        settings=settings,
        val_accuracy=max(accuracies, default=None),
        test_accuracy=evaluation.accuracy,
        test_loss=evaluation.loss,
        epochs=epochs_of(history),
        best_epoch=evaluation.epoch,
        seconds=summary.seconds if summary else sum(epoch.seconds for epoch in history),
        only_this=int(only_this.sum()),
        only_first=int(only_first.sum()),
        p=mcnemar(first.predictions.right, right),
        gained=by_class(only_this),
        lost=by_class(only_first),
    )

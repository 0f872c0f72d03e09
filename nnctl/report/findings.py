"""Sentences that state what a chart shows; empty if there is nothing to state."""

from __future__ import annotations

from collections.abc import Sequence

from nnctl.analysis.evaluation import Corrupted
from nnctl.nn.events import EpochMetrics
from nnctl.nn.metrics import CalibrationBin, expected_calibration_error
from nnctl.text import percent, short_value

_CALIBRATED = 0.01  # largest calibration error that is not worth mentioning


def about_curves(history: Sequence[EpochMetrics], best: EpochMetrics | None) -> str:
    """Return at which epoch the network was best, and what happened since then."""
    if best is None or len(history) < 2:
        return ""
    last = history[-1]
    if best.epoch == last.epoch:
        return f"best at the last epoch, {last.epoch}; more epochs may help"
    if last.train_accuracy > best.train_accuracy:
        return f"best at epoch {best.epoch}; since then only the training images improve"
    return f"best at epoch {best.epoch} of {last.epoch}"


def about_classes(names: Sequence[str], accuracies: Sequence[float | None]) -> str:
    """Return the class with the lowest accuracy."""
    known = [
        (accuracy, name)
        for name, accuracy in zip(names, accuracies, strict=True)
        if accuracy is not None
    ]
    if len(known) < 2:
        return ""
    accuracy, name = min(known)
    return f"the hardest is {name}: {percent(accuracy, 1)} after the last epoch"


def about_corruptions(rows: Sequence[Corrupted]) -> str:
    """Return the corruption that lowers the accuracy most."""
    worst = min(rows, key=lambda row: row.accuracies[-1], default=None)
    if worst is None:
        return ""
    return f"{worst.corruption} hurts most: {percent(worst.accuracies[-1], 0)} at the strongest"


def about_calibration(bins: Sequence[CalibrationBin]) -> str:
    """Return whether the network is overconfident or underconfident."""
    error = expected_calibration_error(bins)
    if not bins or error < _CALIBRATED:
        return "confidence and accuracy agree" if bins else ""
    total = sum(bin_.count for bin_ in bins)
    confidence = sum(bin_.count * bin_.confidence for bin_ in bins) / total
    accuracy = sum(bin_.count * bin_.accuracy for bin_ in bins) / total
    how = "overconfident" if confidence > accuracy else "underconfident"
    return f"{how}: confidence and accuracy differ by {percent(error, 1)} on average"


def about_points(values: Sequence[object], best: int) -> str:
    """Return the best value of a parameter, if there are several."""
    return f"best with {short_value(values[best])}" if len({*map(str, values)}) > 1 else ""

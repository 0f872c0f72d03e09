"""Sentences that state what a chart shows; empty if there is nothing to state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import Corrupted
from nnctl.diagnosis.network import VANISHING_GRADIENT
from nnctl.nn.events import EpochMetrics
from nnctl.nn.health import LayerHealth
from nnctl.nn.metrics import CalibrationBin, expected_calibration_error
from nnctl.text import percent, short_value

USUAL_STEP = 1e-3
"""Norm of a step, relative to the weights, that is usual in networks that learn well."""
_FACTOR = 10  # steps that are larger or smaller by this factor are worth mentioning
_MAX_NAMES = 3  # classes of the same accuracy that are named
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


def about_losses(history: Sequence[EpochMetrics]) -> str:
    """Return at which epoch the validation loss was lowest, or how the training loss changed."""
    if len(history) < 2:
        return ""
    first, last = history[0], history[-1]
    measured = [(epoch.val_loss, epoch) for epoch in history if epoch.val_loss is not None]
    if not measured:
        change = "falls" if last.train_loss < first.train_loss else "does not fall"
        return f"the training loss {change}: {first.train_loss:.3g} to {last.train_loss:.3g}"
    _, lowest = min(measured, key=lambda pair: pair[0])
    if lowest.epoch == last.epoch:
        return "the validation loss is lowest at the last epoch"
    since = "; since then only the training loss falls"
    return f"the validation loss is lowest at epoch {lowest.epoch}" + (
        since if last.train_loss < lowest.train_loss else ""
    )


def about_classes(names: Sequence[str], accuracies: Sequence[float | None]) -> str:
    """Return the classes with the lowest accuracy."""
    known = {
        name: accuracy
        for name, accuracy in zip(names, accuracies, strict=True)
        if accuracy is not None
    }
    if len(known) < 2:
        return ""
    lowest = min(known.values())
    hardest = [name for name, accuracy in known.items() if accuracy == lowest]
    if len(hardest) == len(known):
        return f"all classes are equally hard: {percent(lowest, 1)}"
    if len(hardest) > _MAX_NAMES:
        return f"{len(hardest)} classes are the hardest: {percent(lowest, 1)}"
    verb = "is" if len(hardest) == 1 else "are"
    return f"the hardest {verb} {' and '.join(hardest)}: {percent(lowest, 1)}"


def about_confusion(names: Sequence[str], confusion: NDArray[np.int64]) -> str:
    """Return the classes with the lowest accuracy; a single one with its most frequent mistake.

    Parameters
    ----------
    names : sequence of str
        Names of the classes.
    confusion : array of int, shape (classes, classes)
        Number of images by true class (rows) and predicted class (columns).
    """
    support = confusion.sum(axis=1).tolist()
    right = confusion.diagonal().tolist()
    if sum(right) == sum(support):
        return "everything is classified correctly"
    accuracies = [hits / n if n else None for hits, n in zip(right, support, strict=True)]
    finding = about_classes(names, accuracies)
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if len(known) < 2 or known.count(min(known)) > 1:
        return finding
    hardest = accuracies.index(min(known))
    mistakes = confusion[hardest].copy()
    mistakes[hardest] = 0
    if np.count_nonzero(mistakes == mistakes.max()) > 1:
        return finding
    return f"{finding}, most often taken for {names[int(mistakes.argmax())]}"


def about_errors(layers: Sequence[LayerHealth]) -> str:
    """Return whether the errors of the first layer vanish or explode."""
    if len(layers) < 2 or not layers[-1].error:
        return ""
    ratio = layers[0].error / layers[-1].error
    if ratio < VANISHING_GRADIENT:
        what = "the errors vanish"
    elif ratio > 1 / VANISHING_GRADIENT:
        what = "the errors explode"
    else:
        what = "the errors neither vanish nor explode"
    return f"{what}: layer 1 gets {ratio:.2g} times the errors of layer {len(layers)}"


def about_steps(layers: Sequence[LayerHealth]) -> str:
    """Return whether the last steps have the usual size; the layer furthest from it."""
    if not layers:
        return ""

    def factor(layer: LayerHealth) -> float:
        ratio = max(layer.update_ratio, 1e-12) / USUAL_STEP
        return max(ratio, 1 / ratio)

    number, furthest = max(enumerate(layers, 1), key=lambda pair: factor(pair[1]))
    if factor(furthest) <= _FACTOR:
        return "the last steps of all layers are near the usual size"
    size = "large" if furthest.update_ratio > USUAL_STEP else "small"
    return f"the last steps of layer {number} are {size}: {furthest.update_ratio:.1g}"


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

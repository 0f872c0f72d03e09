"""Metrics of a classifier: loss, accuracy, confusion matrix, F1 and calibration."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.examples import Examples, scaled
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.types import Array

Labels = NDArray[np.integer[Any]]

_BLOCK = 2000  # examples per block: large enough for BLAS, few megabytes of activations


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class; a ratio 0 / 0 counts as 0."""

    precision: float
    recall: float
    f1: float
    support: int


def one_hot(labels: Labels, classes: int, dtype: Any = np.float32) -> Array:
    """Return one-hot targets of shape ``(n, classes)``: 1 at each label, else 0."""
    table: Array = np.eye(classes, dtype=dtype)
    return table[labels]


def make_targets(labels: Labels, units: int, dtype: Any = np.float32) -> Array:
    """Return targets ``(n, units)``: one-hot rows, or the labels 0 and 1 for a single output."""
    return labels.astype(dtype)[:, None] if units == 1 else one_hot(labels, units, dtype)


def confusion_matrix(labels: Labels, predictions: Labels, classes: int) -> NDArray[np.int64]:
    """Count the examples of each true class (rows) by their predicted class (columns)."""
    cells = np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes**2)
    return cells.reshape(classes, classes)


def class_metrics(confusion: NDArray[np.int64]) -> list[ClassMetrics]:
    """Return the metrics of every class of a confusion matrix ``(classes, classes)``."""

    def ratio(part: float, whole: float) -> float:
        return float(part / whole) if whole else 0.0

    metrics = []
    for hits, support, predicted in zip(
        confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), strict=True
    ):
        metrics.append(
            ClassMetrics(
                precision=ratio(hits, predicted),
                recall=ratio(hits, support),
                f1=ratio(2 * hits, support + predicted),
                support=int(support),
            )
        )
    return metrics


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions with similar confidence.

    Parameters
    ----------
    low, high : float
        Bounds of the confidence.
    count : int
        Number of predictions, at least one.
    confidence, accuracy : float
        Mean confidence and fraction of correct predictions. They are equal for a well calibrated
        network: of its predictions with confidence 80 %, 80 % are correct.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(
    confidences: Array, right: NDArray[np.bool_], bins: int = 10
) -> list[CalibrationBin]:
    """Return predictions in confidence bins of equal width; empty bins are left out.

    See Guo et al., On Calibration of Modern Neural Networks, 2017.

    Parameters
    ----------
    confidences : array, shape (n,)
        Predicted probabilities of the predicted classes, 0 to 1.
    right : array of bool, shape (n,)
        Whether each prediction is correct.
    bins : int
        Number of bins.
    """
    numbers = np.minimum((confidences * bins).astype(np.int64), bins - 1)
    result = []
    for number in range(bins):
        inside = numbers == number
        if inside.any():
            result.append(
                CalibrationBin(
                    low=number / bins,
                    high=(number + 1) / bins,
                    count=int(inside.sum()),
                    confidence=float(confidences[inside].mean(dtype=np.float64)),
                    accuracy=float(right[inside].mean()),
                )
            )
    return result


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the mean of |confidence - accuracy|, weighted by bin counts (Guo et al. 2017)."""
    n = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / n if n else 0.0


def logits_of(network: Network, inputs: NDArray[Any], threads: int = 1) -> Array:
    """Return the logits ``(n, units)`` of inputs ``(n, features)``.

    Inputs of type uint8 are pixels 0 to 255, and are scaled to 0..1; floats are used unchanged. The
    result does not depend on the number of threads, not even in the last bit.
    """

    def logits_of(begin: int) -> Array:
        block = inputs[begin : begin + _BLOCK]
        pixels = block.dtype == np.uint8
        return network.logits(scaled(block, network.dtype) if pixels else block)

    begins = range(0, len(inputs), _BLOCK)
    if threads == 1:
        return np.concatenate([*map(logits_of, begins)])
    # NumPy keeps its floating-point error settings per thread.
    same_settings = functools.partial(np.seterr, **np.geterr())
    with ThreadPoolExecutor(threads, initializer=same_settings) as pool:
        return np.concatenate([*pool.map(logits_of, begins)])


def mean_loss_and_accuracies(
    network: Network, loss: Loss, examples: Examples, threads: int = 1
) -> tuple[float, float, list[float | None]]:
    """Return the mean loss, the accuracy, and the accuracy of each class.

    The accuracy of a class is the fraction of its examples that are classified correctly, or None
    without any.
    """
    logits = logits_of(network, examples.inputs, threads)
    values = loss.values(logits, make_targets(examples.labels, logits.shape[1], logits.dtype))
    right = network.predict_classes(logits) == examples.labels
    classes = max(logits.shape[1], 2)
    hits = np.bincount(examples.labels[right], minlength=classes)
    counts = np.bincount(examples.labels, minlength=classes)
    return (
        float(values.mean(dtype=np.float64)),
        int(np.count_nonzero(right)) / len(examples),
        [hit / n if n else None for hit, n in zip(hits.tolist(), counts.tolist(), strict=True)],
    )

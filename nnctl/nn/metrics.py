"""How good the answers of a classifier are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network

Labels = NDArray[np.integer[Any]]

_BLOCK = 2000  # examples at a time: large enough for BLAS, a few megabytes of activations


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class; a quotient of nothing by nothing is 0."""

    precision: float
    recall: float
    f1: float
    support: int


def one_hot(labels: Labels, classes: int, dtype: Any = np.float32) -> Array:
    """Return targets of shape ``(n, classes)``: 1 at each label, else 0."""
    table: Array = np.eye(classes, dtype=dtype)
    return table[labels]


def make_targets(labels: Labels, units: int, dtype: Any = np.float32) -> Array:
    """Return what `units` outputs should be: one-hot rows, or of a single one its labels 0 or 1."""
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
    """The answers that a network is about equally sure of.

    Parameters
    ----------
    low, high : float
        Between which their confidences are.
    count : int
        How many there are, at least one.
    confidence, accuracy : float
        The mean confidence, and the share of right answers, which would be equal if a network that
        says 80 % were right in 80 % of the cases.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(
    confidences: Array, right: NDArray[np.bool_], bins: int = 10
) -> list[CalibrationBin]:
    """Return the answers in bins of equal width by their confidence; empty bins are left out.

    Guo et al., On Calibration of Modern Neural Networks, 2017.

    Parameters
    ----------
    confidences : array, shape (n,)
        The probabilities that the network gives to its answers, 0 to 1.
    right : array of bool, shape (n,)
        Whether these are right.
    bins : int
        How many.
    """
    numbers = np.minimum((confidences * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = numbers == number
        if inside.any():
            found.append(
                CalibrationBin(
                    low=number / bins,
                    high=(number + 1) / bins,
                    count=int(inside.sum()),
                    confidence=float(confidences[inside].mean(dtype=np.float64)),
                    accuracy=float(right[inside].mean()),
                )
            )
    return found


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the mean distance between confidence and accuracy, over all answers (Guo 2017)."""
    n = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / n if n else 0.0


def predict(network: Network, inputs: NDArray[Any], threads: int = 1) -> Array:
    """Return the logits ``(n, units)`` of inputs ``(n, features)``.

    Inputs of uint8 are pixels 0 to 255; floats are taken as they are. Threads take blocks of them,
    which changes no bit.
    """

    def logits_of(begin: int) -> Array:
        block = inputs[begin : begin + _BLOCK]
        pixels = block.dtype == np.uint8
        return network.logits(scaled(block, network.dtype) if pixels else block)

    begins = range(0, len(inputs), _BLOCK)
    if threads == 1:
        return np.concatenate([*map(logits_of, begins)])
    # Whether an overflow is a warning is known to each thread alone.
    as_here = functools.partial(np.seterr, **np.geterr())
    with ThreadPoolExecutor(threads, initializer=as_here) as pool:
        return np.concatenate([*pool.map(logits_of, begins)])


def mean_loss_and_accuracy(
    network: Network, loss: Loss, examples: Examples, threads: int = 1
) -> tuple[float, float]:
    """Return the mean loss and the share of examples whose largest output is their label's."""
    logits = predict(network, examples.inputs, threads)
    values = loss.values(logits, make_targets(examples.labels, logits.shape[1], logits.dtype))
    hits = int(np.count_nonzero(network.decide(logits) == examples.labels))
    return float(values.mean(dtype=np.float64)), hits / len(examples)

"""Events of a training, for the run directory, the terminal and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nnctl.nn.health import LayerHealth


@dataclass(frozen=True)
class BatchesDone:
    """A block of batches is done: `batch` of the epoch's `batches` (Keras: on_train_batch_end).

    `losses` has the losses of some of its steps, by the number of the step, if they are recorded.
    """

    epoch: int
    batch: int
    batches: int
    losses: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Monitored:
    """Figures that are measured only if the user asks for them, and never used to decide.

    Parameters
    ----------
    cost : float, optional
        Mean loss on the training set without dropout, plus the terms of L2 and L1 regularization.
    train_accuracy : float, optional
        Accuracy on the training set without dropout.
    test_loss, test_accuracy : float, optional
        Metrics on the test set.
    """

    cost: float | None = None
    train_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of an epoch: one line of ``metrics.jsonl``.

    Parameters
    ----------
    epoch : int
        Number of the epoch, from 1.
    train_loss, train_accuracy : float
        Means over the epoch, measured on each batch before the update with that batch.
    val_loss, val_accuracy : float, optional
        Validation metrics after the epoch; None without validation examples.
    val_class_accuracies : list of float, optional
        Validation accuracy of each class, None for a class without examples; None without
        validation examples, and in the files of early versions.
    learning_rate : float
        Learning rate in the middle of the epoch.
    seconds : float
        Wall time of the batches, without validation.
    health : list of LayerHealth
        Health of each layer; empty in the files of early versions.
    monitor : Monitored, optional
        Figures of ``training.monitor``.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_class_accuracies: list[float | None] | None
    learning_rate: float
    seconds: float
    health: list[LayerHealth]
    monitor: Monitored | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class EpochDone(EpochMetrics):
    """An epoch is complete (Keras: on_epoch_end); `is_best` if it is the best one so far."""

    is_best: bool


@dataclass(frozen=True)
class Divergence:
    """Where the first infinity or NaN occurred: epoch, batch and layer, all counted from 1."""

    epoch: int
    batch: int
    layer: int
    what: Literal["outputs", "gradient", "parameters"]
    last_finite_loss: float | None


@dataclass(frozen=True)
class Finished:
    """The last event (Keras: on_train_end); "interrupted" is set by a consumer that stops early."""

    reason: Literal["finished", "stopped_early", "diverged", "interrupted"]
    divergence: Divergence | None = None


Event = BatchesDone | EpochDone | Finished

"""Progress of a training: with the parameters and the optimizer's state, enough to resume it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nnctl.nn.events import EpochDone
from nnctl.nn.schedules import PlateauSchedule

Metric = Literal["val_accuracy", "val_loss"]
"""Metric of an epoch that has to improve."""

_ROUNDING = 1 + 1e-9  # 0.1 ** 3 is a little more than 0.001


@dataclass
class Best:
    """The best epoch so far: highest validation accuracy, then lowest validation loss."""

    epoch: int
    val_accuracy: float | None
    val_loss: float | None

    def is_beaten_by(self, val_accuracy: float | None, val_loss: float | None) -> bool:
        """Return whether a later epoch is better; without validation data it always is."""
        if val_accuracy is None or val_loss is None:
            return True
        assert self.val_accuracy is not None
        assert self.val_loss is not None
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


@dataclass
class Progress:
    """Progress of a training.

    Parameters
    ----------
    rng_state : mapping
        State of the random generator for shuffling at the start of the current epoch.
    epoch : int
        Number of complete epochs.
    measured : int
        Last epoch that was validated and recorded, 0 if there is none.
    batch : int
        Number of batches done in the current epoch.
    loss_sum, correct : float, int
        Sum of losses, and correct predictions, of these batches.
    seconds : float
        Wall time of the batches since the last measured epoch.
    best : Best, optional
        Best complete epoch.
    best_score : float, optional
        Best score for early stopping: the accuracy, or the negative loss.
    wait : int
        Number of epochs since the best score.
    rate_factor : float
        Factor on the learning rate of the plateau schedule.
    plateau_score, plateau_wait
        As `best_score` and `wait`, for this schedule, since the last reduction of the rate.
    """

    rng_state: Mapping[str, Any]
    epoch: int = 0
    measured: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    best: Best | None = None
    best_score: float | None = None
    wait: int = 0
    rate_factor: float = 1.0
    plateau_score: float | None = None
    plateau_wait: int = 0

    def start_next_epoch(self, done: EpochDone | None, rng_state: Mapping[str, Any]) -> None:
        """Count an epoch as complete; if it was measured, record whether it is the best one."""
        self.rng_state, self.epoch, self.batch = rng_state, self.epoch + 1, 0
        self.loss_sum, self.correct = 0.0, 0
        if done:
            self.measured, self.seconds = done.epoch, 0.0
            if done.is_best:
                self.best = Best(done.epoch, done.val_accuracy, done.val_loss)


class Stopping(ABC):
    """A rule that looks at the metrics of each measured epoch, and may end the training."""

    @abstractmethod
    def update(self, progress: Progress, done: EpochDone) -> None:
        """Count the epochs since the last improvement of the metric."""

    @abstractmethod
    def is_due(self, progress: Progress) -> bool:
        """Return whether the training should stop."""


@dataclass(frozen=True)
class EarlyStopping(Stopping):
    """Stop when the metric has not improved for `patience` epochs in a row."""

    patience: int
    metric: Metric = "val_accuracy"

    def update(self, progress: Progress, done: EpochDone) -> None:
        """Count the epochs since the last improvement of the metric."""
        score = _score(done, self.metric)
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.wait = score, 0
        else:
            progress.wait += done.epoch - progress.measured

    def is_due(self, progress: Progress) -> bool:
        """Return whether the training should stop."""
        return progress.wait >= self.patience


@dataclass(frozen=True)
class Plateau(Stopping):
    """Reduces the learning rate, and may stop; see `nnctl.nn.schedules.PlateauSchedule`."""

    schedule: PlateauSchedule

    def update(self, progress: Progress, done: EpochDone) -> None:
        """Count the epochs since the last improvement, and reduce the rate after `patience`."""
        score = _score(done, self.schedule.metric)
        if progress.plateau_score is None or score > progress.plateau_score:
            progress.plateau_score, progress.plateau_wait = score, 0
            return
        progress.plateau_wait += done.epoch - progress.measured
        if progress.plateau_wait >= self.schedule.patience:
            progress.plateau_wait = 0
            progress.rate_factor *= self.schedule.gamma

    def is_due(self, progress: Progress) -> bool:
        """Return whether the rate has been reduced to the fraction at which training ends."""
        return progress.rate_factor <= self.schedule.stop * _ROUNDING


def _score(done: EpochDone, metric: Metric) -> float:
    """Return the metric of an epoch as a number that grows with improvements."""
    value = done.val_accuracy if metric == "val_accuracy" else done.val_loss
    assert value is not None, "early stopping and plateau need validation examples"
    return value if metric == "val_accuracy" else -value

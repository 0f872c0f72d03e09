"""Learning-rate schedules: factors on the learning rate as functions of the time in epochs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from nnctl.nn.limits import Limited, limited


@dataclass(frozen=True)
class Schedule(Limited, ABC):
    """The factor on the learning rate, after a linear warm-up.

    Parameters
    ----------
    warmup : float
        Number of epochs in which the factor grows linearly from 0 (Goyal et al. 2017).
    """

    name: ClassVar[str]
    warmup: float = limited(0.0, "not be negative", lambda warmup: warmup >= 0)

    def factor(self, time: float, epochs: float) -> float:
        """Return the factor on the learning rate.

        Parameters
        ----------
        time : float
            Epochs since the start of training, measured at the middle of the step. At its start,
            the first step of a warm-up would have a factor of 0 and be lost.
        epochs : float
            Length of the whole training.
        """
        warmup_factor = min(1.0, time / self.warmup) if self.warmup else 1.0
        return warmup_factor * self.decay(time, epochs)

    @abstractmethod
    def decay(self, time: float, epochs: float) -> float:
        """Return the factor without the warm-up."""


@dataclass(frozen=True)
class LearningRate:
    """The learning rate as a function of the step.

    Parameters
    ----------
    initial : float
        Learning rate that the schedule multiplies.
    schedule : Schedule
        The schedule.
    steps_per_epoch, steps : int
        Number of steps in an epoch, and in the whole training.
    """

    initial: float
    schedule: Schedule
    steps_per_epoch: int
    steps: int

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        epoch, batch = divmod(step - 1, self.steps_per_epoch)
        time = epoch + (batch + 0.5) / self.steps_per_epoch
        return self.initial * self.schedule.factor(time, self.steps / self.steps_per_epoch)


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """Factor 1 at all times."""

    name: ClassVar[str] = "constant"

    def decay(self, time: float, epochs: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """gamma^k, where k is the number of complete periods of `every` epochs."""

    name: ClassVar[str] = "step"
    every: int = limited(10, "be at least 1 epoch", lambda every: every >= 1)
    gamma: float = limited(0.1, "be above 0 and at most 1", lambda gamma: 0 < gamma <= 1)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which drops after the last step of every `every`-th epoch."""
        return self.gamma ** (int(time) // self.every)


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """gamma^epoch: the rate is multiplied by gamma after each epoch."""

    name: ClassVar[str] = "exponential"
    gamma: float = limited(0.95, "be above 0 and at most 1", lambda gamma: 0 < gamma <= 1)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which drops after the last step of every epoch."""
        return self.gamma ** int(time)


@dataclass(frozen=True)
class InverseTimeSchedule(Schedule):
    """1 / (1 + gamma * epoch) (Robbins and Monro 1951)."""

    name: ClassVar[str] = "inverse_time"
    gamma: float = limited(0.1, "not be negative", lambda gamma: gamma >= 0)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which decreases at every step."""
        return 1 / (1 + self.gamma * time)


@dataclass(frozen=True)
class PolynomialSchedule(Schedule):
    """(1 - t)^power from 1 down to `final`, where t is the fraction of the training that is over.

    With the power 1 the factor decreases linearly.
    """

    name: ClassVar[str] = "polynomial"
    power: float = limited(1.0, "be above 0", lambda power: power > 0)
    final: float = limited(0.0, "be between 0 and 1", lambda final: 0 <= final <= 1)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which decreases from the end of the warm-up to the end of training."""
        left = 1 - _elapsed(time, self.warmup, epochs)
        return float(self.final + (1 - self.final) * left**self.power)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter 2017, without restarts)."""

    name: ClassVar[str] = "cosine"
    final: float = limited(0.0, "be between 0 and 1", lambda final: 0 <= final <= 1)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which decreases from the end of the warm-up to the end of training."""
        elapsed = _elapsed(time, self.warmup, epochs)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * elapsed)) / 2


@dataclass(frozen=True)
class OneCycleSchedule(Schedule):
    """Up from `start` to 1 in the first part of the training, then down to `final`, in cosines.

    The rate of the configuration is the highest one, which may be several times a constant rate
    (Smith and Topin 2018).

    Parameters
    ----------
    start, final : float
        Factors at the start and at the end of the training.
    rise : float
        Fraction of the training in which the factor grows.
    """

    name: ClassVar[str] = "one_cycle"
    start: float = limited(0.04, "be between 0 and 1", lambda start: 0 < start < 1)
    rise: float = limited(0.3, "be between 0 and 1", lambda rise: 0 < rise < 1)
    final: float = limited(0.0, "be between 0 and 1", lambda final: 0 <= final <= 1)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which grows until `rise` of the training is over."""
        elapsed = _elapsed(time, self.warmup, epochs)
        if elapsed < self.rise:
            lowest, height = self.start, elapsed / self.rise
        else:
            lowest, height = self.final, (1 - elapsed) / (1 - self.rise)
        return lowest + (1 - lowest) * (1 - math.cos(math.pi * height)) / 2


@dataclass(frozen=True)
class PlateauSchedule(Schedule):
    """Multiplies the rate by gamma whenever the metric has not improved for `patience` epochs.

    See Nielsen, chapter 3: "halve the learning rate when validation accuracy has not improved for
    ten epochs, and stop at 1/128". `nnctl.nn.state.Plateau` counts the epochs.

    Parameters
    ----------
    gamma : float
        Factor on the learning rate.
    patience : int
        Number of epochs without improvement.
    stop : float
        Training ends when the rate has this fraction of its initial value; 0: never.
    metric : "val_accuracy" or "val_loss"
        Metric that has to improve.
    """

    name: ClassVar[str] = "plateau"
    gamma: float = limited(0.5, "be above 0 and below 1", lambda gamma: 0 < gamma < 1)
    patience: int = limited(10, "be at least 1 epoch", lambda patience: patience >= 1)
    stop: float = limited(0.0, "be at least 0 and below 1", lambda stop: 0 <= stop < 1)
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"

    def decay(self, time: float, epochs: float) -> float:
        """Return 1: the reductions depend on the results and not on the time."""
        return 1.0


def _elapsed(time: float, warmup: float, epochs: float) -> float:
    """Return the fraction of the training after the warm-up that is over."""
    length = epochs - warmup
    return min(1.0, max(0.0, (time - warmup) / length)) if length > 0 else 0.0


# In the order of the classes in this file; the reference lists them in the same order.
SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in Schedule.__subclasses__()}
"""Every schedule by its name in a configuration."""

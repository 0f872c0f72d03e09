"""Learning-rate schedules: factors on the learning rate as functions of the time in epochs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Schedule(ABC):
    """The factor on the learning rate, after a linear warm-up.

    Parameters
    ----------
    warmup : float
        Number of epochs in which the factor grows linearly from 0 (Goyal et al. 2017).
    """

    name: ClassVar[str]
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup:g}")

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
    every: int = 10
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every must be at least 1 epoch, got {self.every}")
        _check_gamma(self.gamma)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which drops after the last step of every `every`-th epoch."""
        return self.gamma ** (int(time) // self.every)


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """gamma^epoch: the rate is multiplied by gamma after each epoch."""

    name: ClassVar[str] = "exponential"
    gamma: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_gamma(self.gamma)

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which drops after the last step of every epoch."""
        return self.gamma ** int(time)


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be above 0 and at most 1, got {gamma:g}")


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter 2017, without restarts)."""

    name: ClassVar[str] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final <= 1:
            raise ValueError(f"final must be between 0 and 1, got {self.final:g}")

    def decay(self, time: float, epochs: float) -> float:
        """Return the factor, which decreases from the end of the warm-up to the end of training."""
        length = epochs - self.warmup
        elapsed = min(1.0, max(0.0, (time - self.warmup) / length)) if length > 0 else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * elapsed)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (ConstantSchedule, StepSchedule, ExponentialSchedule, CosineSchedule)
}
"""Every schedule by its name in a configuration."""

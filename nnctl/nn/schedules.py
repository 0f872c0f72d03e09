"""Learning-rate schedules: one table of factors over the time of a training, counted in epochs."""

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
        Epochs over which the factor grows linearly from 0 (Goyal et al. 2017).
    """

    name: ClassVar[str]
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup:g}")

    def factor(self, time: float, epochs: float) -> float:
        """Return what the learning rate is multiplied by.

        Parameters
        ----------
        time : float
            Epochs since the beginning, up to the middle of the step: so neither the first step of a
            warm-up nor the last one of a decay is lost to a factor of 0.
        epochs : float
            The length of the whole training.
        """
        warming = min(1.0, time / self.warmup) if self.warmup else 1.0
        return warming * self.decay(time, epochs)

    @abstractmethod
    def decay(self, time: float, epochs: float) -> float:
        """Return the factor without the warm-up."""


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """1, always."""

    name: ClassVar[str] = "constant"

    def decay(self, time: float, epochs: float) -> float:
        """Do not decay."""
        return 1.0


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """gamma^k, where k grows by one every so many epochs."""

    name: ClassVar[str] = "step"
    every: int = 10
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every must be at least 1 epoch, got {self.every}")
        _check_gamma(self.gamma)

    def decay(self, time: float, epochs: float) -> float:
        """Drop after the last step of every `every`-th epoch."""
        return self.gamma ** (int(time) // self.every)


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """gamma^epoch: the same factor from each epoch to the next."""

    name: ClassVar[str] = "exponential"
    gamma: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_gamma(self.gamma)

    def decay(self, time: float, epochs: float) -> float:
        """Drop after the last step of every epoch."""
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
        """Fall slowly, quickly, slowly, from the end of the warm-up to that of the training."""
        length = epochs - self.warmup
        passed = min(1.0, max(0.0, (time - self.warmup) / length)) if length > 0 else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * passed)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (ConstantSchedule, StepSchedule, ExponentialSchedule, CosineSchedule)
}
"""Every schedule by its name in a configuration."""

"""How weights and biases begin: one table of distributions.

With ``fan_in`` the number of a layer's inputs and ``fan_out`` that of its units, the variances are
2 / (fan_in + fan_out) for Glorot and Bengio (2010), 2 / fan_in for He et al. (2015) and 1 / fan_in
for LeCun et al. (1998); the last is Nielsen's "1 / sqrt(inputs)" of chapter 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.activations import Array


@dataclass(frozen=True)
class Initializer(ABC):
    """A choice of how parameters begin."""

    name: ClassVar[str]

    @abstractmethod
    def resolve(self, fitting: Distribution) -> Distribution:
        """Return the distribution to draw from, where `fitting` is the one that would fit best."""


@dataclass(frozen=True)
class Auto(Initializer):
    """What fits the activation: He for the relu family, LeCun for selu, else Glorot; biases 0."""

    name: ClassVar[str] = "auto"

    def resolve(self, fitting: Distribution) -> Distribution:
        """Leave the choice to the layer."""
        return fitting


AUTO = Auto()


@dataclass(frozen=True)
class Distribution(Initializer):
    """A distribution that parameters are drawn from."""

    def resolve(self, fitting: Distribution) -> Distribution:
        """Insist on this one."""
        return self

    @abstractmethod
    def spread(self, fan_in: int, fan_out: int) -> float:
        """Return the standard deviation of one element."""

    @abstractmethod
    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw every element of `out`: weights ``(fan_in, maps)`` or biases ``(maps,)``."""


@dataclass(frozen=True)
class Constant(Distribution):
    """Every element the same value."""

    name: ClassVar[str] = "constant"
    value: float = 0.0

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Set all to the value."""
        out.fill(self.value)

    def spread(self, fan_in: int, fan_out: int) -> float:
        """None."""
        return 0.0


@dataclass(frozen=True)
class Zeros(Distribution):
    """Every element zero; for weights, all the units of a layer then stay the same for ever."""

    name: ClassVar[str] = "zeros"

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Set all to zero."""
        out.fill(0)

    def spread(self, fan_in: int, fan_out: int) -> float:
        """None."""
        return 0.0


@dataclass(frozen=True)
class Normal(Distribution):
    """N(mean, std²); std is 1 in Nielsen's chapter 1."""

    name: ClassVar[str] = "normal"
    std: float = 1.0
    mean: float = 0.0

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std must not be negative, got {self.std:g}")

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw from the normal distribution."""
        out[...] = rng.standard_normal(out.shape, dtype=out.dtype)
        out *= self.std
        out += self.mean

    def spread(self, fan_in: int, fan_out: int) -> float:
        """As given."""
        return self.std


@dataclass(frozen=True)
class Uniform(Distribution):
    """U(low, high)."""

    name: ClassVar[str] = "uniform"
    low: float = -0.05
    high: float = 0.05

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not be above high ({self.high:g})")

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw from the uniform distribution."""
        out[...] = rng.random(out.shape, dtype=out.dtype)
        out *= self.high - self.low
        out += self.low

    def spread(self, fan_in: int, fan_out: int) -> float:
        """The width of the interval, divided by the square root of 12."""
        return (self.high - self.low) / math.sqrt(12)


class _Scaled(Distribution):
    """A distribution of mean 0 whose variance is told from the layer's fans."""

    @abstractmethod
    def variance(self, fan_in: int, fan_out: int) -> float:
        """Return the variance of one element."""

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw with the variance that fits the fans."""
        std = self.spread(fan_in, fan_out)
        bound = math.sqrt(3) * std  # U(-b, b) has the variance b²/3
        drawn = Uniform(-bound, bound) if self.name.endswith("uniform") else Normal(std)
        drawn.fill(out, fan_in=fan_in, fan_out=fan_out, rng=rng)

    def spread(self, fan_in: int, fan_out: int) -> float:
        """The square root of the variance."""
        return math.sqrt(self.variance(fan_in, fan_out))


@dataclass(frozen=True)
class GlorotNormal(_Scaled):
    """N(0, 2 / (fan_in + fan_out))."""

    name: ClassVar[str] = "glorot_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Keep the variance of activations and of gradients alike."""
        return 2 / (fan_in + fan_out)


@dataclass(frozen=True)
class GlorotUniform(GlorotNormal):
    """U with the variance 2 / (fan_in + fan_out)."""

    name: ClassVar[str] = "glorot_uniform"


@dataclass(frozen=True)
class HeNormal(_Scaled):
    """N(0, 2 / fan_in): relu halves the variance, this doubles it."""

    name: ClassVar[str] = "he_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Keep the variance of activations through a relu."""
        return 2 / fan_in


@dataclass(frozen=True)
class HeUniform(HeNormal):
    """U with the variance 2 / fan_in."""

    name: ClassVar[str] = "he_uniform"


@dataclass(frozen=True)
class LeCunNormal(_Scaled):
    """N(0, 1 / fan_in)."""

    name: ClassVar[str] = "lecun_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Keep the variance of the weighted inputs."""
        return 1 / fan_in


@dataclass(frozen=True)
class LeCunUniform(LeCunNormal):
    """U with the variance 1 / fan_in."""

    name: ClassVar[str] = "lecun_uniform"


INITIALIZERS: dict[str, type[Initializer]] = {
    kind.name: kind
    for kind in (
        Auto,
        Normal,
        Uniform,
        GlorotNormal,
        GlorotUniform,
        HeNormal,
        HeUniform,
        LeCunNormal,
        LeCunUniform,
        Zeros,
        Constant,
    )
}
"""Every initializer by its name in a configuration."""

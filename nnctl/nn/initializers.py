"""Initializers of weights and biases; the table `INITIALIZERS` lists all of them.

With ``fan_in`` inputs and ``fan_out`` units in a layer, the variance of a weight is
2 / (fan_in + fan_out) for Glorot and Bengio (2010), 2 / fan_in for He et al. (2015) and 1 / fan_in
for LeCun et al. (1998). The last is the standard deviation 1 / sqrt(fan_in) of Nielsen, chapter 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.limits import Limited, limited
from nnctl.nn.types import Array


@dataclass(frozen=True)
class Initializer(Limited, ABC):
    """A rule for the initial values of parameters."""

    name: ClassVar[str]

    @abstractmethod
    def resolve(self, fitting: Distribution) -> Distribution:
        """Return the distribution to draw from; `fitting` is the default for the activation."""


@dataclass(frozen=True)
class Auto(Initializer):
    """Chosen by the activation: He for the relu family, LeCun for selu, else Glorot; biases 0."""

    name: ClassVar[str] = "auto"

    def resolve(self, fitting: Distribution) -> Distribution:
        """Return the default for the activation."""
        return fitting


AUTO = Auto()


@dataclass(frozen=True)
class Distribution(Initializer):
    """A distribution from which initial parameters are drawn."""

    def resolve(self, fitting: Distribution) -> Distribution:
        """Return this distribution."""
        return self

    @abstractmethod
    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return the standard deviation of one element."""

    @abstractmethod
    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Fill `out` with random values: weights ``(fan_in, columns)`` or biases ``(columns,)``."""


@dataclass(frozen=True)
class Constant(Distribution):
    """The same value for every parameter."""

    name: ClassVar[str] = "constant"
    value: float = 0.0

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Set all elements to the value."""
        out.fill(self.value)

    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class Zeros(Distribution):
    """Zero for every parameter; with zero weights, all units of a layer stay identical."""

    name: ClassVar[str] = "zeros"

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Set all elements to zero."""
        out.fill(0)

    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class Normal(Distribution):
    """N(mean, std²); Nielsen, chapter 1, uses std 1."""

    name: ClassVar[str] = "normal"
    std: float = limited(1.0, "not be negative", lambda std: std >= 0)
    mean: float = 0.0

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw from the normal distribution."""
        out[...] = rng.standard_normal(out.shape, dtype=out.dtype)
        out *= self.std
        out += self.mean

    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return `std`."""
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

    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return the width of the interval divided by sqrt(12)."""
        return (self.high - self.low) / math.sqrt(12)


class _Scaled(Distribution):
    """A distribution with mean 0 whose variance depends on fan_in and fan_out."""

    @abstractmethod
    def variance(self, fan_in: int, fan_out: int) -> float:
        """Return the variance of one element."""

    def fill(self, out: Array, *, fan_in: int, fan_out: int, rng: np.random.Generator) -> None:
        """Draw with the variance for these fans."""
        std = self.standard_deviation(fan_in, fan_out)
        bound = math.sqrt(3) * std  # U(-b, b) has variance b²/3
        distribution = Uniform(-bound, bound) if self.name.endswith("uniform") else Normal(std)
        distribution.fill(out, fan_in=fan_in, fan_out=fan_out, rng=rng)

    def standard_deviation(self, fan_in: int, fan_out: int) -> float:
        """Return the square root of the variance."""
        return math.sqrt(self.variance(fan_in, fan_out))


@dataclass(frozen=True)
class GlorotNormal(_Scaled):
    """N(0, 2 / (fan_in + fan_out))."""

    name: ClassVar[str] = "glorot_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Return the compromise that keeps the variances of activations and gradients stable."""
        return 2 / (fan_in + fan_out)


@dataclass(frozen=True)
class GlorotUniform(GlorotNormal):
    """Uniform with mean 0 and variance 2 / (fan_in + fan_out)."""

    name: ClassVar[str] = "glorot_uniform"


@dataclass(frozen=True)
class HeNormal(_Scaled):
    """N(0, 2 / fan_in): the factor 2 makes up for relu, which halves the variance."""

    name: ClassVar[str] = "he_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Return the variance that keeps the scale of activations through a relu."""
        return 2 / fan_in


@dataclass(frozen=True)
class HeUniform(HeNormal):
    """Uniform with mean 0 and variance 2 / fan_in."""

    name: ClassVar[str] = "he_uniform"


@dataclass(frozen=True)
class LeCunNormal(_Scaled):
    """N(0, 1 / fan_in)."""

    name: ClassVar[str] = "lecun_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        """Return the variance that keeps the scale of the weighted inputs."""
        return 1 / fan_in


@dataclass(frozen=True)
class LeCunUniform(LeCunNormal):
    """Uniform with mean 0 and variance 1 / fan_in."""

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

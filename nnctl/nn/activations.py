"""Activation functions: one table, in which the next one is one entry.

Each is a frozen dataclass whose fields are its parameters, so that a configuration, the JSON Schema
and the arithmetic are told from the same few lines. Both passes work on arrays of shape
``(batch, units)``, in place where they may, and keep their dtype.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Activation(ABC):
    """What a layer does to its weighted input z."""

    name: ClassVar[str]
    formula: ClassVar[str]
    """f(z) in signs, with the names of parameters in braces."""
    derivative: ClassVar[str]
    """f'(z) in signs, with the names of parameters in braces."""
    outputs: ClassVar[str]
    """The range of f."""
    advice: ClassVar[str]
    """When to use it."""
    initializer: ClassVar[str] = "glorot_uniform"
    """The weight initializer that ``auto`` stands for under this activation."""
    saturation: ClassVar[tuple[float, float] | None] = None
    """The bounds of the outputs, where the derivative dies, if it dies at two of them."""
    positive: ClassVar[bool] = False
    """Whether no output is negative."""
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "anywhere"
    """The layers that it makes sense in."""
    monotone: ClassVar[bool] = True
    """Whether the largest z of a layer has the largest output, or one of the largest."""
    needs_z: ClassVar[bool] = False
    """Whether `backward` reads z; if not, `forward` may have written over it."""
    learns: ClassVar[bool] = False
    """Whether each unit has a parameter that training learns; see `bind`."""
    kinks: ClassVar[tuple[float, ...]] = ()
    """Where the derivative jumps."""

    @property
    def maps(self) -> int:
        """The linear maps of each unit: z has so many columns a unit, all first ones first."""
        return 1

    @property
    def first_learned(self) -> float:
        """What each unit's learned parameter begins with."""
        return 0.0

    def describe(self, template: str) -> str:
        """Return a formula with the values of the parameters in it, without factors of 1."""
        text = template.format(**dataclasses.asdict(self))
        return re.sub(r"(?<![\w.])1 (?=\(|[zf]\b)|/1(?=,)", "", text)

    def bind(self, learned: Array) -> Activation:
        """Return the function with the parameters that it learns.

        Parameters
        ----------
        learned : array, shape (units,), or (0,) for those that learn nothing
            Read by both passes.
        """
        return self

    def regions(self, z: Array) -> NDArray[np.intp]:
        """Number the stretches between kinks that z is in."""
        return np.searchsorted(self.kinks, z)

    def differentiable(self) -> Activation:
        """Return the function whose derivative `backward` takes: itself, if not a surrogate."""
        return self

    def limit(self) -> Activation | None:
        """Return the limit of f(c z) for ever larger c, if that is a function of its own."""
        return None

    @abstractmethod
    def forward(self, z: Array, out: Array) -> None:
        """Write f(z) to `out`, which may be `z` itself where each unit has one z."""

    @abstractmethod
    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """Write the loss's gradient by z to `out`.

        Parameters
        ----------
        z : array, shape (batch, maps * units)
            What `forward` was given; only what `needs_z` may read it.
        outputs : array, shape (batch, units)
            What `forward` wrote.
        errors : array, shape (batch, units)
            dL/df(z).
        out : array, shape (batch, maps * units)
            dL/dz; it may be `errors` itself where each unit has one z and nothing is learned.
        """

    def write_gradient(self, z: Array, errors: Array, out: Array) -> None:  # noqa: B027
        """Write the loss's gradient by what is learned to `out`, of the shape given to `bind`.

        Parameters
        ----------
        z : array, shape (batch, maps * units)
            What `forward` was given.
        errors : array, shape (batch, units)
            dL/df(z).
        out : array, shape (units,), or (0,) for those that learn nothing
            The sum over the batch.
        """


@dataclass(frozen=True)
class Step(Activation):
    """f(z) = 1 where z > 0, else 0: a perceptron, its threshold being minus its bias (Nielsen 1).

    Its derivative is 0, so that nothing below it learns, unless another function's derivative
    stands in for it on the way back (the straight-through estimator, Bengio et al. 2013).
    """

    name: ClassVar[str] = "step"
    formula: ClassVar[str] = "1 if z > 0 else 0; {at_zero} at 0"
    derivative: ClassVar[str] = "0"
    outputs: ClassVar[str] = "0 or 1"
    advice: ClassVar[str] = "perceptrons; learns only with surrogate: sigmoid"
    positive: ClassVar[bool] = True
    needs_z: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    at_zero: Literal[0, 1] = 0
    surrogate: Literal["sigmoid"] | None = None

    def differentiable(self) -> Activation:
        """Return the surrogate, if there is one."""
        return self if self.surrogate is None else Sigmoid()

    def limit(self) -> Activation | None:
        """Of z, it sees nothing but the sign."""
        return self

    def forward(self, z: Array, out: Array) -> None:
        """Compare with 0."""
        compare = np.greater_equal if self.at_zero else np.greater
        compare(z, 0, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 0, or the derivative of the surrogate."""
        if self.surrogate is None:
            out.fill(0)
            return
        sigmoid, slopes = Sigmoid(), np.empty_like(z)
        sigmoid.forward(z, slopes)
        sigmoid.backward(z, slopes, errors, out)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """f(z) = 1 / (1 + exp(-gain z)), f' = gain f (1 - f) <= gain / 4 (Nielsen, chapter 1)."""

    name: ClassVar[str] = "sigmoid"
    formula: ClassVar[str] = "1 / (1 + exp(-{gain:g} z))"
    derivative: ClassVar[str] = "{gain:g} f (1 - f)"
    outputs: ClassVar[str] = "(0, 1)"
    advice: ClassVar[str] = "one hidden layer, or yes or no as the output; slow in deep stacks"
    saturation: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    positive: ClassVar[bool] = True
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ValueError(f"gain must be above 0, got {self.gain:g}")

    def limit(self) -> Activation | None:
        """A sigmoid of large arguments is a perceptron (Nielsen, chapter 1, an exercise)."""
        return Step()

    def forward(self, z: Array, out: Array) -> None:
        """Compute (1 + tanh(gain z / 2)) / 2, which has no exponential to overflow."""
        np.multiply(z, 0.5 * self.gain, out=out)
        np.tanh(out, out=out)
        np.multiply(out, 0.5, out=out)
        np.add(out, 0.5, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = gain f (1 - f)."""
        np.multiply(errors, outputs, out=out)
        out *= 1 - outputs
        if self.gain != 1:
            out *= self.gain


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """f(z) = clip(z/6 + 1/2, 0, 1), a sigmoid of straight lines (Howard et al. 2019)."""

    name: ClassVar[str] = "hard_sigmoid"
    formula: ClassVar[str] = "clip(z/6 + 1/2, 0, 1)"
    derivative: ClassVar[str] = "1/6 where |z| < 3, else 0"
    outputs: ClassVar[str] = "[0, 1]"
    advice: ClassVar[str] = "a sigmoid without exp; beyond |z| = 3 nothing is learned"
    saturation: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    positive: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (-3.0, 3.0)

    def limit(self) -> Activation | None:
        """As of the sigmoid."""
        return Step()

    def forward(self, z: Array, out: Array) -> None:
        """Draw the line, and cut it off."""
        np.multiply(z, 1 / 6, out=out)
        np.add(out, 0.5, out=out)
        np.clip(out, 0, 1, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1/6 between the bounds."""
        np.multiply(errors, (outputs > 0) & (outputs < 1), out=out)
        out *= 1 / 6


@dataclass(frozen=True)
class Tanh(Activation):
    """f(z) = tanh(z), f' = 1 - f² (Nielsen, chapter 3; LeCun et al. 1998)."""

    name: ClassVar[str] = "tanh"
    formula: ClassVar[str] = "tanh(z)"
    derivative: ClassVar[str] = "1 - f²"
    outputs: ClassVar[str] = "(-1, 1)"
    advice: ClassVar[str] = "a sigmoid around 0, so the next layer's inputs have both signs"
    saturation: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def forward(self, z: Array, out: Array) -> None:
        """Compute tanh(z)."""
        np.tanh(z, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 - f²."""
        np.multiply(errors, 1 - outputs * outputs, out=out)


@dataclass(frozen=True)
class Softsign(Activation):
    """f(z) = z / (1 + |z|), f' = (1 - |f|)² (Bergstra et al. 2009)."""

    name: ClassVar[str] = "softsign"
    formula: ClassVar[str] = "z / (1 + |z|)"
    derivative: ClassVar[str] = "(1 - |f|)²"
    outputs: ClassVar[str] = "(-1, 1)"
    advice: ClassVar[str] = "like tanh, but it saturates more slowly"
    saturation: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def forward(self, z: Array, out: Array) -> None:
        """Divide by 1 + |z|."""
        np.divide(z, 1 + np.abs(z), out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = (1 - |f|)²."""
        np.multiply(errors, np.square(1 - np.abs(outputs)), out=out)


@dataclass(frozen=True)
class ReLU(Activation):
    """f(z) = max(z, 0), f' = 1 where z > 0, else 0 (Nair and Hinton 2010)."""

    name: ClassVar[str] = "relu"
    formula: ClassVar[str] = "max(z, 0)"
    derivative: ClassVar[str] = "1 where z > 0, else 0"
    outputs: ClassVar[str] = "[0, ∞)"
    advice: ClassVar[str] = "the first choice for hidden layers; a unit that is always 0 is dead"
    initializer: ClassVar[str] = "he_normal"
    positive: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, 0)."""
        # A row of zeros is compared three times as fast as a scalar.
        np.maximum(z, np.zeros(z.shape[-1], z.dtype), out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 where the output is positive, and 0 elsewhere, the kink included."""
        np.multiply(errors, outputs > 0, out=out)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """f(z) = max(z, negative_slope z), f' = 1 or negative_slope (Maas et al. 2013)."""

    name: ClassVar[str] = "leaky_relu"
    formula: ClassVar[str] = "max(z, {negative_slope:g} z)"
    derivative: ClassVar[str] = "1 where z > 0, else {negative_slope:g}"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "a relu that does not die"
    initializer: ClassVar[str] = "he_normal"
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.negative_slope <= 1:
            raise ValueError(f"negative_slope must be between 0 and 1, got {self.negative_slope:g}")

    def forward(self, z: Array, out: Array) -> None:
        """Take the larger of the two lines."""
        np.maximum(z, z * self.negative_slope, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 where the output is positive, and the slope elsewhere."""
        _multiply_piecewise(errors, outputs > 0, 1, outputs.dtype.type(self.negative_slope), out)


@dataclass(frozen=True)
class PReLU(Activation):
    """f(z) = z where z > 0, else slope z, each unit learning its slope (He et al. 2015)."""

    name: ClassVar[str] = "prelu"
    formula: ClassVar[str] = "z if z > 0 else s z, s learned from {initial_slope:g}"
    derivative: ClassVar[str] = "1 where z > 0, else s"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "a leaky_relu that finds its slopes"
    initializer: ClassVar[str] = "he_normal"
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "hidden"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    initial_slope: float = 0.25

    @property
    def first_learned(self) -> float:
        """The same slope for all units."""
        return self.initial_slope

    def bind(self, learned: Array) -> Activation:
        """Return the function with its slopes."""
        return BoundPReLU(self.initial_slope, learned)

    def forward(self, z: Array, out: Array) -> None:
        """As all units are before training."""
        self._untrained(z).forward(z, out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """As all units are before training."""
        self._untrained(z).backward(z, outputs, errors, out)

    def write_gradient(self, z: Array, errors: Array, out: Array) -> None:
        """By the slope, f' = min(z, 0)."""
        np.einsum("bu,bu->u", errors, np.minimum(z, 0), out=out)

    def _untrained(self, z: Array) -> Activation:
        return self.bind(np.full(z.shape[1], self.initial_slope, z.dtype))


@dataclass(frozen=True, eq=False)
class BoundPReLU(PReLU):
    """A `PReLU` with its slopes."""

    slopes: Array = field(default_factory=lambda: np.empty(0))

    def forward(self, z: Array, out: Array) -> None:
        """Add the part above 0 and the scaled part below."""
        below = np.minimum(z, 0)
        below *= self.slopes
        np.maximum(z, 0, out=out)
        out += below

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 where z > 0, else the slope."""
        _multiply_piecewise(errors, z > 0, 1, self.slopes, out)


@dataclass(frozen=True)
class ELU(Activation):
    """f(z) = z where z > 0, else alpha (exp(z) - 1), f' = 1 or f + alpha (Clevert et al. 2016)."""

    name: ClassVar[str] = "elu"
    formula: ClassVar[str] = "z if z > 0 else {alpha:g} (exp(z) - 1)"
    derivative: ClassVar[str] = "1 where z > 0, else f + {alpha:g}"
    outputs: ClassVar[str] = "(-{alpha:g}, ∞)"
    advice: ClassVar[str] = "a relu that does not die, with a mean nearer to 0"
    initializer: ClassVar[str] = "he_normal"
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha:g}")

    def forward(self, z: Array, out: Array) -> None:
        """Add the part above 0 and the part below, which never overflows."""
        below = np.minimum(z, 0)
        np.expm1(below, out=below)
        below *= self.alpha
        np.maximum(z, 0, out=out)
        out += below

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 where the output is positive, else f + alpha."""
        _multiply_piecewise(errors, outputs > 0, 1, outputs + self.alpha, out)


@dataclass(frozen=True)
class SELU(Activation):
    """f(z) = lambda elu(z), which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""

    name: ClassVar[str] = "selu"
    formula: ClassVar[str] = "1.0507 z if z > 0 else 1.7581 (exp(z) - 1)"
    derivative: ClassVar[str] = "1.0507 where z > 0, else f + 1.7581"
    outputs: ClassVar[str] = "(-1.7581, ∞)"
    advice: ClassVar[str] = "deep stacks that normalise themselves"
    initializer: ClassVar[str] = "lecun_normal"
    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def forward(self, z: Array, out: Array) -> None:
        """Scale an elu."""
        ELU(SELU_ALPHA).forward(z, out)
        out *= SELU_LAMBDA

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = lambda where the output is positive, else f + lambda alpha."""
        below = outputs + SELU_LAMBDA * SELU_ALPHA
        _multiply_piecewise(errors, outputs > 0, SELU_LAMBDA, below, out)


SELU_LAMBDA = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


@dataclass(frozen=True)
class GELU(Activation):
    """f(z) = z P(z), with P the normal distribution function (Hendrycks and Gimpel 2016)."""

    name: ClassVar[str] = "gelu"
    formula: ClassVar[str] = "z P(z), P(z) = P(N(0, 1) < z)"
    derivative: ClassVar[str] = "P(z) + z p(z), p = P'"
    outputs: ClassVar[str] = "[-0.17, ∞)"
    advice: ClassVar[str] = "a smooth relu, of transformers"
    initializer: ClassVar[str] = "he_normal"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    approximate: Literal["tanh"] | None = None

    def forward(self, z: Array, out: Array) -> None:
        """Weigh z with the distribution function."""
        for rows in _strips(z):
            near = z[rows]
            probabilities = normal_cdf(near) if self.approximate is None else _tanh_cdf(near)[0]
            np.multiply(near, probabilities, out=out[rows])

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = P + z P'."""
        for rows in _strips(z):
            near = z[rows]
            if self.approximate is None:
                slopes, densities = normal_cdf(near), normal_density(near)
            else:
                slopes, densities = _tanh_cdf(near)
            densities *= near
            slopes += densities
            np.multiply(errors[rows], slopes, out=out[rows])


def normal_density(z: Array) -> Array:
    """Return exp(-z²/2) / sqrt(2 pi)."""
    near = np.clip(z, -40, 40)  # beyond, it is 0 in float64
    near *= near
    near *= -0.5
    np.exp(near, out=near)
    near *= 1 / math.sqrt(2 * math.pi)
    return near


_CDF_STEP = 1 / 64
_CDF_END = 9.0  # beyond, it is 0 or 1 to 1e-18


@functools.cache
def _cdf_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the normal distribution function and its density on a grid, from the libm's erf."""
    grid = np.arange(-_CDF_END, _CDF_END + _CDF_STEP, _CDF_STEP)
    values = [math.erfc(-z / math.sqrt(2)) / 2 for z in grid]
    return np.array(values), normal_density(grid).astype(np.float64)


def normal_cdf(z: Array) -> Array:
    """Return the distribution function of N(0, 1), to 3e-13.

    NumPy has no erf. So this is Taylor's series about the nearest point of a grid: with the Hermite
    polynomials of the point x, P(x + d) = P(x) + p(x) (d - x d²/2 + (x² - 1) d³/6 - ...).
    """
    values, densities = _cdf_table()
    inside = np.clip(z, -_CDF_END, _CDF_END)
    nearest = np.rint((inside + _CDF_END) * (1 / _CDF_STEP)).astype(np.intp)
    x = nearest * _CDF_STEP - _CDF_END
    d = inside - x
    series = (x * x * x - 3 * x) * (d / -24) + (x * x - 1) / 6
    series = (series * d - x / 2) * d + 1
    cdf: Array = densities.take(nearest, mode="clip")  # NaN is nearest to nothing
    cdf *= series * d
    cdf += values.take(nearest, mode="clip")
    return cdf.astype(z.dtype)


def _tanh_cdf(z: Array) -> tuple[Array, Array]:
    """Return (1 + tanh(c (z + 0.044715 z³))) / 2 with c = sqrt(2 / pi), and its derivative."""
    near = np.clip(z, -20, 20)  # beyond, it is 0 or 1 in float64
    c = math.sqrt(2 / math.pi)
    squares = near * near
    cdf = np.tanh(c * near * (1 + 0.044715 * squares))
    slopes = (1 - cdf * cdf) * (c / 2 * (1 + 3 * 0.044715 * squares))
    cdf += 1
    cdf *= 0.5
    return cdf, slopes


@dataclass(frozen=True)
class Swish(Activation):
    """f(z) = z sigmoid(beta z), silu where beta is 1 (Ramachandran et al. 2017)."""

    name: ClassVar[str] = "swish"
    formula: ClassVar[str] = "z / (1 + exp(-{beta:g} z))"
    derivative: ClassVar[str] = "s + {beta:g} f (1 - s), s = f / z"
    outputs: ClassVar[str] = "[-0.2785/{beta:g}, ∞)"
    advice: ClassVar[str] = "a smooth relu that does not die"
    initializer: ClassVar[str] = "he_normal"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta:g}")

    def forward(self, z: Array, out: Array) -> None:
        """Weigh z with a sigmoid."""
        gates = np.empty_like(z)
        Sigmoid(self.beta).forward(z, gates)
        np.multiply(z, gates, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = s + beta f (1 - s)."""
        gates = np.empty_like(z)
        Sigmoid(self.beta).forward(z, gates)
        slopes = 1 - gates
        slopes *= outputs
        slopes *= self.beta
        slopes += gates
        np.multiply(errors, slopes, out=out)


@dataclass(frozen=True)
class Softplus(Activation):
    """f(z) = log(1 + exp(z)), f' = sigmoid(z) = 1 - exp(-f) (Dugas et al. 2001)."""

    name: ClassVar[str] = "softplus"
    formula: ClassVar[str] = "log(1 + exp(z))"
    derivative: ClassVar[str] = "1 - exp(-f)"
    outputs: ClassVar[str] = "(0, ∞)"
    advice: ClassVar[str] = "a smooth relu; all outputs are positive, which shifts the next layer"
    positive: ClassVar[bool] = True

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, 0) + log(1 + exp(-|z|))."""
        np.logaddexp(z, 0, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1 - exp(-f)."""
        slopes = np.expm1(-outputs)
        np.negative(slopes, out=slopes)
        np.multiply(errors, slopes, out=out)


@dataclass(frozen=True)
class Exponential(Activation):
    """f(z) = exp(z) = f'(z), the inverse of the log link (McCullagh and Nelder 1989)."""

    name: ClassVar[str] = "exponential"
    formula: ClassVar[str] = "exp(z)"
    derivative: ClassVar[str] = "f"
    outputs: ClassVar[str] = "(0, ∞)"
    advice: ClassVar[str] = "positive outputs of any size; in hidden layers it explodes"
    positive: ClassVar[bool] = True

    def forward(self, z: Array, out: Array) -> None:
        """Compute exp(z), cut off shortly before the largest number of the dtype."""
        np.minimum(z, math.log(np.finfo(z.dtype).max) - 1, out=out)
        np.exp(out, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = f."""
        np.multiply(errors, outputs, out=out)


@dataclass(frozen=True)
class Linear(Activation):
    """f(z) = z; several linear layers are one (Deep Learning from Scratch, chapter 3)."""

    name: ClassVar[str] = "linear"
    formula: ClassVar[str] = "z"
    derivative: ClassVar[str] = "1"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "output layers; several linear layers are only one"

    def forward(self, z: Array, out: Array) -> None:
        """Copy, unless `out` is `z`."""
        if out is not z:
            np.copyto(out, z)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f' = 1."""
        if out is not errors:
            np.copyto(out, errors)


@dataclass(frozen=True)
class Softmax(Activation):
    """f(z)_i = exp(z_i) / sum_j exp(z_j), f'_ij = f_i (d_ij - f_j) (Nielsen, chapter 3)."""

    name: ClassVar[str] = "softmax"
    formula: ClassVar[str] = "exp(z) / Σ exp(z)"
    derivative: ClassVar[str] = "∂f_i/∂z_j = f_i (δ_ij - f_j)"
    outputs: ClassVar[str] = "(0, 1), sum 1"
    advice: ClassVar[str] = "the output layer of a classifier, with cross_entropy"
    positive: ClassVar[bool] = True
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "output"

    def forward(self, z: Array, out: Array) -> None:
        """Subtract each row's maximum first, which changes nothing but keeps exp finite."""
        if np.vdot(z, z) < _SMALL_SQUARES:
            np.exp(z, out=out)  # no z is so large that it needs to, and this was sooner to know
        else:
            np.subtract(z, np.maximum.reduce(z, axis=1, keepdims=True), out=out)
            np.exp(out, out=out)
        # A product with ones sums rows of ten faster than a sum, and puts each beside its terms.
        out /= np.dot(out, _ones(z.shape[1], z.dtype))

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """dL/dz_i = f_i (e_i - sum_j f_j e_j)."""
        np.subtract(errors, (errors * outputs).sum(axis=1, keepdims=True), out=out)
        out *= outputs


@dataclass(frozen=True)
class Maxout(Activation):
    """f(z_1, ..., z_k) = max(z_1, ..., z_k): k linear maps a unit (Goodfellow et al. 2013)."""

    name: ClassVar[str] = "maxout"
    formula: ClassVar[str] = "max(z_1, ..., z_{pieces})"
    derivative: ClassVar[str] = "1 for the largest z, else 0"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "learns its own shape, for as many times the weights as it has pieces"
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "hidden"
    needs_z: ClassVar[bool] = True
    pieces: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.pieces <= 100:
            raise ValueError(f"pieces must be 2 to 100, got {self.pieces}")

    @property
    def maps(self) -> int:
        """As many as there are pieces."""
        return self.pieces

    def regions(self, z: Array) -> NDArray[np.intp]:
        """Number the piece that is the largest."""
        largest: NDArray[np.intp] = self._pieces_of(z).argmax(axis=1)
        return largest

    def forward(self, z: Array, out: Array) -> None:
        """Take the largest z of each unit."""
        self._pieces_of(z).max(axis=1, out=out)

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """Send the error to the largest z, to the first of equal ones."""
        pieces = self._pieces_of(z)
        errors_of_pieces = out.reshape(pieces.shape)
        unsent = np.ones(outputs.shape, bool)
        for k in range(self.pieces):
            chosen = unsent & (pieces[:, k] == outputs)
            unsent ^= chosen
            np.multiply(errors, chosen, out=errors_of_pieces[:, k])

    def _pieces_of(self, z: Array) -> Array:
        """Return z as ``(batch, pieces, units)``."""
        return z.reshape(len(z), self.pieces, z.shape[1] // self.pieces)


_STRIP = 2**14  # numbers of a strip
_SMALL_SQUARES = 80.0**2  # exp(80) and exp(-80) are far from the ends of float32


@functools.cache
def _ones(units: int, dtype: DTypeLike) -> Array:
    """Return a matrix of ones, ``(units, units)``."""
    return np.ones((units, units), dtype)


def _strips(z: Array) -> Iterator[slice]:
    """Yield some rows at a time, so that what is made of them for a moment stays in the cache."""
    rows = max(1, _STRIP * len(z) // max(z.size, 1))
    return (slice(begin, begin + rows) for begin in range(0, len(z), rows))


def _multiply_piecewise(
    errors: Array, on: NDArray[np.bool_], above: float, below: Array | np.floating[Any], out: Array
) -> None:
    """Write the errors to `out`, multiplied by one slope where units are on, else by the other."""
    np.multiply(errors, np.where(on, below.dtype.type(above), below), out=out)


_KINDS: tuple[type[Activation], ...] = (
    Step,
    Sigmoid,
    HardSigmoid,
    Tanh,
    Softsign,
    ReLU,
    LeakyReLU,
    PReLU,
    ELU,
    SELU,
    GELU,
    Swish,
    Softplus,
    Exponential,
    Linear,
    Softmax,
    Maxout,
)

ACTIVATIONS: dict[str, type[Activation]] = {
    **{kind.name: kind for kind in _KINDS},
    "silu": Swish,
    "identity": Linear,
}
"""Every activation by the names it has in a configuration; its own name is the one written back."""

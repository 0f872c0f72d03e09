"""Activation functions and their derivatives; the table `ACTIVATIONS` lists all of them.

Each is a frozen dataclass whose fields are its parameters. The configuration format and the JSON
Schema are generated from these fields. The forward and the backward pass work on arrays of shape
``(batch, units)``, in place where possible, and keep their dtype.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnctl.nn.limits import Limited, limited
from nnctl.nn.types import Array


@dataclass(frozen=True)
class Activation(Limited, ABC):
    """A function f that turns the weighted inputs z of a layer into its activations f(z)."""

    name: ClassVar[str]
    formula: ClassVar[str]
    """Formula of f(z), with parameter names in braces."""
    derivative: ClassVar[str]
    """Formula of f'(z), with parameter names in braces."""
    outputs: ClassVar[str]
    """Range of f."""
    advice: ClassVar[str]
    """When to use it."""
    initializer: ClassVar[str] = "glorot_uniform"
    """Weight initializer that ``auto`` selects for this activation."""
    saturation: ClassVar[tuple[float, float] | None] = None
    """Lower and upper bound of the outputs if the derivative vanishes near both, else None."""
    positive: ClassVar[bool] = False
    """Whether no output is negative."""
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "anywhere"
    """Layers that may use it: all, only hidden layers, or only the output layer."""
    monotone: ClassVar[bool] = True
    """Whether no unit has a larger output than the unit with the largest z."""
    needs_z: ClassVar[bool] = False
    """Whether `backward` reads z; if not, `forward` may overwrite z with the outputs."""
    has_slopes: ClassVar[bool] = False
    """Whether each unit has a trainable parameter, such as the slope of PReLU; see `bind`."""
    kinks: ClassVar[tuple[float, ...]] = ()
    """Values of z where the derivative jumps."""

    @property
    def pieces(self) -> int:
        """Linear pieces per unit, which are columns of z: the first piece of all units first."""
        return 1

    @property
    def initial_slopes(self) -> float:
        """Initial value of each unit's trainable parameter."""
        return 0.0

    def describe(self, template: str) -> str:
        """Return a formula with the parameter values filled in and factors of 1 left out."""
        text = template.format(**dataclasses.asdict(self))
        return re.sub(r"(?<![\w.])1 (?=\(|[zf]\b)|/1(?=,)", "", text)

    def bind(self, slopes: Array) -> Activation:
        """Return the activation with its trainable parameters attached.

        Parameters
        ----------
        slopes : array, shape (units,), or (0,) if there are none
            Trainable parameters, which both passes read.
        """
        return self

    def regions(self, z: Array) -> NDArray[np.intp]:
        """Return the index of the interval between kinks that contains each z."""
        return np.searchsorted(self.kinks, z)

    def differentiable(self) -> Activation:
        """Return the function whose derivative `backward` computes: the surrogate, or itself."""
        return self

    def limit(self) -> Activation | None:
        """Return the activation that f(c z) approaches as c goes to infinity, or None."""
        return None

    @abstractmethod
    def forward(self, z: Array, out: Array) -> None:
        """Write f(z) to `out`, which may be `z` itself if each unit has one z."""

    @abstractmethod
    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """Write dL/dz, the gradient of the loss with respect to z, to `out`.

        Parameters
        ----------
        z : array, shape (batch, pieces * units)
            Weighted inputs passed to `forward`; valid only if `needs_z` is true.
        outputs : array, shape (batch, units)
            Activations f(z) that `forward` wrote.
        gradient : array, shape (batch, units)
            dL/df(z).
        out : array, shape (batch, pieces * units)
            dL/dz. It may be `gradient` itself if each unit has one z and no trainable parameter.
        """

    def write_gradient(self, z: Array, gradient: Array, out: Array) -> None:
        """Write the gradient with respect to the trainable parameters to `out`.

        Parameters
        ----------
        z : array, shape (batch, pieces * units)
            Weighted inputs passed to `forward`.
        gradient : array, shape (batch, units)
            dL/df(z).
        out : array, shape (units,), or (0,) if there are none
            Gradient, summed over the batch; the same shape as in `bind`.
        """


@dataclass(frozen=True)
class Step(Activation):
    """f(z) = 1 where z > 0, else 0: a perceptron with the threshold -bias (Nielsen, chapter 1).

    Its derivative is 0, so no layer below it learns, unless the backward pass uses the derivative
    of another function, the surrogate (straight-through estimator, Bengio et al. 2013).
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
        """Return the step itself: f(c z) = f(z) for every c > 0."""
        return self

    def forward(self, z: Array, out: Array) -> None:
        """Compare with 0."""
        compare = np.greater_equal if self.at_zero else np.greater
        compare(z, 0, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 0, or the derivative of the surrogate."""
        if self.surrogate is None:
            out.fill(0)
            return
        sigmoid, slopes = Sigmoid(), np.empty_like(z)
        sigmoid.forward(z, slopes)
        sigmoid.backward(z, slopes, gradient, out)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """f(z) = 1 / (1 + exp(-gain z)), f' = gain f (1 - f) <= gain / 4 (Nielsen, chapter 1)."""

    name: ClassVar[str] = "sigmoid"
    formula: ClassVar[str] = "1 / (1 + exp(-{gain:g} z))"
    derivative: ClassVar[str] = "{gain:g} f (1 - f)"
    outputs: ClassVar[str] = "(0, 1)"
    advice: ClassVar[str] = (
        "one hidden layer, or a yes-or-no output; slow to train in deep networks"
    )
    saturation: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    positive: ClassVar[bool] = True
    gain: float = limited(1.0, "be above 0", lambda gain: gain > 0)

    def limit(self) -> Activation | None:
        """Return a step: a sigmoid with large weights is a perceptron (Nielsen, chapter 1)."""
        return Step()

    def forward(self, z: Array, out: Array) -> None:
        """Compute (1 + tanh(gain z / 2)) / 2, which has no exponential to overflow."""
        np.multiply(z, 0.5 * self.gain, out=out)
        np.tanh(out, out=out)
        np.multiply(out, 0.5, out=out)
        np.add(out, 0.5, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = gain f (1 - f)."""
        np.multiply(gradient, outputs, out=out)
        out *= 1 - outputs
        if self.gain != 1:
            out *= self.gain


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """f(z) = clip(z/6 + 1/2, 0, 1), a piecewise linear sigmoid (Howard et al. 2019)."""

    name: ClassVar[str] = "hard_sigmoid"
    formula: ClassVar[str] = "clip(z/6 + 1/2, 0, 1)"
    derivative: ClassVar[str] = "1/6 where |z| < 3, else 0"
    outputs: ClassVar[str] = "[0, 1]"
    advice: ClassVar[str] = "a sigmoid without exp; the gradient is 0 where |z| > 3"
    saturation: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    positive: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (-3.0, 3.0)

    def limit(self) -> Activation | None:
        """Return a step, like the sigmoid."""
        return Step()

    def forward(self, z: Array, out: Array) -> None:
        """Compute clip(z/6 + 1/2, 0, 1)."""
        np.multiply(z, 1 / 6, out=out)
        np.add(out, 0.5, out=out)
        np.clip(out, 0, 1, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1/6 between the bounds."""
        np.multiply(gradient, (outputs > 0) & (outputs < 1), out=out)
        out *= 1 / 6


@dataclass(frozen=True)
class Tanh(Activation):
    """f(z) = tanh(z), f' = 1 - f² (Nielsen, chapter 3; LeCun et al. 1998)."""

    name: ClassVar[str] = "tanh"
    formula: ClassVar[str] = "tanh(z)"
    derivative: ClassVar[str] = "1 - f²"
    outputs: ClassVar[str] = "(-1, 1)"
    advice: ClassVar[str] = "a sigmoid centered at 0: the next layer's inputs have both signs"
    saturation: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def forward(self, z: Array, out: Array) -> None:
        """Compute tanh(z)."""
        np.tanh(z, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 - f²."""
        np.multiply(gradient, 1 - outputs * outputs, out=out)


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

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = (1 - |f|)²."""
        np.multiply(gradient, np.square(1 - np.abs(outputs)), out=out)


@dataclass(frozen=True)
class ReLU(Activation):
    """f(z) = max(z, 0), f' = 1 where z > 0, else 0 (Nair and Hinton 2010)."""

    name: ClassVar[str] = "relu"
    formula: ClassVar[str] = "max(z, 0)"
    derivative: ClassVar[str] = "1 where z > 0, else 0"
    outputs: ClassVar[str] = "[0, ∞)"
    advice: ClassVar[str] = (
        "the first choice for hidden layers; a unit that always outputs 0 is dead"
    )
    initializer: ClassVar[str] = "he_normal"
    positive: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, 0)."""
        np.maximum(z, 0, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 where the output is positive, else 0, also at z = 0."""
        np.multiply(gradient, outputs > 0, out=out)


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
    negative_slope: float = limited(0.01, "be between 0 and 1", lambda slope: 0 <= slope <= 1)

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, negative_slope z)."""
        np.maximum(z, z * self.negative_slope, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 where the output is positive, else negative_slope."""
        below = outputs.dtype.type(self.negative_slope)
        np.multiply(gradient, np.where(outputs > 0, 1, below), out=out)


@dataclass(frozen=True)
class PReLU(Activation):
    """f(z) = z where z > 0, else s z; each unit learns its own slope s (He et al. 2015)."""

    name: ClassVar[str] = "prelu"
    formula: ClassVar[str] = "z if z > 0 else s z, s is learned (initially {initial_slope:g})"
    derivative: ClassVar[str] = "1 where z > 0, else s"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "a leaky_relu whose slopes are learned"
    initializer: ClassVar[str] = "he_normal"
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "hidden"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    has_slopes: ClassVar[bool] = True
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    initial_slope: float = 0.25

    @property
    def initial_slopes(self) -> float:
        """Initial slope, the same for all units."""
        return self.initial_slope

    def bind(self, slopes: Array) -> Activation:
        """Return the activation with these slopes."""
        return BoundPReLU(self.initial_slope, slopes)

    def forward(self, z: Array, out: Array) -> None:
        """Use the initial slope for every unit."""
        self._untrained(z).forward(z, out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """Use the initial slope for every unit."""
        self._untrained(z).backward(z, outputs, gradient, out)

    def write_gradient(self, z: Array, gradient: Array, out: Array) -> None:
        """df/ds = min(z, 0), with the slope s."""
        np.einsum("bu,bu->u", gradient, np.minimum(z, 0), out=out)

    def _untrained(self, z: Array) -> Activation:
        return self.bind(np.full(z.shape[1], self.initial_slope, z.dtype))


@dataclass(frozen=True, eq=False)
class BoundPReLU(PReLU):
    """`PReLU` with the slopes of one layer, shape ``(units,)``."""

    slopes: Array = field(default_factory=lambda: np.empty(0))

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, 0) + slopes min(z, 0)."""
        below = np.minimum(z, 0)
        below *= self.slopes
        np.maximum(z, 0, out=out)
        out += below

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 where z > 0, else the slope."""
        np.multiply(gradient, np.where(z > 0, 1, self.slopes), out=out)


@dataclass(frozen=True)
class ELU(Activation):
    """f(z) = z where z > 0, else alpha (exp(z) - 1), f' = 1 or f + alpha (Clevert et al. 2016)."""

    name: ClassVar[str] = "elu"
    formula: ClassVar[str] = "z if z > 0 else {alpha:g} (exp(z) - 1)"
    derivative: ClassVar[str] = "1 where z > 0, else f + {alpha:g}"
    outputs: ClassVar[str] = "(-{alpha:g}, ∞)"
    advice: ClassVar[str] = "a relu that does not die; its mean output is closer to 0"
    initializer: ClassVar[str] = "he_normal"
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    alpha: float = limited(1.0, "not be negative", lambda alpha: alpha >= 0)

    def forward(self, z: Array, out: Array) -> None:
        """Add max(z, 0) and alpha (exp(min(z, 0)) - 1), which cannot overflow."""
        below = np.minimum(z, 0)
        np.expm1(below, out=below)
        below *= self.alpha
        np.maximum(z, 0, out=out)
        out += below

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 where the output is positive, else f + alpha."""
        np.multiply(gradient, np.where(outputs > 0, 1, outputs + self.alpha), out=out)


@dataclass(frozen=True)
class SELU(Activation):
    """f(z) = lambda elu(z), which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""

    name: ClassVar[str] = "selu"
    formula: ClassVar[str] = "1.0507 z if z > 0 else 1.7581 (exp(z) - 1)"
    derivative: ClassVar[str] = "1.0507 where z > 0, else f + 1.7581"
    outputs: ClassVar[str] = "(-1.7581, ∞)"
    advice: ClassVar[str] = "deep networks: activations keep mean 0 and variance 1"
    initializer: ClassVar[str] = "lecun_normal"
    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def forward(self, z: Array, out: Array) -> None:
        """Compute lambda elu(z)."""
        ELU(SELU_ALPHA).forward(z, out)
        out *= SELU_LAMBDA

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = lambda where the output is positive, else f + lambda alpha."""
        below = outputs + SELU_LAMBDA * SELU_ALPHA
        np.multiply(gradient, np.where(outputs > 0, SELU_LAMBDA, below), out=out)


SELU_LAMBDA = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


@dataclass(frozen=True)
class GELU(Activation):
    """f(z) = z P(z), with P the normal distribution function (Hendrycks and Gimpel 2016)."""

    name: ClassVar[str] = "gelu"
    formula: ClassVar[str] = "z P(z), P(z) = P(N(0, 1) < z)"
    derivative: ClassVar[str] = "P(z) + z p(z), p = P'"
    outputs: ClassVar[str] = "[-0.17, ∞)"
    advice: ClassVar[str] = "a smooth relu, common in transformers"
    initializer: ClassVar[str] = "he_normal"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    approximate: Literal["tanh"] | None = None

    def forward(self, z: Array, out: Array) -> None:
        """Multiply z by the distribution function P(z)."""
        for rows in _strips(z):
            strip = z[rows]
            probabilities = normal_cdf(strip) if self.approximate is None else _tanh_cdf(strip)[0]
            np.multiply(strip, probabilities, out=out[rows])

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = P + z P'."""
        for rows in _strips(z):
            strip = z[rows]
            if self.approximate is None:
                slopes, densities = normal_cdf(strip), normal_density(strip)
            else:
                slopes, densities = _tanh_cdf(strip)
            densities *= strip
            slopes += densities
            np.multiply(gradient[rows], slopes, out=out[rows])


def normal_density(z: Array) -> Array:
    """Return exp(-z²/2) / sqrt(2 pi)."""
    density = np.clip(z, -40, 40)  # the density is 0 beyond, in float64
    density *= density
    density *= -0.5
    np.exp(density, out=density)
    density *= 1 / math.sqrt(2 * math.pi)
    return density


_CDF_STEP = 1 / 64
_CDF_END = 9.0  # P(z) is 0 or 1 beyond, to 1e-18


@functools.cache
def _cdf_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the normal distribution function and its density on a grid, computed with erfc."""
    grid = np.arange(-_CDF_END, _CDF_END + _CDF_STEP, _CDF_STEP)
    values = [math.erfc(-z / math.sqrt(2)) / 2 for z in grid]
    return np.array(values), normal_density(grid).astype(np.float64)


def normal_cdf(z: Array) -> Array:
    """Return the distribution function of N(0, 1), to 3e-13.

    NumPy has no erf. This is a Taylor series about the nearest grid point x, whose coefficients are
    Hermite polynomials: P(x + d) = P(x) + p(x) (d - x d²/2 + (x² - 1) d³/6 - ...).
    """
    values, densities = _cdf_table()
    inside = np.clip(z, -_CDF_END, _CDF_END)
    nearest = np.rint((inside + _CDF_END) * (1 / _CDF_STEP)).astype(np.intp)
    x = nearest * _CDF_STEP - _CDF_END
    d = inside - x
    series = (x * x * x - 3 * x) * (d / -24) + (x * x - 1) / 6
    series = (series * d - x / 2) * d + 1
    cdf: Array = densities.take(nearest, mode="clip")  # NaN has no valid index
    cdf *= series * d
    cdf += values.take(nearest, mode="clip")
    return cdf.astype(z.dtype)


def _tanh_cdf(z: Array) -> tuple[Array, Array]:
    """Return (1 + tanh(c (z + 0.044715 z³))) / 2 with c = sqrt(2 / pi), and its derivative."""
    clipped = np.clip(z, -20, 20)  # the result is 0 or 1 beyond, in float64
    c = math.sqrt(2 / math.pi)
    squares = clipped * clipped
    cdf = np.tanh(c * clipped * (1 + 0.044715 * squares))
    slopes = (1 - cdf * cdf) * (c / 2 * (1 + 3 * 0.044715 * squares))
    cdf += 1
    cdf *= 0.5
    return cdf, slopes


@dataclass(frozen=True)
class Swish(Activation):
    """f(z) = z sigmoid(beta z), called silu if beta is 1 (Ramachandran et al. 2017)."""

    name: ClassVar[str] = "swish"
    formula: ClassVar[str] = "z / (1 + exp(-{beta:g} z))"
    derivative: ClassVar[str] = "s + {beta:g} f (1 - s), s = f / z"
    outputs: ClassVar[str] = "[-0.2785/{beta:g}, ∞)"
    advice: ClassVar[str] = "a smooth relu that does not die"
    initializer: ClassVar[str] = "he_normal"
    monotone: ClassVar[bool] = False
    needs_z: ClassVar[bool] = True
    beta: float = limited(1.0, "be above 0", lambda beta: beta > 0)

    def forward(self, z: Array, out: Array) -> None:
        """Multiply z by sigmoid(beta z)."""
        gates = np.empty_like(z)
        Sigmoid(self.beta).forward(z, gates)
        np.multiply(z, gates, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = s + beta f (1 - s)."""
        gates = np.empty_like(z)
        Sigmoid(self.beta).forward(z, gates)
        slopes = 1 - gates
        slopes *= outputs
        slopes *= self.beta
        slopes += gates
        np.multiply(gradient, slopes, out=out)


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

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1 - exp(-f)."""
        slopes = np.expm1(-outputs)
        np.negative(slopes, out=slopes)
        np.multiply(gradient, slopes, out=out)


@dataclass(frozen=True)
class Exponential(Activation):
    """f(z) = exp(z) = f'(z), the inverse of the log link (McCullagh and Nelder 1989)."""

    name: ClassVar[str] = "exponential"
    formula: ClassVar[str] = "exp(z)"
    derivative: ClassVar[str] = "f"
    outputs: ClassVar[str] = "(0, ∞)"
    advice: ClassVar[str] = "positive outputs of any size; explodes in hidden layers"
    positive: ClassVar[bool] = True

    def forward(self, z: Array, out: Array) -> None:
        """Compute exp(z), with z limited so that the result fits the dtype."""
        np.minimum(z, math.log(np.finfo(z.dtype).max) - 1, out=out)
        np.exp(out, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = f."""
        np.multiply(gradient, outputs, out=out)


@dataclass(frozen=True)
class Linear(Activation):
    """f(z) = z; stacked linear layers equal one (Deep Learning from Scratch, chapter 3)."""

    name: ClassVar[str] = "linear"
    formula: ClassVar[str] = "z"
    derivative: ClassVar[str] = "1"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "output layers; stacked linear layers are equal to a single one"

    def forward(self, z: Array, out: Array) -> None:
        """Copy z to `out`, unless they are the same array."""
        if out is not z:
            np.copyto(out, z)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """f' = 1."""
        if out is not gradient:
            np.copyto(out, gradient)


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
        """Subtract each row's maximum first: the result is the same, and exp stays finite."""
        if np.vdot(z, z) < _SMALL_SQUARES:
            np.exp(z, out=out)  # all |z| < 80: exp is finite, and a small step is 5 % faster
        else:
            np.subtract(z, np.maximum.reduce(z, axis=1, keepdims=True), out=out)
            np.exp(out, out=out)
        # A product with ones sums each row, and broadcasts the result.
        out /= np.dot(out, _ones(z.shape[1], z.dtype))

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """dL/dz_i = f_i (e_i - sum_j f_j e_j), with e = dL/df(z)."""
        np.subtract(gradient, (gradient * outputs).sum(axis=1, keepdims=True), out=out)
        out *= outputs


@dataclass(frozen=True)
class Maxout(Activation):
    """f(z_1, ..., z_k) = max(z_1, ..., z_k): k linear pieces per unit (Goodfellow et al. 2013)."""

    name: ClassVar[str] = "maxout"
    formula: ClassVar[str] = "max(z_1, ..., z_{pieces})"
    derivative: ClassVar[str] = "1 for the largest z, else 0"
    outputs: ClassVar[str] = "(-∞, ∞)"
    advice: ClassVar[str] = "learns its own shape; each piece needs weights of its own"
    place: ClassVar[Literal["anywhere", "hidden", "output"]] = "hidden"
    needs_z: ClassVar[bool] = True
    pieces: int = limited(2, "be 2 to 100", lambda pieces: 2 <= pieces <= 100)

    def regions(self, z: Array) -> NDArray[np.intp]:
        """Return the index of the largest piece of each unit."""
        largest: NDArray[np.intp] = self._pieces_of(z).argmax(axis=1)
        return largest

    def forward(self, z: Array, out: Array) -> None:
        """Take the largest z of each unit."""
        self._pieces_of(z).max(axis=1, out=out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """Pass the gradient to the largest z, or to the first of equal ones."""
        pieces = self._pieces_of(z)
        gradients = out.reshape(pieces.shape)
        unassigned = np.ones(outputs.shape, bool)
        for k in range(self.pieces):
            chosen = unassigned & (pieces[:, k] == outputs)
            unassigned ^= chosen
            np.multiply(gradient, chosen, out=gradients[:, k])

    def _pieces_of(self, z: Array) -> Array:
        """Return z as ``(batch, pieces, units)``."""
        return z.reshape(len(z), self.pieces, z.shape[1] // self.pieces)


_STRIP = 2**14  # array elements per strip
_SMALL_SQUARES = 80.0**2  # exp(80) and exp(-80) are well within the range of float32


@functools.cache
def _ones(units: int, dtype: DTypeLike) -> Array:
    """Return a matrix of ones, ``(units, units)``."""
    return np.ones((units, units), dtype)


def _strips(z: Array) -> Iterator[slice]:
    """Yield slices of a few rows, so that temporary arrays of float64 stay small."""
    rows = max(1, _STRIP * len(z) // max(z.size, 1))
    return (slice(begin, begin + rows) for begin in range(0, len(z), rows))


# In the order of the classes in this file; the reference lists them in the same order.
ACTIVATIONS: dict[str, type[Activation]] = {
    **{kind.name: kind for kind in Activation.__subclasses__()},
    "silu": Swish,
    "identity": Linear,
}
"""Every activation by its names in a configuration; aliases are saved under the class's `name`."""

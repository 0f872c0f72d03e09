"""Optimizers: chains of small rules that update the parameters in place.

A training step applies the rules of an `Optimizer` one after the other: clip the gradient, shrink
the weights, descend along the gradient, limit the weights, average the parameters. `OPTIMIZERS` is
the table of the rules that descend.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.network import Parameters
from nnctl.nn.types import Array

EMA_EVERY = 8
"""Steps between updates of the averaged parameters."""
_TINY = 1e-30  # far above the denormal numbers of float32, far below values that matter

State = Mapping[str, Array]
"""State of an optimizer by name, each array as long as the parameters."""


@dataclass(frozen=True, eq=False)
class Shard:
    """The parameters that a rule updates: all of them, or the part of one thread.

    Parameters
    ----------
    parameters, gradient : array, shape (n,)
        Parameters and their gradient; rules may overwrite both.
    weights : array, shape (m,)
        The parameters that decay: the weights, but neither biases nor slopes of activations.
    columns : list of array, shape (inputs, columns)
        For each layer, the incoming weights of some of its units, or of all.
    state : mapping of str to array, shape (n,)
        State of the optimizer.
    """

    parameters: Array
    gradient: Array
    weights: Array
    columns: Sequence[Array]
    state: State

    @classmethod
    def whole(cls, parameters: Parameters, gradient: Parameters, state: State) -> Shard:
        """Return the shard that consists of all parameters."""
        weights, columns = parameters.decaying, parameters.weights
        return cls(parameters.vector, gradient.vector, weights, columns, state)

    def sum(self, value: float) -> float:
        """Return the sum of a value over all shards."""
        return value

    def wait(self) -> None:
        """Wait until all shards are updated."""


class UpdateRule(ABC):
    """One link of an optimizer: it changes the parameters, the gradient, or both, in place.

    Attributes
    ----------
    is_linear : bool
        Whether the rule, applied to a weight without a gradient, is a linear map of this weight and
        its state.
    """

    is_linear: ClassVar[bool] = False

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the initial state by name, arrays of shape ``(size,)``."""
        return {}

    @abstractmethod
    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Apply the rule to a shard, in a step counted from 1."""


@dataclass(frozen=True)
class ClipNorm(UpdateRule):
    """Scale down a gradient that is longer than `max_norm` (Pascanu et al. 2013).

    With `is_scaled` the gradient is already multiplied by the learning rate; see `SGD`.
    """

    is_linear: ClassVar[bool] = True
    max_norm: float
    is_scaled: bool

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Compare the norm of the whole gradient with the maximum."""
        maximum = self.max_norm * (learning_rate if self.is_scaled else 1.0)
        norm = math.sqrt(shard.sum(squared_norm(shard.gradient)))
        if norm > maximum:
            shard.gradient[...] *= maximum / norm


@dataclass(frozen=True)
class WeightDecay(UpdateRule):
    """Multiply the weights by 1 - η decay; Nielsen's lambda / n is `decay`.

    For Adam this is decoupled weight decay (Loshchilov and Hutter 2019).
    """

    is_linear: ClassVar[bool] = True
    decay: float

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Shrink the weights, but neither biases nor slopes of activations."""
        shard.weights[...] *= 1 - learning_rate * self.decay


@dataclass(frozen=True)
class L1(UpdateRule):
    """Move the weights by η l1 toward 0; Nielsen's lambda / n is `l1` (Nielsen, chapter 3).

    A weight that would cross 0 becomes 0, so that weights without use end at 0 instead of
    oscillating around it (soft thresholding; Tsuruoka et al. 2009 compare the two).
    """

    l1: float

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Move the weights, but neither biases nor slopes of activations."""
        limit = learning_rate * self.l1
        shard.weights[...] -= np.clip(shard.weights, -limit, limit)


@dataclass(frozen=True)
class Descent(UpdateRule):
    """A rule that moves the parameters along the gradient; one entry of `OPTIMIZERS`."""

    name: ClassVar[str]

    def gradient_scale(self, learning_rate: float) -> float:
        """Return the factor by which the caller multiplies the gradient before `update`."""
        return 1.0

    @abstractmethod
    def step_size(self, state: State, learning_rate: float, step: int) -> float | Array:
        """Return the ratio of a step to a constant gradient, after many steps."""


@dataclass(frozen=True)
class SGD(Descent):
    """Stochastic gradient descent, with momentum.

    With velocity v and learning rate η (Nielsen, chapter 3; Sutskever et al. 2013 for `nesterov`):

        v <- momentum v - η gradient
        w <- w + v                           or w + momentum v - η gradient with `nesterov`

    The factor η is applied to the deltas of the output layer, which are far fewer numbers than the
    gradient.
    """

    is_linear: ClassVar[bool] = True
    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the velocity 0, or nothing without momentum."""
        return {"velocity": np.zeros_like(parameters.vector)} if self.momentum else {}

    def gradient_scale(self, learning_rate: float) -> float:
        """Return the learning rate, so that the scaled gradient is the step itself."""
        return learning_rate

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Update the velocity, then the parameters."""
        parameters, gradient = shard.parameters, shard.gradient
        if not self.momentum:
            parameters -= gradient
            return
        v = shard.state["velocity"]
        v *= self.momentum
        v -= gradient
        if self.nesterov:
            parameters -= gradient
            np.multiply(v, self.momentum, out=gradient)
            parameters += gradient
        else:
            parameters += v

    def step_size(self, state: State, learning_rate: float, step: int) -> float | Array:
        """Return η / (1 - momentum), the sum of the geometric series."""
        return learning_rate / (1 - self.momentum)


@dataclass(frozen=True)
class AdaGrad(Descent):
    """w <- w - η gradient / (sqrt(sum of all squared gradients) + epsilon) (Duchi et al. 2011)."""

    is_linear: ClassVar[bool] = True
    name: ClassVar[str] = "adagrad"
    epsilon: float = 1e-7

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the sums of squared gradients, all 0."""
        return {"sum_of_squares": np.zeros_like(parameters.vector)}

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Add the squared gradient to the sums, then update the parameters."""
        parameters, gradient, sums = shard.parameters, shard.gradient, shard.state["sum_of_squares"]
        sums += gradient * gradient
        gradient *= self.step_size(shard.state, learning_rate, step)
        parameters -= gradient

    def step_size(self, state: State, learning_rate: float, step: int) -> float | Array:
        """Return η / (sqrt(h) + epsilon), where h are the sums of squared gradients."""
        return _adaptive_step(state["sum_of_squares"], learning_rate, self.epsilon)


@dataclass(frozen=True)
class RMSProp(Descent):
    """w <- w - η gradient / (sqrt(v) + epsilon) (Tieleman and Hinton 2012).

    v is an exponential moving average of the squared gradient, with the decay `beta2`.
    """

    is_linear: ClassVar[bool] = True
    name: ClassVar[str] = "rmsprop"
    beta2: float = 0.99
    epsilon: float = 1e-8

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the moving average v, which is 0."""
        return {"mean_of_squares": np.zeros_like(parameters.vector)}

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Update v, then the parameters."""
        parameters, gradient = shard.parameters, shard.gradient
        square = shard.state["mean_of_squares"]
        square *= self.beta2
        square += (1 - self.beta2) * gradient * gradient
        gradient *= self.step_size(shard.state, learning_rate, step)
        parameters -= gradient

    def step_size(self, state: State, learning_rate: float, step: int) -> float | Array:
        """Return η / (sqrt(v) + epsilon)."""
        return _adaptive_step(state["mean_of_squares"], learning_rate, self.epsilon)


def _adaptive_step(squares: Array, learning_rate: float, epsilon: float) -> Array:
    """Return η / (sqrt(squares) + epsilon)."""
    size: Array = np.sqrt(squares)
    size += epsilon
    return np.divide(learning_rate, size, out=size)


@dataclass(frozen=True)
class Adam(Descent):
    """w <- w - η m / (sqrt(v) + epsilon) (Kingma and Ba 2015).

    m and v are exponential moving averages of the gradient and of its square, with the decays
    `beta1` and `beta2`, corrected for their bias toward the initial value 0.
    """

    name: ClassVar[str] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the moving averages m and v, all 0."""
        zeros = np.zeros_like(parameters.vector)
        return {"mean": zeros, "mean_of_squares": zeros.copy()}

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Update m and v, then the parameters."""
        parameters, gradient = shard.parameters, shard.gradient
        mean, square = shard.state["mean"], shard.state["mean_of_squares"]
        mean *= self.beta1
        mean += (1 - self.beta1) * gradient
        square *= self.beta2
        gradient *= gradient
        gradient *= 1 - self.beta2
        square += gradient
        change = self.step_size(shard.state, learning_rate, step)
        change *= mean
        change /= 1 - self.beta1**step
        parameters -= change

    def step_size(self, state: State, learning_rate: float, step: int) -> float | Array:
        """Return η / (sqrt(v) + epsilon)."""
        size: Array = np.sqrt(state["mean_of_squares"])
        size *= 1 / math.sqrt(1 - self.beta2 ** max(step, 1))
        size += self.epsilon
        return np.divide(learning_rate, size, out=size)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    The weight decay of `Adam` is decoupled as well, see `WeightDecay`: this is its usual name.
    """

    name: ClassVar[str] = "adamw"


@dataclass(frozen=True)
class MaxNorm(UpdateRule):
    """Scale down the incoming weights of a unit whose norm is above `max_norm`.

    See Srebro and Shraibman, 2005, and Srivastava et al., 2014.
    """

    max_norm: float

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Project the weights of each unit of the shard, when all parameters are updated."""
        shard.wait()
        for weights in shard.columns:
            norms = vector_norms("ij,ij->j", weights)
            too_long = norms > self.max_norm
            if too_long.any():
                factors = np.where(too_long, self.max_norm / np.where(too_long, norms, 1), 1)
                weights *= factors.astype(weights.dtype)
        shard.wait()


@dataclass(frozen=True)
class MovingAverage(UpdateRule):
    """Exponential moving average (EMA) of the parameters (Polyak and Juditsky 1992).

    To save time it is updated only at every eighth step, with the decay of eight steps. The decay
    is smaller in the first steps, so that the influence of the initial parameters soon ends.
    """

    is_linear: ClassVar[bool] = True
    decay: float

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the initial parameters as their average."""
        return {"average": parameters.vector.copy()}

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Move the average toward the parameters."""
        if step % EMA_EVERY == 0:
            decay = min(self.decay, step / (step + 10)) ** EMA_EVERY
            average = shard.state["average"]
            average *= decay
            average += shard.parameters * shard.parameters.dtype.type(1 - decay)


@dataclass(frozen=True)
class Optimizer:
    """A descent, and the rules that apply before and after it.

    Parameters
    ----------
    descent : Descent
        Rule that moves the parameters along the gradient.
    before, after : tuple of UpdateRule
        Other rules, in the order in which they apply.
    """

    descent: Descent
    before: tuple[UpdateRule, ...] = ()
    after: tuple[UpdateRule, ...] = ()

    @property
    def rules(self) -> tuple[UpdateRule, ...]:
        """All rules, in the order in which they apply."""
        return (*self.before, self.descent, *self.after)

    @property
    def is_linear(self) -> bool:
        """Whether all rules are linear for weights without a gradient; see `UpdateRule`."""
        return all(rule.is_linear for rule in self.rules)

    def gradient_scale(self, learning_rate: float) -> float:
        """Return the factor by which the caller multiplies the gradient before `update`."""
        return self.descent.gradient_scale(learning_rate)

    def init_state(self, parameters: Parameters) -> dict[str, Array]:
        """Return the initial state of all rules, by name."""
        state: dict[str, Array] = {}
        for rule in self.rules:
            state |= rule.init_state(parameters)
        return state

    def update(self, shard: Shard, learning_rate: float, step: int) -> None:
        """Apply all rules to a shard, in a step counted from 1."""
        for rule in self.rules:
            rule.update(shard, learning_rate, step)


def flush_denormals(state: State) -> None:
    """Set tiny numbers to 0: denormal numbers are 30 times slower.

    With momentum, the velocity of a weight without gradient, such as that of a black pixel, decays
    until it is denormal.
    """
    for name, values in state.items():
        if name != "average":
            values *= np.abs(values) >= _TINY


def squared_norm(vector: Array) -> float:
    """Return the squared norm of a vector, even if it overflows float32."""
    with np.errstate(over="ignore"):
        result = float(np.dot(vector, vector))
    if math.isfinite(result):
        return result
    wide = vector.astype(np.float64)
    return float(np.dot(wide, wide))


def vector_norms(subscripts: str, vectors: Array) -> Array:
    """Return the norms of rows or columns, even if their squares overflow float32."""
    with np.errstate(over="ignore"):
        squares = np.einsum(subscripts, vectors, vectors)
    if not np.isfinite(squares).all():
        wide = vectors.astype(np.float64)
        squares = np.einsum(subscripts, wide, wide)
    norms: Array = np.sqrt(squares)
    return norms


OPTIMIZERS: dict[str, type[Descent]] = {
    kind.name: kind for kind in (SGD, AdaGrad, RMSProp, Adam, AdamW)
}
"""Every optimizer by its name in a configuration."""

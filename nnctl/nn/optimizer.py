"""Optimizers on flat parameter vectors: stochastic gradient descent, AdaGrad and Adam."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.network import Parameters
from nnctl.nn.types import Array


@dataclass(frozen=True)
class Optimizer(ABC):
    """An update rule for the parameters.

    Before each update, weight decay multiplies the weights by 1 - η weight_decay, where η is the
    learning rate; biases and learned slopes do not decay. Nielsen's lambda / n is `weight_decay`.
    """

    name: ClassVar[str]
    learning_rate: float
    weight_decay: float = 0.0

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """Number of state vectors, each as long as the parameters, kept from step to step."""

    def init_state(self, parameters: Parameters) -> Array:
        """Return the initial optimizer state, all zeros, ``(n_slots, size)``."""
        return np.zeros((self.n_slots, parameters.vector.size), parameters.vector.dtype)

    def gradient_scale(self, learning_rate: float) -> float:
        """Return the factor by which the caller multiplies the gradient before `update`."""
        return 1.0

    def decay(self, weights: Array, learning_rate: float) -> None:
        """Apply weight decay to the weights, in place, before their update."""
        if self.weight_decay:
            weights *= 1 - learning_rate * self.weight_decay

    @abstractmethod
    def update(
        self, parameters: Array, gradient: Array, state: Array, learning_rate: float, count: int
    ) -> None:
        """Update all parameters, or a part of them, in place.

        Parameters
        ----------
        parameters : array, shape (n,)
            Parameters to update.
        gradient : array, shape (n,)
            Gradient, already multiplied by `gradient_scale`; it is overwritten.
        state : array, shape (n_slots, n)
            Optimizer state of these parameters, as returned by `init_state`; it is updated.
        learning_rate : float
            Learning rate η of this step.
        count : int
            Step number, counted from 1.
        """

    @abstractmethod
    def step_size(self, state: Array, learning_rate: float, count: int) -> float | Array:
        """Return the factor between a constant gradient and its step, once steps are steady."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With velocity v and learning rate η (Nielsen, chapter 3; Sutskever et al. 2013 for `nesterov`):

        v <- momentum v - η gradient
        w <- w + v                           or w + momentum v - η gradient with `nesterov`

    The factor η is applied to the deltas of the output layer, which are far fewer numbers than the
    gradient.
    """

    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def n_slots(self) -> int:
        """Return 1, for the velocity, or 0 without momentum."""
        return 1 if self.momentum else 0

    def gradient_scale(self, learning_rate: float) -> float:
        """Return the learning rate, so that the scaled gradient is the step itself."""
        return learning_rate

    def update(
        self, parameters: Array, gradient: Array, state: Array, learning_rate: float, count: int
    ) -> None:
        """Update the velocity, then the parameters."""
        if not self.momentum:
            parameters -= gradient
            return
        (v,) = state
        v *= self.momentum
        v -= gradient
        if self.nesterov:
            parameters -= gradient
            np.multiply(v, self.momentum, out=gradient)
            parameters += gradient
        else:
            parameters += v

    def step_size(self, state: Array, learning_rate: float, count: int) -> float | Array:
        """Return η / (1 - momentum), the sum of the geometric series."""
        return learning_rate / (1 - self.momentum)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """w <- w - η gradient / sqrt(sum of all squared gradients so far) (Duchi et al. 2011)."""

    name: ClassVar[str] = "adagrad"
    epsilon: ClassVar[float] = 1e-7

    @property
    def n_slots(self) -> int:
        """Return 1, for the sums of squared gradients."""
        return 1

    def update(
        self, parameters: Array, gradient: Array, state: Array, learning_rate: float, count: int
    ) -> None:
        """Add the squared gradient to the sums, then update the parameters."""
        (sums,) = state
        sums += gradient * gradient
        gradient *= self.step_size(state, learning_rate, count)
        parameters -= gradient

    def step_size(self, state: Array, learning_rate: float, count: int) -> float | Array:
        """Return η / (sqrt(h) + epsilon), where h are the sums of squared gradients."""
        size: Array = np.sqrt(state[0])
        size += self.epsilon
        return np.divide(learning_rate, size, out=size)


@dataclass(frozen=True)
class Adam(Optimizer):
    """w <- w - η m / (sqrt(v) + epsilon) (Kingma and Ba 2015; weight decay as Loshchilov 2019).

    m and v are exponential moving averages of the gradient and of its square, corrected for their
    bias toward the initial value 0.
    """

    name: ClassVar[str] = "adam"
    beta1: ClassVar[float] = 0.9
    beta2: ClassVar[float] = 0.999
    epsilon: ClassVar[float] = 1e-8

    @property
    def n_slots(self) -> int:
        """Return 2, for the moving averages m and v."""
        return 2

    def update(
        self, parameters: Array, gradient: Array, state: Array, learning_rate: float, count: int
    ) -> None:
        """Update m and v, then the parameters."""
        mean, square = state
        mean *= self.beta1
        mean += (1 - self.beta1) * gradient
        square *= self.beta2
        gradient *= gradient
        gradient *= 1 - self.beta2
        square += gradient
        step = self.step_size(state, learning_rate, count)
        step *= mean
        step /= 1 - self.beta1**count
        parameters -= step

    def step_size(self, state: Array, learning_rate: float, count: int) -> float | Array:
        """Return η / (sqrt(v) + epsilon)."""
        size: Array = np.sqrt(state[1])
        size *= 1 / math.sqrt(1 - self.beta2 ** max(count, 1))
        size += self.epsilon
        return np.divide(learning_rate, size, out=size)


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (SGD, AdaGrad, Adam)}
"""Every optimizer by its name in a configuration."""

"""Rules of an update, over flat vectors: stochastic gradient descent, AdaGrad and Adam."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.network import Parameters


@dataclass(frozen=True)
class Optimizer(ABC):
    """The rule of an update.

    First the weights shrink by 1 - η weight_decay, with the rate η; biases and what activations
    learn are exempt. Nielsen's lambda / n is this `weight_decay`.
    """

    name: ClassVar[str]
    learning_rate: float
    weight_decay: float = 0.0

    @property
    @abstractmethod
    def memories(self) -> int:
        """The vectors, each as long as the parameters, that it remembers from step to step."""

    def make_velocity(self, parameters: Parameters) -> Array:
        """Return what it remembers, at rest, ``(memories, size)``."""
        return np.zeros((self.memories, parameters.vector.size), parameters.vector.dtype)

    def error_scale(self, learning_rate: float) -> float:
        """Return what the gradient is to be multiplied by before `update`."""
        return 1.0

    def decay(self, weights: Array, learning_rate: float) -> None:
        """Shrink weights, in place; it comes before their update."""
        if self.weight_decay:
            weights *= 1 - learning_rate * self.weight_decay

    @abstractmethod
    def update(
        self, parameters: Array, gradient: Array, velocity: Array, learning_rate: float, count: int
    ) -> None:
        """Take one step, in place, with all parameters or with a part of them.

        Parameters
        ----------
        parameters : array, shape (n,)
            What is updated.
        gradient : array, shape (n,)
            Already multiplied by `error_scale`; overwritten.
        velocity : array, shape (memories, n)
            Of what `make_velocity` returned; updated.
        learning_rate : float
            The rate of this step.
        count : int
            The steps up to and with this one.
        """

    @abstractmethod
    def step_size(self, velocity: Array, learning_rate: float, count: int) -> float | Array:
        """Return what a lasting gradient is multiplied by to give its step, each time."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With the velocity v and the rate η (Nielsen, chapter 3; Sutskever et al. 2013 for `nesterov`):

        v <- momentum v - η gradient
        w <- w + v                           or w + momentum v - η gradient with `nesterov`

    Scaling the few errors of the output layer by η spares scaling the many gradients by it.
    """

    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def memories(self) -> int:
        """The velocity; without momentum none is needed."""
        return 1 if self.momentum else 0

    def error_scale(self, learning_rate: float) -> float:
        """Return the rate: the gradient is the step."""
        return learning_rate

    def update(
        self, parameters: Array, gradient: Array, velocity: Array, learning_rate: float, count: int
    ) -> None:
        """Go along the gradient, and on along the velocity."""
        if not self.momentum:
            parameters -= gradient
            return
        (v,) = velocity
        v *= self.momentum
        v -= gradient
        if self.nesterov:
            parameters -= gradient
            np.multiply(v, self.momentum, out=gradient)
            parameters += gradient
        else:
            parameters += v

    def step_size(self, velocity: Array, learning_rate: float, count: int) -> float | Array:
        """Sum the geometric series of the momentum."""
        return learning_rate / (1 - self.momentum)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """w <- w - η gradient / sqrt(sum of all squared gradients so far) (Duchi et al. 2011)."""

    name: ClassVar[str] = "adagrad"
    epsilon: ClassVar[float] = 1e-7

    @property
    def memories(self) -> int:
        """The sums of the squares."""
        return 1

    def update(
        self, parameters: Array, gradient: Array, velocity: Array, learning_rate: float, count: int
    ) -> None:
        """Add the squares, and go along the scaled gradient."""
        (sums,) = velocity
        sums += gradient * gradient
        gradient *= self.step_size(velocity, learning_rate, count)
        parameters -= gradient

    def step_size(self, velocity: Array, learning_rate: float, count: int) -> float | Array:
        """Return η / (sqrt(h) + epsilon)."""
        size: Array = np.sqrt(velocity[0])
        size += self.epsilon
        return np.divide(learning_rate, size, out=size)


@dataclass(frozen=True)
class Adam(Optimizer):
    """w <- w - η m / (sqrt(v) + epsilon) (Kingma and Ba 2015; weight decay as Loshchilov 2019).

    m and v are running means of the gradient and of its square, without the bias towards the 0 that
    they begin with.
    """

    name: ClassVar[str] = "adam"
    beta1: ClassVar[float] = 0.9
    beta2: ClassVar[float] = 0.999
    epsilon: ClassVar[float] = 1e-8

    @property
    def memories(self) -> int:
        """The two running means."""
        return 2

    def update(
        self, parameters: Array, gradient: Array, velocity: Array, learning_rate: float, count: int
    ) -> None:
        """Move the means, and go along the first one, scaled by the second."""
        mean, square = velocity
        mean *= self.beta1
        mean += (1 - self.beta1) * gradient
        square *= self.beta2
        gradient *= gradient
        gradient *= 1 - self.beta2
        square += gradient
        step = self.step_size(velocity, learning_rate, count)
        step *= mean
        step /= 1 - self.beta1**count
        parameters -= step

    def step_size(self, velocity: Array, learning_rate: float, count: int) -> float | Array:
        """Return η / (sqrt(v) + epsilon)."""
        size: Array = np.sqrt(velocity[1])
        size *= 1 / math.sqrt(1 - self.beta2 ** max(count, 1))
        size += self.epsilon
        return np.divide(learning_rate, size, out=size)


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (SGD, AdaGrad, Adam)}
"""Every optimizer by its name in a configuration."""

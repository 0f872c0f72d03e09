"""Stochastic gradient descent, with momentum and weight decay, over flat vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.network import Parameters


@dataclass(frozen=True)
class SGD:
    """The rule of an update.

    With the velocity v and the rate η (Nielsen, chapter 3; Sutskever et al. 2013 for `nesterov`):

        w <- (1 - η weight_decay) w          weights only, biases are exempt
        v <- momentum v - η gradient
        w <- w + v                           or w + momentum v - η gradient with `nesterov`

    Nielsen's lambda / n is this `weight_decay`.
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def make_velocity(self, parameters: Parameters) -> Array:
        """Return the velocity at rest; without momentum none is needed, and it is empty."""
        size = parameters.vector.size if self.momentum else 0
        return np.zeros(size, parameters.vector.dtype)

    def update(
        self, parameters: Parameters, step: Array, velocity: Array, learning_rate: float
    ) -> None:
        """Take one step, in place.

        Parameters
        ----------
        parameters : Parameters
            What is updated.
        step : array, shape (size,)
            The gradient, already multiplied by the learning rate; overwritten.
        velocity : array, shape (size,) or (0,)
            What `make_velocity` returned; updated.
        learning_rate : float
            The rate of this step, for the weight decay.
        """
        if self.weight_decay:
            parameters.decaying *= 1 - learning_rate * self.weight_decay
        if not self.momentum:
            parameters.vector -= step
            return
        velocity *= self.momentum
        velocity -= step
        if self.nesterov:
            parameters.vector -= step
            np.multiply(velocity, self.momentum, out=step)
            parameters.vector += step
        else:
            parameters.vector += velocity

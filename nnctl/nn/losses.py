"""Loss functions, each paired with the activation of the output layer.

A loss is computed from the logits z of shape ``(batch, units)``, the outputs f(z), and targets of
the same shape (one-hot rows, or 0 or 1 for each unit). Cross-entropy is combined with softmax or
sigmoid into one function of the logits, so neither the value nor the gradient takes the logarithm
of an output, which may be rounded to 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.activations import Activation, Sigmoid, Softmax
from nnctl.nn.types import Array


@dataclass(frozen=True)
class Loss(ABC):
    """The function that training minimizes, for one activation of the output layer."""

    over: ClassVar[type[Activation] | None] = None
    """Output activation that the loss requires; None for any."""
    term: ClassVar[str]
    """Formula of the loss of one unit with the output a and the target y; the loss is their sum."""
    delta: ClassVar[str]
    """Formula of dL/dz of one unit, with the output activation's parameter names in braces."""
    output: Activation

    @abstractmethod
    def values(self, logits: Array, targets: Array) -> Array:
        """Return the loss of each example, shape ``(batch,)``."""

    def weighted_values(self, logits: Array, targets: Array, weights: Array | None) -> Array:
        """Return the loss of each example times its weight, if there are weights, ``(batch,)``."""
        values = self.values(logits, targets)
        return values if weights is None else values * weights

    @abstractmethod
    def gradient(self, logits: Array, outputs: Array, targets: Array, out: Array) -> Array:
        """Write the deltas dL/dz of each example to `out`, ``(batch, units)``, and return it."""


@dataclass(frozen=True)
class CategoricalCrossEntropy(Loss):
    """-log f(z)_label under softmax (Nielsen, chapter 3: the log-likelihood cost)."""

    over: ClassVar[type[Activation] | None] = Softmax
    term: ClassVar[str] = "-y ln a"
    delta: ClassVar[str] = "a - y"

    def values(self, logits: Array, targets: Array) -> Array:
        """Return log sum exp z - z_label, computed from z - max z."""
        # With one column per example, NumPy reduces all examples at once.
        shifted = logits.T.copy()
        shifted -= shifted.max(axis=0)
        log_sums: Array = np.log(np.exp(shifted).sum(axis=0))
        shifted *= targets.T
        log_sums -= shifted.sum(axis=0)
        return log_sums

    def gradient(self, logits: Array, outputs: Array, targets: Array, out: Array) -> Array:
        """dL/dz = f(z) - y."""
        return np.subtract(outputs, targets, out=out)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-sum_i y_i log f(z_i) + (1 - y_i) log(1 - f(z_i)) under sigmoids (Nielsen, chapter 3)."""

    over: ClassVar[type[Activation] | None] = Sigmoid
    term: ClassVar[str] = "-y ln a - (1 - y) ln(1 - a)"
    delta: ClassVar[str] = "{gain:g} (a - y)"

    output: Sigmoid

    def values(self, logits: Array, targets: Array) -> Array:
        """Return sum log(1 + exp z) - y z, with log(1 + exp z) = max(z, 0) + log1p(exp(-|z|))."""
        if self.output.gain != 1:
            logits = logits * self.output.gain
        # This order of operations keeps small losses accurate when logits are large.
        values = np.maximum(logits, 0) - logits * targets
        values += np.log1p(np.exp(-np.abs(logits)))
        summed: Array = values.sum(axis=1)
        return summed

    def gradient(self, logits: Array, outputs: Array, targets: Array, out: Array) -> Array:
        """dL/dz = gain (f(z) - y)."""
        np.subtract(outputs, targets, out=out)
        if self.output.gain != 1:
            out *= self.output.gain
        return out


@dataclass(frozen=True)
class Quadratic(Loss):
    """|f(z) - y|² / 2, half the squared distance (Nielsen, chapter 1)."""

    term: ClassVar[str] = "(a - y)²/2"
    delta: ClassVar[str] = "(a - y) f'(z)"

    def values(self, logits: Array, targets: Array) -> Array:
        """Return half the sum of squared differences over the units."""
        distances = np.empty_like(logits)
        self.output.forward(logits, distances)
        distances -= targets
        halves: Array = 0.5 * np.einsum("ij,ij->i", distances, distances)
        return halves

    def gradient(self, logits: Array, outputs: Array, targets: Array, out: Array) -> Array:
        """dL/dz = (f(z) - y) f'(z)."""
        np.subtract(outputs, targets, out=out)
        self.output.backward(logits, outputs, out, out)
        return out


LOSSES: dict[str, tuple[type[Loss], ...]] = {
    "cross_entropy": (CategoricalCrossEntropy, BinaryCrossEntropy),
    "quadratic": (Quadratic,),
}
"""Every loss by its name in a configuration, with one class for each output activation."""


def make_loss(name: str, output: Activation) -> Loss:
    """Return the loss with this name for a network with this output activation.

    Raises
    ------
    ValueError
        The loss is not defined for this output activation.
    """
    for kind in LOSSES[name]:
        if kind.over is None or isinstance(output, kind.over):
            return kind(output)
    defined = " or ".join(kind.over.name for kind in LOSSES[name] if kind.over)
    raise ValueError(f"{name} is defined over {defined} outputs, not over {output.name}")

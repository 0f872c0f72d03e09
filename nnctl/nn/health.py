"""Layer statistics on a fixed batch: dead units, saturation, vanishing or exploding gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.backprop import Backpropagation
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network, Parameters
from nnctl.nn.types import Array

_MARGIN = 0.05  # fraction of the output range; an output this near a bound is saturated


@dataclass(frozen=True)
class LayerHealth:
    """Statistics of one layer.

    Parameters
    ----------
    mean, std : float
        Mean and standard deviation of the activations, over units and examples, after batch
        normalization if there is one.
    dead : float
        Fraction of units whose activation is 0 for every example. For an activation with the bound
        0, values near 0 count as 0.
    saturated : float
        Fraction of outputs within 5 % of a bound of the activation, where its derivative vanishes.
    error : float
        Norm of the deltas dL/dz (Nielsen, chapter 5), root mean square over the examples.
    error_ratio : float, optional
        `error` divided by that of the next layer. Over many layers, ratios below 1 multiply to a
        vanishing gradient, ratios above 1 to an exploding gradient. None for the last layer.
    update_ratio : float
        Norm of a weight update along the mean gradient, divided by the norm of the weights.
    """

    mean: float
    std: float
    dead: float
    saturated: float
    error: float
    error_ratio: float | None
    update_ratio: float

    def is_finite(self) -> bool:
        """Return whether all values are finite."""
        return all(math.isfinite(value) for value in vars(self).values() if value is not None)


class Probe:
    """Measures the health of a network's layers on a fixed batch.

    As in training, batch normalization uses the mean and variance of the batch.

    Parameters
    ----------
    network : Network
        Network; its current parameters are read at each measurement.
    loss : Loss
        Loss whose gradient is backpropagated.
    inputs, targets : array, shape (n, features) and (n, units)
        Examples of the batch.
    gradient : Parameters
        Buffer for the gradient, overwritten by each measurement.
    """

    def __init__(
        self, network: Network, loss: Loss, inputs: Array, targets: Array, gradient: Parameters
    ) -> None:
        self._network = network
        self._loss = loss
        self._inputs = inputs
        self._targets = targets
        self._gradient = gradient
        self._backpropagation = Backpropagation(network, gradient, len(inputs))
        self._logits: Array = np.empty(targets.shape, network.dtype)

    def measure(self, step_size: float | Array) -> list[LayerHealth]:
        """Return the health of every layer; an update is `step_size` times the gradient."""
        backpropagation, count = self._backpropagation, len(self._inputs)
        outputs = backpropagation.forward(self._inputs, self._logits)
        deltas = self._loss.gradient(
            self._logits, outputs, self._targets, out=backpropagation.output_deltas
        )
        deltas /= count
        backpropagation.backward(self._inputs)
        self._gradient.vector *= step_size
        norms = [math.sqrt(count) * _norm(deltas) for deltas in backpropagation.deltas]
        next_norms = [*norms[1:], None]
        return [
            LayerHealth(
                mean=float(outputs.mean(dtype=np.float64)),
                std=float(outputs.std(dtype=np.float64)),
                dead=_dead(activations, layer.activation.saturation),
                saturated=_saturated(activations, layer.activation.saturation),
                error=error,
                error_ratio=None if next_error is None else _ratio(error, next_error),
                update_ratio=_ratio(_norm(update), _norm(weights)),
            )
            for layer, outputs, activations, error, next_error, update, weights in zip(
                self._network.layers,
                backpropagation.outputs,
                backpropagation.activations,
                norms,
                next_norms,
                self._gradient.weights,
                self._network.parameters.weights,
                strict=True,
            )
        ]


def _norm(array: Array) -> float:
    """Return the Euclidean norm, in float64 where float32 cannot hold the squares."""
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(array))
    accurate = 1e-15 < norm < math.inf
    return norm if accurate else float(np.linalg.norm(array.astype(np.float64)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _dead(outputs: Array, bounds: tuple[float, float] | None) -> float:
    """Return the fraction of units whose output is 0, or near the bound 0, for every example."""
    near = _MARGIN if bounds and bounds[0] == 0 else 0.0
    return float(np.mean(np.abs(outputs).max(axis=0) <= near))


def _saturated(outputs: Array, bounds: tuple[float, float] | None) -> float:
    """Return the fraction of outputs near one of the bounds."""
    if bounds is None:
        return 0.0
    low, high = bounds
    margin = _MARGIN * (high - low)
    return float(np.mean((outputs < low + margin) | (outputs > high - margin)))

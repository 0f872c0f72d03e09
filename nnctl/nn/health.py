"""What the layers do on a fixed batch of examples: whether they are alive and can learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Backpropagation, Network, Parameters

_MARGIN = 0.05  # of the range between its bounds, where the derivative of an activation dies


@dataclass(frozen=True)
class LayerHealth:
    """The state of one layer.

    Parameters
    ----------
    mean, std : float
        Of the activations, over units and examples.
    dead : float
        The share of units whose output is 0 for every example; where a bound is 0, near it.
    saturated : float
        The share of outputs within 5 % of a bound of the activation, where its derivative dies.
    error : float
        The length of the errors dL/dz (Nielsen, chapter 5), root mean square over the examples.
    error_ratio : float, optional
        It, divided by that of the next layer: a product of many small ones is a gradient that
        vanishes, of many large ones a gradient that explodes. None for the last layer.
    update_ratio : float
        The length of a step along the mean gradient of the weights, divided by their own.
    """

    mean: float
    std: float
    dead: float
    saturated: float
    error: float
    error_ratio: float | None
    update_ratio: float

    def is_finite(self) -> bool:
        """Tell whether all of it is finite numbers."""
        return all(math.isfinite(value) for value in vars(self).values() if value is not None)


class Probe:
    """A fixed batch on which a network is looked at.

    Parameters
    ----------
    network : Network
        Read at each measurement.
    loss : Loss
        Whose errors go back through it.
    inputs, targets : array, shape (n, features) and (n, units)
        The examples.
    gradient : Parameters
        Overwritten by each measurement.
    """

    def __init__(
        self, network: Network, loss: Loss, inputs: Array, targets: Array, gradient: Parameters
    ) -> None:
        self._network = network
        self._loss = loss
        self._inputs = inputs
        self._targets = targets
        self._gradient = gradient
        self._passes = Backpropagation(network, gradient, len(inputs))
        self._logits: Array = np.empty(targets.shape, network.dtype)

    def measure(self, step_size: float | Array) -> list[LayerHealth]:
        """Return the health of every layer, where `step_size` times the gradient is an update."""
        passes, count = self._passes, len(self._inputs)
        outputs = passes.forward(self._inputs, self._logits)
        self._loss.errors(self._logits, outputs, self._targets, out=passes.errors[-1])
        passes.errors[-1] /= count
        passes.backward()
        passes.write_gradient(self._inputs)
        self._gradient.vector *= step_size
        errors = [math.sqrt(count) * _length(layer_errors) for layer_errors in passes.errors]
        nexts = [*errors[1:], None]
        return [
            LayerHealth(
                mean=float(outputs.mean(dtype=np.float64)),
                std=float(outputs.std(dtype=np.float64)),
                dead=_dead(outputs, layer.activation.saturation),
                saturated=_saturated(outputs, layer.activation.saturation),
                error=error,
                error_ratio=None if above is None else _ratio(error, above),
                update_ratio=_ratio(_length(update), _length(weights)),
            )
            for layer, outputs, error, above, update, weights in zip(
                self._network.layers,
                passes.outputs,
                errors,
                nexts,
                self._gradient.weights,
                self._network.parameters.weights,
                strict=True,
            )
        ]


def _length(array: Array) -> float:
    """Return the Euclidean norm, in float64 where float32 cannot hold the squares."""
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(array))
    held = 1e-15 < length < math.inf
    return length if held else float(np.linalg.norm(array.astype(np.float64)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _dead(outputs: Array, bounds: tuple[float, float] | None) -> float:
    """Return the share of units whose output is 0, or near the bound 0, for every example."""
    near = _MARGIN if bounds and bounds[0] == 0 else 0.0
    return float(np.mean(np.abs(outputs).max(axis=0) <= near))


def _saturated(outputs: Array, bounds: tuple[float, float] | None) -> float:
    """Return the share of outputs near one of the bounds."""
    if bounds is None:
        return 0.0
    low, high = bounds
    margin = _MARGIN * (high - low)
    return float(np.mean((outputs < low + margin) | (outputs > high - margin)))

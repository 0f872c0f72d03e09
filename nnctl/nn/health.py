"""What the layers do on a fixed batch of examples: whether they are alive and can learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.network import Network


@dataclass(frozen=True)
class LayerHealth:
    """The state of one layer.

    Parameters
    ----------
    mean, std : float
        Of the activations, over units and examples.
    dead : float
        The share of units whose output is 0 for every example.
    saturated : float
        The share of outputs within 5 % of a bound of the activation, where its derivative dies.
    """

    mean: float
    std: float
    dead: float
    saturated: float

    def is_finite(self) -> bool:
        """Tell whether all activations were finite numbers."""
        return math.isfinite(self.mean) and math.isfinite(self.std)


def measure_health(network: Network, inputs: Array) -> list[LayerHealth]:
    """Return the health of every layer on inputs of shape ``(n, features)``."""
    health = []
    for layer, outputs in zip(network.layers, network.activations(inputs), strict=True):
        saturated = 0.0
        if layer.activation.saturation:
            low, high = layer.activation.saturation
            margin = 0.05 * (high - low)
            saturated = float(np.mean((outputs < low + margin) | (outputs > high - margin)))
        health.append(
            LayerHealth(
                mean=float(outputs.mean(dtype=np.float64)),
                std=float(outputs.std(dtype=np.float64)),
                dead=float(np.mean(~outputs.any(axis=0))),
                saturated=saturated,
            )
        )
    return health

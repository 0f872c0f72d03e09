"""Backpropagation against central differences: the test that a derivative is one."""

from __future__ import annotations

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Backpropagation, Network, Parameters


def backpropagated_gradient(
    network: Network, loss: Loss, inputs: Array, targets: Array
) -> Parameters:
    """Return the gradient of the mean loss of a batch, by backpropagation.

    Parameters
    ----------
    network : Network
        Left as it is.
    loss : Loss
        For the network's output activation.
    inputs : array, shape (batch, inputs)
        Of the network's dtype.
    targets : array, shape (batch, units)
        Of the network's dtype.
    """
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    passes = Backpropagation(network, gradient, len(inputs))
    logits = np.empty_like(targets)
    outputs = passes.forward(inputs, logits)
    loss.errors(logits, outputs, targets, out=passes.errors[-1])
    passes.errors[-1] /= len(inputs)
    passes.backward()
    return gradient


def numerical_gradient(
    network: Network, loss: Loss, inputs: Array, targets: Array, step: float = 1e-5
) -> Parameters:
    """Return the gradient of the mean loss of a batch, by central differences.

    For each parameter w, (L(w + step) - L(w - step)) / (2 step), whose error is of the order of
    step². Only float64 leaves digits enough; the network's parameters are moved and put back.
    """
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    vector = network.parameters.vector

    def mean_loss() -> float:
        return float(loss.values(network.logits(inputs), targets).mean())

    for i, value in enumerate(vector.copy()):
        vector[i] = value + step
        above = mean_loss()
        vector[i] = value - step
        below = mean_loss()
        vector[i] = value
        gradient.vector[i] = (above - below) / (2 * step)
    return gradient


def relative_error(gradient: Array, reference: Array) -> float:
    """Return |g - r| / max(|g|, |r|) in the Euclidean norm, 0 where both are 0."""
    scale = max(float(np.linalg.norm(gradient)), float(np.linalg.norm(reference)))
    return float(np.linalg.norm(gradient - reference)) / scale if scale else 0.0

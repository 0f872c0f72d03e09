"""Backpropagation against central differences: the test that a derivative is one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Backpropagation, Network, Parameters

_STEP = 1e-4  # of a difference that is not spoiled by rounding; Richardson sees to curvature
_RESOLUTION = 1e-6  # gradients that are smaller, relative to the loss, are lost in that rounding


@dataclass(frozen=True)
class GradientError:
    """How far the gradient of a layer is from central differences.

    Parameters
    ----------
    layer : int
        Counted from 1.
    steepest : float
        The largest gradient by any of its parameters.
    largest : float
        The largest difference, relative to the largest gradient of weights, of biases, or of what
        the activation learns.
    checked, skipped : int
        Parameters that were compared, and those left out because a kink lay within the step.
    """

    layer: int
    steepest: float
    largest: float
    checked: int
    skipped: int


def check_gradient(
    network: Network,
    loss: Loss,
    inputs: Array,
    targets: Array,
    *,
    samples: int,
    rng: np.random.Generator,
) -> list[GradientError]:
    """Compare backpropagation with central differences, layer by layer.

    Parameters
    ----------
    network : Network
        In float64, without surrogates; its parameters are moved and put back.
    loss : Loss
        For the network's output activation.
    inputs, targets : array, shape (batch, inputs) and (batch, units)
        In float64.
    samples : int
        The parameters of each array of a layer that are compared, if it has more.
    rng : numpy.random.Generator
        Chooses them.
    """
    gradient = backpropagated_gradient(network, loss, inputs, targets)
    below, found = inputs, []
    for layer in range(len(network.layers)):
        differences = _Differences(network, loss, layer, below, targets)
        largest, steepest, checked, skipped = 0.0, 0.0, 0, 0
        for views, ours in (
            (network.parameters.weights, gradient.weights),
            (network.parameters.biases, gradient.biases),
            (network.parameters.learned, gradient.learned),
        ):
            values, slopes = views[layer].reshape(-1), ours[layer].reshape(-1)
            chosen = rng.permutation(len(values))[:samples]
            told = [differences.by(values, int(i)) for i in chosen]
            known = [
                (slopes[i], slope)
                for i, slope in zip(chosen, told, strict=True)
                if slope is not None
            ]
            checked += len(known)
            skipped += len(told) - len(known)
            if known:
                scale = max(float(np.abs(slopes).max()), differences.resolution)
                error = max(abs(ours - theirs) for ours, theirs in known) / scale
                largest = max(largest, error) if math.isfinite(error) else math.inf
            steepest = max(steepest, float(np.abs(slopes).max(initial=0.0)))
        found.append(GradientError(layer + 1, steepest, largest, checked, skipped))
        below = network.apply(layer, network.weighted_inputs(layer, below))
    return found


class _Differences:
    """Central differences of the loss by the parameters of one layer.

    Parameters
    ----------
    network, loss, targets
        As of `check_gradient`.
    layer : int
        Counted from 0.
    below : array, shape (batch, fan_in)
        What it sees.
    """

    def __init__(
        self, network: Network, loss: Loss, layer: int, below: Array, targets: Array
    ) -> None:
        self._network = network
        self._loss = loss
        self._layer = layer
        self._below = below
        self._targets = targets
        self.resolution = _RESOLUTION * max(1.0, self._measure()[0])

    def by(self, values: Array, i: int) -> float | None:
        """Return the derivative by one of the values, or None where a kink is too near.

        Richardson's (4 D(h/2) - D(h)) / 3 leaves an error of the order of h⁴.
        """
        kept = values[i]
        measured = []
        for step in (_STEP, -_STEP, _STEP / 2, -_STEP / 2):
            values[i] = kept + step
            measured.append(self._measure())
        values[i] = kept
        (_, regions), *others = measured
        if any(not all(map(np.array_equal, regions, there)) for _, there in others):
            return None
        above, below, half_above, half_below = (loss for loss, _ in measured)
        return (8 * (half_above - half_below) - (above - below)) / (6 * _STEP)

    def _measure(self) -> tuple[float, list[NDArray[np.intp]]]:
        """Return the mean loss, and in which regions between kinks the layers are."""
        a, regions = self._below, []
        z = a
        for layer in range(self._layer, len(self._network.layers)):
            z = self._network.weighted_inputs(layer, a)
            regions.append(self._network.functions[layer].regions(z))
            a = self._network.apply(layer, z.copy())
        return float(self._loss.values(z, self._targets).mean()), regions


def linearization_residuals(
    network: Network, inputs: Array, rng: np.random.Generator, halvings: int = 4
) -> list[tuple[float, float]]:
    """Return how good the derivative predicts the outputs: Δf ≈ Σ ∂f/∂w Δw (Nielsen, chapter 1).

    Parameters
    ----------
    network : Network
        In float64; its parameters are moved and put back.
    inputs : array, shape (1, inputs)
        One example.
    rng : numpy.random.Generator
        Draws the direction of Δw.
    halvings : int
        How often Δw is halved.

    Returns
    -------
    list of (float, float)
        The length of Δw, and that of Δf - Σ ∂f/∂w Δw. What is left out is of second order: half of
        Δw leaves a quarter of it.
    """
    vector = network.parameters.vector
    kept, before = vector.copy(), network.activations(inputs)[-1]
    direction = rng.standard_normal(vector.size)
    direction *= 1e-3 * max(1e-3, float(np.linalg.norm(vector))) / np.linalg.norm(direction)
    slopes = slopes_along(network, inputs, direction)
    residuals = []
    for halving in range(halvings + 1):
        share = 0.5**halving
        vector[...] = kept + share * direction
        change = network.activations(inputs)[-1] - before
        residual = float(np.linalg.norm(change - share * slopes))
        residuals.append((share * float(np.linalg.norm(direction)), residual))
    vector[...] = kept
    return residuals


def slopes_along(network: Network, inputs: Array, direction: Array) -> Array:
    """Return Σ ∂f/∂w Δw of each output of one example, by backpropagation.

    Parameters
    ----------
    network : Network
        Left as it is.
    inputs : array, shape (1, inputs)
        The example.
    direction : array, shape (parameters,)
        Δw.
    """
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    passes = Backpropagation(network, gradient, len(inputs))
    units = network.sizes[-1]
    logits = np.empty((len(inputs), units), network.dtype)
    outputs = passes.forward(inputs, logits)
    slopes = np.empty(units, network.dtype)
    for unit, chosen in enumerate(np.eye(units)):
        network.functions[-1].backward(logits, outputs, chosen[None], passes.errors[-1])
        passes.backward()
        passes.write_gradient(inputs)
        slopes[unit] = gradient.vector @ direction
    return slopes


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
    passes.write_gradient(inputs)
    return gradient

"""Backpropagation against central differences: the test that a derivative is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Backpropagation, Network, Parameters

_STEP = 1e-4  # of a difference that is spoiled neither by curvature nor by rounding
_RESOLUTION = 1e-6  # gradients that are smaller, relative to the loss, are lost in that rounding


@dataclass(frozen=True)
class GradientError:
    """How far the gradient of a layer is from central differences.

    Parameters
    ----------
    layer : int
        Counted from 1.
    largest : float
        The largest difference, relative to the largest gradient of weights, of biases, or of what
        the activation learns.
    checked, skipped : int
        Parameters that were compared, and those left out because a kink lay within the step.
    """

    layer: int
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
        largest, checked, skipped = 0.0, 0, 0
        for views, ours in (
            (network.parameters.weights, gradient.weights),
            (network.parameters.biases, gradient.biases),
            (network.parameters.learned, gradient.learned),
        ):
            values, slopes = views[layer].reshape(-1), ours[layer].reshape(-1)
            chosen = rng.permutation(len(values))[:samples]
            told = np.array([differences.by(values, i) for i in chosen])
            known = np.isfinite(told)
            checked += int(np.count_nonzero(known))
            skipped += int(np.count_nonzero(~known))
            if known.any():
                error = np.abs(told[known] - slopes[chosen][known]).max()
                scale = max(np.abs(slopes).max(), differences.resolution)
                largest = max(largest, float(error / scale))
        found.append(GradientError(layer + 1, largest, checked, skipped))
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

    def by(self, values: Array, i: int) -> float:
        """Return the derivative by one of the values, or nan where a kink is too near."""
        kept = values[i]
        values[i] = kept + _STEP
        above, regions_above = self._measure()
        values[i] = kept - _STEP
        below, regions_below = self._measure()
        values[i] = kept
        same = all(map(np.array_equal, regions_above, regions_below))
        return (above - below) / (2 * _STEP) if same else float("nan")

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
    slopes = output_jacobian(network, inputs) @ direction
    residuals = []
    for halving in range(halvings + 1):
        share = 0.5**halving
        vector[...] = kept + share * direction
        change = network.activations(inputs)[-1] - before
        residual = float(np.linalg.norm(change - share * slopes))
        residuals.append((share * float(np.linalg.norm(direction)), residual))
    vector[...] = kept
    return residuals


def output_jacobian(network: Network, inputs: Array) -> Array:
    """Return ∂f/∂w of one example's outputs, shape (units, parameters), by backpropagation."""
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    passes = Backpropagation(network, gradient, len(inputs))
    units = network.sizes[-1]
    logits = np.empty((len(inputs), units), network.dtype)
    rows = np.empty((units, gradient.vector.size), network.dtype)
    for unit in range(units):
        outputs = passes.forward(inputs, logits)
        errors = passes.errors[-1]
        chosen = np.broadcast_to(np.eye(units)[unit], errors.shape)
        network.functions[-1].backward(logits, outputs, chosen, errors)
        passes.backward()
        rows[unit] = gradient.vector
    return rows


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

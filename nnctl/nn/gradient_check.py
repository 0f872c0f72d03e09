"""Gradient check: compares backpropagation with central differences of the loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.backprop import Backpropagation
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network, Parameters
from nnctl.nn.types import Array

_STEP = 1e-4  # large enough for little rounding error; Richardson removes the h² error
_CANCELED = 1e-2  # fraction of the largest gradient of the weights, see `check_gradient`
_RESOLUTION = 1e-6  # gradients below this, relative to the loss, are lost in rounding errors


@dataclass(frozen=True)
class GradientError:
    """Difference between the gradient of a layer and central differences.

    Parameters
    ----------
    layer : int
        Number of the layer, counted from 1.
    steepest : float
        Largest absolute gradient of any of its parameters.
    largest : float
        Largest relative error: difference divided by the largest gradient in the same array of
        parameters (weights, biases, slopes of the activation, or gains or shifts of batch
        normalization).
    checked, skipped : int
        Number of parameters compared, and of parameters left out because a kink of an activation
        lies within the step.
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

    Batch normalization uses the mean and variance of the examples, as in training.

    Parameters
    ----------
    network : Network
        Network in float64 without surrogate derivatives. Its parameters are changed during the
        check and restored.
    loss : Loss
        Loss for the network's output activation.
    inputs, targets : array, shape (batch, inputs) and (batch, units)
        Examples in float64.
    samples : int
        Maximum number of parameters to compare in each array of a layer.
    rng : numpy.random.Generator
        Generator that chooses them.
    """
    gradient = backpropagated_gradient(network, loss, inputs, targets)
    a, errors = inputs, []
    for layer in range(len(network.layers)):
        measure = functools.partial(_measure, network, loss, layer, a, targets)
        largest, steepest, checked, skipped = 0.0, 0.0, 0, 0
        # Batch normalization cancels the biases and shifts before it: their gradient is a rounding
        # error, which is small only in comparison with the gradient of the weights.
        smallest = _RESOLUTION * max(1.0, measure()[0])
        if network.statistics.size:
            smallest = max(smallest, _CANCELED * float(np.abs(gradient.weights[layer]).max()))
        kinds = [
            (p.weights, p.biases, p.slopes, p.gains, p.shifts)
            for p in (network.parameters, gradient)
        ]
        for views, gradients in zip(*kinds, strict=True):
            values, slopes = views[layer].reshape(-1), gradients[layer].reshape(-1)
            chosen = rng.permutation(len(values))[:samples]
            measured = [(slopes[i], _central_difference(values, int(i), measure)) for i in chosen]
            pairs = [(ours, theirs) for ours, theirs in measured if theirs is not None]
            checked += len(pairs)
            skipped += len(measured) - len(pairs)
            if pairs:
                scale = max(float(np.abs(slopes).max()), smallest)
                error = max(abs(ours - theirs) for ours, theirs in pairs) / scale
                largest = max(largest, error) if math.isfinite(error) else math.inf
            steepest = max(steepest, float(np.abs(slopes).max(initial=0.0)))
        errors.append(GradientError(layer + 1, steepest, largest, checked, skipped))
        a = network.propagate(layer, a, of_batch=True)
    return errors


_Measured = tuple[float, list[NDArray[np.intp]]]


def _central_difference(values: Array, i: int, measure: Callable[[], _Measured]) -> float | None:
    """Return the derivative of the loss by values[i], or None if a kink lies within the step.

    Richardson's extrapolation (4 D(h/2) - D(h)) / 3 has an error of the order of h⁴.
    """
    original = values[i]
    measured = []
    for step in (_STEP, -_STEP, _STEP / 2, -_STEP / 2):
        values[i] = original + step
        measured.append(measure())
    values[i] = original
    (_, regions), *others = measured
    if any(not all(map(np.array_equal, regions, moved)) for _, moved in others):
        return None
    above, below, half_above, half_below = (loss for loss, _ in measured)
    return (8 * (half_above - half_below) - (above - below)) / (6 * _STEP)


def _measure(network: Network, loss: Loss, first: int, a: Array, targets: Array) -> _Measured:
    """Return the mean loss, and the region between kinks of every z from the first layer on."""
    z, regions = a, []
    for layer in range(first, len(network.layers)):
        z = network.weighted_inputs(layer, a, of_batch=True)
        regions.append(network.functions[layer].regions(z))
        a = network.apply(layer, z.copy(), of_batch=True)
    return float(loss.values(z, targets).mean()), regions


def linearization_residuals(
    network: Network, inputs: Array, rng: np.random.Generator, halvings: int = 4
) -> list[tuple[float, float]]:
    """Return the residuals of the linear approximation Δf ≈ Σ ∂f/∂w Δw (Nielsen, chapter 1).

    Parameters
    ----------
    network : Network
        Network in float64, without batch normalization, which has no gradient for one example. Its
        parameters are changed and restored.
    inputs : array, shape (1, inputs)
        One example.
    rng : numpy.random.Generator
        Generator of the direction of Δw.
    halvings : int
        Number of times that Δw is halved.

    Returns
    -------
    list of (float, float)
        Length of Δw, and length of the residual Δf - Σ ∂f/∂w Δw. The residual is of second order:
        halving Δw divides it by four.
    """
    vector = network.parameters.vector
    original, before = vector.copy(), network.activations(inputs)[-1]
    direction = rng.standard_normal(vector.size)
    direction *= 1e-3 * max(1e-3, float(np.linalg.norm(vector))) / np.linalg.norm(direction)
    slopes = slopes_along(network, inputs, direction)
    residuals = []
    for halving in range(halvings + 1):
        share = 0.5**halving
        vector[...] = original + share * direction
        change = network.activations(inputs)[-1] - before
        residual = float(np.linalg.norm(change - share * slopes))
        residuals.append((share * float(np.linalg.norm(direction)), residual))
    vector[...] = original
    return residuals


def slopes_along(network: Network, inputs: Array, direction: Array) -> Array:
    """Return Σ ∂f/∂w Δw for each output of one example, by backpropagation.

    Parameters
    ----------
    network : Network
        Network, which is not changed.
    inputs : array, shape (1, inputs)
        One example.
    direction : array, shape (parameters,)
        Change of the parameters, Δw.
    """
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    backpropagation = Backpropagation(network, gradient, len(inputs))
    units = network.sizes[-1]
    logits = np.empty((len(inputs), units), network.dtype)
    outputs = backpropagation.forward(inputs, logits)
    slopes = np.empty(units, network.dtype)
    for unit, chosen in enumerate(np.eye(units)):
        deltas = backpropagation.output_deltas
        network.functions[-1].backward(logits, outputs, chosen[None], deltas)
        backpropagation.backward(inputs)
        slopes[unit] = gradient.vector @ direction
    return slopes


def backpropagated_gradient(
    network: Network, loss: Loss, inputs: Array, targets: Array
) -> Parameters:
    """Return the gradient of the mean loss of a batch, by backpropagation.

    Parameters
    ----------
    network : Network
        Network, which is not changed.
    loss : Loss
        Loss for the network's output activation.
    inputs : array, shape (batch, inputs)
        Inputs, in the network's dtype.
    targets : array, shape (batch, units)
        Targets, in the network's dtype.
    """
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    backpropagation = Backpropagation(network, gradient, len(inputs))
    logits = np.empty_like(targets)
    outputs = backpropagation.forward(inputs, logits)
    deltas = loss.gradient(logits, outputs, targets, out=backpropagation.output_deltas)
    deltas /= len(inputs)
    backpropagation.backward(inputs)
    return gradient

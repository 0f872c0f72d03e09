"""Finds the batch and the layer in which a training diverged, by repeating its last steps.

While training, only the losses of a block of batches are checked, which costs almost nothing. The
steps are deterministic: repeated from a state whose numbers are all finite, they diverge at the
same batch, now with a check of all numbers after each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnctl.nn.batches import Batch
from nnctl.nn.events import Divergence
from nnctl.nn.network import Parameters
from nnctl.nn.step import Step
from nnctl.nn.types import Array


class NotFiniteError(ArithmeticError):
    """A loss or parameter is infinite or NaN.

    Parameters
    ----------
    divergence : Divergence, optional
        Where it occurred, if that is known without repeating the steps.
    """

    def __init__(self, divergence: Divergence | None = None) -> None:
        super().__init__("a loss or parameter is not finite")
        self.divergence = divergence


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state of the training in which all numbers are finite.

    Parameters
    ----------
    parameters : array, shape (size,)
        Parameters of the network.
    statistics : array
        Running statistics of batch normalization.
    state : dict of str to array
        State of the optimizer.
    batch : int
        Number of batches done in the epoch.
    last_loss : float, optional
        Loss of the last batch before.
    """

    parameters: Array
    statistics: Array
    state: dict[str, Array]
    batch: int
    last_loss: float | None

    @classmethod
    def take(cls, step: Step, batch: int, last_loss: float | None) -> Snapshot:
        """Copy the network and the state of the optimizer."""
        network = step.network
        state = {name: values.copy() for name, values in step.state.items()}
        vector, statistics = network.parameters.vector.copy(), network.statistics.copy()
        return cls(vector, statistics, state, batch, last_loss)

    def restore(self, step: Step) -> None:
        """Set the network and the state of the optimizer to the copies."""
        step.network.parameters.vector[...] = self.parameters
        step.network.statistics[...] = self.statistics
        for name, values in self.state.items():
            step.state[name][...] = values


def is_finite(step: Step) -> bool:
    """Return whether the network's numbers and the optimizer's state are finite."""
    arrays = [step.network.parameters.vector, step.network.statistics, *step.state.values()]
    return all(bool(np.isfinite(array).all()) for array in arrays)


def divergence_of_parameters(parameters: Parameters, epoch: int, batch: int) -> Divergence:
    """Return the divergence of a network whose parameters are not finite before a batch."""
    layers = range(1, len(parameters.weights) + 1)
    layer = next((i for i in layers if not _is_finite(parameters, i)), layers[-1])
    return Divergence(epoch, batch, layer, "parameters", None)


def find_divergence(
    step: Step, steps: Iterator[tuple[Batch, float]], epoch: int, last_loss: float | None
) -> Divergence:
    """Repeat steps one by one until a number is not finite.

    Parameters
    ----------
    step : Step
        Step whose parameters and optimizer state are finite.
    steps : iterator of (Batch, float)
        Iterator that takes the next step, and yields its batch and its loss.
    epoch : int
        Number of the epoch, counted from 1.
    last_loss : float, optional
        Loss of the batch before.
    """
    for batch, loss in steps:
        origin = _first_not_finite(step, batch, loss)
        if origin:
            layer, what = origin
            return Divergence(epoch, batch.number + 1, layer, what, last_loss)
        last_loss = loss
    raise AssertionError("the divergence did not occur again when the steps were repeated")


def _first_not_finite(
    step: Step, batch: Batch, loss: float
) -> tuple[int, Literal["outputs", "gradient", "parameters"]] | None:
    """Return the layer and kind of the first numbers in the last step that are not finite."""
    depth, outputs = len(step.network.layers), step.backprops[len(batch.inputs)].outputs
    for layer, values in enumerate([*outputs[:-1], batch.logits], start=1):
        if not np.isfinite(values).all():
            return layer, "outputs"
    for layer, variances in enumerate(step.network.running_variances, start=1):
        if not np.isfinite(variances).all():  # of numbers too large for their squares
            return layer, "outputs"
    if not math.isfinite(loss):
        return depth, "outputs"
    for layer in range(depth, 0, -1):
        if not _is_finite(step.gradient, layer):
            return layer, "gradient"
    for layer in range(depth, 0, -1):
        if not _is_finite(step.network.parameters, layer):
            return layer, "parameters"
    return None if is_finite(step) else (depth, "gradient")


def _is_finite(parameters: Parameters, layer: int) -> bool:
    """Return whether all numbers of a layer, counted from 1, are finite."""
    views = (
        parameters.weights,
        parameters.biases,
        parameters.slopes,
        parameters.gains,
        parameters.shifts,
    )
    return all(bool(np.isfinite(view[layer - 1]).all()) for view in views)

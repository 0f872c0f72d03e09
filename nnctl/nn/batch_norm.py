"""Batch normalization during training: each column of a batch gets mean 0 and variance 1.

For each column x of a layer's weighted inputs, or of its activations (Ioffe and Szegedy 2015):

    x̂ = (x - mean) / sqrt(variance + epsilon)      with the mean and variance of the batch
    y = gain x̂ + shift                             with trained gain and shift

Running averages of mean and variance replace those of the batch after training, which makes y an
affine function of x: see `nnctl.nn.network.Network.normalize`.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np

from nnctl.nn.activations import Activation
from nnctl.nn.network import Network, Parameters
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array


class Normalization:
    """Normalizes a batch, or a thread's part of it, with the statistics of the whole batch.

    A batch of one example has the variance 0: y is the shift, and no gradient reaches x.

    Parameters
    ----------
    network : Network
        Network; its current gain and shift are read at each pass.
    gradient : Parameters
        Destination of the gradient of gain and shift.
    layer : int
        Layer, counted from 0.
    batch_size : int
        Number of examples in every batch.
    """

    def __init__(self, network: Network, gradient: Parameters, layer: int, batch_size: int) -> None:
        settings, columns = network.layers[layer].batch_norm, network.layers[layer].n_normalized
        assert settings is not None
        self._settings = settings
        self._gain, self._shift = network.parameters.gains[layer], network.parameters.shifts[layer]
        self._gradients = gradient.gains[layer], gradient.shifts[layer]
        self._running = network.running_means[layer], network.running_variances[layer]
        self._batch_size = batch_size
        self._normalized: Array = np.empty((batch_size, columns), network.dtype)  # x̂
        self._ones: Array = np.ones(batch_size, network.dtype)
        self._mean = self._variance = self._inverse_std = np.zeros_like(self._gain)
        self._join(ThreadTeam(1), 0, np.empty((2, 1, 2, columns), network.dtype))

    def split(self, team: ThreadTeam) -> list[Normalization]:
        """Return an object for each thread's part of the batch, to be used at the same time."""
        sums = np.empty((2, team.size, 2, len(self._gain)), self._gain.dtype)
        parts = []
        for thread, rows in enumerate(team.split(self._batch_size)):
            part = copy.copy(self)
            part._normalized, part._ones = self._normalized[rows], self._ones[rows]
            part._join(team, thread, sums)
            parts.append(part)
        return parts

    def _join(self, team: ThreadTeam, thread: int, sums: Array) -> None:
        """Set the thread, and the arrays with sums of each thread, which all threads share."""
        self._team, self._thread = team, thread
        self._forward_sums, self._backward_sums = sums
        counts = [rows.stop - rows.start for rows in team.split(self._batch_size)]
        self._counts = np.array(counts, self._gain.dtype)[:, None]

    def forward(self, x: Array, out: Array) -> None:
        """Write y to `out`, which may be `x`, both ``(batch, columns)``.

        Each thread sums its own rows. All threads then combine these sums in the same order, so
        that the result does not depend on which thread is faster (Chan et al. 1983).
        """
        normalized, n = self._normalized, self._batch_size
        mean, square = self._forward_sums[self._thread]
        np.dot(self._ones, x, out=mean)
        mean /= max(len(x), 1)
        np.subtract(x, mean, out=normalized)
        np.einsum("ij,ij->j", normalized, normalized, out=square)
        self._team.wait()
        means, squares = self._forward_sums.swapaxes(0, 1)
        self._mean = (self._counts * means).sum(axis=0) / n
        distances = means - self._mean
        self._variance = (squares + self._counts * distances**2).sum(axis=0) / n
        self._inverse_std = 1 / np.sqrt(self._variance + self._settings.epsilon)
        normalized += distances[self._thread]
        normalized *= self._inverse_std
        np.multiply(normalized, self._gain, out=out)
        out += self._shift

    def backward(self, gradient: Array) -> None:
        """Replace dL/dy by dL/dx, both ``(batch, columns)``, and write the gain's and the shift's.

        x also acts on the other examples, through mean and variance (From Scratch 6.3):

            dL/dx = gain / sqrt(variance + epsilon) (dL/dy - mean(dL/dy) - x̂ mean(x̂ dL/dy))
        """
        normalized, n = self._normalized, self._batch_size
        product, total = self._backward_sums[self._thread]
        np.einsum("ij,ij->j", normalized, gradient, out=product)
        np.dot(self._ones, gradient, out=total)
        self._team.wait()
        products, totals = self._backward_sums.sum(axis=0)
        if self._thread == 0:
            of_gain, of_shift = self._gradients
            of_gain[...], of_shift[...] = products, totals
        normalized *= products / n
        gradient -= totals / n
        gradient -= normalized
        gradient *= self._gain * self._inverse_std

    def update_running_statistics(self) -> None:
        """Move the running mean and variance toward those of the last batch.

        A batch of one example changes neither, because its variance is 0.
        """
        if self._batch_size > 1:
            momentum = self._settings.momentum
            for running, value in zip(self._running, (self._mean, self._variance), strict=True):
                running *= momentum
                running += (1 - momentum) * value


@dataclass(frozen=True, eq=False)
class NormalizedFunction(Activation):
    """A layer's activation together with its batch normalization, for batches of one size."""

    function: Activation
    normalization: Normalization

    def split(self, team: ThreadTeam) -> list[NormalizedFunction]:
        """Return a function for each thread's part of the batch."""
        return [
            dataclasses.replace(self, normalization=part) for part in self.normalization.split(team)
        ]

    def write_gradient(self, z: Array, gradient: Array, out: Array) -> None:
        """Write the gradient of the activation's slopes."""
        self.function.write_gradient(z, gradient, out)


@dataclass(frozen=True, eq=False)
class NormalizedInputs(NormalizedFunction):
    """f(y), with the normalized weighted inputs y."""

    def forward(self, z: Array, out: Array) -> None:
        """Normalize z in place, then apply f."""
        self.normalization.forward(z, z)
        self.function.forward(z, out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """Pass the gradient through f, then through the normalization."""
        self.function.backward(z, outputs, gradient, out)
        self.normalization.backward(out)


@dataclass(frozen=True, eq=False)
class NormalizedOutputs(NormalizedFunction):
    """The normalized activations f(z), which are kept in `activations`."""

    activations: Array

    def split(self, team: ThreadTeam) -> list[NormalizedFunction]:
        """Return a function for each thread's part of the batch."""
        rows_of = team.split(len(self.activations))
        return [
            dataclasses.replace(self, normalization=part, activations=self.activations[rows])
            for part, rows in zip(self.normalization.split(team), rows_of, strict=True)
        ]

    def forward(self, z: Array, out: Array) -> None:
        """Apply f, then normalize."""
        self.function.forward(z, self.activations)
        self.normalization.forward(self.activations, out)

    def backward(self, z: Array, outputs: Array, gradient: Array, out: Array) -> None:
        """Pass the gradient through the normalization, in place, then through f."""
        self.normalization.backward(gradient)
        self.function.backward(z, self.activations, gradient, out)


def layer_function(
    network: Network, gradient: Parameters, layer: int, batch_size: int
) -> Activation:
    """Return the activation of a layer, counted from 0, with its batch normalization if any."""
    function, settings = network.functions[layer], network.layers[layer].batch_norm
    if settings is None:
        return function
    normalization = Normalization(network, gradient, layer, batch_size)
    if settings.position == "before":
        return NormalizedInputs(function, normalization)
    activations = np.empty((batch_size, network.layers[layer].units), network.dtype)
    return NormalizedOutputs(function, normalization, activations)

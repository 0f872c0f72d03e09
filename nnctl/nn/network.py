"""A network of fully connected layers, its parameters in one flat vector, and its two passes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from nnctl.nn.activations import Activation, Array
from nnctl.nn.initializers import AUTO, INITIALIZERS, Distribution, Initializer, Zeros


@dataclass(frozen=True)
class Layer:
    """A fully connected layer: f(x W + b).

    Parameters
    ----------
    units : int
        The number of its outputs.
    activation : Activation
        The function f.
    weights, biases : Initializer
        How W ``(inputs, units)`` and b ``(units,)`` begin.
    """

    units: int
    activation: Activation
    weights: Initializer = AUTO
    biases: Initializer = AUTO

    @property
    def weights_distribution(self) -> Distribution:
        """What the weights are drawn from."""
        fitting = INITIALIZERS[self.activation.initializer]()
        assert isinstance(fitting, Distribution)
        return self.weights.resolve(fitting)

    @property
    def biases_distribution(self) -> Distribution:
        """What the biases are drawn from."""
        return self.biases.resolve(Zeros())


class Parameters:
    """One flat vector with a view for the weights and the biases of every layer.

    All weights stand before all biases, so that what decays is one slice. A network's parameters,
    their gradient and an optimizer's velocity are each such a vector.

    Parameters
    ----------
    sizes : sequence of int
        The number of inputs, then the units of every layer.
    dtype : data-type
        Of the vector.

    Attributes
    ----------
    vector : array, shape (size,)
        All of them.
    decaying : array
        The slice of all weights.
    weights : list of array, shape (inputs, units)
        Views, a layer each.
    biases : list of array, shape (units,)
        Views, a layer each.
    """

    def __init__(self, sizes: Sequence[int], dtype: DTypeLike = np.float32) -> None:
        self.vector: Array = np.zeros(count_parameters(sizes), dtype)
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        end = 0
        for inputs, units in itertools.pairwise(sizes):
            begin, end = end, end + inputs * units
            self.weights.append(self.vector[begin:end].reshape(inputs, units))
        self.decaying: Array = self.vector[:end]
        for units in sizes[1:]:
            begin, end = end, end + units
            self.biases.append(self.vector[begin:end])


def count_parameters(sizes: Sequence[int]) -> int:
    """Return the number of weights and biases between layers of these sizes."""
    return sum((inputs + 1) * units for inputs, units in itertools.pairwise(sizes))


class Network:
    """Layers, one after the other, and their parameters.

    Parameters
    ----------
    inputs : int
        The number of values of an example.
    layers : sequence of Layer
        From the first hidden layer to the output layer.
    dtype : data-type
        Of the parameters; float64 is for gradient checks.
    """

    def __init__(self, inputs: int, layers: Sequence[Layer], dtype: DTypeLike = np.float32) -> None:
        self.layers = tuple(layers)
        self.sizes = (inputs, *(layer.units for layer in self.layers))
        self.parameters = Parameters(self.sizes, dtype)
        self.dtype = self.parameters.vector.dtype

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw all parameters anew: the weights of every layer in turn, then the biases."""
        fans = list(itertools.pairwise(self.sizes))
        for layer, weights, (fan_in, fan_out) in zip(
            self.layers, self.parameters.weights, fans, strict=True
        ):
            layer.weights_distribution.fill(weights, fan_in=fan_in, fan_out=fan_out, rng=rng)
        for layer, biases, (fan_in, fan_out) in zip(
            self.layers, self.parameters.biases, fans, strict=True
        ):
            layer.biases_distribution.fill(biases, fan_in=fan_in, fan_out=fan_out, rng=rng)

    def activations(self, inputs: Array) -> list[Array]:
        """Return the outputs of every layer for inputs of shape ``(batch, inputs)``."""
        outputs: list[Array] = []
        for layer, weights, biases in zip(
            self.layers, self.parameters.weights, self.parameters.biases, strict=True
        ):
            z = (outputs[-1] if outputs else inputs) @ weights
            z += biases
            layer.activation.forward(z, z)
            outputs.append(z)
        return outputs

    def logits(self, inputs: Array) -> Array:
        """Return the last layer's weighted inputs z, ``(batch, units)``, before its activation."""
        a = inputs
        for layer, weights, biases in zip(
            self.layers[:-1],
            self.parameters.weights[:-1],
            self.parameters.biases[:-1],
            strict=True,
        ):
            a = a @ weights
            a += biases
            layer.activation.forward(a, a)
        z: Array = a @ self.parameters.weights[-1] + self.parameters.biases[-1]
        return z

    def outputs(self, logits: Array) -> Array:
        """Return the last layer's outputs f(z) for its logits z, both ``(batch, units)``."""
        outputs = np.empty_like(logits)
        self.layers[-1].activation.forward(logits, outputs)
        return outputs


class Backpropagation:
    """The forward and the backward pass over a batch, in buffers that are allocated once.

    Nielsen, chapter 2: the errors dL/dz go back through the layers; with the activations that came
    in they give the gradient, which is written straight into `gradient`. The first layer's inputs
    are pixels, so their gradient is never computed.

    Parameters
    ----------
    network : Network
        Whose parameters are read at each pass.
    gradient : Parameters
        Where each backward pass leaves the gradient.
    batch_size : int
        The number of examples in every batch.
    """

    def __init__(self, network: Network, gradient: Parameters, batch_size: int) -> None:
        def buffers() -> list[Array]:
            return [np.empty((batch_size, layer.units), network.dtype) for layer in network.layers]

        self._activations = [layer.activation for layer in network.layers]
        self._weights = network.parameters.weights
        self._biases = network.parameters.biases
        self._weights_transposed = [weights.T for weights in network.parameters.weights]
        self._gradient = gradient
        self.outputs = buffers()
        self.errors = buffers()
        self._inputs: Array = np.empty(0, network.dtype)

    def forward(self, inputs: Array, logits: Array) -> Array:
        """Write the logits z of a batch, and return the outputs f(z).

        Parameters
        ----------
        inputs : array, shape (batch, inputs)
            Kept by reference for `backward`.
        logits : array, shape (batch, units)
            Where the last layer's weighted inputs are written.

        Returns
        -------
        array, shape (batch, units)
            A buffer that the next call overwrites.
        """
        self._inputs = a = inputs
        last = len(self._activations) - 1
        for i, activation in enumerate(self._activations):
            outputs = self.outputs[i]
            z = logits if i == last else outputs
            np.matmul(a, self._weights[i], out=z)
            z += self._biases[i]
            activation.forward(z, outputs)
            a = outputs
        return a

    def backward(self) -> None:
        """Turn the output layer's errors, in ``errors[-1]``, into the gradient."""
        for i in range(len(self._activations) - 1, -1, -1):
            errors = self.errors[i]
            a = self.outputs[i - 1] if i else self._inputs
            np.matmul(a.T, errors, out=self._gradient.weights[i])
            np.add.reduce(errors, axis=0, out=self._gradient.biases[i])
            if i:
                np.matmul(errors, self._weights_transposed[i], out=self.errors[i - 1])
                self._activations[i - 1].backward(a, self.errors[i - 1])

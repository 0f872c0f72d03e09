"""A fully connected network, and its parameters in one flat vector."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnctl.nn.activations import Activation
from nnctl.nn.examples import as_batch, scaled
from nnctl.nn.initializers import AUTO, INITIALIZERS, Distribution, Initializer, Zeros
from nnctl.nn.types import Array


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization of a layer; see `nnctl.nn.batch_norm`.

    Parameters
    ----------
    momentum : float
        Share of the running mean and variance that each step keeps.
    epsilon : float
        Addend of the variance, so that no divisor is 0.
    position : "before" or "after"
        Whether the weighted inputs of the activation are normalized, or its outputs.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    position: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class Layer:
    """A fully connected layer with the activations f(x W + b).

    Parameters
    ----------
    units : int
        Number of units, which is the number of outputs.
    activation : Activation
        Activation function f.
    weights, biases : Initializer
        Initializers of W ``(inputs, columns)`` and b ``(columns,)``.
    dropout : float
        Dropout rate of the outputs during training.
    batch_norm : BatchNorm, optional
        Batch normalization; only in hidden layers.
    """

    units: int
    activation: Activation
    weights: Initializer = AUTO
    biases: Initializer = AUTO
    dropout: float = 0.0
    batch_norm: BatchNorm | None = None

    @property
    def columns(self) -> int:
        """Number of columns of W and z: one per unit, or one per piece of a maxout unit."""
        return self.units * self.activation.pieces

    @property
    def n_slopes(self) -> int:
        """Number of trainable parameters of the activation."""
        return self.units if self.activation.has_slopes else 0

    @property
    def n_normalized(self) -> int:
        """Number of columns that batch normalization normalizes."""
        if self.batch_norm is None:
            return 0
        return self.columns if self.batch_norm.position == "before" else self.units

    @property
    def weights_distribution(self) -> Distribution:
        """Distribution of the initial weights."""
        default = INITIALIZERS[self.activation.initializer]()
        assert isinstance(default, Distribution)
        return self.weights.resolve(default)

    @property
    def biases_distribution(self) -> Distribution:
        """Distribution of the initial biases."""
        return self.biases.resolve(Zeros())


class Parameters:
    """The trainable parameters of all layers in one flat vector, with a view for each array.

    The vector contains all weights, then all biases, then the learned slopes of activations, then
    gains and shifts of batch normalization, so that the weights, which alone are subject to weight
    decay, are one slice. The gradient has the same layout. In the shapes below, a layer has u
    units, and each unit has m columns in W and z: m is 1, except for maxout, where it is the number
    of pieces.

    Parameters
    ----------
    inputs : int
        Number of inputs of the network.
    layers : sequence of Layer
        Layers, from the first hidden layer to the output layer.
    dtype : data-type
        Data type of the vector.

    Attributes
    ----------
    vector : array, shape (size,)
        All parameters.
    decaying : array
        Slice of the vector with all weights, the parameters that weight decay applies to.
    affine : array
        Slice of the vector with all weights and biases.
    weights : list of array, shape (inputs, m * u)
        Weights of each layer, as views of the vector.
    biases : list of array, shape (m * u,)
        Biases of each layer, as views of the vector.
    slopes : list of array, shape (u,) or (0,)
        Learned slopes of each layer's activation, as views of the vector.
    gains, shifts : list of array, shape (n_normalized,)
        Gain and shift of each layer's batch normalization, as views of the vector.
    """

    def __init__(self, inputs: int, layers: Sequence[Layer], dtype: DTypeLike = np.float32) -> None:
        self.vector: Array = np.zeros(count_parameters(inputs, layers), dtype)
        fans_in = [inputs, *(layer.units for layer in layers[:-1])]
        end = 0

        def take(*shape: int) -> Array:
            nonlocal end
            begin, end = end, end + math.prod(shape)
            return self.vector[begin:end].reshape(shape)

        self.weights = [
            take(fan_in, layer.columns) for fan_in, layer in zip(fans_in, layers, strict=True)
        ]
        self.decaying: Array = self.vector[:end]
        self.biases = [take(layer.columns) for layer in layers]
        self.affine: Array = self.vector[:end]
        self.slopes = [take(layer.n_slopes) for layer in layers]
        self.gains = [take(layer.n_normalized) for layer in layers]
        self.shifts = [take(layer.n_normalized) for layer in layers]

    def without_inputs(self, count: int) -> Parameters:
        """Return views of the parameters without those of the first `count` inputs."""
        cut, view = count * self.weights[0].shape[1], copy.copy(self)
        view.vector, view.decaying = self.vector[cut:], self.decaying[cut:]
        view.affine, view.weights = self.affine[cut:], [self.weights[0][count:], *self.weights[1:]]
        return view


def count_parameters(inputs: int, layers: Sequence[Layer]) -> int:
    """Return the number of trainable parameters of a network with these inputs and layers."""
    count = 0
    for layer in layers:
        count += (inputs + 1) * layer.columns + layer.n_slopes + 2 * layer.n_normalized
        inputs = layer.units
    return count


class Network:
    """A feedforward network: a sequence of fully connected layers and their parameters.

    Parameters
    ----------
    inputs : int
        Number of inputs.
    layers : sequence of Layer
        Layers, from the first hidden layer to the output layer.
    dtype : data-type
        Data type of the parameters; float64 is used for gradient checks.

    Attributes
    ----------
    statistics : array
        Running means of batch normalization in all layers, then running variances. They are not
        trained, but measured during training.
    running_means, running_variances : list of array, shape (n_normalized,)
        Running statistics of each layer, as views.
    """

    def __init__(self, inputs: int, layers: Sequence[Layer], dtype: DTypeLike = np.float32) -> None:
        self.layers = tuple(layers)
        self.sizes = (inputs, *(layer.units for layer in self.layers))
        self.parameters = Parameters(inputs, self.layers, dtype)
        self.dtype = self.parameters.vector.dtype
        self.functions = [
            layer.activation.bind(slopes)
            for layer, slopes in zip(self.layers, self.parameters.slopes, strict=True)
        ]
        columns = [layer.n_normalized for layer in self.layers]
        self.statistics: Array = np.zeros(2 * sum(columns), dtype)
        views = np.split(self.statistics, np.cumsum([*columns, *columns])[:-1])
        self.running_means = views[: len(columns)]
        self.running_variances = views[len(columns) :]

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw new initial parameters: the weights of all layers, then the biases."""
        fans = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        # A distribution too wide for float32 gives infinities, which are reported later.
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, weights, (fan_in, fan_out) in zip(
                self.layers, self.parameters.weights, fans, strict=True
            ):
                layer.weights_distribution.fill(weights, fan_in=fan_in, fan_out=fan_out, rng=rng)
            for layer, biases, (fan_in, fan_out) in zip(
                self.layers, self.parameters.biases, fans, strict=True
            ):
                layer.biases_distribution.fill(biases, fan_in=fan_in, fan_out=fan_out, rng=rng)
            for layer, slopes in zip(self.layers, self.parameters.slopes, strict=True):
                slopes.fill(layer.activation.initial_slopes)
            for ones in (*self.parameters.gains, *self.running_variances):
                ones.fill(1)
            for zeros in (*self.parameters.shifts, *self.running_means):
                zeros.fill(0)

    def as_float64(self) -> Network:
        """Return a copy of the network in float64."""
        network = Network(self.sizes[0], self.layers, np.float64)
        network.parameters.vector[...] = self.parameters.vector
        network.statistics[...] = self.statistics
        return network

    def folded(self) -> Network:
        """Return an equivalent network without batch normalization, for use after training.

        With the running statistics, batch normalization is an affine map. Before the activation, it
        becomes part of the same layer's weights and biases; after it, of the next layer's. A
        network without batch normalization is returned itself.
        """
        if not self.statistics.size:
            return self
        layers = [dataclasses.replace(layer, batch_norm=None) for layer in self.layers]
        network, exact = Network(self.sizes[0], layers, self.dtype), self.as_float64()
        weights, biases = exact.parameters.weights, exact.parameters.biases
        for i, layer in enumerate(self.layers):
            if layer.batch_norm is None:
                continue
            scale, offset = exact.normalization(i)
            if layer.batch_norm.position == "before":
                weights[i] *= scale
                biases[i][...] = scale * biases[i] + offset
            else:
                biases[i + 1] += offset @ weights[i + 1]
                weights[i + 1] *= scale[:, None]
        for arrays, results in (
            (weights, network.parameters.weights),
            (biases, network.parameters.biases),
            (self.parameters.slopes, network.parameters.slopes),
        ):
            for array, result in zip(arrays, results, strict=True):
                result[...] = array
        return network

    def scaled(self, gain: float) -> Network:
        """Return a copy with all weights and biases multiplied by `gain`, in float64.

        Batch normalization is made a part of the weights and biases first. For an infinite gain,
        hidden sigmoids become step units, provided that no z is exactly 0 (Nielsen, chapter 1,
        exercise on sigmoid neurons that simulate perceptrons).

        Raises
        ------
        ValueError
            The gain is infinite, and the activation of a hidden layer does not become a step.
        """
        network = self.as_float64().folded()
        if math.isfinite(gain):
            network.parameters.affine *= gain
            return network
        for i, function in enumerate(network.functions[:-1]):
            limit = function.limit()
            if limit is None:
                raise ValueError(f"layer {i + 1} is {function.name}, which does not become a step")
            network.functions[i] = limit
        return network

    def weighted_inputs(self, layer: int, a: Array, *, of_batch: bool = False) -> Array:
        """Return z = a W + b of a layer, counted from 0, ``(batch, columns)``.

        With batch normalization before the activation, z is normalized; for `of_batch` see
        `normalize`.
        """
        z: Array = a @ self.parameters.weights[layer]
        z += self.parameters.biases[layer]
        return self.normalize(layer, "before", z, of_batch=of_batch)

    def apply(self, layer: int, z: Array, *, of_batch: bool = False) -> Array:
        """Return the activations f(z) of a layer, ``(batch, units)``; this may overwrite z.

        With batch normalization after the activation, they are normalized; for `of_batch` see
        `normalize`.
        """
        function = self.functions[layer]
        outputs = z if function.pieces == 1 else np.empty((len(z), self.sizes[layer + 1]), z.dtype)
        function.forward(z, outputs)
        return self.normalize(layer, "after", outputs, of_batch=of_batch)

    def propagate(self, layer: int, a: Array, *, of_batch: bool = False) -> Array:
        """Return the activations of a layer from those of the layer below, ``(batch, units)``."""
        z = self.weighted_inputs(layer, a, of_batch=of_batch)
        return self.apply(layer, z, of_batch=of_batch)

    def normalize(
        self, layer: int, position: Literal["before", "after"], x: Array, *, of_batch: bool
    ) -> Array:
        """Apply a layer's batch normalization, if it has one at this position, to x, and return x.

        Parameters
        ----------
        layer : int
            Layer, counted from 0.
        position : "before" or "after"
            Position of x: before or after the activation.
        x : array, shape (batch, columns)
            Weighted inputs or activations; they are overwritten.
        of_batch : bool
            Whether to use the mean and variance of x, as in training, instead of the running ones.
        """
        settings = self.layers[layer].batch_norm
        if settings is None or settings.position != position:
            return x
        scale, offset = self.normalization(layer, x if of_batch else None)
        x *= scale
        x += offset
        return x

    def normalization(self, layer: int, x: Array | None = None) -> tuple[Array, Array]:
        """Return batch normalization in a layer as scale and offset, each ``(n_normalized,)``.

        Parameters
        ----------
        layer : int
            Layer with batch normalization, counted from 0.
        x : array, shape (batch, n_normalized), optional
            Batch whose mean and variance are used; default: the running ones.
        """
        settings = self.layers[layer].batch_norm
        assert settings is not None
        mean, variance = self.running_means[layer], self.running_variances[layer]
        if x is not None:
            mean, variance = x.mean(axis=0), x.var(axis=0)
        scale: Array = self.parameters.gains[layer] / np.sqrt(variance + settings.epsilon)
        offset: Array = self.parameters.shifts[layer] - scale * mean
        return scale, offset

    def activations(self, inputs: Array) -> list[Array]:
        """Return the activations of every layer for inputs of shape ``(batch, inputs)``."""
        outputs = [inputs]
        for layer in range(len(self.layers)):
            outputs.append(self.propagate(layer, outputs[-1]))
        return outputs[1:]

    def logits(self, inputs: Array) -> Array:
        """Return the logits: the weighted inputs z of the output layer, ``(batch, units)``."""
        a, last = inputs, len(self.layers) - 1
        for layer in range(last):
            a = self.propagate(layer, a)
        return self.weighted_inputs(last, a)

    def outputs(self, logits: Array) -> Array:
        """Return the outputs f(z) of the network for its logits z, both ``(batch, units)``."""
        return self.apply(len(self.layers) - 1, logits.copy())

    def predict_classes(self, logits: Array) -> NDArray[np.int64]:
        """Return the predicted class of each example from its logits, ``(batch,)``.

        This is the class with the largest output. For monotone activations it is computed from z,
        because saturated outputs may be equal. A single output predicts class 1 if it is at least
        1/2, else class 0.
        """
        if logits.shape[1] == 1:
            return (self.outputs(logits)[:, 0] >= 0.5).astype(np.int64)
        scores = logits if self.functions[-1].monotone else self.outputs(logits)
        classes: NDArray[np.int64] = scores.argmax(axis=1)
        return classes

    def predict(self, inputs: ArrayLike) -> NDArray[np.int64] | np.int64:
        """Return the predicted class of one example or of several; see `predict_classes`.

        Parameters
        ----------
        inputs : array-like, shape (n, inputs) or (n, height, width)
            Examples; one example has the shape (inputs,) or (height, width). An array of uint8 is
            pixels and is divided by 255; other numbers are used unchanged.

        Returns
        -------
        array of int, shape (n,), or int
            Class of each example, counted from 0; for one example its class alone.

        Raises
        ------
        nnctl.errors.UsageError
            The inputs have another shape, or are not finite numbers.
        """
        batch, is_one = as_batch(inputs, self.sizes[0])
        is_pixels = batch.dtype == np.uint8
        values = scaled(batch, self.dtype) if is_pixels else batch.astype(self.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            classes = self.predict_classes(self.logits(values))
        return classes[0] if is_one else classes

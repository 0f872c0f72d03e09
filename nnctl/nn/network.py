"""A fully connected network, its parameters in one flat vector, and backpropagation."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnctl.errors import UsageError
from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.initializers import AUTO, INITIALIZERS, Distribution, Initializer, Zeros
from nnctl.nn.types import Array
from nnctl.text import did_you_mean


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
    """

    units: int
    activation: Activation
    weights: Initializer = AUTO
    biases: Initializer = AUTO
    dropout: float = 0.0

    @property
    def columns(self) -> int:
        """Number of columns of W and z: one per unit, or one per piece of a maxout unit."""
        return self.units * self.activation.pieces

    @property
    def n_slopes(self) -> int:
        """Number of trainable parameters of the activation."""
        return self.units if self.activation.has_slopes else 0

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


@dataclass(frozen=True)
class Shard:
    """A contiguous part of a parameter vector, which one thread computes and updates.

    Parameters
    ----------
    begin, end : int
        Range in the vector. `begin` is the start of a row of weights.
    rows : list of (int, slice)
        Layers with weights in this range, and the rows of their weight matrices.
    is_last : bool
        Whether the range is the last one, which also contains all biases and learned slopes.
    """

    begin: int
    end: int
    rows: list[tuple[int, slice]]
    is_last: bool

    @property
    def is_whole(self) -> bool:
        """Whether the range is the whole vector."""
        return self.begin == 0 and self.is_last


class Parameters:
    """The trainable parameters of all layers in one flat vector, with a view for each array.

    The vector contains all weights, then all biases, then the learned slopes of activations, so
    that the weights, which alone are subject to weight decay, are one slice. The gradient has the
    same layout. In the shapes below, a layer has u units, and each unit has m columns in W and z:
    m is 1, except for maxout, where it is the number of pieces.

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

    def shards(self, count: int) -> list[Shard]:
        """Split the vector into `count` parts of similar length, between rows of weights.

        The gradient and the update of each part can be computed independently of the others.
        """
        row_ends = np.cumsum([row.size for weights in self.weights for row in weights])
        targets = self.decaying.size * np.arange(1, count) / count
        cuts = [0, *row_ends[np.searchsorted(row_ends, targets)].tolist(), self.vector.size]
        return [
            Shard(begin, end, [*self._rows(begin, end)], is_last=i == count)
            for i, (begin, end) in enumerate(itertools.pairwise(cuts), start=1)
        ]

    def _rows(self, begin: int, end: int) -> Iterator[tuple[int, slice]]:
        """Yield the layers with weights in a range of the vector, and the rows of these weights."""
        first = 0
        for layer, weights in enumerate(self.weights):
            inside = np.clip([begin - first, end - first], 0, weights.size)
            first_row, end_row = (inside // weights.shape[1]).tolist()
            if first_row < end_row:
                yield layer, slice(first_row, end_row)
            first += weights.size


def count_parameters(inputs: int, layers: Sequence[Layer]) -> int:
    """Return the number of trainable parameters of a network with these inputs and layers."""
    count = 0
    for layer in layers:
        count += (inputs + 1) * layer.columns + layer.n_slopes
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

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        activations: Sequence[str | Mapping[str, Any] | Activation],
        *,
        slopes: Mapping[int, ArrayLike] | None = None,
    ) -> Network:
        """Return a network with given weights, for example from a book or another program.

        Parameters
        ----------
        weights : sequence of array-like, shape (inputs, units)
            Weights of each layer, from the first hidden layer to the output layer. A maxout unit
            has one column per piece: first the first piece of all units, then the second, ...
        biases : sequence of array-like, shape (units,), (1, units) or (units, 1)
            Biases of each layer.
        activations : sequence of str, mapping or Activation
            Activation of each layer, written as in a configuration: ``"relu"`` or
            ``{"name": "sigmoid", "gain": 2}``.
        slopes : mapping of int to array-like, shape (units,), optional
            Slopes of prelu layers, by layer, counted from 0; default: their initial slopes.

        Raises
        ------
        UsageError
            The arrays do not fit together, or contain numbers that are not finite.

        Examples
        --------
        >>> network = Network.from_arrays([[[1.0], [1.0]]], [[-1.5]], ["step"])  # an AND gate
        >>> network.outputs(network.logits(np.array([[0, 1], [1, 1]], np.float32))).tolist()
        [[0.0], [1.0]]
        """
        counts = (len(weights), len(biases), len(activations))
        if not counts[0] or len(set(counts)) > 1:
            raise UsageError(
                "each layer needs weights, biases and an activation; got "
                f"{counts[0]} weights, {counts[1]} biases and {counts[2]} activations"
            )
        layers: list[Layer] = []
        arrays: list[tuple[Array, Array]] = []
        for i, (matrix, row, activation) in enumerate(
            zip(weights, biases, activations, strict=True)
        ):
            function = _read_activation(activation, i)
            arrays.append(_read_layer(matrix, row, i, layers[-1].units if layers else None))
            columns = arrays[-1][1].size
            if columns % function.pieces:
                raise UsageError(
                    f"layer {i + 1}: {columns} biases do not fit units of {function.pieces} pieces"
                )
            layers.append(Layer(columns // function.pieces, function))
        network = cls(arrays[0][0].shape[0], layers)
        parameters = network.parameters
        for i, layer in enumerate(layers):
            parameters.weights[i][...], parameters.biases[i][...] = arrays[i]
            parameters.slopes[i].fill(layer.activation.initial_slopes)
        for i, values in (slopes or {}).items():
            learned = _read_array(values, f"slopes of layer {i + 1}")
            expected = parameters.slopes[i].shape if 0 <= i < len(layers) else (0,)
            if learned.shape != expected or expected == (0,):
                raise UsageError(
                    f"layer {i + 1} has no slopes"
                    if expected == (0,)
                    else f"layer {i + 1} has {expected[0]} slopes, got {learned.shape}"
                )
            parameters.slopes[i][...] = learned
        return network

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

    def as_float64(self) -> Network:
        """Return a copy of the network in float64."""
        network = Network(self.sizes[0], self.layers, np.float64)
        network.parameters.vector[...] = self.parameters.vector
        return network

    def scaled(self, gain: float) -> Network:
        """Return a copy with all weights and biases multiplied by `gain`, in float64.

        For an infinite gain, hidden sigmoids become step units, provided that no z is exactly 0
        (Nielsen, chapter 1, exercise on sigmoid neurons that simulate perceptrons).

        Raises
        ------
        ValueError
            The gain is infinite, and the activation of a hidden layer does not become a step.
        """
        network = self.as_float64()
        if math.isfinite(gain):
            network.parameters.affine *= gain
            return network
        for i, function in enumerate(network.functions[:-1]):
            limit = function.limit()
            if limit is None:
                raise ValueError(f"layer {i + 1} is {function.name}, which does not become a step")
            network.functions[i] = limit
        return network

    def weighted_inputs(self, layer: int, a: Array) -> Array:
        """Return z = a W + b of a layer, counted from 0, ``(batch, columns)``."""
        z: Array = a @ self.parameters.weights[layer]
        z += self.parameters.biases[layer]
        return z

    def apply(self, layer: int, z: Array) -> Array:
        """Return the activations f(z) of a layer, ``(batch, units)``; this may overwrite z."""
        function = self.functions[layer]
        outputs = z if function.pieces == 1 else np.empty((len(z), self.sizes[layer + 1]), z.dtype)
        function.forward(z, outputs)
        return outputs

    def activations(self, inputs: Array) -> list[Array]:
        """Return the activations of every layer for inputs of shape ``(batch, inputs)``."""
        outputs: list[Array] = []
        a = inputs
        for layer in range(len(self.layers)):
            a = self.apply(layer, self.weighted_inputs(layer, a))
            outputs.append(a)
        return outputs

    def logits(self, inputs: Array) -> Array:
        """Return the logits: the weighted inputs z of the output layer, ``(batch, units)``."""
        a = inputs
        last = len(self.layers) - 1
        for layer in range(last):
            a = self.apply(layer, self.weighted_inputs(layer, a))
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


def _read_layer(
    weights: ArrayLike, biases: ArrayLike, layer: int, inputs: int | None
) -> tuple[Array, Array]:
    """Return weights ``(inputs, columns)`` and biases ``(columns,)`` of a layer, counted from 0."""
    matrix = _read_array(weights, f"weights of layer {layer + 1}")
    row = _read_array(biases, f"biases of layer {layer + 1}")
    if matrix.ndim != 2 or not matrix.size or row.size != max(row.shape, default=0):
        raise UsageError(
            f"layer {layer + 1}: expected weights (inputs, units) and biases (units,), "
            f"got {matrix.shape} and {row.shape}"
        )

    def fits(shape: tuple[int, ...]) -> bool:
        return shape[0] == (inputs or shape[0]) and shape[1] == row.size

    if not fits(matrix.shape):
        expected = "" if inputs is None else f"{inputs} inputs and "
        raise UsageError(
            f"layer {layer + 1}: weights {matrix.shape} do not fit {expected}{row.size} biases",
            hint="Transpose the weights to (inputs, units)." if fits(matrix.T.shape) else None,
        )
    return matrix, row.reshape(-1)


def _read_array(values: ArrayLike, what: str) -> Array:
    """Return values as a float32 array; raise `UsageError` if they are not finite numbers."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"the {what} are not an array of numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"the {what} contain numbers that are not finite in float32")
    return array


def _read_activation(value: str | Mapping[str, Any] | Activation, layer: int) -> Activation:
    """Return the activation of a layer, counted from 0, from its form in a configuration."""
    if isinstance(value, Activation):
        return value
    parameters = {"name": value} if isinstance(value, str) else dict(value)
    name = str(parameters.pop("name", None))
    if name not in ACTIVATIONS:
        hint = did_you_mean(name, ACTIVATIONS) or f"; choose from {', '.join(ACTIVATIONS)}"
        raise UsageError(f"layer {layer + 1}: unknown activation '{name}'{hint}")
    try:
        return ACTIVATIONS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise UsageError(f"layer {layer + 1}: {name}: {error}") from None


class Backpropagation:
    """The forward and the backward pass over a batch, with buffers that are allocated once.

    The backward pass propagates the deltas dL/dz from layer to layer (Nielsen, chapter 2). The
    gradient of the weights is the product of a layer's inputs and its deltas, written directly into
    `gradient`. Gradients with respect to the pixels are computed only by `input_gradient`.

    Parameters
    ----------
    network : Network
        Network; its current parameters are read at each pass.
    gradient : Parameters
        Destination of `write_gradient`.
    batch_size : int
        Number of examples in every batch.
    dropout : bool
        Whether `forward` gets dropout masks.

    Attributes
    ----------
    outputs : list of array, shape (batch, units)
        Activations of every layer, after `forward`.
    layer_inputs : list of array, shape (batch, units)
        Activations after dropout, the inputs of the next layer; without dropout the same arrays.
    deltas : list of array, shape (batch, columns)
        Deltas dL/dz of every layer, after `backward`. The caller writes those of the output layer.
    """

    def __init__(
        self, network: Network, gradient: Parameters, batch_size: int, *, dropout: bool = False
    ) -> None:
        def buffers() -> list[Array]:
            return [np.empty((batch_size, layer.units), network.dtype) for layer in network.layers]

        self._functions = [
            layer.activation.bind(slopes)
            for layer, slopes in zip(network.layers, network.parameters.slopes, strict=True)
        ]
        self._weights = network.parameters.weights
        self._biases = network.parameters.biases
        self._weights_transposed = [weights.T for weights in network.parameters.weights]
        self._gradient = gradient
        self._whole = gradient.shards(1)[0]
        self._ones: Array = np.ones(batch_size, network.dtype)
        self.outputs = buffers()
        self.layer_inputs = self.outputs.copy()
        self._no_masks: list[Array | None] = [None] * len(network.layers)
        self._masks: Sequence[Array | None] = self._no_masks
        self._output_gradients = buffers()  # dL/df(z)
        self._z = self.outputs.copy()  # overwritten by the outputs, unless `backward` needs z
        self.deltas = self._output_gradients.copy()  # dL/dz
        for i, layer in enumerate(network.layers):
            if dropout and layer.dropout:
                self.layer_inputs[i] = np.empty_like(self.outputs[i])
            if layer.activation.needs_z:
                self._z[i] = np.empty((batch_size, layer.columns), network.dtype)
            if layer.columns > layer.units or layer.n_slopes:
                self.deltas[i] = np.empty((batch_size, layer.columns), network.dtype)

    @staticmethod
    def width(layers: Sequence[Layer]) -> int:
        """Return the number of buffer elements per example, for training with dropout."""
        width = 0
        for layer in layers:
            width += 2 * layer.units + layer.units * bool(layer.dropout)
            width += layer.columns * layer.activation.needs_z
            width += layer.columns * (layer.columns > layer.units or layer.n_slopes > 0)
        return width

    def part(self, rows: slice) -> Backpropagation:
        """Return an object for some of the examples, whose buffers are views of these buffers."""
        view = copy.copy(self)
        view.outputs = [outputs[rows] for outputs in self.outputs]
        view._output_gradients = [gradient[rows] for gradient in self._output_gradients]
        # Arrays that share a buffer must share it in the view, too: activations compare them with
        # `is` to find out whether they work in place.
        view._z = [
            shared if z is outputs else z[rows]
            for z, outputs, shared in zip(self._z, self.outputs, view.outputs, strict=True)
        ]
        view.layer_inputs = [
            shared if layer_inputs is outputs else layer_inputs[rows]
            for layer_inputs, outputs, shared in zip(
                self.layer_inputs, self.outputs, view.outputs, strict=True
            )
        ]
        view.deltas = [
            shared if by_z is by_outputs else by_z[rows]
            for by_z, by_outputs, shared in zip(
                self.deltas, self._output_gradients, view._output_gradients, strict=True
            )
        ]
        return view

    def forward(
        self, inputs: Array, logits: Array, masks: Sequence[Array | None] | None = None
    ) -> Array:
        """Write the logits z of a batch to `logits`, and return the outputs f(z).

        Parameters
        ----------
        inputs : array, shape (batch, inputs)
            Inputs of the network.
        logits : array, shape (batch, units)
            Destination of the output layer's weighted inputs.
        masks : sequence of array or None, optional
            Dropout mask for the outputs of each layer, ``(batch, units)``; None for layers without
            dropout.

        Returns
        -------
        array, shape (batch, units)
            Outputs of the network, in a buffer that the next call overwrites.
        """
        a = inputs
        self._z[-1] = logits
        self._masks = self._no_masks if masks is None else masks
        for z, outputs, layer_inputs, mask, weights, biases, function in zip(
            self._z,
            self.outputs,
            self.layer_inputs,
            self._masks,
            self._weights,
            self._biases,
            self._functions,
            strict=True,
        ):
            np.dot(a, weights, out=z)  # calls BLAS a microsecond faster than matmul
            z += biases
            function.forward(z, outputs)
            if mask is not None:
                np.multiply(outputs, mask, out=layer_inputs)
            a = layer_inputs
        return a

    def backward(self) -> None:
        """Compute the deltas of every layer from those of the output layer, ``deltas[-1]``."""
        for i in range(len(self._functions) - 1, 0, -1):
            below = i - 1
            np.dot(self.deltas[i], self._weights_transposed[i], out=self._output_gradients[below])
            mask = self._masks[below]
            if mask is not None:
                self._output_gradients[below] *= mask
            self._functions[below].backward(
                self._z[below],
                self.outputs[below],
                self._output_gradients[below],
                self.deltas[below],
            )

    def input_gradient(self) -> Array:
        """Return the gradient with respect to the inputs, ``(batch, inputs)``, after `backward`."""
        gradient: Array = np.dot(self.deltas[0], self._weights_transposed[0])
        return gradient

    def write_gradient(self, inputs: Array, shard: Shard | None = None) -> None:
        """Compute the gradient, or a part of it, from the inputs and the deltas of every layer.

        Parameters
        ----------
        inputs : array, shape (batch, inputs)
            Inputs that were passed to `forward`.
        stretch : Shard, optional
            Part of the gradient; default: all of it.
        """
        shard = shard or self._whole
        # For a subset of the rows, np.dot would make a copy.
        product = np.dot if shard.is_whole else np.matmul
        for layer, rows in shard.rows:
            a = self.layer_inputs[layer - 1] if layer else inputs
            product(a.T[rows], self.deltas[layer], out=self._gradient.weights[layer][rows])
        if shard.is_last:
            for layer, deltas in enumerate(self.deltas):
                # A product with ones takes half the time of a sum over the rows.
                np.dot(self._ones, deltas, out=self._gradient.biases[layer])
                if self._gradient.slopes[layer].size:  # only in hidden layers
                    self._functions[layer].write_gradient(
                        self._z[layer], self._output_gradients[layer], self._gradient.slopes[layer]
                    )

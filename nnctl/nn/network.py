"""A network of fully connected layers, its parameters in one flat vector, and its two passes."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnctl.errors import UsageError, did_you_mean
from nnctl.nn.activations import ACTIVATIONS, Activation, Array
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
        How W ``(inputs, maps)`` and b ``(maps,)`` begin.
    dropout : float
        The share of its outputs that are dropped in training, others each time.
    """

    units: int
    activation: Activation
    weights: Initializer = AUTO
    biases: Initializer = AUTO
    dropout: float = 0.0

    @property
    def maps(self) -> int:
        """The number of its linear maps: the columns of W and z."""
        return self.units * self.activation.maps

    @property
    def learned(self) -> int:
        """The number of parameters that its activation learns."""
        return self.units if self.activation.learns else 0

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


@dataclass(frozen=True)
class Stretch:
    """A part of a parameter vector that begins with a row of weights.

    Parameters
    ----------
    begin, end : int
        Its place in the vector.
    rows : list of (int, slice)
        The layers that it has weights of, and which of their rows.
    is_last : bool
        Whether all biases, and all that activations learn, are at its end.
    """

    begin: int
    end: int
    rows: list[tuple[int, slice]]
    is_last: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the vector."""
        return self.begin == 0 and self.is_last


class Parameters:
    """One flat vector with views for what every layer learns.

    All weights stand before all biases, and these before what activations learn, so that what
    decays is one slice. A network's parameters, their gradient and an optimizer's velocity are each
    such a vector. With u units of m linear maps each (more than one under maxout alone):

    Parameters
    ----------
    inputs : int
        The number of values of an example.
    layers : sequence of Layer
        From the first hidden layer to the output layer.
    dtype : data-type
        Of the vector.

    Attributes
    ----------
    vector : array, shape (size,)
        All of them.
    decaying : array
        The slice of all weights.
    affine : array
        The slice of all weights and biases.
    weights : list of array, shape (inputs, m * u)
        Views, a layer each.
    biases : list of array, shape (m * u,)
        Views, a layer each.
    learned : list of array, shape (u,) or (0,)
        Views, a layer each: what its activation learns.
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
            take(fan_in, layer.maps) for fan_in, layer in zip(fans_in, layers, strict=True)
        ]
        self.decaying: Array = self.vector[:end]
        self.biases = [take(layer.maps) for layer in layers]
        self.affine: Array = self.vector[:end]
        self.learned = [take(layer.learned) for layer in layers]

    def stretches(self, count: int) -> list[Stretch]:
        """Cut the vector between rows of weights into so many stretches of about one length.

        The gradient of each can be computed, and each be updated, without the others.
        """
        row_ends = np.cumsum([row.size for weights in self.weights for row in weights])
        wanted = self.decaying.size * np.arange(1, count) / count
        cuts = [0, *row_ends[np.searchsorted(row_ends, wanted)].tolist(), self.vector.size]
        return [
            Stretch(begin, end, [*self._rows(begin, end)], is_last=i == count)
            for i, (begin, end) in enumerate(itertools.pairwise(cuts), start=1)
        ]

    def _rows(self, begin: int, end: int) -> Iterator[tuple[int, slice]]:
        """Yield the layers that have weights in a part of the vector, and which of their rows."""
        first = 0
        for layer, weights in enumerate(self.weights):
            inside = np.clip([begin - first, end - first], 0, weights.size)
            first_row, end_row = (inside // weights.shape[1]).tolist()
            if first_row < end_row:
                yield layer, slice(first_row, end_row)
            first += weights.size


def count_parameters(inputs: int, layers: Sequence[Layer]) -> int:
    """Return the number of all that a network with so many inputs learns."""
    count = 0
    for layer in layers:
        count += (inputs + 1) * layer.maps + layer.learned
        inputs = layer.units
    return count


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
        self.parameters = Parameters(inputs, self.layers, dtype)
        self.dtype = self.parameters.vector.dtype
        self.functions = [
            layer.activation.bind(learned)
            for layer, learned in zip(self.layers, self.parameters.learned, strict=True)
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
        """Return a network of weights that come from elsewhere: a book, or another program.

        Parameters
        ----------
        weights : sequence of array-like, shape (inputs, units)
            A layer each, from the first hidden one to the output; a maxout unit has a column a
            piece, all first ones first.
        biases : sequence of array-like, shape (units,), (1, units) or (units, 1)
            A layer each.
        activations : sequence of str, mapping or Activation
            A layer each, as in a configuration: ``"relu"``, ``{"name": "sigmoid", "gain": 2}``.
        slopes : mapping of int to array-like, shape (units,), optional
            Those of prelu layers, counted from 0; default: what they begin with.

        Raises
        ------
        UsageError
            They do not fit together, or are not finite numbers.

        Examples
        --------
        >>> network = Network.from_arrays([[[1.0], [1.0]]], [[-1.5]], ["step"])  # an AND gate
        >>> network.outputs(network.logits(np.array([[0, 1], [1, 1]], np.float32))).tolist()
        [[0.0], [1.0]]
        """
        counts = (len(weights), len(biases), len(activations))
        if not counts[0] or len(set(counts)) > 1:
            raise UsageError(
                "a layer has weights, biases and an activation each; got "
                f"{counts[0]}, {counts[1]} and {counts[2]} of them"
            )
        layers: list[Layer] = []
        arrays: list[tuple[Array, Array]] = []
        for i, (matrix, row, activation) in enumerate(
            zip(weights, biases, activations, strict=True)
        ):
            function = _read_activation(activation, i)
            arrays.append(_read_layer(matrix, row, i, layers[-1].units if layers else None))
            columns = arrays[-1][1].size
            if columns % function.maps:
                raise UsageError(
                    f"layer {i + 1}: {columns} biases are no multiple of {function.maps} pieces"
                )
            layers.append(Layer(columns // function.maps, function))
        network = cls(arrays[0][0].shape[0], layers)
        parameters = network.parameters
        for i, layer in enumerate(layers):
            parameters.weights[i][...], parameters.biases[i][...] = arrays[i]
            parameters.learned[i].fill(layer.activation.first_learned)
        for i, values in (slopes or {}).items():
            learned = _read_array(values, f"the slopes of layer {i + 1}")
            expected = parameters.learned[i].shape if 0 <= i < len(layers) else (0,)
            if learned.shape != expected or expected == (0,):
                raise UsageError(
                    f"layer {i + 1} learns no slopes"
                    if expected == (0,)
                    else f"layer {i + 1} has {expected[0]} slopes, got {learned.shape}"
                )
            parameters.learned[i][...] = learned
        return network

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw all parameters anew: the weights of every layer in turn, then the biases."""
        fans = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        # A distribution too wide for float32 is no warning here: it is found as infinities.
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, weights, (fan_in, fan_out) in zip(
                self.layers, self.parameters.weights, fans, strict=True
            ):
                layer.weights_distribution.fill(weights, fan_in=fan_in, fan_out=fan_out, rng=rng)
            for layer, biases, (fan_in, fan_out) in zip(
                self.layers, self.parameters.biases, fans, strict=True
            ):
                layer.biases_distribution.fill(biases, fan_in=fan_in, fan_out=fan_out, rng=rng)
            for layer, learned in zip(self.layers, self.parameters.learned, strict=True):
                learned.fill(layer.activation.first_learned)

    def as_float64(self) -> Network:
        """Return a copy that computes in float64."""
        copy = Network(self.sizes[0], self.layers, np.float64)
        copy.parameters.vector[...] = self.parameters.vector
        return copy

    def amplified(self, gain: float) -> Network:
        """Return a copy with all weights and biases multiplied by `gain`, in float64.

        For infinity it is the limit: step units for the hidden sigmoids (Nielsen, chapter 1, the
        exercise on sigmoid neurons that simulate perceptrons), if no z is exactly 0.

        Raises
        ------
        ValueError
            The gain is infinite, and there is no limit for a hidden layer's activation.
        """
        copy = self.as_float64()
        if math.isfinite(gain):
            copy.parameters.affine *= gain
            return copy
        for i, function in enumerate(copy.functions[:-1]):
            limit = function.limit()
            if limit is None:
                raise ValueError(f"layer {i + 1} is {function.name}, which has no limit as step")
            copy.functions[i] = limit
        return copy

    def weighted_inputs(self, layer: int, a: Array) -> Array:
        """Return z = a W + b of a layer, counted from 0, ``(batch, maps)``."""
        z: Array = a @ self.parameters.weights[layer]
        z += self.parameters.biases[layer]
        return z

    def apply(self, layer: int, z: Array) -> Array:
        """Return f(z) of a layer, ``(batch, units)`` of ``(batch, maps)``; it may overwrite z."""
        function = self.functions[layer]
        outputs = z if function.maps == 1 else np.empty((len(z), self.sizes[layer + 1]), z.dtype)
        function.forward(z, outputs)
        return outputs

    def activations(self, inputs: Array) -> list[Array]:
        """Return the outputs of every layer for inputs of shape ``(batch, inputs)``."""
        outputs: list[Array] = []
        a = inputs
        for layer in range(len(self.layers)):
            a = self.apply(layer, self.weighted_inputs(layer, a))
            outputs.append(a)
        return outputs

    def logits(self, inputs: Array) -> Array:
        """Return the last layer's weighted inputs z, ``(batch, units)``, before its activation."""
        a = inputs
        last = len(self.layers) - 1
        for layer in range(last):
            a = self.apply(layer, self.weighted_inputs(layer, a))
        return self.weighted_inputs(last, a)

    def outputs(self, logits: Array) -> Array:
        """Return the last layer's outputs f(z) for its logits z, both ``(batch, units)``."""
        return self.apply(len(self.layers) - 1, logits.copy())

    def decide(self, logits: Array) -> NDArray[np.int64]:
        """Return the class of each example, told from its logits, ``(batch,)``.

        It is that of the largest output; where outputs may be equal because they are saturated, of
        the largest z. A single output says 1 if it is at least 1/2.
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
    matrix = _read_array(weights, f"the weights of layer {layer + 1}")
    row = _read_array(biases, f"the biases of layer {layer + 1}")
    if matrix.ndim != 2 or not matrix.size or row.size != max(row.shape, default=0):
        raise UsageError(
            f"layer {layer + 1}: expected weights (inputs, units) and biases (units,), "
            f"got {matrix.shape} and {row.shape}"
        )

    def fits(shape: tuple[int, ...]) -> bool:
        return shape[0] == (inputs or shape[0]) and shape[1] == row.size

    if not fits(matrix.shape):
        before = "" if inputs is None else f"{inputs} inputs and "
        raise UsageError(
            f"layer {layer + 1}: weights {matrix.shape} do not fit {before}{row.size} biases",
            hint="They are (inputs, units) here: transpose them." if fits(matrix.T.shape) else None,
        )
    return matrix, row.reshape(-1)


def _read_array(values: ArrayLike, what: str) -> Array:
    """Return values as float32, if they are finite numbers there."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{what} are not an array of numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"{what} hold numbers that are not finite in 32 bits")
    return array


def _read_activation(given: str | Mapping[str, Any] | Activation, layer: int) -> Activation:
    """Return the activation of a layer, counted from 0, by what a configuration calls it."""
    if isinstance(given, Activation):
        return given
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    name = str(parameters.pop("name", None))
    if name not in ACTIVATIONS:
        known = did_you_mean(name, ACTIVATIONS) or f"; known are {', '.join(ACTIVATIONS)}"
        raise UsageError(f"layer {layer + 1}: unknown activation '{name}'{known}")
    try:
        return ACTIVATIONS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise UsageError(f"layer {layer + 1}: {name}: {error}") from None


class Backpropagation:
    """The forward and the backward pass over a batch, in buffers that are allocated once.

    Nielsen, chapter 2: the errors dL/dz go back through the layers; with the activations that came
    in they give the gradient, which is written straight into `gradient`. The first layer's inputs
    are pixels: their errors are computed only if somebody asks for them.

    Parameters
    ----------
    network : Network
        Whose parameters are read at each pass.
    gradient : Parameters
        Where `write_gradient` leaves the gradient.
    batch_size : int
        The number of examples in every batch.
    dropout : bool
        Whether `forward` is given what to drop.

    Attributes
    ----------
    outputs : list of array, shape (batch, units)
        Of every layer, after `forward`.
    passed : list of array, shape (batch, units)
        What of them the next layer takes: all, if nothing is dropped.
    errors : list of array, shape (batch, maps)
        dL/dz of every layer, after `backward`; the last is filled in before it.
    """

    def __init__(
        self, network: Network, gradient: Parameters, batch_size: int, *, dropout: bool = False
    ) -> None:
        def buffers() -> list[Array]:
            return [np.empty((batch_size, layer.units), network.dtype) for layer in network.layers]

        self._functions = [
            layer.activation.bind(learned)
            for layer, learned in zip(network.layers, network.parameters.learned, strict=True)
        ]
        self._weights = network.parameters.weights
        self._biases = network.parameters.biases
        self._weights_transposed = [weights.T for weights in network.parameters.weights]
        self._gradient = gradient
        self._whole = gradient.stretches(1)[0]
        self._ones: Array = np.ones(batch_size, network.dtype)
        self.outputs = buffers()
        self.passed = self.outputs.copy()
        self._all: list[Array | None] = [None] * len(network.layers)
        self._kept: Sequence[Array | None] = self._all
        self._errors = buffers()  # by the outputs
        self._z = self.outputs.copy()  # written over by the outputs, where nobody needs them
        self.errors = self._errors.copy()  # by z
        for i, layer in enumerate(network.layers):
            if dropout and layer.dropout:
                self.passed[i] = np.empty_like(self.outputs[i])
            if layer.activation.needs_z:
                self._z[i] = np.empty((batch_size, layer.maps), network.dtype)
            if layer.maps > layer.units or layer.learned:
                self.errors[i] = np.empty((batch_size, layer.maps), network.dtype)

    @staticmethod
    def width(layers: Sequence[Layer]) -> int:
        """Return how many numbers the buffers hold of an example, with the dropout of layers."""
        width = 0
        for layer in layers:
            width += 2 * layer.units + layer.units * bool(layer.dropout)
            width += layer.maps * layer.activation.needs_z
            width += layer.maps * (layer.maps > layer.units or layer.learned > 0)
        return width

    def part(self, rows: slice) -> Backpropagation:
        """Return the passes over some of the examples, in views of these buffers."""
        part = copy.copy(self)
        part.outputs = [outputs[rows] for outputs in self.outputs]
        part._errors = [errors[rows] for errors in self._errors]
        # What shares a buffer goes on sharing it: activations ask whether they work in place.
        part._z = [
            shared if z is outputs else z[rows]
            for z, outputs, shared in zip(self._z, self.outputs, part.outputs, strict=True)
        ]
        part.passed = [
            shared if passed is outputs else passed[rows]
            for passed, outputs, shared in zip(self.passed, self.outputs, part.outputs, strict=True)
        ]
        part.errors = [
            shared if by_z is by_outputs else by_z[rows]
            for by_z, by_outputs, shared in zip(
                self.errors, self._errors, part._errors, strict=True
            )
        ]
        return part

    def forward(
        self, inputs: Array, logits: Array, kept: Sequence[Array | None] | None = None
    ) -> Array:
        """Write the logits z of a batch, and return the outputs f(z).

        Parameters
        ----------
        inputs : array, shape (batch, inputs)
            The examples.
        logits : array, shape (batch, units)
            Where the last layer's weighted inputs are written.
        kept : sequence of array or None, optional
            Factors on the outputs of each layer, ``(batch, units)``: 0 for those that are dropped;
            None for layers that drop nothing.

        Returns
        -------
        array, shape (batch, units)
            A buffer that the next call overwrites.
        """
        a = inputs
        self._z[-1] = logits
        self._kept = self._all if kept is None else kept
        for z, outputs, passed, factors, weights, biases, function in zip(
            self._z,
            self.outputs,
            self.passed,
            self._kept,
            self._weights,
            self._biases,
            self._functions,
            strict=True,
        ):
            np.dot(a, weights, out=z)  # it calls BLAS a microsecond sooner than matmul
            z += biases
            function.forward(z, outputs)
            if factors is not None:
                np.multiply(outputs, factors, out=passed)
            a = passed
        return a

    def backward(self) -> None:
        """Take the output layer's errors, in ``errors[-1]``, back to those of every layer."""
        for i in range(len(self._functions) - 1, 0, -1):
            below = i - 1
            np.dot(self.errors[i], self._weights_transposed[i], out=self._errors[below])
            factors = self._kept[below]
            if factors is not None:
                self._errors[below] *= factors
            self._functions[below].backward(
                self._z[below], self.outputs[below], self._errors[below], self.errors[below]
            )

    def input_errors(self) -> Array:
        """Return dL/dx of the inputs, ``(batch, inputs)``, after `backward`."""
        errors: Array = np.dot(self.errors[0], self._weights_transposed[0])
        return errors

    def write_gradient(self, inputs: Array, stretch: Stretch | None = None) -> None:
        """Turn the errors of every layer into the gradient, or a stretch of it.

        Parameters
        ----------
        inputs : array, shape (batch, inputs)
            What `forward` was given.
        stretch : Stretch, optional
            Of the gradient; all of it if not given.
        """
        stretch = stretch or self._whole
        # Of some of the rows, dot would make a copy.
        product = np.dot if stretch.is_whole else np.matmul
        for layer, rows in stretch.rows:
            a = self.passed[layer - 1] if layer else inputs
            product(a.T[rows], self.errors[layer], out=self._gradient.weights[layer][rows])
        if stretch.is_last:
            for layer, errors in enumerate(self.errors):
                # A product with ones sums columns in half the time of a sum.
                np.dot(self._ones, errors, out=self._gradient.biases[layer])
                if self._gradient.learned[layer].size:  # in hidden layers alone
                    self._functions[layer].write_gradient(
                        self._z[layer], self._errors[layer], self._gradient.learned[layer]
                    )

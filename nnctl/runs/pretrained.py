"""Networks that were trained elsewhere: read from arrays, and saved as runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnctl.config import Document, Override
from nnctl.config.tables import write
from nnctl.config.words import suggest_value
from nnctl.errors import UsageError
from nnctl.nn import network as core
from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.losses import make_loss
from nnctl.nn.types import Array
from nnctl.runs.resolve import Notify, find_dataset, resolve_auto, resolve_config
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun


class Network(core.Network):
    """A feedforward network that can be built from the arrays of a book or another program."""

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
        layers: list[core.Layer] = []
        arrays: list[tuple[Array, Array]] = []
        for i, (matrix, row, activation) in enumerate(
            zip(weights, biases, activations, strict=True)
        ):
            function = _read_activation(activation, i)
            arrays.append(_read_layer(matrix, row, i, layers[-1].units if layers else None))
            columns = arrays[-1][1].size
            if columns % function.pieces:
                raise UsageError(
                    f"layer {i + 1}: {columns} biases are not a multiple of {function.pieces} "
                    "pieces"
                )
            layers.append(core.Layer(columns // function.pieces, function))
        network = cls(arrays[0][0].shape[0], layers)
        parameters = network.parameters
        for i, layer in enumerate(layers):
            parameters.weights[i][...], parameters.biases[i][...] = arrays[i]
            parameters.slopes[i].fill(layer.activation.initial_slopes)
        for i, values in (slopes or {}).items():
            learned = _read_array(values, f"slopes of layer {i + 1}")
            expected = parameters.slopes[i].shape if 0 <= i < len(layers) else (0,)
            if expected == (0,):
                raise UsageError(f"layer {i + 1} has no slopes")
            if learned.shape != expected:
                raise UsageError(f"layer {i + 1} has {expected[0]} slopes, got {learned.shape}")
            parameters.slopes[i][...] = learned
        return network


def save_network(
    network: core.Network,
    directory: Path,
    dataset: str,
    overrides: Sequence[Override] = (),
    *,
    notify: Notify,
) -> Run:
    """Save a network as a run that has no epoch yet, and return the run.

    Parameters
    ----------
    network : Network
        Network with its parameters.
    directory : Path
        Run directory, new or empty.
    dataset : str
        Name of the dataset that the network was trained on.
    overrides : sequence of Override
        Other settings of the run's configuration.
    notify : callable
        Receives the notices, such as the progress of a download.

    Raises
    ------
    ConfigError
        The network cannot be trained on this dataset.
    UsageError
        The network takes images of another size, or the directory is not empty.
    DataError
        The dataset is not available.
    """
    layers = network.layers
    config: dict[str, Any] = {
        "data": {"dataset": dataset},
        "network": {
            "layers": [
                {
                    "units": layer.units,
                    "activation": write(layer.activation),
                    "batch_norm": layer.batch_norm and dataclasses.asdict(layer.batch_norm),
                }
                for layer in layers
            ]
        },
        "loss": _fitting_loss(network),
        "optimizer": {"learning_rate": 0.1},  # used only if the run is trained further
    }
    requested = resolve_config(Document("the network", config), overrides)
    opened = find_dataset(requested.data, notify)
    pixels = opened.training.inputs.shape[1]
    if pixels != network.sizes[0]:
        raise UsageError(
            f"the images of {dataset} have {pixels} pixels; this network takes {network.sizes[0]}"
        )
    resolved = resolve_auto(requested, opened, notify)
    run = Run.create_at(directory)
    TrainingRun.create(run, resolved, opened).init_from_network(network)
    return run


def _fitting_loss(network: core.Network) -> str:
    """Return the loss that fits the output activation: cross-entropy where it is defined."""
    try:
        make_loss("cross_entropy", network.layers[-1].activation)
    except ValueError:
        return "quadratic"
    return "cross_entropy"


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
        hint = suggest_value(name, ACTIVATIONS) or f"; choose from {', '.join(ACTIVATIONS)}"
        raise UsageError(f"layer {layer + 1}: unknown activation '{name}'{hint}")
    try:
        return ACTIVATIONS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise UsageError(f"layer {layer + 1}: {name}: {error}") from None

"""Follows one example through a trained network: forward, to the loss, and back as errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import class_names
from nnctl.analysis.prediction import read_digits
from nnctl.data.dataset import image_side, open_dataset
from nnctl.data.gates import GATES
from nnctl.data.image_files import STDIN, read_file
from nnctl.errors import DataError, UsageError
from nnctl.nn.activations import Activation
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.losses import Loss, make_loss
from nnctl.nn.metrics import make_targets
from nnctl.nn.network import Network, Parameters
from nnctl.nn.types import Array
from nnctl.runs.resolve import Notify, read_test_set
from nnctl.runs.run import Run, TrainedNetwork, Which
from nnctl.text import did_you_mean, enumeration

MAX_PARAMETERS = 100
"""Largest number of weights and biases for which every number is given."""


@dataclass(frozen=True, eq=False)
class LayerPass:
    """A layer on the way of an example through the network, all in float64.

    Parameters
    ----------
    layer : int
        Number of the layer, from 1.
    function : Activation
        Activation function f.
    inputs : array, shape (inputs,)
        Activations of the layer below, or the inputs of the network.
    weights : array, shape (inputs, columns)
        Weights.
    biases : array, shape (columns,)
        Biases.
    z : array, shape (columns,)
        Weighted inputs; a maxout unit has several columns.
    outputs : array, shape (units,)
        Activations f(z).
    slopes : array, shape (units,), optional
        Derivatives f'(z), or those of the surrogate; None if an output depends on several z.
    deltas : array, shape (columns,)
        Errors dL/dz; NaN if the true class is not known.
    """

    layer: int
    function: Activation
    inputs: Array
    weights: Array
    biases: Array
    z: Array
    outputs: Array
    slopes: Array | None
    deltas: Array

    @property
    def error(self) -> float:
        """Norm of the errors."""
        return float(np.linalg.norm(self.deltas))

    @property
    def gradient_norm(self) -> float:
        """Norm of the weights' gradient, which is an outer product."""
        return float(np.linalg.norm(self.inputs)) * self.error

    @property
    def weight_gradient(self) -> Array:
        """Gradient of the loss with respect to the weights, ``(inputs, columns)``."""
        return np.outer(self.inputs, self.deltas)

    def to_json(self, *, whole: bool, known: bool, trained: bool) -> dict[str, Any]:
        """Return JSON-compatible values; `whole` adds the weights and their gradient.

        The errors are null if they are not `known`, and so are the gradients, also if these weights
        are not the ones that are `trained`.
        """
        result: dict[str, Any] = {
            "layer": self.layer,
            "activation": self.function.name,
            "formula": self.function.describe(self.function.formula),
            "z": self.z.tolist(),
            "a": self.outputs.tolist(),
            "slopes": None if self.slopes is None else self.slopes.tolist(),
            "deltas": self.deltas.tolist() if known else None,
            "error": self.error if known else None,
            "gradient_norm": self.gradient_norm if known and trained else None,
        }
        if whole:
            result |= {
                "inputs": self.inputs.tolist(),
                "weights": self.weights.tolist(),
                "biases": self.biases.tolist(),
                "weight_gradient": self.weight_gradient.tolist() if known and trained else None,
            }
        return result


@dataclass(frozen=True, eq=False)
class Explanation:
    """The result of `explain`.

    Parameters
    ----------
    run_dir : Path
        Run directory.
    epoch : int
        Number of complete epochs of the network.
    example : str
        What the example is, such as ``test image 7 of mini``.
    inputs : array, shape (inputs,)
        Inputs of the network, from 0 to 1.
    classes : list of str
        Names of the classes.
    label : int, optional
        True class, if it is known.
    predicted : int
        Predicted class.
    runner_up : int
        Class with the second largest output.
    rival : int
        Class to compare the answer with: the true one after a mistake, else the runner-up.
    outputs : list of float
        Output for each class; for a single output unit 1 - a and a.
    loss_function : Loss
        Loss of the training.
    targets : array, shape (units,)
        Desired outputs y; NaN if the true class is not known.
    loss : float
        Loss of this example, without weight decay; NaN if the true class is not known.
    layers : list of LayerPass
        Layers, from first to last.
    has_batch_norm : bool
        Whether batch normalization was made part of the weights and biases of these layers.
    evidence : array, shape (inputs,)
        Each input times the derivative of the predicted class's z with respect to it. In a network
        of one layer these are the terms w x of z.
    contrast : array, shape (inputs,)
        The same for the difference of the z of the predicted class and of its rival.
    """

    run_dir: Path
    epoch: int
    example: str
    inputs: Array
    classes: list[str]
    label: int | None
    predicted: int
    runner_up: int
    rival: int
    outputs: list[float]
    loss_function: Loss
    targets: Array
    loss: float
    layers: list[LayerPass]
    has_batch_norm: bool
    evidence: Array
    contrast: Array

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """The inputs as an image; None if they are not a square image."""
        side = image_side(len(self.inputs))
        if side is None:
            return None
        return np.rint(255 * np.clip(self.inputs, 0, 1)).astype(np.uint8).reshape(side, side)

    @property
    def is_small(self) -> bool:
        """Whether every number can be given, as for a logic gate."""
        return sum(one.weights.size + one.biases.size for one in self.layers) <= MAX_PARAMETERS

    @property
    def unit_contributions(self) -> Array:
        """The terms of the last layer in z of the answer minus z of the rival, ``(inputs,)``.

        These are the inputs of the layer times the difference of their weights; the difference of
        the biases is missing.
        """
        last = self.layers[-1]
        coefficients = _coefficients(len(last.z), self.predicted, self.rival)
        contributions: Array = last.inputs * (last.weights @ coefficients)
        return contributions

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values."""
        names, known = self.classes, self.label is not None
        return {
            "run_dir": str(self.run_dir),
            "epoch": self.epoch,
            "example": self.example,
            "label": None if self.label is None else names[self.label],
            "predicted": names[self.predicted],
            "runner_up": names[self.runner_up],
            "rival": names[self.rival],
            "outputs": dict(zip(names, self.outputs, strict=True)),
            "targets": self.targets.tolist() if known else None,
            "loss": self.loss if known else None,
            "layers": [
                one.to_json(whole=self.is_small, known=known, trained=not self.has_batch_norm)
                for one in self.layers
            ],
            "inputs": self.inputs.tolist(),
            "evidence": self.evidence.tolist(),
            "contrast": self.contrast.tolist(),
            "unit_contributions": self.unit_contributions.tolist(),
        }


@dataclass(frozen=True, eq=False)
class _Example:
    """An example to explain: its inputs from 0 to 1, its true class if known, and its name."""

    name: str
    inputs: Array
    label: int | None


def explain(
    run: Run,
    *,
    image: str | None = None,
    inputs: Sequence[float] | None = None,
    label: str | None = None,
    checkpoint: Which = "best",
    notify: Notify,
) -> Explanation:
    """Follow one example through the network of a run, forward and back.

    Parameters
    ----------
    run : Run
        Run with the checkpoint.
    image : str, optional
        Number of a test image, from 0, or the name of an image file (default: test image 0).
    inputs : sequence of float, optional
        Inputs of the network in place of an image.
    label : str, optional
        Name of the true class, if the example has none or another one.
    checkpoint : str
        ``best`` for the best epoch, or ``last``.
    notify : callable
        Receives the notices, such as the progress of a download.

    Raises
    ------
    DataError
        The checkpoint, the dataset or the image cannot be read.
    UsageError
        The example does not fit the network, or the class is unknown.
    """
    trained = run.load(checkpoint)
    network = trained.network
    classes = class_names(trained.config, network.sizes[-1], trained.dataset.classes)
    if inputs is not None:
        example = _typed_example(trained, inputs)
    elif image is None or (image.isascii() and image.isdecimal()):
        example = _test_example(trained, int(image or 0), notify)
    else:
        example = _example_of_file(image, network.sizes[0])
    if label is not None:
        if label not in classes:
            raise UsageError(
                f"unknown class '{label}'{did_you_mean(label, classes)}",
                hint=f"The classes are {enumeration(classes)}.",
            )
        example = dataclasses.replace(example, label=classes.index(label))
    with np.errstate(over="ignore", invalid="ignore"):
        return _explain(run, trained, example, classes)


def _explain(
    run: Run, trained: TrainedNetwork, example: _Example, classes: list[str]
) -> Explanation:
    network = trained.network.folded().as_float64()
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    backprop = Backpropagation(network, gradient, 1)
    label, units = example.label, network.sizes[-1]
    logits = np.empty((1, units))
    outputs = backprop.forward(example.inputs[None], logits)[0].copy()
    predicted = int(network.predict_classes(logits)[0])
    scores = logits[0] if network.functions[-1].monotone else outputs
    if len(outputs) == 1:
        outputs = scores = np.array([1 - outputs[0], outputs[0]])
    runner_up = next(i for i in np.argsort(-scores, kind="stable").tolist() if i != predicted)
    rival = runner_up if label in (None, predicted) else label
    targets, value = np.full((1, units), np.nan), math.nan
    deltas = [np.full(layer.columns, np.nan) for layer in network.layers]
    loss = make_loss(trained.config.loss, trained.config.network.layers[-1].activation)
    if label is not None:
        targets = make_targets(np.array([label]), units, network.dtype)
        value = float(loss.values(logits, targets)[0])
        loss.gradient(logits, backprop.outputs[-1], targets, out=backprop.output_deltas)
        backprop.propagate()
        deltas = [of_layer[0].copy() for of_layer in backprop.deltas]
    return Explanation(
        run_dir=run.directory,
        epoch=trained.epoch,
        example=example.name,
        inputs=example.inputs,
        classes=classes,
        label=label,
        predicted=predicted,
        runner_up=runner_up,
        rival=rival,
        outputs=outputs.tolist(),
        loss_function=loss,
        targets=targets[0],
        loss=value,
        layers=_passes(network, example.inputs, deltas),
        has_batch_norm=trained.network.statistics.size > 0,
        evidence=_contributions(backprop, example.inputs, _coefficients(units, predicted)),
        contrast=_contributions(backprop, example.inputs, _coefficients(units, predicted, rival)),
    )


def _coefficients(units: int, predicted: int, rival: int | None = None) -> Array:
    """Return the coefficients of the last layer's z in the answer's z, minus that of its rival.

    The z of a single unit speaks for class 1.
    """
    if units == 1:
        return np.array([1.0 if predicted else -1.0])
    coefficients = np.zeros(units)
    coefficients[predicted] = 1
    if rival is not None:
        coefficients[rival] = -1
    return coefficients


def _passes(network: Network, inputs: Array, deltas: Sequence[Array]) -> list[LayerPass]:
    """Return the pass of one example through each layer."""
    passes: list[LayerPass] = []
    a = inputs[None]
    for i, function in enumerate(network.functions):
        z = network.weighted_inputs(i, a)
        outputs = network.apply(i, z.copy())
        passes.append(
            LayerPass(
                layer=i + 1,
                function=function,
                inputs=a[0],
                weights=network.parameters.weights[i],
                biases=network.parameters.biases[i],
                z=z[0],
                outputs=outputs[0],
                slopes=_slopes(function, z, outputs),
                deltas=deltas[i],
            )
        )
        a = outputs
    return passes


def _slopes(function: Activation, z: Array, outputs: Array) -> Array | None:
    """Return f'(z) of each unit, or None if an output depends on several z."""
    if function.pieces > 1 or function.place == "output":
        return None
    slopes: Array = np.empty_like(z[0])
    function.backward(z, outputs, np.ones_like(outputs), slopes[None])
    return slopes


def _contributions(backprop: Backpropagation, inputs: Array, coefficients: Array) -> Array:
    """Return each input times the derivative of a weighted sum of the last layer's z."""
    backprop.output_deltas[...] = coefficients
    backprop.propagate()
    contributions: Array = inputs * backprop.input_gradient()[0]
    return contributions


def _test_example(trained: TrainedNetwork, number: int, notify: Notify) -> _Example:
    """Return an image of the test set of a run's dataset."""
    pixels = trained.network.sizes[0]
    dataset = open_dataset(trained.dataset.name, notify=notify)
    test = read_test_set(trained.config, dataset)
    noun = "test image" if image_side(pixels) else "example"  # such as a row of a truth table
    if number >= len(test):
        raise UsageError(
            f"{noun} {number:,} does not exist: {dataset.name} has {len(test):,}",
            hint=f"Use --image with a number from 0 to {len(test) - 1:,}.",
        )
    if test.inputs.shape[1] != pixels:
        raise UsageError(
            f"the images of {dataset.name} have {test.inputs.shape[1]} pixels; "
            f"this network takes {pixels}"
        )
    return _Example(
        f"{noun} {number} of {dataset.name}",
        test.inputs[number] / 255,
        int(test.labels[number]),
    )


def _typed_example(trained: TrainedNetwork, inputs: Sequence[float]) -> _Example:
    """Return inputs that the user typed; if they are those of a gate, with their true class."""
    pixels = trained.network.sizes[0]
    if len(inputs) != pixels:
        numbers = f"{len(inputs)} number{'s' * (len(inputs) != 1)}"
        raise UsageError(
            f"--input has {numbers}; this network takes {pixels:,}",
            hint="Use --image with the number of a test image, or with an image file."
            if image_side(pixels)
            else f"Separate {pixels:,} numbers by commas.",
        )
    if not all(math.isfinite(number) for number in inputs):
        raise UsageError("--input has a number that is not finite", hint="Use numbers from 0 to 1.")
    values, label = np.array(inputs, float), None
    if trained.dataset.name in GATES:
        gate = open_dataset(trained.dataset.name, notify=lambda _: None).test
        rows = np.flatnonzero((gate.inputs == 255 * values).all(axis=1))
        label = int(gate.labels[rows[0]]) if len(rows) else None
    shown = ", ".join(f"{number:g}" for number in inputs)
    return _Example(f"input {shown}" if len(inputs) <= 8 else "input", values, label)


def _example_of_file(name: str, pixels: int) -> _Example:
    """Return the only digit in an image file."""
    if image_side(pixels) is None:
        raise UsageError(
            f"this network takes {pixels} inputs, not an image",
            hint="Use --input, for example --input 0,1.",
        )
    try:
        images, _ = read_digits(read_file(name), pixels)
    except DataError as error:
        source = "standard input" if name == STDIN else name
        raise type(error)(f"{source}: {error.message}", hint=error.hint) from None
    if len(images) != 1:
        raise DataError(
            f"{name} has {len(images)} images of digits; one can be explained at a time",
            hint="Cut the digit out of the picture.",
        )
    return _Example(name, images[0].ravel() / 255, None)

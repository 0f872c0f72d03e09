"""Checks a configuration or a run: its layers, its size, its problems and its gradients."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import class_names
from nnctl.build import build_augmentation, build_layers, build_network
from nnctl.config import Config, to_mapping
from nnctl.data.dataset import NAMED, DatasetInfo, find_cached, image_side
from nnctl.diagnosis.base import Diagnosis
from nnctl.diagnosis.cures import with_tried_cures
from nnctl.diagnosis.network import (
    check_config,
    diagnose,
    diagnose_initialization,
    initial_health,
    some_examples,
)
from nnctl.errors import DamagedFileError, DataError, NnctlError, UsageError
from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.augmentation import GROUP
from nnctl.nn.dropout import Dropout
from nnctl.nn.examples import scaled
from nnctl.nn.gradient_check import GradientError, check_gradient, linearization_residuals
from nnctl.nn.health import LayerHealth
from nnctl.nn.losses import make_loss
from nnctl.nn.network import Network, count_parameters
from nnctl.nn.streams import stream
from nnctl.nn.types import Array
from nnctl.runs.data_problems import find_data_problems
from nnctl.runs.history import epochs_of
from nnctl.runs.memory import memory_needed
from nnctl.runs.resolve import (
    dataset_info_of,
    epochs_needed,
    resolve_auto,
    split,
    steps_per_epoch,
    validation_count,
)
from nnctl.runs.run import Run
from nnctl.text import shell_command

LARGEST_ERROR = 1e-5
"""Largest relative error of a correct gradient, compared with central differences."""
_CHECKED = 8  # examples in the batch of a gradient check
_REGULARIZATION = (
    "data.augment",
    "network.input_dropout",
    "optimizer.weight_decay",
    "optimizer.l1",
    "optimizer.clip_norm",
    "optimizer.max_norm",
    "training.label_smoothing",
    "training.adversarial",
    "training.average",
)
_STEEP = 1e6  # a larger slope at z = 30 is that of an exponential function
_SAMPLES = 150  # parameters of each array that a gradient check compares


@dataclass(frozen=True)
class LayerPlan:
    """A layer before the training.

    Parameters
    ----------
    layer : int
        Number of the layer, from 1.
    inputs, units, parameters : int
        Numbers of inputs, of units and of trained parameters.
    activation, formula : str
        Name and formula of the activation.
    dropout : float
        Fraction of the outputs that are dropped in training.
    batch_norm : str, optional
        Position of the batch normalization: "before" or "after" the activation; None without.
    weights, biases : str
        Names of their initial distributions.
    weights_std, biases_std : float
        Standard deviations of these distributions.
    auto : bool
        Whether the distribution of the weights was chosen to fit the activation.
    """

    layer: int
    inputs: int
    units: int
    parameters: int
    activation: str
    formula: str
    dropout: float
    batch_norm: str | None
    weights: str
    weights_std: float
    auto: bool
    biases: str
    biases_std: float


@dataclass(frozen=True)
class Inspection:
    """Result of `inspect` and `inspect_run`.

    Parameters
    ----------
    sizes : list of int
        Number of inputs, and number of units of every layer.
    layers : list of LayerPlan
        Layers, from first to last.
    deep : bool
        Whether the network has two or more hidden layers.
    parameters, memory : int
        Number of trained parameters, and estimated peak memory of a training in bytes.
    dataset : str
        Name of the dataset.
    examples, held_out : int
        Numbers of training and validation examples.
    epochs, steps_per_epoch, steps : int
        Length of the training.
    regularization : dict
        Values of the regularization settings in use, by dotted key.
    diagnoses : list of Diagnosis
        Problems found before or after the training.
    epochs_done : int, optional
        Number of complete epochs of a run; None for a configuration.
    """

    sizes: list[int]
    layers: list[LayerPlan]
    deep: bool
    parameters: int
    memory: int
    dataset: str
    examples: int
    held_out: int
    epochs: int
    steps_per_epoch: int
    steps: int
    regularization: dict[str, Any]
    diagnoses: list[Diagnosis] = dataclasses.field(default_factory=list)
    epochs_done: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return dataclasses.asdict(self)


def inspect(config: Config) -> Inspection:
    """Return the layers and the size of a configuration, and the problems before any training."""
    info = dataset_info_of(config)
    measured = diagnose_initialization(config, initial_health(config, info.pixels))
    kinds = {diagnosis.kind for diagnosis in measured}
    warnings = [diagnosis for diagnosis in check_config(config) if diagnosis.kind not in kinds]
    tried = with_tried_cures(config, info.pixels, [*warnings, *measured])
    diagnoses = [*_data_problems(config), *tried]
    return dataclasses.replace(_plan(config, info), diagnoses=diagnoses)


def _data_problems(config: Config, network: Network | None = None) -> list[Diagnosis]:
    """Return the problems of the dataset, if it is on this machine and can be read."""
    if config.data.dataset in NAMED:  # a published dataset needs neither reading nor splitting
        return []
    try:
        dataset = find_cached(config.data.dataset)
        if dataset is None:
            return []
        resolved = resolve_auto(config, dataset)
        return find_data_problems(resolved, dataset, *split(resolved, dataset), network)
    except (DataError, UsageError):  # reported when the dataset is used
        return []


def _plan(config: Config, info: DatasetInfo) -> Inspection:
    """Return an inspection without diagnoses."""
    layers = build_layers(config)
    sizes = [info.pixels, *(layer.units for layer in layers)]
    plans = []
    for number, (inputs, layer) in enumerate(zip(sizes[:-1], layers, strict=True), start=1):
        weights, biases = layer.weights_distribution, layer.biases_distribution
        activation = layer.activation
        plans.append(
            LayerPlan(
                layer=number,
                inputs=inputs,
                units=layer.units,
                parameters=count_parameters(inputs, [layer]),
                activation=activation.name,
                formula=activation.describe(activation.formula),
                dropout=layer.dropout,
                batch_norm=layer.batch_norm.position if layer.batch_norm else None,
                weights=weights.name,
                weights_std=weights.standard_deviation(inputs, layer.units),
                auto=weights is not layer.weights,
                biases=biases.name,
                biases_std=biases.standard_deviation(inputs, layer.units),
            )
        )
    held_out = validation_count(config, info)
    per_epoch, epochs = steps_per_epoch(config, info), epochs_needed(config, info)
    steps = min(epochs * per_epoch, config.training.steps or sys.maxsize)
    epochs = min(epochs, math.ceil(steps / per_epoch))
    return Inspection(
        sizes=sizes,
        layers=plans,
        deep=len(layers) > 2,
        parameters=sum(plan.parameters for plan in plans),
        memory=memory_needed(config, info, held_out),
        dataset=config.data.dataset,
        examples=config.data.subset or info.n_training - held_out,
        held_out=held_out,
        epochs=epochs,
        steps_per_epoch=per_epoch,
        steps=steps,
        regularization=_regularization(config),
    )


def _regularization(config: Config) -> dict[str, Any]:
    """Return the values of the regularization settings in use, by dotted key."""
    in_use = {}
    sections = to_mapping(config)
    for key in _REGULARIZATION:
        section, name = key.split(".")
        value = sections[section].get(name)  # a key that is not written is not set
        if isinstance(value, dict):
            value = {part: amount for part, amount in value.items() if amount}
        if value:
            in_use[key] = value
    return in_use


def inspect_run(run: Run, trained: Network | None) -> Inspection:
    """Return the layers and the size of a run, and the problems that its training shows.

    Parameters
    ----------
    run : Run
        Run, finished or not.
    trained : Network, optional
        Network after the last epoch; see `trained_network`.

    Raises
    ------
    DataError
        A file of the run is damaged.
    """
    summary, config, history = run.summary, run.config, run.history
    divergence = summary.divergence if summary else None
    if divergence and not 1 <= divergence.layer <= len(config.network.layers):
        raise DamagedFileError(
            f"{run.summary_path} is damaged: it names layer {divergence.layer}, which does not "
            "exist"
        )
    if not history and divergence is None:
        return inspect(config)
    plan = _plan(config, _dataset_info_of_run(run))
    diagnoses = diagnose(
        config,
        history,
        trained,
        divergence,
        steps_per_epoch=plan.steps_per_epoch,
        of_data=_data_problems(config, trained),
    )
    return dataclasses.replace(plan, diagnoses=diagnoses, epochs_done=epochs_of(history))


def _dataset_info_of_run(run: Run) -> DatasetInfo:
    """Return the sizes of a run's dataset, from its checkpoint if the dataset no longer exists."""
    if not run.checkpoint_path("last").exists():
        return dataset_info_of(run.config)
    used = run.checkpoint("last").dataset
    subset, held_out = run.config.data.subset, used.validation
    training = held_out + max(used.training, subset or 0)
    names = used.classes or class_names(run.config, run.config.network.layers[-1].units)
    return DatasetInfo(training, used.pixels, tuple(names))


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of all layers after an epoch.

    Parameters
    ----------
    epoch : int
        Number of the epoch; 0 for the initial weights, which have no update yet.
    layers : list of LayerHealth
        Health of each layer.
    """

    epoch: int
    layers: list[LayerHealth]

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as JSON-compatible values."""
        result = dataclasses.asdict(self)
        if self.epoch == 0:
            for layer in result["layers"]:
                layer["update_ratio"] = None
        return result


def layer_statistics(config: Config, run: Run | None = None) -> list[LayerStatistics]:
    """Return the statistics of the layers with the initial weights, and after each epoch of a run.

    The initial weights are drawn with the seed of the configuration and measured on images that
    come with nnctl; a run that began with the weights of another one has no row for them. A
    training measures its layers on validation images.
    """
    info = _dataset_info_of_run(run) if run else dataset_info_of(config)
    history = run.history if run else []
    statistics = [LayerStatistics(one.epoch, one.health) for one in history if one.health]
    if run is None or not run.init_path.exists():
        statistics.insert(0, LayerStatistics(0, initial_health(config, info.pixels)))
    return statistics


@dataclass(frozen=True, eq=False)
class Sample:
    """A training image as the network will see it.

    Parameters
    ----------
    dataset : str
        Name of the dataset: the configured one or its fallback.
    label : str
        Name of the class.
    image : array of uint8, shape (height, width)
        Pixels.
    """

    dataset: str
    label: str
    image: NDArray[np.uint8]

    def to_json(self) -> dict[str, Any]:
        """Return the sample as JSON-compatible values."""
        return {**vars(self), "image": self.image.tolist()}


def sample_images(config: Config, count: int) -> list[Sample]:
    """Return the first training images as the network will see them: augmented, with dropout.

    Each image has its own random transformation, while in a training a few images share one.
    Adversarial steps are not shown, since they depend on the trained network.

    Raises
    ------
    DataError
        The dataset has not been downloaded.
    UsageError
        The examples are not images.
    """
    data = config.data
    dataset = find_cached(data.dataset) or (data.fallback and find_cached(data.fallback))
    if not dataset:
        raise DataError(
            f"cannot show samples: the dataset '{data.dataset}' has not been downloaded",
            hint=f"Download it with: {shell_command('nnctl', 'download', data.dataset)}",
        )
    examples, _ = split(resolve_auto(config, dataset), dataset)
    count = min(count, len(examples.labels))
    pixels = examples.inputs.shape[1]
    side = image_side(pixels)
    if side is None:
        raise UsageError(
            f"cannot show samples: the examples of '{dataset.name}' have {pixels} inputs and are "
            "not images"
        )
    seen = scaled(examples.inputs[:count])
    seed, augmentation = config.training.seed, build_augmentation(config)
    if augmentation:
        deformations = augmentation.draw(count * GROUP, side, stream(seed, "augmentation"))
        for i in range(count):
            deformations.apply(examples.inputs[i : i + 1], i * GROUP, seen[i : i + 1])
    dropout = Dropout(pixels, config.network.input_dropout, [], count, np.float32)
    dropout.draw(slice(None), stream(seed, "dropout"))
    if dropout.of_inputs is not None:
        seen *= dropout.of_inputs > 0  # without the scaling of the remaining inputs
    names = class_names(config, config.network.layers[-1].units, dataset.class_names)
    images = np.rint(255 * seen).astype(np.uint8).reshape(count, side, side)
    return [
        Sample(dataset.name, names[label], image)
        for label, image in zip(examples.labels, images, strict=False)
    ]


def trained_network(run: Run) -> Network | None:
    """Return the network of the last checkpoint, or None if there is none.

    Raises
    ------
    DataError
        The checkpoint cannot be read or does not match the run's configuration.
    """
    return run.network("last") if run.checkpoint_path("last").exists() else None


@dataclass(frozen=True)
class GradientReport:
    """Comparison of the gradients of a network with central differences.

    Parameters
    ----------
    errors : list of GradientError
        Errors of each layer.
    surrogates : list of int
        Layers that were checked with the surrogate of their activation.
    residuals : list of (float, float)
        Norm of a change of all parameters, and norm of the difference between the change of the
        outputs and its linear approximation.
    """

    errors: list[GradientError]
    surrogates: list[int]
    residuals: list[tuple[float, float]]

    @property
    def is_right(self) -> bool:
        """Whether the error of every layer is at most `LARGEST_ERROR`."""
        return not self._wrong()

    def _wrong(self) -> list[str]:
        return [str(error.layer) for error in self.errors if error.largest > LARGEST_ERROR]

    def to_json(self) -> Mapping[str, Any]:
        """Return the report as JSON-compatible values."""
        return {**dataclasses.asdict(self), "is_right": self.is_right}

    def raise_unless_right(self) -> None:
        """Raise an error if a gradient is wrong.

        Raises
        ------
        NnctlError
            A gradient is wrong; the message names the layers.
        """
        wrong = self._wrong()
        if wrong:
            raise NnctlError(
                f"the gradients of layer {', '.join(wrong)} are wrong: they differ from central "
                f"differences by more than {LARGEST_ERROR:g}"
            )


def report_gradients(config: Config, trained: Network | None = None) -> GradientReport:
    """Compare the gradients of a configuration's network, or of a trained one, in float64."""
    pixels = trained.sizes[0] if trained else dataset_info_of(config).pixels
    layers = build_layers(config)
    smooth = [
        dataclasses.replace(layer, activation=layer.activation.differentiable()) for layer in layers
    ]
    network = Network(pixels, smooth, np.float64)
    if trained is None:
        trained = build_network(config, pixels)
        trained.initialize(stream(config.training.seed, "initialization"))
    network.parameters.vector[...] = trained.parameters.vector
    network.statistics[...] = trained.statistics
    inputs, targets = some_examples(network, _CHECKED)
    loss = make_loss(config.loss, smooth[-1].activation)
    rng = np.random.default_rng(config.training.seed)
    with np.errstate(over="ignore", invalid="ignore"):  # overflows are reported as wrong gradients
        errors = check_gradient(network, loss, inputs, targets, samples=_SAMPLES, rng=rng)
        residuals = linearization_residuals(network.folded(), inputs[-1:], rng)
    return GradientReport(
        errors=errors,
        surrogates=[
            number
            for number, (layer, checked) in enumerate(zip(layers, smooth, strict=True), start=1)
            if layer.activation != checked.activation
        ],
        residuals=residuals,
    )


def list_activations() -> list[dict[str, Any]]:
    """Return every activation with its parameters, as JSON-compatible values."""
    return [
        {
            "name": kind.name,
            "aliases": [
                name for name, other in ACTIVATIONS.items() if other is kind and name != kind.name
            ],
            "parameters": dataclasses.asdict(kind()),
            **{
                about: kind().describe(getattr(kind, about))
                for about in ("formula", "derivative", "outputs", "advice")
            },
            "largest_slope": _largest_slope(kind()),
        }
        for kind in dict.fromkeys(ACTIVATIONS.values())
    ]


def activation_curves(activation: Activation, x: Array) -> tuple[Array, Array]:
    """Return f and f' along a line through the layer's weighted inputs z.

    Maxout takes several z per unit, and softmax all z of its layer: they are evaluated along
    (-x, ..., x) and (x, 0).
    """
    if activation.pieces > 1:
        directions = np.linspace(-1, 1, activation.pieces)
    else:
        directions = np.array([1.0, 0.0] if activation.place == "output" else [1.0])
    z = x[:, None] * directions
    outputs = np.empty((len(x), len(directions) // activation.pieces))
    activation.forward(z, outputs)
    gradient, slopes = np.zeros_like(outputs), np.empty_like(z)
    gradient[:, 0] = 1
    activation.backward(z, outputs, gradient, slopes)
    return outputs[:, 0], slopes @ directions


def _largest_slope(activation: Activation) -> float | None:
    """Return the largest derivative of an activation, to four digits; None if it is unbounded."""
    _, slopes = activation_curves(activation, np.linspace(-30, 30, 60_001))
    largest = float(slopes.max())
    return None if largest > _STEEP else float(f"{largest:.4g}")


def softmax_of_large_numbers() -> dict[str, list[float]]:
    """Return softmax of 1010, 1000 and 990, computed with and without subtracting the maximum.

    Deep Learning from Scratch, section 3.5.2.
    """
    z = np.array([1010.0, 1000.0, 990.0])
    with np.errstate(over="ignore", invalid="ignore"):
        powers, shifted = np.exp(z), np.exp(z - z.max())
        return {
            "z": z.tolist(),
            "powers": powers.tolist(),
            "naive": (powers / powers.sum()).tolist(),
            "shifted_powers": shifted.tolist(),
            "shifted": (shifted / shifted.sum()).tolist(),
        }

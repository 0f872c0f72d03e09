"""Evaluates a trained network on a dataset: accuracy, metrics of each class, worst mistakes."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnctl.config import Config
from nnctl.data.dataset import Dataset, image_side, open_dataset
from nnctl.errors import UsageError, require_choice
from nnctl.nn.activations import Sigmoid, Softmax
from nnctl.nn.corruption import CORRUPTIONS, Corruption
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import (
    ClassMetrics,
    calibration,
    class_metrics,
    confusion_matrix,
    expected_calibration_error,
    make_targets,
)
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from nnctl.runs.inference import infer
from nnctl.runs.resolve import Notify, Working, read_test_set, split
from nnctl.runs.run import Run, TrainedNetwork, Which
from nnctl.runs.summary import EvaluationRecord
from nnctl.text import html_table, percent

Split = Literal["test", "validation", "train"]

MAX_ROWS = 8
"""Largest numbers of examples and of inputs for a truth table."""


@dataclass(frozen=True)
class TruthTableRow:
    """A row of a truth table.

    Parameters
    ----------
    inputs : list of float
        Inputs from 0 to 1.
    expected : int
        True class.
    outputs : list of float
        Outputs of the network.
    answer : int
        Predicted class.
    """

    inputs: list[float]
    expected: int
    outputs: list[float]
    answer: int


@dataclass(frozen=True, eq=False)
class Mistake:
    """An image that the network classifies wrongly.

    Parameters
    ----------
    index : int
        Position of the image in its split, from 0.
    expected, answer : str
        True and predicted class.
    output : float
        Output for the predicted class.
    loss : float
        Loss of this image.
    image : array of uint8, shape (height, width)
        Pixels.
    """

    index: int
    expected: str
    answer: str
    output: float
    loss: float
    image: NDArray[np.uint8]

    def to_json(self) -> dict[str, Any]:
        """Return everything except the pixels as JSON-compatible values."""
        return {name: value for name, value in vars(self).items() if name != "image"}


@dataclass(frozen=True)
class Amplified:
    """Result of a network whose weights and biases are all multiplied by a gain.

    Parameters
    ----------
    gain : float
        Factor; with infinity, sigmoid units become step units.
    accuracy : float
        Fraction of correct predictions.
    loss : float, optional
        Mean loss; None for an infinite gain, which has no finite logits.
    """

    gain: float
    accuracy: float
    loss: float | None


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of a network for all images of an evaluation.

    Parameters
    ----------
    images : array of uint8, shape (n, pixels)
        Images.
    labels, predicted : array of int, shape (n,)
        True and predicted classes.
    outputs : array of float32, shape (n, units)
        Outputs of the last layer.
    losses : array of float32, shape (n,)
        Loss of each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]
    predicted: NDArray[np.int64]
    outputs: Array
    losses: Array

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is correct, ``(n,)``."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    def has_same_examples(self, other: Predictions) -> bool:
        """Return whether both are for the same images with the same labels."""
        same_labels = np.array_equal(self.labels, other.labels)
        return same_labels and np.array_equal(self.images, other.images)

    @property
    def confidences(self) -> Array:
        """The outputs for the predicted classes, ``(n,)``."""
        confidences: Array = class_outputs(self.outputs)[range(len(self.outputs)), self.predicted]
        return confidences

    @property
    def worst(self) -> NDArray[np.int64]:
        """The indices of the wrong predictions; the highest loss is first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")]


@dataclass(frozen=True)
class Corrupted:
    """Accuracy of a network on images with one kind of corruption.

    Parameters
    ----------
    corruption, unit : str
        Name of the corruption, and unit of its amounts.
    amounts, accuracies : list of float
        Amounts from the weakest to the strongest, and the accuracy at each.
    """

    corruption: str
    unit: str
    amounts: list[float]
    accuracies: list[float]


@dataclass(frozen=True)
class Selective:
    """Selective classification: accuracy of the predictions above a confidence threshold.

    Parameters
    ----------
    threshold : float
        Smallest confidence of a prediction.
    answered : int
        Number of images whose confidence reaches the threshold.
    coverage : float
        Fraction of all images that these are.
    accuracy : float or None
        Fraction of correct predictions among these; None if there are none.
    calibration_error : float
        Average gap between confidence and accuracy; see `expected_calibration_error`.
    """

    threshold: float
    answered: int
    coverage: float
    accuracy: float | None
    calibration_error: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`.

    Parameters
    ----------
    accuracy, loss : float
        Fraction of correct predictions, and mean loss.
    n : int
        Number of images.
    classes : list of str
        Names of the classes, such as the digits; or "other" and the positive class.
    per_class : list of ClassMetrics
        Metrics of each class.
    confusion : array of int, shape (classes, classes)
        Confusion matrix: number of examples by true class (rows) and predicted class (columns).
    dataset, split, checkpoint : str
        Names of the dataset, the split and the checkpoint.
    run_dir : Path
        Run directory.
    trained_on : str
        Name of the dataset of the training.
    same_files : bool
        Whether the dataset has the same files as in the training.
    amplified : list of Amplified
        Results for each requested gain.
    truth_table : list of TruthTableRow
        Every example with its prediction, if examples and inputs are few, as for a logic gate.
    mistakes : list of Mistake
        Worst mistakes, as many as requested.
    corrupted : list of Corrupted
        Results on corrupted images, if requested.
    selective : Selective, optional
        Result for the confidence threshold, if one was requested.
    predictions : Predictions
        Outputs for all images.
    network : Network
        Evaluated network.
    epoch : int
        Number of complete epochs of the network.
    """

    accuracy: float
    loss: float
    n: int
    classes: list[str]
    per_class: list[ClassMetrics]
    confusion: NDArray[np.int64]
    dataset: str
    split: Split
    checkpoint: Which
    run_dir: Path
    trained_on: str
    same_files: bool
    amplified: list[Amplified]
    truth_table: list[TruthTableRow]
    mistakes: list[Mistake]
    corrupted: list[Corrupted]
    selective: Selective | None
    predictions: Predictions
    network: Network
    epoch: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        classes = (
            {"digit": int(name)} if self.has_digits else {"class": name} for name in self.classes
        )
        result: dict[str, Any] = {
            **{name: getattr(self, name) for name in ("accuracy", "loss", "n")},
            "per_class": [
                {**key, **asdict(row)} for key, row in zip(classes, self.per_class, strict=True)
            ],
            "confusion": self.confusion.tolist(),
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "run_dir": str(self.run_dir),
        }
        if self.is_binary:
            positive = self.per_class[1]
            result |= {name: getattr(positive, name) for name in ("precision", "recall", "f1")}
        requested = {
            "truth_table": [asdict(row) for row in self.truth_table],
            "mistakes": [mistake.to_json() for mistake in self.mistakes],
            "corrupted": [asdict(row) for row in self.corrupted],
            "selective": self.selective and asdict(self.selective),
            "gains": [
                # JSON has no infinity.
                {**asdict(row), "gain": row.gain if math.isfinite(row.gain) else "inf"}
                for row in self.amplified
            ],
        }
        return result | {name: value for name, value in requested.items() if value}

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the accuracy, and the truth table or each class."""
        caption = (
            f"{self.run_dir} on {self.dataset}, {self.split} split: accuracy "
            f"{percent(self.accuracy)} of {self.n:,}, loss {self.loss:.4f}"
        )
        if self.truth_table:
            header: list[object] = ["inputs", "expected", "output", "answer"]
            rows = [
                [
                    ", ".join(f"{value:g}" for value in row.inputs),
                    row.expected,
                    ", ".join(f"{value:.4f}" for value in row.outputs),
                    row.answer,
                ]
                for row in self.truth_table
            ]
        else:
            header = ["class", "examples", "precision", "recall", "F1"]
            rows = [
                [name, row.support, *map(percent, (row.precision, row.recall, row.f1))]
                for name, row in zip(self.classes, self.per_class, strict=True)
            ]
        return html_table(caption, [header, *rows], header=True)

    def record(self) -> EvaluationRecord:
        """Return what a run directory keeps of a result on the test set."""
        return EvaluationRecord(epoch=self.epoch, accuracy=self.accuracy, loss=self.loss, n=self.n)

    @property
    def is_test_result(self) -> bool:
        """Whether this is the result of the best network on the test set of its own dataset."""
        own = self.dataset == self.trained_on and self.same_files
        return own and self.split == "test" and self.checkpoint == "best"

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.classes) == 2

    @property
    def has_digits(self) -> bool:
        """Whether the classes are the digits from 0 to 9."""
        return self.classes == list(string.digits)


def evaluate(
    run: Run,
    *,
    split_name: Split = "test",
    checkpoint: Which = "best",
    dataset_name: str | None = None,
    gains: Sequence[float] = (),
    mistakes: int = 0,
    corrupt: bool = False,
    threshold: float | None = None,
    notify: Notify,
) -> Evaluation:
    """Evaluate a checkpoint of a run.

    Parameters
    ----------
    run : Run
        Run with the checkpoint.
    split_name : str
        ``test``, or the run's own ``validation`` or ``train`` split.
    checkpoint : str
        ``best`` for the best epoch, or ``last``.
    dataset_name : str, optional
        Name of another dataset than the run's, for the test split only.
    gains : sequence of float
        Factors for all weights and biases; the network is also evaluated with each of them.
    mistakes : int
        Number of worst mistakes to return.
    corrupt : bool
        Also evaluate on corrupted images.
    threshold : float, optional
        Confidence threshold from 0 to 1; also evaluate the predictions that reach it.
    notify : callable
        Receives the notices, such as the progress of a download.

    Raises
    ------
    DataError
        The checkpoint or the dataset is not available.
    UsageError
        The dataset does not fit the network, or the run does not have this split.
    """
    require_choice("split", split_name, get_args(Split))
    require_choice("checkpoint", checkpoint, get_args(Which))
    trained = run.load(checkpoint)
    network, config, trained_on = trained.network, trained.config, trained.dataset.name
    dataset = open_dataset(dataset_name or trained_on, notify=notify)
    if split_name == "test":
        examples: Examples | None = read_test_set(config, dataset)
    elif dataset.name != trained_on:
        raise UsageError(
            f"the {split_name} split exists only for the dataset of the training; {run.directory} "
            f"was trained on {trained_on}",
            hint="Omit --dataset, or use --split test.",
        )
    else:
        training, validation = split(config, dataset)
        examples = training if split_name == "train" else validation
    if examples is None:
        raise UsageError(f"{run.directory} has no validation examples")
    if examples.inputs.shape[1] != network.sizes[0]:
        raise UsageError(
            f"the images of {dataset.name} have {examples.inputs.shape[1]} pixels; "
            f"this network takes {network.sizes[0]}"
        )
    classes = class_names(config, network.sizes[-1], trained.dataset.classes)
    if examples.labels.max() >= len(classes):
        raise UsageError(f"{dataset.name} has more classes than the {len(classes)} of this network")
    predictions = _predict(network, config, examples)
    confusion = confusion_matrix(examples.labels, predictions.predicted, len(classes))
    return Evaluation(
        accuracy=float(confusion.trace() / len(examples.labels)),
        loss=predictions.loss,
        n=len(examples.labels),
        classes=classes,
        per_class=class_metrics(confusion),
        confusion=confusion,
        dataset=dataset.name,
        split=split_name,
        checkpoint=checkpoint,
        run_dir=run.directory,
        trained_on=trained_on,
        same_files=trained.dataset.hashes == dict(dataset.hashes),
        amplified=[_evaluate_scaled(trained, examples, gain) for gain in gains],
        truth_table=_truth_table(predictions),
        mistakes=_mistakes(predictions, mistakes, classes),
        corrupted=measure_corrupted(network, examples, notify) if corrupt else [],
        selective=None
        if threshold is None
        else _evaluate_selective(network, predictions, threshold),
        predictions=predictions,
        network=network,
        epoch=trained.epoch,
    )


def predict_validation(run: Run, dataset: Dataset) -> Predictions | None:
    """Return the predictions of a run's best network for its validation images, if it has any.

    Raises
    ------
    NnctlError
        The checkpoint cannot be read.
    """
    trained = run.load("best")
    _, validation = split(trained.config, dataset)
    if validation is None:
        return None
    return _predict(trained.network, trained.config, validation)


def _predict(network: Network, config: Config, examples: Examples) -> Predictions:
    """Return the predictions of a network and their losses."""
    logits, outputs, classes = infer(network, examples.inputs)
    loss = make_loss(config.loss, config.network.layers[-1].activation)
    with np.errstate(over="ignore", invalid="ignore"):
        targets = make_targets(examples.labels, logits.shape[1], logits.dtype)
        losses = loss.values(logits, targets)
    return Predictions(
        examples.inputs, examples.labels, predicted=classes, outputs=outputs, losses=losses
    )


def class_outputs(outputs: Array) -> Array:
    """Return an output for each class; those of a single unit are for the second of two classes."""
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs


def gives_probabilities(network: Network) -> bool:
    """Return whether the outputs of a network are probabilities."""
    return isinstance(network.functions[-1], Softmax | Sigmoid)


def _evaluate_selective(network: Network, predictions: Predictions, threshold: float) -> Selective:
    """Return the result for the predictions whose confidence reaches the threshold."""
    if not gives_probabilities(network):
        raise UsageError(
            f"the outputs of this network ({network.functions[-1].name}) are not probabilities",
            hint="A threshold needs a network whose last layer is softmax or sigmoid.",
        )
    confident = predictions.confidences >= threshold
    answered = int(confident.sum())
    return Selective(
        threshold=threshold,
        answered=answered,
        coverage=answered / len(confident),
        accuracy=float(predictions.right[confident].mean()) if answered else None,
        calibration_error=expected_calibration_error(
            calibration(predictions.confidences, predictions.right)
        ),
    )


def measure_corrupted(network: Network, examples: Examples, notify: Notify) -> list[Corrupted]:
    """Return the accuracy of a network on corrupted images; the corruptions have a fixed seed.

    Parameters
    ----------
    network : Network
        Network to evaluate.
    examples : Examples
        Images to corrupt.
    notify : callable
        Receives the progress.

    Raises
    ------
    UsageError
        The examples are not images.
    """
    pixels = examples.inputs.shape[1]
    if image_side(pixels) is None:
        raise UsageError(f"cannot corrupt examples of {pixels} inputs: they are not images")

    total = sum(len(corruption.amounts) for corruption in CORRUPTIONS)
    done = itertools.count()

    def accuracy(corruption: Corruption, amount: float) -> float:
        notify(Working("evaluating corrupted images", next(done) / total))
        images = corruption.apply(examples.inputs, amount, np.random.default_rng(0))
        return float((infer(network, images).classes == examples.labels).mean())

    return [
        Corrupted(
            corruption.name,
            corruption.unit,
            list(corruption.amounts),
            [accuracy(corruption, amount) for amount in corruption.amounts],
        )
        for corruption in CORRUPTIONS
    ]


def _mistakes(predictions: Predictions, count: int, classes: Sequence[str]) -> list[Mistake]:
    """Return the mistakes with the highest loss; the worst is first."""
    side = math.isqrt(predictions.images.shape[1])
    square = side * side == predictions.images.shape[1]
    confidences = predictions.confidences
    return [
        Mistake(
            index=index,
            expected=classes[int(predictions.labels[index])],
            answer=classes[int(predictions.predicted[index])],
            output=float(confidences[index]),
            loss=float(predictions.losses[index]),
            image=predictions.images[index].reshape((side, side) if square else (1, -1)),
        )
        for index in predictions.worst[:count].tolist()
    ]


def _truth_table(predictions: Predictions) -> list[TruthTableRow]:
    """Return every example with its prediction; nothing if there are more than `MAX_ROWS`."""
    if max(predictions.images.shape) > MAX_ROWS:
        return []
    columns = (
        scaled(predictions.images),
        predictions.labels,
        predictions.outputs,
        predictions.predicted,
    )
    return [
        TruthTableRow(*row) for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def class_names(config: Config, units: int, names: Sequence[str] | None = None) -> list[str]:
    """Return the names of the classes, or "other" and the positive class.

    Parameters
    ----------
    config : Config
        Configuration of the run.
    units : int
        Number of output units.
    names : sequence of str, optional
        Names of the dataset's classes (default: numbers).
    """
    known = list(names or map(str, range(max(2, units))))
    positive = config.data.positive_digit
    if positive is None:
        return known
    return ["other", known[positive] if names else str(positive)]


def _evaluate_scaled(trained: TrainedNetwork, examples: Examples, gain: float) -> Amplified:
    """Evaluate a network whose weights and biases are multiplied by a gain."""
    if not isinstance(gain, int | float) or not gain > 0:
        raise UsageError(f"a gain must be a number above 0, got {gain}")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            amplified = trained.network.scaled(gain)
    except ValueError as error:
        raise UsageError(
            f"gain inf turns sigmoid and hard_sigmoid units into step units, but {error}",
            hint="Use finite gains, such as --gain 1,10,100.",
        ) from None
    predictions = _predict(amplified, trained.config, examples)
    if not math.isfinite(predictions.loss):
        raise UsageError(f"the network overflows with gain {gain:g}; use a smaller gain")
    accuracy = float(predictions.right.mean())
    return Amplified(gain, accuracy, predictions.loss if math.isfinite(gain) else None)

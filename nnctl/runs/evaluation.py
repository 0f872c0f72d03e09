"""How good a trained network is on digits that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnctl.config import Config
from nnctl.data.dataset import Digits, ask_for, open_dataset
from nnctl.errors import UsageError
from nnctl.nn.activations import Array, Sigmoid, Softmax
from nnctl.nn.corruption import CORRUPTIONS, Corruption
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.losses import Loss, make_loss
from nnctl.nn.metrics import (
    ClassMetrics,
    calibration,
    class_metrics,
    confusion_matrix,
    expected_calibration_error,
    make_targets,
    mean_loss_and_accuracy,
    predict,
)
from nnctl.nn.network import Network
from nnctl.runs.directory import Run, Which, config_of, network_of
from nnctl.runs.machine import cores, single_threaded_blas
from nnctl.runs.plan import Notify
from nnctl.runs.training import split

Split = Literal["test", "validation", "train"]

SMALLEST_SIDE = 8
"""Of an image in which a digit can be told; gates have two inputs."""
MOST_ROWS = 8
"""A truth table is told of no more examples than this, with no more inputs."""


@dataclass(frozen=True)
class Row:
    """A row of a truth table.

    Parameters
    ----------
    inputs : list of float
        From 0 to 1.
    expected, answer : int
        The right class, and the network's.
    outputs : list of float
        What the network decided by.
    """

    inputs: list[float]
    expected: int
    outputs: list[float]
    answer: int


@dataclass(frozen=True)
class Mistake:
    """An image that the network is wrong about.

    Parameters
    ----------
    index : int
        Of the image in its split, from 0.
    expected, answer : str
        The right class, and the network's.
    output : float
        What the network says for its answer.
    loss : float
        Of this image.
    image : array of uint8, shape (height, width)
        Its pixels.
    """

    index: int
    expected: str
    answer: str
    output: float
    loss: float
    image: NDArray[np.uint8]

    def to_json(self) -> dict[str, Any]:
        """Return all but the pixels as plain values."""
        return {name: value for name, value in vars(self).items() if name != "image"}


@dataclass(frozen=True)
class Amplified:
    """What becomes of a network whose weights and biases are all multiplied by a gain.

    Parameters
    ----------
    gain : float
        The factor; infinity is the limit.
    accuracy : float
        The share of right answers.
    loss : float, optional
        The mean loss; None in the limit, where logits have no size.
    """

    gain: float
    accuracy: float
    loss: float | None


@dataclass(frozen=True)
class Answers:
    """What a network says of every image that it was evaluated on.

    Parameters
    ----------
    images : array of uint8, shape (n, pixels)
        The images.
    labels, decided : array of int, shape (n,)
        The right classes, and the network's.
    outputs : array of float32, shape (n, units)
        Of the last layer.
    losses : array of float32, shape (n,)
        Of each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    decided: NDArray[np.int64]
    outputs: Array
    losses: Array

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, ``(n,)``."""
        right: NDArray[np.bool_] = self.decided == self.labels
        return right

    @property
    def confidences(self) -> Array:
        """What the network says for its answers, ``(n,)``; of a single output, no is what lacks."""
        if self.outputs.shape[1] == 1:
            yes = self.outputs[:, 0]
            return np.where(self.decided == 1, yes, 1 - yes)
        confidences: Array = np.take_along_axis(self.outputs, self.decided[:, None], axis=1)[:, 0]
        return confidences

    @property
    def worst(self) -> NDArray[np.int64]:
        """The indices of the wrong answers, those with the highest loss first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")]


@dataclass(frozen=True)
class Corrupted:
    """How good a network is on images with faults of one kind.

    Parameters
    ----------
    corruption, unit : str
        The kind, and what its amounts are measured in.
    amounts, accuracies : list of float
        From the weakest to the strongest.
    """

    corruption: str
    unit: str
    amounts: list[float]
    accuracies: list[float]


@dataclass(frozen=True)
class Selective:
    """How good a network is if it may be silent where it is not sure.

    Parameters
    ----------
    threshold : float
        The confidence that an answer needs.
    answered : int
        The images that get an answer.
    coverage : float
        Their share of all.
    accuracy : float or None
        The share of right ones among them; None if there is none.
    calibration_error : float
        How far confidence and accuracy are apart; see `expected_calibration_error`.
    """

    threshold: float
    answered: int
    coverage: float
    accuracy: float | None
    calibration_error: float


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Parameters
    ----------
    accuracy, loss : float
        The share of right answers, and the mean loss.
    n : int
        The number of images.
    classes : list of str
        What the classes are called: the digits; or other and the one that was asked for; or 0, 1.
    per_class : list of ClassMetrics
        Of each of them.
    confusion : array of int, shape (classes, classes)
        Examples by their true class (rows) and the answer (columns).
    dataset, split, checkpoint : str
        What was evaluated on what.
    run_dir : Path
        The run.
    trained_on : str
        The dataset of the training.
    same_files : bool
        Whether the dataset's files are those of the training.
    amplified : list of Amplified
        The same examples at each gain that was asked for.
    truth_table : list of Row
        Every example, where there are few with few inputs, as of a logic gate; else nothing.
    mistakes : list of Mistake
        The worst ones, as many as were asked for.
    corrupted : list of Corrupted
        The same images with faults, if that was asked for.
    selective : Selective, optional
        What a threshold would do, if one was given.
    answers : Answers
        All of them.
    network : Network
        That was evaluated.
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
    truth_table: list[Row]
    mistakes: list[Mistake]
    corrupted: list[Corrupted]
    selective: Selective | None
    answers: Answers
    network: Network

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        result: dict[str, Any] = {
            **{name: getattr(self, name) for name in ("accuracy", "loss", "n")},
            "per_class": [
                {**self._class_key(i), **asdict(row)} for i, row in enumerate(self.per_class)
            ],
            "confusion": self.confusion.tolist(),
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "run_dir": str(self.run_dir),
        }
        if self.is_binary:
            yes = self.per_class[1]
            result |= {"precision": yes.precision, "recall": yes.recall, "f1": yes.f1}
        if self.truth_table:
            result["truth_table"] = [asdict(row) for row in self.truth_table]
        if self.mistakes:
            result["mistakes"] = [mistake.to_json() for mistake in self.mistakes]
        if self.corrupted:
            result["corrupted"] = [asdict(row) for row in self.corrupted]
        if self.selective:
            result["selective"] = asdict(self.selective)
        if self.amplified:
            result["gains"] = [
                # JSON has no infinity.
                {**asdict(row), "gain": row.gain if math.isfinite(row.gain) else "inf"}
                for row in self.amplified
            ]
        return result

    @property
    def is_binary(self) -> bool:
        """Whether the answers are no and yes."""
        return len(self.classes) == 2

    def _class_key(self, i: int) -> dict[str, Any]:
        return {"class": self.classes[i]} if self.is_binary else {"digit": i}


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
    data_dir: Path | None = None,
    notify: Notify,
) -> Evaluation:
    """Evaluate a checkpoint of a run.

    Parameters
    ----------
    run : Run
        With the checkpoint.
    split_name : str
        The test set, or what the run held out, or what it trained on.
    checkpoint : str
        The best epoch's, or the last.
    dataset_name : str, optional
        Another dataset than the run's, for the test set alone.
    gains : sequence of float
        Evaluate also with all weights and biases multiplied by each of these.
    mistakes : int
        How many of the worst mistakes to tell.
    corrupt : bool
        Evaluate also on the same images with faults.
    threshold : float, optional
        Tell also of the answers that the network is at least so sure of.
    data_dir : Path, optional
        Where the datasets are.
    notify : callable
        Takes the events of a download.

    Raises
    ------
    DataError
        The checkpoint or the dataset cannot be had.
    UsageError
        The dataset does not fit the network, or has no such split.
    """
    for name, given, known in (
        ("split", split_name, get_args(Split)),
        ("checkpoint", checkpoint, get_args(Which)),
    ):
        if given not in known:
            raise UsageError(f"unknown {name} '{given}'; there are {', '.join(known)}")
    saved = run.checkpoint(checkpoint)
    path = run.checkpoint_path(checkpoint)
    network, config = network_of(saved, path), config_of(saved, path)
    trained_on = str(saved.dataset["name"])
    dataset = open_dataset(dataset_name or trained_on, data_dir=data_dir, notify=notify)
    if split_name == "test":
        positive = config.data.positive_digit
        digits: Digits | None = (
            dataset.test if positive is None else ask_for(dataset.test, positive)
        )
    elif dataset.name != trained_on:
        raise UsageError(
            f"the {split_name} split is the run's own: {run.directory} was trained on {trained_on}",
            hint="Leave out --dataset, or use --split test.",
        )
    else:
        training, validation = split(config, dataset)
        digits = training if split_name == "train" else validation
    if digits is None:
        raise UsageError(f"{run.directory} held out no validation examples")
    if digits.images.shape[1] != network.sizes[0]:
        raise UsageError(
            f"the images of {dataset.name} have {digits.images.shape[1]} pixels; "
            f"this network takes {network.sizes[0]}"
        )
    classes = class_names(config, network)
    if digits.labels.max() >= len(classes):
        raise UsageError(f"{dataset.name} has more classes than the {len(classes)} of this network")
    loss = make_loss(config.loss, config.network.layers[-1].activation)
    examples = Examples(*digits)
    with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
        logits = predict(network, digits.images, threads=cores())
        values = loss.values(logits, make_targets(digits.labels, logits.shape[1], logits.dtype))
        amplified = [_amplify(network, loss, examples, gain) for gain in gains]
        outputs, decided = network.outputs(logits), network.decide(logits)
    answers = Answers(*digits, decided=decided, outputs=outputs, losses=values)
    confusion = confusion_matrix(digits.labels, decided, len(classes))
    return Evaluation(
        accuracy=float(confusion.trace() / len(digits.labels)),
        loss=float(values.mean(dtype=np.float64)),
        n=len(digits.labels),
        classes=classes,
        per_class=class_metrics(confusion),
        confusion=confusion,
        dataset=dataset.name,
        split=split_name,
        checkpoint=checkpoint,
        run_dir=run.directory,
        trained_on=trained_on,
        same_files=dict(saved.dataset["hashes"]) == dict(dataset.hashes),
        amplified=amplified,
        truth_table=_truth_table(answers),
        mistakes=_mistakes(answers, mistakes, classes),
        corrupted=measure_corrupted(network, digits) if corrupt else [],
        selective=None if threshold is None else _select(network, answers, threshold),
        answers=answers,
        network=network,
    )


def says_probabilities(network: Network) -> bool:
    """Tell whether the outputs of a network are probabilities."""
    return isinstance(network.functions[-1], Softmax | Sigmoid)


def _select(network: Network, answers: Answers, threshold: float) -> Selective:
    """Take only the answers that are sure enough."""
    if not says_probabilities(network):
        raise UsageError(
            f"the outputs of this network, {network.functions[-1].name}, are no probabilities",
            hint="A threshold is for networks that end in softmax or sigmoid.",
        )
    sure = answers.confidences >= threshold
    answered = int(sure.sum())
    return Selective(
        threshold=threshold,
        answered=answered,
        coverage=answered / len(sure),
        accuracy=float(answers.right[sure].mean()) if answered else None,
        calibration_error=expected_calibration_error(
            calibration(answers.confidences, answers.right)
        ),
    )


def measure_corrupted(network: Network, digits: Digits) -> list[Corrupted]:
    """Return how good a network is on images with faults, always the same ones.

    Raises
    ------
    UsageError
        The images are no pictures.
    """
    pixels = digits.images.shape[1]
    if math.isqrt(pixels) ** 2 != pixels or pixels < SMALLEST_SIDE**2:
        raise UsageError(f"examples of {pixels} inputs are no pictures that could have faults")

    def accuracy(corruption: Corruption, amount: float) -> float:
        images = corruption.apply(digits.images, amount, np.random.default_rng(0))
        with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
            logits = predict(network, images, threads=cores())
        return float((network.decide(logits) == digits.labels).mean())

    return [
        Corrupted(
            corruption.name,
            corruption.unit,
            list(corruption.amounts),
            [accuracy(corruption, amount) for amount in corruption.amounts],
        )
        for corruption in CORRUPTIONS
    ]


def _mistakes(answers: Answers, count: int, classes: Sequence[str]) -> list[Mistake]:
    """Return the mistakes with the highest loss, the worst first."""
    side = math.isqrt(answers.images.shape[1])
    square = side * side == answers.images.shape[1]
    confidences = answers.confidences
    return [
        Mistake(
            index=index,
            expected=classes[int(answers.labels[index])],
            answer=classes[int(answers.decided[index])],
            output=float(confidences[index]),
            loss=float(answers.losses[index]),
            image=answers.images[index].reshape((side, side) if square else (1, -1)),
        )
        for index in answers.worst[:count].tolist()
    ]


def _truth_table(answers: Answers) -> list[Row]:
    """Return every example with its answer, if they are few enough to be read."""
    if max(answers.images.shape) > MOST_ROWS:
        return []
    columns = (scaled(answers.images), answers.labels, answers.outputs, answers.decided)
    return [Row(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def class_names(config: Config, network: Network) -> list[str]:
    """Return what the classes are called."""
    if config.data.positive_digit is not None:
        return ["other", str(config.data.positive_digit)]
    return [str(digit) for digit in range(max(2, network.sizes[-1]))]


def _amplify(network: Network, loss: Loss, examples: Examples, gain: float) -> Amplified:
    """Evaluate a network whose weights and biases are multiplied by a gain."""
    if not isinstance(gain, int | float) or not gain > 0:
        raise UsageError(f"a gain must be a number above 0, got {gain}")
    try:
        amplified = network.amplified(gain)
    except ValueError as error:
        raise UsageError(
            f"gain inf turns sigmoid and hard_sigmoid units into step units, but {error}",
            hint="Give finite gains, such as --gain 1,10,100.",
        ) from None
    mean_loss, accuracy = mean_loss_and_accuracy(amplified, loss, examples)
    if not math.isfinite(mean_loss):
        raise UsageError(f"with gain {gain:g} the network's numbers overflow; give a smaller one")
    return Amplified(gain, accuracy, mean_loss if math.isfinite(gain) else None)

"""How good a trained network is on digits that it was not trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnctl.config import from_mapping
from nnctl.data.dataset import Digits, open_dataset
from nnctl.data.registry import CLASSES
from nnctl.errors import UsageError
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import ClassMetrics, class_metrics, confusion_matrix, one_hot, predict
from nnctl.runs.directory import Run, Which, network_of
from nnctl.runs.plan import Notify
from nnctl.runs.training import split

Split = Literal["test", "validation", "train"]


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Parameters
    ----------
    accuracy, loss : float
        The share of right answers, and the mean loss.
    n : int
        The number of images.
    per_class : list of ClassMetrics
        Of the digits 0 to 9.
    confusion : array of int, shape (10, 10)
        Images by their true digit (rows) and the answer (columns).
    dataset, split, checkpoint : str
        What was evaluated on what.
    run_dir : Path
        The run.
    trained_on : str
        The dataset of the training.
    same_files : bool
        Whether the dataset's files are those of the training.
    """

    accuracy: float
    loss: float
    n: int
    per_class: list[ClassMetrics]
    confusion: NDArray[np.int64]
    dataset: str
    split: Split
    checkpoint: Which
    run_dir: Path
    trained_on: str
    same_files: bool

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            **{name: getattr(self, name) for name in ("accuracy", "loss", "n")},
            "per_class": [
                {"digit": digit, **asdict(row)} for digit, row in enumerate(self.per_class)
            ],
            "confusion": self.confusion.tolist(),
            "dataset": self.dataset,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "run_dir": str(self.run_dir),
        }


def evaluate(
    run: Run,
    *,
    split_name: Split = "test",
    checkpoint: Which = "best",
    dataset_name: str | None = None,
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
    network, config = network_of(saved, path), from_mapping(saved.config, str(path))
    trained_on = str(saved.dataset["name"])
    dataset = open_dataset(dataset_name or trained_on, data_dir=data_dir, notify=notify)
    if split_name == "test":
        digits: Digits | None = dataset.test
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
    loss = make_loss(config.loss, config.network.layers[-1].activation)
    with np.errstate(over="ignore", invalid="ignore"):
        logits = predict(network, digits.images)
        values = loss.values(logits, one_hot(digits.labels, logits.shape[1], logits.dtype))
    confusion = confusion_matrix(digits.labels, logits.argmax(axis=1), CLASSES)
    return Evaluation(
        accuracy=float(confusion.trace() / len(digits.labels)),
        loss=float(values.mean(dtype=np.float64)),
        n=len(digits.labels),
        per_class=class_metrics(confusion),
        confusion=confusion,
        dataset=dataset.name,
        split=split_name,
        checkpoint=checkpoint,
        run_dir=run.directory,
        trained_on=trained_on,
        same_files=dict(saved.dataset["hashes"]) == dict(dataset.hashes),
    )

"""Checks a configuration against dataset and machine, and replaces ``auto`` by numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnctl.build import choose_threads, useful_threads
from nnctl.config import (
    Config,
    Document,
    Override,
    Problem,
    read_config,
    replaced,
    resolve,
)
from nnctl.config.schema import DataConfig
from nnctl.data.dataset import (
    Dataset,
    DatasetInfo,
    balanced_subset,
    dataset_info,
    fold_size,
    hold_out,
    hold_out_fold,
    image_side,
    locate,
    open_dataset,
    relabel_binary,
)
from nnctl.data.download import DownloadEvent
from nnctl.errors import ConfigError, DataError, UsageError
from nnctl.nn.examples import Examples
from nnctl.nn.streams import stream
from nnctl.runs.memory import check_memory
from nnctl.text import shell_command, variable_advice

EPOCHS = 30
"""Epochs for ``epochs: auto``, if ``steps`` is not set."""
VALIDATION_SHARE = 6
"""``validation: auto`` holds out 1/6 of the examples: MNIST's usual 10,000 of 60,000."""


@dataclass(frozen=True)
class Working:
    """Notice of the progress of work that takes seconds.

    Parameters
    ----------
    what : str
        What is done: ``"drawing charts"``.
    share : float, optional
        Share that is done, from 0 to 1; None if it is not known.
    """

    what: str
    share: float | None = None


Notice = DownloadEvent | Working | str
"""What is reported while a dataset is opened or used; a text is a warning."""
Notify = Callable[[Notice], None]


def check_data(config: Config, folder: Path | None = None) -> Iterator[Problem]:
    """Check a configuration against its dataset and against the machine's memory.

    Parameters
    ----------
    config : Config
        Configuration.
    folder : Path, optional
        Folder of its file, in which the dataset was searched before the working directory.
    """
    try:
        info = dataset_info(config.data.dataset)
    except UsageError as error:
        stop = "" if error.message.endswith("?") else "."
        advice = variable_advice(config.data.dataset)
        advice = advice or f"{stop} {error.hint}{_searched(config.data.dataset, folder)}"
        yield Problem(("data", "dataset"), f"{error.message}{advice}")
        return
    except DataError:  # reported when the dataset is opened, unless there is a fallback
        if config.data.fallback:  # the other settings are reduced to fit the fallback
            yield from _check_classes(config, dataset_info(config.data.fallback))
        return
    yield from _check_classes(config, info)
    if config.data.augment and image_side(info.pixels) is None:
        yield Problem(
            ("data", "augment"),
            f"only square images can be augmented; the examples of '{config.data.dataset}' have "
            f"{info.pixels} inputs",
            related=(("data", "dataset"),),
        )
    held_out = validation_count(config, info)
    left = info.n_training - held_out
    if config.data.fold and config.data.fold.of > info.n_training:
        yield Problem(
            ("data", "fold"),
            f"the {info.n_training:,} examples of {config.data.dataset} are too few for "
            f"{config.data.fold.of:,} folds",
            related=(("data", "dataset"),),
        )
    elif config.data.fold and config.data.validation not in ("auto", held_out):
        yield Problem(
            ("data", "validation"),
            f"{config.data.validation:,} examples cannot be held out together with data.fold, "
            f"which holds out {held_out:,}; remove one of them",
            related=(("data", "fold"),),
        )
    elif left < 1:
        yield Problem(
            ("data", "validation"),
            f"cannot hold out {held_out:,} of the {info.n_training:,} examples of "
            f"{config.data.dataset}; auto holds out {info.n_training // VALIDATION_SHARE:,}",
            related=(("data", "dataset"),),
        )
    elif config.data.subset and config.data.subset > left:
        yield Problem(
            ("data", "subset"),
            f"{config.data.subset:,} examples are more than the {left:,} left for training: "
            f"{held_out:,} of {info.n_training:,} are held out for validation",
            related=(("data", "dataset"), ("data", "validation")),
        )
    yield from check_memory(config, info, held_out)


def _searched(name: str, folder: Path | None) -> str:
    """Return the paths at which the relative path in a file was searched, as text."""
    if folder is None or name.startswith("~") or Path(name).is_absolute():
        return ""
    paths = (os.path.abspath(place / name) for place in (folder, Path()))  # noqa: PTH100
    return f" Not found: {', '.join(dict.fromkeys(paths))}"


def dataset_info_of(config: Config) -> DatasetInfo:
    """Return the sizes of a configuration's dataset, or of its fallback.

    Raises
    ------
    DataError
        The dataset is damaged, and no fallback is configured.
    """
    try:
        return dataset_info(config.data.dataset)
    except DataError:
        if config.data.fallback is None:
            raise
        return dataset_info(config.data.fallback)


def _check_classes(config: Config, info: DatasetInfo) -> Iterator[Problem]:
    """Check that the number of output units fits the number of classes."""
    binary = config.data.positive_digit is not None
    if binary and len(info.class_names) == 2:
        yield Problem(
            ("data", "positive_digit"),
            f"the dataset '{config.data.dataset}' does not consist of digits; its classes are 0 "
            "and 1",
            related=(("data", "dataset"),),
        )
        return
    classes = 2 if binary else len(info.class_names)
    last = len(config.network.layers) - 1
    units = config.network.layers[last].units
    if units not in ((1, 2) if classes == 2 else (classes,)):
        need = f"{classes} classes need {classes}"
        if classes == 2:
            need = "2 classes need 1 unit with sigmoid, or 2 with softmax"
        yield Problem(
            ("network", "layers", last, "units"),
            f"the last layer has {units} unit{'s' * (units > 1)}, but {need}",
            related=(("data", "dataset"), ("data", "positive_digit")),
        )


def validation_count(config: Config, info: DatasetInfo) -> int:
    """Return the number of validation examples."""
    count, fold = config.data.validation, config.data.fold
    if fold:
        return fold_size(info.n_training, fold.number, fold.of)
    return info.n_training // VALIDATION_SHARE if count == "auto" else count


def load_config(path: Path, overrides: Sequence[Override] = ()) -> Config:
    """Read a configuration file, apply overrides, and check the result.

    Raises
    ------
    ConfigError
        The configuration has mistakes; the message lists all of them.
    UsageError
        The file is a sweep file.
    """
    document = read_config(path)
    if "network" not in document.data and "parameters" in document.data:
        raise UsageError(
            f"{path} is a sweep file, not a training configuration",
            hint=f"Use: {shell_command('nnctl', 'sweep', path)}",
        )
    return resolve_config(document, overrides)


def resolve_config(document: Document, overrides: Sequence[Override] = ()) -> Config:
    """Return the checked configuration of a document; see `load_config`."""
    locate_dataset(document, overrides)
    return resolve(document, overrides, [partial(check_data, folder=document.folder)])


def locate_dataset(document: Document, overrides: Sequence[Override]) -> None:
    """Replace the relative path of a dataset by a path next to the file, if it exists there.

    The path in an override is relative to the working directory.
    """
    data = document.data.get("data")
    if any(override.key in ("data", "data.dataset") for override in overrides):
        document.folder = None
    elif document.folder and isinstance(data, dict) and isinstance(data.get("dataset"), str):
        data["dataset"] = locate(data["dataset"], document.folder)


def find_dataset(data: DataConfig, notify: Notify) -> Dataset:
    """Open the dataset of a configuration, or its fallback.

    Raises
    ------
    DataError
        The dataset is not available, and no fallback is configured.
    """
    try:
        return open_dataset(data.dataset, notify=notify)
    except DataError as error:
        if data.fallback is None:
            raise
        notify(
            f"Could not download {data.dataset.upper()}: {error.message}\n"
            f"Training on the bundled '{data.fallback}' dataset (6,000 digits) instead; the "
            "accuracy will be lower."
        )
        return open_dataset(data.fallback, notify=notify)


def resolve_auto(config: Config, dataset: Dataset, notify: Notify = lambda _: None) -> Config:
    """Return a configuration without ``auto`` values and without a fallback.

    The validation examples, the epochs and the threads are numbers, and the dataset is the one that
    is used. If that is the fallback, ``data.validation`` and ``data.subset`` are reduced to fit it.

    Parameters
    ----------
    config : Config
        Configuration.
    dataset : Dataset
        Dataset to train on: the configured one or its fallback.
    notify : callable
        Receives a notice if the configuration requests too many threads.
    """
    info = dataset_info(dataset.name)
    fell_back = dataset.name == config.data.fallback != config.data.dataset
    values = {
        "data.dataset": dataset.name,
        "data.fallback": None,
        "data.validation": validation_count(config, info),
        **(_reduced_settings(config, info) if fell_back else {}),
    }
    resolved = replaced(config, values)
    epochs = epochs_needed(resolved, info)
    requested, threads = config.training.threads, choose_threads(config, info.pixels)
    if requested not in ("auto", threads):
        notify(f"{requested} threads cannot share a batch of {threads}: training with {threads}")
    elif requested != "auto" and threads > (useful := useful_threads(config, info.pixels)):
        notify(f"{threads} threads may be slower than {useful}, which threads: auto would choose")
    return replaced(resolved, {"training.epochs": epochs, "training.threads": threads})


def read_test_set(config: Config, dataset: Dataset) -> Examples:
    """Return the test set of a configuration, with its binary labels if it has any."""
    positive = config.data.positive_digit
    return dataset.test if positive is None else relabel_binary(dataset.test, positive)


def steps_per_epoch(config: Config, info: DatasetInfo) -> int:
    """Return the number of steps per epoch."""
    examples = config.data.subset or info.n_training - validation_count(config, info)
    return math.ceil(examples / min(config.training.batch_size, examples))


def epochs_needed(config: Config, info: DatasetInfo) -> int:
    """Return the number of epochs; with ``training.steps`` the last one may be incomplete."""
    if config.training.epochs != "auto":
        return config.training.epochs
    steps = config.training.steps
    # Integer division: a float cannot represent every large integer.
    return -(-steps // steps_per_epoch(config, info)) if steps else EPOCHS


def require_resolved(config: Config, source: str) -> Config:
    """Return the configuration of a run; raise ConfigError if it has ``auto`` values."""
    values = {
        "data.validation": config.data.validation,
        "training.epochs": config.training.epochs,
        "training.threads": config.training.threads,
    }
    mistakes = [
        f"{source}: {key}: a run needs a number here, not auto"
        for key, value in values.items()
        if value == "auto"
    ]
    if mistakes:
        raise ConfigError(source, mistakes, hint="To start a new run: nnctl train CONFIG")
    return config


def _reduced_settings(config: Config, info: DatasetInfo) -> dict[str, Any]:
    """Return the settings, by key, that are reduced to fit a smaller fallback dataset."""
    held_out = validation_count(config, info)
    if config.data.fold is None:
        held_out = min(held_out, info.n_training // VALIDATION_SHARE)
    subset = config.data.subset
    too_many = subset is not None and subset > info.n_training - held_out
    return {"data.validation": held_out, "data.subset": None if too_many else subset}


def split(config: Config, dataset: Dataset) -> tuple[Examples, Examples | None]:
    """Return the training and the validation examples of a configuration.

    Raises
    ------
    DataError
        The dataset does not have more examples than are held out for validation.
    """
    assert config.data.validation != "auto"
    if config.data.validation >= len(dataset.training.labels):
        raise DataError(
            f"cannot hold out {config.data.validation:,} of the {len(dataset.training.labels):,} "
            f"examples of {dataset.name}"
        )
    stratified, fold = config.data.split == "stratified", config.data.fold
    training, validation = (
        hold_out_fold(dataset.training, fold.number, fold.of, stratified=stratified)
        if fold
        else hold_out(dataset.training, config.data.validation, stratified=stratified)
    )
    if config.data.subset and config.data.selection == "first":
        first = slice(config.data.subset)
        training = Examples(training.inputs[first], training.labels[first])
    elif config.data.subset:
        rng = stream(config.training.seed, "subset")
        training = balanced_subset(training, config.data.subset, rng)
    positive = config.data.positive_digit
    if positive is not None:  # after the subset, which is balanced by digit
        training = relabel_binary(training, positive)
        validation = relabel_binary(validation, positive) if validation else None
    return training, validation

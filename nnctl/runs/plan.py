"""What a configuration comes to: its autos settled, and checked against dataset and machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnctl.config import (
    Check,
    Config,
    Document,
    Override,
    Problem,
    read_file,
    replaced,
    resolve,
    to_mapping,
)
from nnctl.config.schema import DataConfig
from nnctl.data.dataset import NAMED, Dataset, Facts, canonical_name, describe, open_dataset
from nnctl.data.download import DownloadEvent
from nnctl.errors import DataError, UsageError, shell_command
from nnctl.runs.machine import check_memory, threads_that_fit

EPOCHS = 30
"""``epochs: auto`` without a number of steps."""
VALIDATION_SHARE = 6
"""``validation: auto`` holds out one of so many examples: MNIST's usual 10,000 of 60,000."""


@dataclass(frozen=True)
class FellBack:
    """A dataset could not be had, and the fallback is trained on."""

    wanted: str
    fallback: str
    reason: str


@dataclass(frozen=True)
class FewerThreads:
    """A batch has fewer examples than threads were asked for."""

    asked: int
    used: int

    def __str__(self) -> str:
        return (
            f"{self.asked} threads cannot share a batch of {self.used}: training with {self.used}"
        )


Notice = DownloadEvent | FellBack | FewerThreads
Notify = Callable[[Notice], None]


def check_data(config: Config) -> Iterator[Problem]:
    """Check a configuration against its dataset and against the machine's memory."""
    try:
        facts = describe(config.data.dataset)
    except UsageError as error:
        stop = "" if error.message.endswith("?") else "."
        yield Problem(("data", "dataset"), f"{error.message}{stop} {error.hint}")
        return
    except DataError:  # told when the dataset is opened, unless there is a fallback
        if config.data.fallback:  # the rest is cut down to it
            yield from _check_classes(config, describe(config.data.fallback))
        return
    yield from _check_classes(config, facts)
    yield from _check_pictures(config, facts)
    held_out = validation_count(config, facts)
    left = facts.training - held_out
    if left < 1:
        yield Problem(
            ("data", "validation"),
            f"{held_out:,} examples cannot be held out of the {facts.training:,} of "
            f"{config.data.dataset}; auto holds out {facts.training // VALIDATION_SHARE:,}",
            about=(("data", "dataset"),),
        )
    elif config.data.subset and config.data.subset > left:
        yield Problem(
            ("data", "subset"),
            f"{config.data.subset:,} examples are more than the {left:,} that are left to train on",
            about=(("data", "dataset"), ("data", "validation")),
        )
    yield from check_memory(config, facts, held_out)


def facts_of(config: Config) -> Facts:
    """Return what is known of the dataset of a configuration, or of its fallback.

    Raises
    ------
    DataError
        It is damaged, and there is no fallback.
    """
    try:
        return describe(config.data.dataset)
    except DataError:
        if config.data.fallback is None:
            raise
        return describe(config.data.fallback)


def _check_pictures(config: Config, facts: Facts) -> Iterator[Problem]:
    """Check that what is to be deformed is pictures."""
    if config.data.augment and (math.isqrt(facts.pixels) ** 2 != facts.pixels or facts.pixels < 64):
        yield Problem(
            ("data", "augment"),
            f"the examples of '{config.data.dataset}' are no square pictures to deform: they have "
            f"{facts.pixels} inputs",
            about=(("data", "dataset"),),
        )


def _check_classes(config: Config, facts: Facts) -> Iterator[Problem]:
    """Check that the last layer can say all that is asked."""
    question = config.data.positive_digit is not None
    if question and facts.classes == 2:
        yield Problem(
            ("data", "positive_digit"),
            f"the dataset '{config.data.dataset}' has no digits to ask for; it answers 0 or 1",
            about=(("data", "dataset"),),
        )
        return
    classes = 2 if question else facts.classes
    last = len(config.network.layers) - 1
    units = config.network.layers[last].units
    if units not in ((1, 2) if classes == 2 else (classes,)):
        need = f"{classes} classes need {classes}"
        if classes == 2:
            need = "yes or no needs 1 of sigmoid, or 2 of softmax"
        yield Problem(
            ("network", "layers", last, "units"),
            f"the last layer has {units} unit{'s' * (units > 1)}, but {need}",
            about=(("data", "dataset"), ("data", "positive_digit")),
        )


CHECKS: tuple[Check, ...] = (check_data,)


def validation_count(config: Config, facts: Facts) -> int:
    """Return the number of examples that are held out."""
    given = config.data.validation
    return facts.training // VALIDATION_SHARE if given == "auto" else given


def load_config(path: Path, overrides: Sequence[Override] = ()) -> Config:
    """Read a configuration, lay overrides over it, and check it as far as can be without training.

    Raises
    ------
    ConfigError
        With all of its mistakes.
    """
    document = read_file(path)
    if "network" not in document.data and "parameters" in document.data:
        raise UsageError(
            f"{path} is a sweep file, not a training configuration",
            hint=f"Use: {shell_command('nnctl', 'sweep', path)}",
        )
    return resolve_config(document, overrides)


def resolve_config(document: Document, overrides: Sequence[Override] = ()) -> Config:
    """Check a document that was read; see `load_config`."""
    return resolve(document, overrides, CHECKS)


def find_dataset(data: DataConfig, data_dir: Path | None, notify: Notify) -> Dataset:
    """Open the dataset of a configuration, or its fallback.

    Raises
    ------
    DataError
        The dataset cannot be had, and there is no fallback.
    """
    try:
        return open_dataset(data.dataset, data_dir=data_dir, notify=notify)
    except DataError as error:
        if data.fallback is None:
            raise
        notify(FellBack(data.dataset, data.fallback, error.message))
        return open_dataset(data.fallback, data_dir=data_dir, notify=notify)


def settle(config: Config, dataset: Dataset, notify: Notify = lambda _: None) -> Config:
    """Return a configuration in which nothing is left to be found out.

    The dataset is the one that is really used, and the validation examples, the epochs and the
    threads are numbers; on a fallback, no more are held out than it has.

    Parameters
    ----------
    config : Config
        The configuration.
    dataset : Dataset
        The dataset that is trained on.
    notify : callable
        Called with `FewerThreads` if the configuration asks for too many.
    """
    facts = describe(dataset.name)
    asked, threads = config.training.threads, threads_that_fit(config, facts.pixels)
    if asked not in ("auto", threads):
        notify(FewerThreads(int(asked), threads))
    fell_back = dataset.name != canonical_name(config.data.dataset)
    settled = {
        "data.dataset": dataset.name,
        "data.fallback": None,
        "data.validation": validation_count(config, facts),
        "training.threads": threads,
        **(_cut_down(config, facts) if fell_back else {}),
    }
    settled_config = replaced(config, settled)
    return replaced(settled_config, {"training.epochs": epochs_needed(settled_config, facts)})


def steps_per_epoch(config: Config, facts: Facts) -> int:
    """Return the number of steps that an epoch takes."""
    examples = config.data.subset or facts.training - validation_count(config, facts)
    return math.ceil(examples / min(config.training.batch_size, examples))


def epochs_needed(config: Config, facts: Facts) -> int:
    """Return the number of epochs; the last one may end early, after the last of `steps`."""
    if config.training.epochs != "auto":
        return config.training.epochs
    steps = config.training.steps
    # Divided as whole numbers: a float does not hold all of them.
    return -(-steps // steps_per_epoch(config, facts)) if steps else EPOCHS


def _cut_down(config: Config, facts: Facts) -> dict[str, Any]:
    """Return what of a configuration is too much for a smaller fallback, by key, made to fit."""
    held_out = min(validation_count(config, facts), facts.training // VALIDATION_SHARE)
    subset = config.data.subset
    too_many = subset is not None and subset > facts.training - held_out
    return {"data.validation": held_out, "data.subset": None if too_many else subset}


def differences(run: Config, asked: Config) -> list[str]:
    """Say in what a configuration differs from a run's, apart from the number of epochs.

    What the asked one leaves to be found out (``auto``, a fallback) is no difference.
    """
    open_keys = {"training.epochs", "data.fallback"}
    if asked.data.fallback == run.data.dataset:
        open_keys |= {"data.dataset", "data.validation", "data.subset"}
    if canonical_name(asked.data.dataset) == run.data.dataset:
        open_keys |= {"data.dataset"}
    if asked.training.threads != "auto" and threads_that_fit(asked, 0) == run.training.threads:
        open_keys |= {"training.threads"}
    return [
        f"{key}: {ours} in the run, {theirs} asked for"
        for key, (ours, theirs) in differing(run, asked).items()
        if key not in open_keys and theirs != "auto"
    ]


def differing(first: Config, second: Config) -> dict[str, tuple[Any, Any]]:
    """Return both values of each dotted key in which two configurations differ."""
    ours, theirs = flatten(to_mapping(first)), flatten(to_mapping(second))
    pairs = {key: (ours.get(key), theirs.get(key)) for key in dict.fromkeys([*ours, *theirs])}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def changeable(first: Config, second: Config) -> set[str]:
    """Return the keys in which the files of a run may differ.

    A run can be extended, and the folder of its dataset can be moved: the SHA-256 of its files are
    compared before they are used.
    """
    moved = not {first.data.dataset, second.data.dataset} & {*NAMED}
    return {"training.epochs", "data.dataset"} if moved else {"training.epochs"}


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return all the leaves of nested values by their dotted keys."""
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    else:
        return {key: value}
    leaves: dict[str, Any] = {}
    for step, below in items:
        leaves |= flatten(below, f"{key}.{step}".lstrip("."))
    return leaves

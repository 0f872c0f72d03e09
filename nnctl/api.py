"""Python API: train, evaluate, load and save; it does the same as the command line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.analysis import evaluation
from nnctl.analysis.evaluation import Evaluation, Split
from nnctl.config import Document, Override, read_config
from nnctl.errors import UsageError
from nnctl.files import expand_home
from nnctl.runs.pretrained import Network as Network
from nnctl.runs.pretrained import save_network
from nnctl.runs.resolve import (
    FellBack,
    FewerThreads,
    Notice,
    find_dataset,
    resolve_auto,
    resolve_config,
)
from nnctl.runs.run import Run, Which, named_directory
from nnctl.runs.training_run import TrainingRun
from nnctl.signals import stop_on_signals


def train(
    config: str | Path | Mapping[str, Any],
    *,
    epochs: int | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    subset: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Run:
    """Train a network without output, and return its run.

    Parameters
    ----------
    config : str, Path or mapping
        Path of a YAML file, name of a preset, or the content of a file as a mapping.
    epochs, seed, dataset, subset, lr, batch_size : optional
        The same as the options of ``nnctl train``.
    settings : mapping, optional
        Other values by dotted key: ``{"optimizer.learning_rate": 0.1}``.
    run_dir : str or Path, optional
        Run directory, new or empty.
    name : str, optional
        Name of the new run directory in `runs_dir`.
    runs_dir : str or Path
        Parent of a new run directory, if `run_dir` is not given.

    Raises
    ------
    nnctl.errors.ConfigError
        The configuration has mistakes; the error lists all of them.
    nnctl.errors.UsageError
        The run directory exists, or `name` is not a name.
    nnctl.errors.DataError
        The dataset is not available.
    nnctl.errors.DivergenceError
        The training diverged; its epochs so far are saved.
    nnctl.errors.InterruptedRunError
        Ctrl-C was pressed; the state is saved, and ``nnctl train --resume`` continues.

    Examples
    --------
    >>> import nnctl
    >>> run = nnctl.train("smoke", epochs=1)  # doctest: +SKIP
    >>> nnctl.evaluate(run).accuracy > 0.8  # doctest: +SKIP
    True
    """
    options = {
        "training.epochs": epochs,
        "training.seed": seed,
        "data.dataset": dataset,
        "data.subset": subset,
        "optimizer.learning_rate": lr,
        "training.batch_size": batch_size,
    }
    named = {key: value for key, value in options.items() if value is not None}
    overrides = _overrides({**(settings or {}), **named})
    if name is not None:
        if run_dir:
            raise UsageError("name and run_dir cannot be combined")
        run_dir = named_directory(name, expand_home(runs_dir))
    if isinstance(config, Mapping):
        document, stem = Document("the configuration", _plain(config)), "run"
    else:
        document, stem = read_config(Path(config)), Path(config).stem
    requested = resolve_config(document, overrides)
    digits = find_dataset(requested.data, None, _warn)
    resolved = resolve_auto(requested, digits, _warn)
    run = (
        Run.create_at(expand_home(run_dir)) if run_dir else Run.create(stem, expand_home(runs_dir))
    )
    training = TrainingRun.create(run, resolved, digits)
    if training.warning:
        warnings.warn(training.warning, stacklevel=2)
    with stop_on_signals() as stop:
        for _ in training.events(stop):
            pass
    training.raise_unless_finished()
    return run


def evaluate(
    run: Run | str | Path,
    *,
    split: Split = "test",
    checkpoint: Which = "best",
    dataset: str | None = None,
    gains: Sequence[float] = (),
) -> Evaluation:
    """Evaluate a run or a run directory; see `nnctl.analysis.evaluation.evaluate`."""
    return evaluation.evaluate(
        run if isinstance(run, Run) else load(run),
        split_name=split,
        checkpoint=checkpoint,
        dataset_name=dataset,
        gains=gains,
        notify=_warn,
    )


def load(directory: str | Path) -> Run:
    """Return the run in a directory; its method `predict` classifies arrays of images.

    Raises
    ------
    nnctl.errors.UsageError
        The directory does not contain a run.
    """
    return Run.open(expand_home(directory))


def save(
    network: Network,
    run_dir: str | Path,
    *,
    dataset: str = "mnist",
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Save a network from another source as a run; see `Network.from_arrays`.

    The run has no epochs yet. It can be evaluated, exported, and trained further with
    ``nnctl train --resume``.

    Parameters
    ----------
    network : Network
        Network with its weights.
    run_dir : str or Path
        Run directory, new or empty.
    dataset : str
        Dataset on which the network was trained.
    settings : mapping, optional
        Other values of the configuration by dotted key: ``{"data.positive_digit": 9}``.

    Raises
    ------
    nnctl.errors.UsageError
        The network does not fit the dataset, or the directory is not empty.
    nnctl.errors.DataError
        The dataset is not available.

    Examples
    --------
    >>> import nnctl
    >>> layers = [w1, w2], [b1, b2], ["sigmoid", "softmax"]  # doctest: +SKIP
    >>> network = nnctl.Network.from_arrays(*layers)  # doctest: +SKIP
    >>> nnctl.evaluate(nnctl.save(network, "runs/book")).accuracy  # doctest: +SKIP
    0.9352
    """
    return save_network(
        network, expand_home(run_dir), dataset, _overrides(settings or {}), notify=_warn
    )


def _overrides(values: Mapping[str, Any]) -> list[Override]:
    """Return values by dotted key as overrides of a configuration."""
    return [Override(key, _plain(value), f"{key}={value}") for key, value in values.items()]


def _plain(value: Any) -> Any:
    """Return a copy of a value of a configuration, with Python's numbers instead of NumPy's."""
    match value:
        case np.generic():
            return value.item()
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return copy.deepcopy(value)


def _warn(notice: Notice) -> None:
    """Warn if another dataset or fewer threads are used than the configuration requests."""
    if isinstance(notice, FellBack | FewerThreads):
        warnings.warn(str(notice), stacklevel=5 if isinstance(notice, FellBack) else 4)

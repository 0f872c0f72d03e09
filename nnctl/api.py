"""nnctl from Python: train, evaluate, load, save. It and the command line are two faces of one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config import Document, Override, read_file
from nnctl.nn.network import Network
from nnctl.runs import evaluation
from nnctl.runs.adoption import save_network
from nnctl.runs.directory import Run, Which
from nnctl.runs.evaluation import Evaluation, Split
from nnctl.runs.plan import FellBack, FewerThreads, Notice, find_dataset, resolve_config, settle
from nnctl.runs.stopping import stop_on_signals
from nnctl.runs.training import TrainingRun


def train(
    config: str | Path | Mapping[str, Any],
    *,
    epochs: int | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    subset: int | None = None,
    settings: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    runs_dir: str | Path = "runs",
) -> Run:
    """Train a network, silently, and return its run.

    Parameters
    ----------
    config : str, Path or mapping
        A YAML file, or what one would say as plain values.
    epochs, seed, dataset, subset : optional
        As the options of ``nnctl train``.
    settings : mapping, optional
        Other values by dotted key: ``{"optimizer.learning_rate": 0.1}``.
    run_dir : str or Path, optional
        The directory of the run, new or empty.
    runs_dir : str or Path
        Where the run's own directory is made, if `run_dir` is not given.

    Raises
    ------
    nnctl.errors.ConfigError
        With all mistakes of the configuration.
    nnctl.errors.DataError
        The dataset cannot be had.
    nnctl.errors.DivergenceError
        The training diverged; the run up to there is on the disk.
    nnctl.errors.InterruptedRunError
        Ctrl-C; the state is saved, and ``nnctl train --resume`` goes on.

    Examples
    --------
    >>> import nnctl
    >>> run = nnctl.train("configs/smoke.yaml", epochs=1)  # doctest: +SKIP
    >>> nnctl.evaluate(run).accuracy > 0.8  # doctest: +SKIP
    True
    """
    given = {
        "training.epochs": epochs,
        "training.seed": seed,
        "data.dataset": dataset,
        "data.subset": subset,
    }
    overrides = _overrides(
        {
            **(settings or {}),
            **{key: value for key, value in given.items() if value is not None},
        }
    )
    if isinstance(config, Mapping):
        document, name = Document("the configuration", copy.deepcopy(dict(config))), "run"
    else:
        document, name = read_file(Path(config)), Path(config).stem
    asked = resolve_config(document, overrides)
    digits = find_dataset(asked.data, None, _warn)
    settled = settle(asked, digits, _warn)
    run = Run.create_at(Path(run_dir)) if run_dir else Run.create(name, Path(runs_dir))
    training = TrainingRun.begin(run, settled, digits)
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
    """Evaluate a run, or the run in a directory; see `nnctl.runs.evaluation.evaluate`."""
    return evaluation.evaluate(
        run if isinstance(run, Run) else load(run),
        split_name=split,
        checkpoint=checkpoint,
        dataset_name=dataset,
        gains=gains,
        notify=_warn,
    )


def load(directory: str | Path) -> Run:
    """Return the run in a directory; its `predict` classifies arrays of images.

    Raises
    ------
    nnctl.errors.UsageError
        There is no run.
    """
    return Run.open(Path(directory))


def save(
    network: Network,
    run_dir: str | Path,
    *,
    dataset: str = "mnist",
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Make a run of a network whose weights come from elsewhere; see `Network.from_arrays`.

    It is before its first epoch: it can be evaluated, exported, and trained on with
    ``nnctl train --resume``.

    Parameters
    ----------
    network : Network
        With its weights.
    run_dir : str or Path
        The directory of the run, new or empty.
    dataset : str
        What it was trained on.
    settings : mapping, optional
        What else its configuration says, by dotted key: ``{"data.positive_digit": 9}``.

    Raises
    ------
    nnctl.errors.UsageError
        The network does not fit the dataset, or the directory is not empty.
    nnctl.errors.DataError
        The dataset cannot be had.

    Examples
    --------
    >>> import nnctl
    >>> layers = [w1, w2], [b1, b2], ["sigmoid", "softmax"]  # doctest: +SKIP
    >>> network = nnctl.Network.from_arrays(*layers)  # doctest: +SKIP
    >>> nnctl.evaluate(nnctl.save(network, "runs/book")).accuracy  # doctest: +SKIP
    0.9352
    """
    return save_network(network, Path(run_dir), dataset, _overrides(settings or {}), notify=_warn)


def _overrides(values: Mapping[str, Any]) -> list[Override]:
    """Return values by dotted key as what is laid over a configuration."""
    return [
        Override(key, value.item() if isinstance(value, np.generic) else value, f"{key}={value}")
        for key, value in values.items()
    ]


def _warn(notice: Notice) -> None:
    """Warn of a dataset that could not be had, and of threads that have nothing to do."""
    if isinstance(notice, FellBack):
        warnings.warn(
            f"the dataset {notice.wanted} could not be had: {notice.reason}\n"
            f"Going on with {notice.fallback}.",
            stacklevel=5,
        )
    elif isinstance(notice, FewerThreads):
        warnings.warn(str(notice), stacklevel=4)

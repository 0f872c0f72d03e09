"""Trials: each a training of its own, in a run directory of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnctl.config import Config, Override, from_mapping, read_file, replaced, to_mapping
from nnctl.config.schema import DataConfig
from nnctl.config.sweeps import Range, SweepConfig, load_sweep
from nnctl.data.dataset import Dataset
from nnctl.errors import ConfigError, NnctlError, UsageError, shell_command
from nnctl.runs.directory import Run
from nnctl.runs.plan import Notify, find_dataset, resolve_config, settle
from nnctl.runs.training import TrainingRun
from nnctl.sweep.space import Point, points

Status = Literal["finished", "stopped_early", "diverged", "failed", "interrupted"]
COMPLETE = ("finished", "stopped_early")
"""The statuses of trials that can be ranked."""


@dataclass(frozen=True)
class Trial:
    """One training of a sweep; it can be sent to another process.

    Parameters
    ----------
    number : int
        From 1.
    point : dict
        The values of the keys that vary.
    config : dict
        The resolved configuration, as plain values.
    dataset : Dataset
        Whose files are there.
    directory : Path
        Of the run.
    """

    number: int
    point: Point
    config: dict[str, Any]
    dataset: Dataset
    directory: Path


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial: a row of the results."""

    number: int
    status: Status
    reason: str
    best_val_accuracy: float | None
    best_val_loss: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    point: Point
    run_dir: str

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return {
            "trial": self.number,
            "status": self.status,
            "reason": self.reason,
            "val_accuracy": self.best_val_accuracy,
            "val_loss": self.best_val_loss,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "parameters": self.point,
            "run_dir": self.run_dir,
        }


@dataclass(frozen=True)
class Plan:
    """What a sweep varies.

    Parameters
    ----------
    base : Path
        The training configuration.
    sweep : SweepConfig
        The keys and their values.
    places : mapping of str to str
        Where each key was written, for messages: ``sweep.yaml:9:3``, or ``-p``.
    """

    base: Path
    sweep: SweepConfig
    places: Mapping[str, str]


def plan_points(plan: Plan, overrides: list[Override]) -> list[tuple[Point, Config]]:
    """Return the points of a sweep, each with its checked configuration.

    Parameters
    ----------
    plan : Plan
        What is varied.
    overrides : list of Override
        Laid over the base before the values of a point.

    Raises
    ------
    ConfigError
        With the mistakes of all points, before any of them is trained.
    """
    document = read_file(plan.base)
    planned: list[tuple[Point, Config]] = []
    mistakes: list[str] = []
    for point in points(plan.sweep):
        values = [
            Override(key, value, f"{plan.places[key]} {key}={value}")
            for key, value in point.items()
        ]
        try:
            config = resolve_config(copy.deepcopy(document), [*overrides, *values])
        except ConfigError as error:
            mistakes += error.mistakes
            continue
        if config.data.validation == 0:
            mistakes.append(
                f"{plan.base}: trials are ranked by {plan.sweep.metric}; set data.validation"
            )
        planned.append((point, config))
    if mistakes:
        raise ConfigError(str(plan.base), list(dict.fromkeys(mistakes)))
    return planned


def make_trials(
    planned: list[tuple[Point, Config]], directory: Path, data_dir: Path | None, notify: Notify
) -> list[Trial]:
    """Return the trials of planned points; their datasets are fetched, once each.

    A trial whose configuration leaves the threads open gets one: the workers share the cores.
    """
    datasets: dict[DataConfig, Dataset] = {}
    trials = []
    for number, (point, config) in enumerate(planned, start=1):
        wanted = DataConfig(dataset=config.data.dataset, fallback=config.data.fallback)
        if wanted not in datasets:
            datasets[wanted] = find_dataset(wanted, data_dir, notify)
        threads = 1 if config.training.threads == "auto" else config.training.threads
        settled = settle(replaced(config, {"training.threads": threads}), datasets[wanted])
        trials.append(
            Trial(
                number=number,
                point=point,
                config=to_mapping(settled),
                dataset=datasets[wanted],
                directory=directory / f"trial-{number:03d}",
            )
        )
    return trials


def run_trial(trial: Trial, dataset: Dataset, stop: Callable[[], bool]) -> TrialResult:
    """Train a trial, or go on with it where an earlier process left it; never raise.

    Parameters
    ----------
    trial : Trial
        What to train.
    dataset : Dataset
        The trial's, perhaps with its images read already.
    stop : callable
        Tells whether to save and end.
    """
    run = Run(trial.directory)
    try:
        if run.config_path.exists():
            training = TrainingRun.go_on(run, run.config, dataset)
        else:
            # An earlier process may have died just after it made the directory.
            trial.directory.mkdir(parents=True, exist_ok=True)
            config = from_mapping(trial.config, str(run.config_path))
            training = TrainingRun.begin(run, config, dataset)
        for _ in training.events(stop):
            pass
    except NnctlError as error:
        return failed(trial, error.message)
    except Exception as error:  # a trial must never end the sweep
        return failed(trial, f"{type(error).__name__}: {error}")
    summary = training.summary
    result = TrialResult(
        number=trial.number,
        status=summary["status"],
        reason="",
        best_val_accuracy=summary["best_val_accuracy"],
        best_val_loss=summary["best_val_loss"],
        best_epoch=summary["best_epoch"],
        epochs=summary["epochs"],
        seconds=summary["seconds"],
        point=trial.point,
        run_dir=str(trial.directory),
    )
    try:
        training.raise_unless_finished()
    except NnctlError as error:
        return replace(result, reason=error.message)
    return result


def metrics_so_far(trial: Trial) -> list[dict[str, Any]]:
    """Return the metrics of a trial's complete epochs; none, if they cannot be read."""
    try:
        return Run(trial.directory).metrics
    except NnctlError:
        return []


def failed(trial: Trial, reason: str) -> TrialResult:
    """Return the row of a trial that could not be trained."""
    return TrialResult(
        number=trial.number,
        status="failed",
        reason=reason,
        best_val_accuracy=None,
        best_val_loss=None,
        best_epoch=None,
        epochs=len(metrics_so_far(trial)),
        seconds=0.0,
        point=trial.point,
        run_dir=str(trial.directory),
    )


def ranked(results: list[TrialResult], metric: str) -> list[TrialResult]:
    """Return the complete trials, the best first; the other metric decides ties."""

    def key(result: TrialResult) -> tuple[float, float, int]:
        accuracy = -(result.best_val_accuracy or 0.0)
        loss = float("inf") if result.best_val_loss is None else result.best_val_loss
        by_metric = (accuracy, loss) if metric == "val_accuracy" else (loss, accuracy)
        return (*by_metric, result.number)

    return sorted((result for result in results if result.status in COMPLETE), key=key)


def read_plan(path: Path, varied: Sequence[str]) -> Plan:
    """Return the base configuration of a sweep, and what to vary of it.

    Parameters
    ----------
    path : Path
        A sweep file; or a training configuration, whose grid is then in `varied`.
    varied : sequence of str
        ``KEY=V1,V2,...``; of a sweep file, they replace the values of its keys or add others.

    Raises
    ------
    ConfigError, UsageError
        The file is neither, or a value is not YAML.
    """
    values: dict[str, list[Any] | Range] = {}
    for text in varied:
        key, some = _read_values(text)
        if key in values:
            raise UsageError(f"-p {text}: {key} is there twice; give all its values at once")
        values[key] = some
    on_command_line = dict.fromkeys(values, "-p")
    document = read_file(path)
    if "base" in document.data or "parameters" in document.data:
        sweep = load_sweep(document)
        places = {
            key: document.place(("parameters", key), of_key=True) + ":" for key in sweep.parameters
        }
        sweep = sweep.model_copy(update={"parameters": {**sweep.parameters, **values}})
        return Plan(path.parent / sweep.base, sweep, places | on_command_line)
    if not values:
        example = ("nnctl", "sweep", path, "-p", "optimizer.learning_rate=0.1,0.5,1.0")
        raise UsageError(
            f"{path} is not a sweep file: it has neither 'base' nor 'parameters'",
            hint=f"To vary a training configuration: {shell_command(*example)}",
        )
    return Plan(path, SweepConfig(base=str(path), parameters=values), on_command_line)


def _read_values(text: str) -> tuple[str, list[Any]]:
    """Read ``KEY=V1,V2,...``, where the values are what a YAML list may hold."""
    key, equals, values = text.partition("=")
    override = Override.parse(f"{key}{equals}[{values}]" if equals else text, "-p")
    if not override.value:
        raise UsageError(f"-p {text}: expected KEY=V1,V2,...: there is no value")
    return override.key, list(override.value)

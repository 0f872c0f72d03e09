"""Trials: each a training of its own, in a run directory of its own."""

from __future__ import annotations

import json
import os
import platform
import stat
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnctl.config import from_mapping
from nnctl.data.dataset import Dataset
from nnctl.errors import ConfigError, DamagedFileError, NnctlError, StorageError
from nnctl.files import require_own
from nnctl.runs.directory import Run, cannot_write
from nnctl.runs.records import is_number, parse
from nnctl.runs.training import TrainingRun
from nnctl.sweep.space import Point

Status = Literal["finished", "stopped_early", "pruned", "diverged", "failed", "interrupted"]
COMPLETE = ("finished", "stopped_early")
"""The statuses of trials that can be ranked."""
FAILED = ("diverged", "failed")
"""The statuses of trials that did not come to an end of their own."""

JOURNAL = "the sweep's journal"
"""How messages name it as the source of a trial's configuration."""
LOG = "log.txt"
"""In a trial's directory: when it was begun and where, and what its process had to say."""
_LOG_LINES = 20
_ORPHAN_SECONDS = 15.0  # that the worker of a killed sweep may still need to save its state


@dataclass(frozen=True)
class Trial:
    """One training of a sweep; it can be sent to another process.

    Parameters
    ----------
    number : int
        From 1.
    id : str
        The beginning of the SHA-256 of the resolved configuration.
    point : dict
        The values of the keys that vary.
    seed : int
        Of weights and shuffling.
    config : str
        The resolved configuration, as JSON.
    dataset : Dataset
        Whose files are there.
    directory : Path
        Of the run.
    """

    number: int
    id: str
    point: Point
    seed: int
    config: str
    dataset: Dataset
    directory: Path


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial: a row of the results.

    Parameters
    ----------
    trial : int
        Its number.
    id : str
        Of the trial.
    status : str
        How it ended.
    reason : str
        Why, if not by itself.
    val_accuracy, val_loss : float or None
        Of the epoch that is the best by the metric of the sweep.
    best_epoch : int or None
        From 1.
    epochs : int
        That are complete.
    seconds : float
        Wall time of the training.
    seed : int
        Of weights and shuffling.
    parameters : dict
        The values of the keys that vary.
    run_dir : str
        The directory of the run.
    log : str
        The end of its log, if it failed.
    """

    trial: int
    id: str
    status: Status
    reason: str
    val_accuracy: float | None
    val_loss: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    seed: int
    parameters: Point
    run_dir: str
    log: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return dict(vars(self))


def run_trial(trial: Trial, dataset: Dataset, stop: Callable[[], bool]) -> TrialResult:
    """Train a trial, or go on with it where an earlier process left it.

    Whatever goes wrong with it is a result, and ends in its log.

    Parameters
    ----------
    trial : Trial
        What to train.
    dataset : Dataset
        The trial's, perhaps with its images read already.
    stop : callable
        Tells whether to save and end.

    Raises
    ------
    StorageError
        The disk cannot be written, which is no fault of the trial's.
    """
    run = Run(trial.directory)
    try:
        note(trial, f"begun by process {os.getpid()} of {platform.node()}")
        run.wait_until_free(_ORPHAN_SECONDS)
        reason, summary = _train(trial, run, dataset, stop)
    except StorageError:
        raise
    except NnctlError as error:
        note(trial, error.message)
        return failed(trial, error.message)
    except Exception as error:  # a trial must never end the sweep
        note(trial, traceback.format_exc())
        return failed(trial, f"{type(error).__name__}: {error}")
    note(trial, reason or summary["status"])
    result = TrialResult(
        trial=trial.number,
        id=trial.id,
        status=summary["status"],
        reason=reason,
        val_accuracy=summary["best_val_accuracy"],
        val_loss=summary["best_val_loss"],
        best_epoch=summary["best_epoch"],
        epochs=summary["epochs"],
        seconds=summary["seconds"],
        seed=trial.seed,
        parameters=trial.point,
        run_dir=str(trial.directory),
    )
    return replace(result, log=end_of_log(trial)) if result.status in FAILED else result


def _train(
    trial: Trial, run: Run, dataset: Dataset, stop: Callable[[], bool]
) -> tuple[str, dict[str, Any]]:
    """Train; return why it did not end by itself, and its summary.

    The directory may have been edited, so it is used only where it has the trial's configuration.
    A trial that is complete, which a killed sweep may not know, is only measured again.
    """
    config = from_mapping(json.loads(trial.config), f"trial {trial.number}")
    training = None
    # An earlier process may have died just after it made the directory.
    if run.config_path.exists():
        try:
            training = TrainingRun.go_on(run, config, dataset, JOURNAL)
        except (DamagedFileError, ConfigError) as error:
            note(trial, f"started again from the beginning: {error.message}")
    if training is None:
        training = TrainingRun.begin_again(run, config, dataset)
    for _ in training.events(stop):
        pass
    try:
        training.raise_unless_finished()
    except NnctlError as error:
        return error.message, training.summary
    return "", training.summary


def failed(trial: Trial, reason: str) -> TrialResult:
    """Return the row of a trial that could not be trained; the log is kept as it stands."""
    return TrialResult(
        trial=trial.number,
        id=trial.id,
        status="failed",
        reason=reason,
        val_accuracy=None,
        val_loss=None,
        best_epoch=None,
        epochs=len(metrics_so_far(trial.directory)),
        seconds=0.0,
        seed=trial.seed,
        parameters=trial.point,
        run_dir=str(trial.directory),
        log=end_of_log(trial),
    )


def metrics_so_far(directory: Path) -> list[dict[str, Any]]:
    """Return the metrics of a trial's complete epochs; none, if they cannot be read."""
    try:
        return Run(directory).metrics
    except NnctlError:
        return []


class Curve:
    """The metric of a trial, epoch by epoch, while another process trains it.

    Parameters
    ----------
    path : Path
        Of the trial's ``metrics.jsonl``.
    metric : str
        The key to read.
    """

    def __init__(self, path: Path, metric: str) -> None:
        self.scores: list[float] = []
        self._path = path
        self._metric = metric
        self._offset = 0

    def read(self) -> bool:
        """Read what is new; tell whether there was anything."""
        try:
            found = self._path.stat()
            if not stat.S_ISREG(found.st_mode):  # to open a pipe is to wait for whoever writes
                return False
            if found.st_size < self._offset:  # a trial went on from before
                self._offset, self.scores = 0, []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
            scores = [parse(line)[self._metric] for line in whole.split(b"\n") if line]
        except (OSError, ValueError, TypeError, KeyError):  # its own process will tell
            return False
        if not all(map(is_number, scores)):
            return False
        self.scores += scores
        self._offset += len(whole) + len(end)
        return bool(whole)


def note(trial: Trial, text: str) -> None:
    """Add what happened to a trial's log, and make its directory if it is not there.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        trial.directory.mkdir(parents=True, exist_ok=True)
        require_own(trial.directory / LOG)
        with (trial.directory / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{stamp} {text.rstrip()}\n")
    except OSError as error:
        raise cannot_write(trial.directory, error) from None


def end_of_log(trial: Trial) -> str:
    """Return the last lines of a trial's log; none, if it cannot be read."""
    try:
        lines = (trial.directory / LOG).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])

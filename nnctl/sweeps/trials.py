"""Trials: the runs of a sweep, each with its own configuration and run directory."""

from __future__ import annotations

import json
import math
import os
import platform
import stat
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nnctl.config import from_mapping
from nnctl.data.dataset import Dataset
from nnctl.errors import ConfigError, DamagedFileError, NnctlError, StorageError, storage_errors
from nnctl.files import require_own
from nnctl.nn.events import EpochMetrics
from nnctl.runs import history
from nnctl.runs.records import Count, Number, PositiveCount, Record, Share
from nnctl.runs.run import Run
from nnctl.runs.summary import Summary
from nnctl.runs.training_run import TrainingRun
from nnctl.sweeps.space import Params

Status = Literal["finished", "stopped_early", "pruned", "diverged", "failed", "interrupted"]
COMPLETE = ("finished", "stopped_early")
"""Statuses of the trials that can be ranked."""
FAILED = ("diverged", "failed")
"""Statuses of the trials that ended with an error."""

JOURNAL = "the sweep's journal"
"""Name of the source of a trial's configuration in messages."""
LOG = "log.txt"
"""Log file in a trial's directory: its events, and the output of its process."""
_LOG_LINES = 20
ORPHAN_SECONDS = 15.0  # in which the worker of a killed sweep may still save its state


def trial_directory(sweep: Path, number: int) -> Path:
    """Return the run directory of a trial."""
    return sweep / f"trial-{number:03d}"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep; it can be sent to another process.

    Parameters
    ----------
    number : int
        Trial number, from 1.
    id : str
        First 16 hex digits of the SHA-256 of the resolved configuration.
    point : dict
        Values of the keys that vary.
    seed : int
        Seed of initial weights and shuffling.
    config : str
        Resolved configuration, as JSON.
    dataset : Dataset
        Dataset whose files exist on this machine.
    directory : Path
        Run directory.
    fold : int, optional
        Number of the fold that is held out for validation, if the sweep has folds.
    """

    number: int
    id: str
    point: Params
    seed: int
    config: str
    dataset: Dataset
    directory: Path
    fold: int | None = None


METRICS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}
"""Metrics that rank trials, in words."""


def sort_key(accuracy: float | None, loss: float | None, metric: str) -> tuple[float, float]:
    """Return a key that sorts the best first; the other metric breaks ties, and None is worst."""
    key = -(accuracy or 0.0), math.inf if loss is None else loss
    return key if metric == "val_accuracy" else key[::-1]


def best_score(scores: Iterable[float], metric: str) -> float:
    """Return the highest accuracy or the lowest loss."""
    return max(scores) if metric == "val_accuracy" else min(scores)


class TrialResult(Record):
    """Result of a trial: a row of ``results.csv``.

    Parameters
    ----------
    trial : int
        Trial number, from 1.
    id : str
        ID of the trial; see `Trial`.
    status : str
        How the trial ended.
    reason : str
        Why it ended early; empty if it did not.
    val_accuracy, val_loss : float or None
        Validation metrics of the best epoch by the metric of the sweep.
    best_epoch : int or None
        Number of this epoch, from 1.
    epochs : int
        Number of complete epochs.
    last_train_accuracy, last_train_loss, last_val_accuracy, last_val_loss : float or None
        Metrics of the last complete epoch; None in the journals of early versions.
    seconds : float
        Wall time of the training.
    seed : int
        Seed of initial weights and shuffling.
    fold : int or None
        Number of the fold that was held out for validation, if the sweep has folds.
    parameters : dict
        Values of the keys that vary.
    run_dir : Path
        Run directory.
    log : str
        Last lines of the log, if the trial failed.
    """

    trial: PositiveCount
    id: str
    status: Status
    reason: str
    val_accuracy: Share | None
    val_loss: Number | None
    best_epoch: Count | None
    epochs: Count
    last_train_accuracy: Share | None = None
    last_train_loss: Number | None = None
    last_val_accuracy: Share | None = None
    last_val_loss: Number | None = None
    seconds: Number
    seed: Count
    fold: PositiveCount | None = None
    parameters: Params
    run_dir: Path = Path()
    log: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the trial does not continue when the sweep resumes."""
        return self.status != "interrupted"

    def figures(self, metric: str) -> tuple[float | None, float | None]:
        """Return accuracy and loss: of the last epoch's training if training loss ranks."""
        if metric == "train_loss":
            return self.last_train_accuracy, self.last_train_loss
        return self.val_accuracy, self.val_loss

    def score(self, metric: str) -> float:
        """Return the metric of the trial, or the worst possible value if it has none."""
        accuracy, loss = self.figures(metric)
        if metric == "val_accuracy":
            return accuracy or 0.0
        return math.inf if loss is None else loss

    def sort_key(self, metric: str) -> tuple[float, float]:
        """Return a key that sorts the best trial first."""
        return sort_key(*self.figures(metric), metric)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-compatible values."""
        return {**self.model_dump(), "run_dir": str(self.run_dir)}

    @classmethod
    def failure(cls, trial: Trial, reason: str) -> TrialResult:
        """Return the result of a trial that failed, with the last lines of its log."""
        return cls(
            trial=trial.number,
            id=trial.id,
            status="failed",
            # The name of a file that is not valid Unicode cannot be stored.
            reason=reason.encode(errors="backslashreplace").decode(),
            val_accuracy=None,
            val_loss=None,
            best_epoch=None,
            epochs=history.epochs_of(history_so_far(trial.directory)),
            seconds=0.0,
            seed=trial.seed,
            fold=trial.fold,
            parameters=trial.point,
            run_dir=trial.directory,
            log=log_tail(trial),
        )


def run_trial(trial: Trial, dataset: Dataset, stop: Callable[[], bool]) -> TrialResult:
    """Train a trial, or resume one that an earlier process started, and return its result.

    An error in the trial becomes a result with status ``failed``, and is written to its log.

    Parameters
    ----------
    trial : Trial
        Trial to train.
    dataset : Dataset
        Dataset of the trial; its images may be in memory already.
    stop : callable
        Function that returns True when the trial should save its state and stop.

    Raises
    ------
    StorageError
        The disk cannot be written; this is not an error of the trial.
    """
    run = Run(trial.directory)
    try:
        append_log(trial, f"started by process {os.getpid()} on {platform.node()}")
        run.wait_until_free(ORPHAN_SECONDS)
        reason, summary = _train(trial, run, dataset, stop)
    except StorageError:
        raise
    except NnctlError as error:
        append_log(trial, error.message)
        return TrialResult.failure(trial, error.message)
    except Exception as error:  # an error in a trial must not end the sweep
        append_log(trial, traceback.format_exc())
        return TrialResult.failure(trial, f"{type(error).__name__}: {error}")
    append_log(trial, reason or summary.status)
    last = next(reversed(history_so_far(trial.directory)), None)
    return TrialResult(
        trial=trial.number,
        id=trial.id,
        status=summary.status,
        reason=reason,
        val_accuracy=summary.best_val_accuracy,
        val_loss=summary.best_val_loss,
        best_epoch=summary.best_epoch,
        epochs=summary.epochs,
        last_train_accuracy=last.train_accuracy if last else None,
        last_train_loss=last.train_loss if last else None,
        last_val_accuracy=last.val_accuracy if last else None,
        last_val_loss=last.val_loss if last else None,
        seconds=summary.seconds,
        seed=trial.seed,
        fold=trial.fold,
        parameters=trial.point,
        run_dir=trial.directory,
        log=log_tail(trial) if summary.status in FAILED else "",
    )


def _train(
    trial: Trial, run: Run, dataset: Dataset, stop: Callable[[], bool]
) -> tuple[str, Summary]:
    """Train; return the reason of an early end, and the summary.

    The run directory may have been edited, so it is resumed only if it has the configuration of
    the trial. A trial may be complete although its sweep was killed before it recorded this; then
    it is only evaluated again.
    """
    config = from_mapping(json.loads(trial.config), f"trial {trial.number}")
    training = None
    # An earlier process may have died just after it created the directory.
    if run.config_path.exists():
        try:
            training = TrainingRun.from_last_checkpoint(run, config, dataset, JOURNAL)
        except (DamagedFileError, ConfigError) as error:
            append_log(trial, f"restarted from the beginning: {error.message}")
    if training is None:
        training = TrainingRun.create(run, config, dataset, replace_files=True)
    for _ in training.events(stop):
        pass
    try:
        training.raise_unless_finished()
    except NnctlError as error:
        return error.message, training.summary
    return "", training.summary


def history_so_far(directory: Path) -> list[EpochMetrics]:
    """Return the metrics of a trial's complete epochs, or none if they cannot be read."""
    try:
        return Run(directory).history
    except NnctlError:
        return []


def scores_of(history: Iterable[EpochMetrics], metric: str) -> dict[int, float]:
    """Return the metric by epoch, of the epochs that have one."""
    values = {row.epoch: getattr(row, metric) for row in history}
    return {epoch: value for epoch, value in values.items() if value is not None}


class MetricHistory:
    """Metric of a trial by epoch, read while another process trains it.

    Parameters
    ----------
    directory : Path
        Run directory of the trial.
    metric : str
        Key to read.
    """

    def __init__(self, directory: Path, metric: str) -> None:
        self.scores: dict[int, float] = {}
        self._path = Run(directory).metrics_path
        self._metric = metric
        self._offset = 0

    @property
    def epoch(self) -> int:
        """Number of the last validated epoch, 0 before the first."""
        return max(self.scores, default=0)

    def read(self) -> bool:
        """Read new epochs; return whether there were any."""
        try:
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until it is written
                return False
            if status.st_size < self._offset:  # the trial resumed from an earlier epoch
                self._offset, self.scores = 0, {}
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
            epochs = [history.from_line(line) for line in whole.split(b"\n") if line]
        except (OSError, ValueError):  # its own process reports the error
            return False
        self.scores |= scores_of(epochs, self._metric)
        self._offset += len(whole) + len(end)
        return bool(whole)


def append_log(trial: Trial, text: str) -> None:
    """Append a line with the time to a trial's log; create its directory if necessary.

    Raises
    ------
    StorageError
        The log cannot be written.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with storage_errors(trial.directory):
        trial.directory.mkdir(parents=True, exist_ok=True)
        require_own(trial.directory / LOG)
        with (trial.directory / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{stamp} {text.rstrip()}\n")


def log_tail(trial: Trial) -> str:
    """Return the last lines of a trial's log, or an empty string if it cannot be read."""
    try:
        lines = (trial.directory / LOG).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])

"""The scheduler of a sweep: starts, watches and records its trials, each exactly once.

The result of a trial is in the journal, synced to the disk, before it is in the result files and
before it is shown. So a sweep that is killed at any moment can be restored from its journal, and
the unfinished trials resume from their run directories.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import nnctl
from nnctl.config import Config, from_mapping
from nnctl.errors import DamagedFileError, NnctlError, UsageError
from nnctl.runs.run import DirectoryLock, require_empty
from nnctl.sweeps.journal import FORMAT_VERSION, Journal
from nnctl.sweeps.plan import Plan, TrialFactory, trial_name
from nnctl.sweeps.results import ResultFiles, at_best_epoch
from nnctl.sweeps.space import Params
from nnctl.sweeps.trial_queue import TrialQueue
from nnctl.sweeps.trials import (
    FAILED,
    MetricHistory,
    Trial,
    TrialResult,
    failed,
    metrics_so_far,
    note,
    run_trial,
)
from nnctl.sweeps.workers import TrainTrial, WorkerPool
from nnctl.text import shell_command

_TICK = 0.2  # seconds between two checks of the running trials
_GRACE = 10.0  # seconds in which a trial that timed out may save its state
_LONGEST_STEP = 1.0  # maximum seconds counted between two checks; more is a suspension


@dataclass(frozen=True)
class Limits:
    """When to stop a trial, and when to stop the sweep.

    Parameters
    ----------
    max_failures : int, optional
        Number of failed trials after which the sweep stops.
    trial_timeout : float, optional
        Maximum seconds per trial, without time in which the sweep is suspended.
    """

    max_failures: int | None = None
    trial_timeout: float | None = None


@dataclass
class RunningTrial:
    """A trial that is being trained.

    Parameters
    ----------
    trial : Trial
        The trial.
    curve : MetricHistory
        Its metrics so far.
    epochs : int
        Configured number of epochs.
    looked : float
        Time of the last check, from `time.monotonic`.
    seconds : float
        Training time so far.
    """

    trial: Trial
    curve: MetricHistory
    epochs: int
    looked: float
    seconds: float = 0.0
    asked: Literal["pruned", "too long", "the end"] | None = None
    """Why the sweep requested the trial to stop."""

    def count_time(self) -> None:
        """Add the time since the last call, at most one second in case of a suspension."""
        now = time.monotonic()
        self.seconds += min(now - self.looked, _LONGEST_STEP)
        self.looked = now


class SweepState:
    """State of a sweep, restored from the journal in its directory.

    Parameters
    ----------
    directory : Path
        Sweep directory.

    Raises
    ------
    NnctlError
        It is not a sweep directory, or the journal is damaged; see `Journal.read`.
    """

    def __init__(self, directory: Path) -> None:
        header, *self.lines = Journal(directory).read()
        self._directory = directory
        self.plan = Plan.from_json(header["plan"])
        self.planned = [line for line in self.lines if line["event"] == "planned"]
        keys = self.plan.sweep.space.keys()
        if any(line["parameters"].keys() != keys for line in self.planned):
            raise DamagedFileError(
                f"the journal of {directory} is damaged: plan and trials vary different keys"
            )
        self.results: dict[int, TrialResult] = {}
        """Last result by trial number; trials that have restarted since are not included."""
        self.failed: set[int] = set()
        """Trials that have failed and have not completed since."""
        for line in self.lines:
            if line["event"] == "started":
                self.results.pop(line["trial"], None)
            elif line["event"] == "ended":
                row = {key: line[key] for key in TrialResult.__dataclass_fields__ if key in line}
                row["run_dir"] = str(directory / trial_name(line["trial"]))
                result = self.results[line["trial"]] = TrialResult(**row)
                if result.status in FAILED:
                    self.failed.add(result.trial)
                elif result.status != "interrupted":
                    self.failed.discard(result.trial)

    @property
    def begun(self) -> list[int]:
        """Trials that have started but not ended."""
        started = {line["trial"] for line in self.lines if line["event"] == "started"}
        done = {number for number, row in self.results.items() if _is_final(row)}
        return sorted(started - done)

    def run_dir(self, trial: int) -> Path:
        """Return the run directory of a trial."""
        return self._directory / trial_name(trial)

    def point(self, trial: int) -> Params:
        """Return the values that a trial has for the keys that vary."""
        return dict(self._line(trial)["parameters"])

    def config(self, trial: int) -> Config:
        """Return the configuration of a trial.

        Raises
        ------
        ConfigError
            The configuration is from another version of nnctl and not valid in this one.
        """
        return from_mapping(self._line(trial)["config"], f"trial {trial} of {self._directory}")

    def epochs(self, trial: int) -> int:
        """Return the configured number of epochs of a trial."""
        return int(self._line(trial)["config"]["training"]["epochs"])

    def _line(self, trial: int) -> Mapping[str, Any]:
        return next(line for line in self.planned if line["trial"] == trial)

    @property
    def left(self) -> int:
        """Number of unfinished trials, as far as it is known."""
        sweep, done = self.plan.sweep, sum(map(_is_final, self.results.values()))
        suggested = sum(line["event"] in ("repeated", "impossible") for line in self.lines)
        tried = len({line["point"] for line in self.planned}) + suggested
        to_come = max((sweep.most or 0) - tried, 0) if sweep.method == "tpe" else 0
        return len(self.planned) + to_come * sweep.seeds - done


class Sweep:
    """A sweep in its directory.

    Parameters
    ----------
    directory : Path
        Sweep directory, to which no other process writes; see `DirectoryLock`.
    plan : Plan
        Base configuration and search space.
    maker : TrialFactory
        Factory of the trials.
    work : callable
        Function that trains a trial.
    """

    def __init__(
        self, directory: Path, plan: Plan, maker: TrialFactory, work: TrainTrial = run_trial
    ) -> None:
        self.directory = directory
        self.config = plan.sweep
        self.results: dict[int, TrialResult] = {}
        self.running: dict[Future[TrialResult], RunningTrial] = {}
        self.ended_because: str | None = None
        """Why the sweep stopped before its last trial, unless the user interrupted it."""
        self._work = work
        self._lock: DirectoryLock | None = None
        self._journal = Journal(directory)
        self._lines: list[Mapping[str, Any]] = []
        self._files = ResultFiles(directory, list(plan.sweep.space))
        self._queue = TrialQueue(directory, plan, maker, self._lines.append)
        self._deaths: dict[int, int] = {}  # by trial: complete epochs when its worker last died
        self._error: NnctlError | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        plan: Plan,
        points: list[tuple[Params, Config]],
        maker: TrialFactory,
        work: TrainTrial = run_trial,
    ) -> Sweep:
        """Return a new sweep in an empty directory, after writing its plan to the journal.

        Raises
        ------
        NnctlError
            A dataset is not available, or the directory is not empty or cannot be written.
        """
        sweep = cls(directory, plan, maker, work)
        sweep._lock = _lock(directory)
        try:
            # Another process may have written here since the directory was chosen.
            require_empty(directory)
        except NnctlError:
            sweep._lock.unlock()
            raise
        sweep._lines.append(
            {
                "event": "sweep",
                "format_version": FORMAT_VERSION,
                "nnctl": nnctl.__version__,
                "time": _now(),
                "plan": plan.to_json(),
            }
        )
        sweep._queue.plan(points)
        sweep._flush()
        sweep._files.write([])
        return sweep

    @classmethod
    def resume(
        cls,
        directory: Path,
        maker: TrialFactory,
        *,
        retry_failed: bool = False,
        work: TrainTrial = run_trial,
    ) -> Sweep:
        """Return a sweep that resumes where it stopped.

        Parameters
        ----------
        directory : Path
            Sweep directory.
        maker : TrialFactory
            Factory of the unfinished trials.
        retry_failed : bool
            Whether to train only the failed trials, again.
        work : callable
            Function that trains a trial.

        Raises
        ------
        NnctlError
            It is not a sweep directory, the journal is damaged, or a dataset is not available.
        UsageError
            `retry_failed` is set and no trial has failed, but some are unfinished.
        """
        next(Journal(directory).read())  # fails before a lock file is created
        lock = _lock(directory)
        Journal(directory).repair()
        record = SweepState(directory)
        if retry_failed and record.left and not record.failed:
            lock.unlock()
            raise UsageError(
                f"no trial of {directory} has failed",
                hint=f"Unfinished trials: {record.left}. To resume without --retry-failed: "
                f"{shell_command('nnctl', 'sweep', '--resume', directory)}",
            )
        sweep = cls(directory, record.plan, maker, work)
        rows = record.results
        unfinished = {number for number, row in rows.items() if not _is_final(row)}
        to_repeat = record.failed if retry_failed else unfinished
        sweep.results = {number: row for number, row in rows.items() if number not in to_repeat}
        sweep._lock = lock
        sweep._queue.replay(record.lines, sweep.results, to_repeat if retry_failed else None)
        sweep._files.write(sweep.results.values())
        return sweep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.unlock()

    @property
    def warning(self) -> str | None:
        """A warning for the user if nothing locks the directory; see `DirectoryLock`."""
        return self._lock.warning if self._lock else None

    @property
    def total(self) -> int:
        """Total number of trials, as far as it is known."""
        return self._queue.total

    @property
    def left(self) -> int:
        """Number of unfinished trials, including the running ones."""
        return self.total - sum(map(_is_final, self.results.values()))

    @property
    def waiting(self) -> int:
        """Number of trials that have not started."""
        return self.total - len(self.results) - len(self.running)

    def train(
        self, workers: WorkerPool, stop: Callable[[], bool], limits: Limits | None = None
    ) -> Iterator[TrialResult | None]:
        """Train the unfinished trials; yield each result after it is written to the disk.

        Parameters
        ----------
        workers : WorkerPool
            Pool of workers.
        stop : callable
            Function that returns True when the running trials should save and stop.
        limits : Limits, optional
            When to stop a trial, and when to stop the sweep.

        Yields
        ------
        TrialResult or None
            Result of a trial; None a few times a second, so that the caller can show `running`.

        Raises
        ------
        NnctlError
            A trial cannot be trained or recorded; the sweep can be resumed.
        """
        limits = limits or Limits()
        ended: list[TrialResult] = []
        while True:
            ending = bool(stop() or self._error or self.ended_because)
            if not ending:
                self._start_trials(workers)
            self._flush()
            self._files.add(ended)
            yield from ended
            if not ended:
                yield None
            if not self.running and (ending or self._queue.is_done):
                break
            self._check_running(workers, limits, ending)
            ended = self._wait(limits)
        self._files.write(self.results.values())
        if self._error:
            raise self._error

    def _start_trials(self, workers: WorkerPool) -> None:
        """Start a trial on each free worker while trials remain."""
        for _ in range(workers.free()):
            try:
                trial = self._queue.next()
            except NnctlError as error:  # for example, a dataset was removed
                self._error = self._error or error
                return
            if trial is None:
                return
            future = workers.submit(self._work, trial)
            curve = MetricHistory(trial.directory / "metrics.jsonl", self.config.ranked_by)
            epochs = json.loads(trial.config)["training"]["epochs"]
            self.running[future] = RunningTrial(trial, curve, epochs, time.monotonic())
            self._lines.append({"event": "started", "time": _now(), "trial": trial.number})

    def _wait(self, limits: Limits) -> list[TrialResult]:
        """Wait a moment for trials to end; return their results."""
        if not self.running:
            time.sleep(_TICK)  # no worker yet, but one may join
        done, _ = wait(self.running, _TICK, FIRST_COMPLETED)
        return [result for future in done if (result := self._conclude(future, limits))]

    def _check_running(self, workers: WorkerPool, limits: Limits, ending: bool) -> None:
        """Read the metrics of the running trials, and stop trials that should not continue."""
        timeout = limits.trial_timeout or float("inf")
        for running in self.running.values():
            running.count_time()
            updated = running.curve.read()
            if running.asked is None:
                if ending:
                    running.asked = "the end"
                elif running.seconds > timeout:
                    running.asked = "too long"
                elif updated and self._queue.should_prune(running.trial, running.curve.scores):
                    running.asked = "pruned"
                if running.asked:
                    workers.request_stop(running.trial)
            if running.seconds > timeout + _GRACE:
                running.asked = "too long"
                workers.kill(running.trial)

    def _conclude(self, future: Future[TrialResult], limits: Limits) -> TrialResult | None:
        """Record the result of a trial; return None if the trial has to start again."""
        running = self.running.pop(future)
        trial = running.trial
        try:
            result = future.result()
        except CancelledError:
            self._queue.requeue(trial)
            return None
        except BrokenExecutor:
            return self._conclude_dead(running, limits)
        except NnctlError as error:  # for example a full disk, which does not depend on the trial
            self._error = self._error or error
            self._queue.requeue(trial)
            return None
        except Exception as error:
            result = failed(trial, f"{type(error).__name__}: {error}")
        if result.status == "interrupted" and running.asked is None:  # it was not requested
            self._queue.requeue(trial)
            return None
        if result.status == "interrupted" and running.asked == "pruned":
            epoch = len(running.curve.scores)
            reason = f"pruned: worse than other trials after epoch {epoch}"
            note(trial, reason)
            result = replace(result, status="pruned", reason=reason)
        elif result.status == "interrupted" and running.asked == "too long":
            reason = f"timeout: it took longer than {limits.trial_timeout:g} s"
            note(trial, reason)
            result = failed(trial, reason)
        result = at_best_epoch(result, self.config.ranked_by)
        self._record(running, result, limits)
        return result

    def _conclude_dead(self, running: RunningTrial, limits: Limits) -> TrialResult | None:
        """Record that a worker died; the trial fails if it died before in the same epoch."""
        trial = running.trial
        if running.asked == "too long":
            reason = f"timeout: it did not stop after {limits.trial_timeout:g} s and was killed"
        else:
            note(trial, "the worker process died")
            # Read from the disk, as the trial may have progressed since its curve was last read.
            epochs = len(metrics_so_far(trial.directory))
            previous = self._deaths.get(trial.number, -1)
            self._deaths[trial.number] = epochs
            if epochs > previous:
                self._queue.requeue(trial, last=True)
                return None
            reason = "the worker process died twice in the same epoch: killed, or out of memory"
        note(trial, reason)
        result = failed(trial, reason)
        self._record(running, result, limits)
        return result

    def _record(self, running: RunningTrial, result: TrialResult, limits: Limits) -> None:
        self.results[result.trial] = result
        row = {key: value for key, value in result.to_json().items() if key != "run_dir"}
        if self.config.early_terminate:
            # Other trials are compared with all scores, including those since the last check.
            running.curve.read()
            self._queue.should_prune(running.trial, running.curve.scores)
            row["scores"] = running.curve.scores
        self._lines.append({"event": "ended", "time": _now(), **row})
        if result.status == "interrupted":
            return
        self._queue.learn(result)
        if result.status in FAILED:
            self._stop_after_failures(limits)

    def _stop_after_failures(self, limits: Limits) -> None:
        if self.waiting <= 0 or self.ended_because:
            return
        reasons = [row.reason for row in self.results.values() if row.status in FAILED]
        if limits.max_failures is not None and len(reasons) >= limits.max_failures:
            count = "1 trial" if len(reasons) == 1 else f"{len(reasons)} trials"
            self.ended_because = f"stopped after {count} failed"
        elif len(self.results) == 3 == len(reasons) and len(set(map(_error_kind, reasons))) == 1:
            self.ended_because = f"the first three trials failed with the same error: {reasons[0]}"

    def _flush(self) -> None:
        """Append the new events to the journal."""
        lines, self._lines[:] = list(self._lines), []
        self._journal.append(lines)


def _error_kind(reason: str) -> str:
    """Return a reason without its numbers, to compare errors by kind."""
    return re.sub(r"\d[\d.]*(e[-+]?\d+)?", "", reason)


def _is_final(row: TrialResult) -> bool:
    return row.status != "interrupted"


def _lock(directory: Path) -> DirectoryLock:
    """Lock a sweep directory against other processes, until it is unlocked."""
    return DirectoryLock(directory, "is a sweep that is being trained")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

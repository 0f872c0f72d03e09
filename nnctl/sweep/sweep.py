"""A sweep: its trials are begun, watched and recorded, so that none is lost and none done twice.

The order that this rests on: what came of a trial is in the journal, synced, before it is in the
results and before anybody is told. A sweep that is killed at any moment is made again of its
journal; what a trial had done by itself by then is in its run directory.
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
from nnctl.errors import DamagedFileError, NnctlError, UsageError, shell_command
from nnctl.runs.directory import DirectoryLock, require_empty
from nnctl.sweep.agenda import Agenda
from nnctl.sweep.journal import FORMAT_VERSION, Journal
from nnctl.sweep.plan import Plan, TrialMaker, trial_name
from nnctl.sweep.results import ResultFiles, at_best_epoch
from nnctl.sweep.space import Point
from nnctl.sweep.trials import (
    FAILED,
    Curve,
    Trial,
    TrialResult,
    failed,
    metrics_so_far,
    note,
    run_trial,
)
from nnctl.sweep.workers import Work, Workers

_TICK = 0.2  # seconds between looks at what changed
_GRACE = 10.0  # seconds to save, for a trial that has taken too long
_LONGEST_STEP = 1.0  # seconds between two looks, unless this process is suspended in between


@dataclass(frozen=True)
class Limits:
    """When to give a trial up, and when the sweep.

    Parameters
    ----------
    max_failures : int, optional
        End the sweep when so many trials have failed.
    trial_timeout : float, optional
        Seconds that a trial may take, without the time that the sweep is suspended.
    """

    max_failures: int | None = None
    trial_timeout: float | None = None


@dataclass
class Running:
    """A trial that is being trained."""

    trial: Trial
    curve: Curve
    epochs: int
    looked: float
    seconds: float = 0.0
    asked: Literal["pruned", "too long", "the end"] | None = None
    """Why it was asked to stop."""

    def count_time(self) -> None:
        """Add the time since the last call; a suspended machine or process counts as one step."""
        now = time.monotonic()
        self.seconds += min(now - self.looked, _LONGEST_STEP)
        self.looked = now


class Record:
    """What the journal in a sweep's directory tells.

    Parameters
    ----------
    directory : Path
        Of the sweep.

    Raises
    ------
    NnctlError
        It is not the directory of a sweep, or the journal is damaged; see `Journal.read`.
    """

    def __init__(self, directory: Path) -> None:
        header, *self.lines = Journal(directory).read()
        self._directory = directory
        self.plan = Plan.from_json(header["plan"])
        self.planned = [line for line in self.lines if line["event"] == "planned"]
        keys = self.plan.sweep.space.keys()
        if any(line["parameters"].keys() != keys for line in self.planned):
            raise DamagedFileError(f"the journal of {directory} is damaged: it is of other keys")
        self.results: dict[int, TrialResult] = {}
        """What came of each trial last, by its number; nothing, if it was begun again."""
        self.failed: set[int] = set()
        """The trials that have failed, and have not come to another end since."""
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
        """The trials that have begun, and have not come to an end."""
        started = {line["trial"] for line in self.lines if line["event"] == "started"}
        done = {number for number, row in self.results.items() if _is_final(row)}
        return sorted(started - done)

    def run_dir(self, trial: int) -> Path:
        """Return the run directory of a trial."""
        return self._directory / trial_name(trial)

    def point(self, trial: int) -> Point:
        """Return the values of the keys that vary of a trial."""
        return dict(self._line(trial)["parameters"])

    def config(self, trial: int) -> Config:
        """Return the configuration of a trial.

        Raises
        ------
        ConfigError
            It was planned by a version of nnctl that knew other configurations.
        """
        return from_mapping(self._line(trial)["config"], f"trial {trial} of {self._directory}")

    def epochs(self, trial: int) -> int:
        """Return how many epochs a trial is to have."""
        return int(self._line(trial)["config"]["training"]["epochs"])

    def _line(self, trial: int) -> Mapping[str, Any]:
        return next(line for line in self.planned if line["trial"] == trial)

    @property
    def left(self) -> int:
        """How many trials are still to do, as far as one knows."""
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
        That nobody else writes to; see `DirectoryLock`.
    plan : Plan
        What is varied.
    maker : TrialMaker
        Makes the trials.
    work : callable
        Trains a trial.
    """

    def __init__(
        self, directory: Path, plan: Plan, maker: TrialMaker, work: Work = run_trial
    ) -> None:
        self.directory = directory
        self.config = plan.sweep
        self.results: dict[int, TrialResult] = {}
        self.running: dict[Future[TrialResult], Running] = {}
        self.ended_because: str | None = None
        """Why it ended with trials left, unless somebody stopped it."""
        self._work = work
        self._lock: DirectoryLock | None = None
        self._journal = Journal(directory)
        self._lines: list[Mapping[str, Any]] = []
        self._files = ResultFiles(directory, list(plan.sweep.space))
        self._agenda = Agenda(directory, plan, maker, self._lines.append)
        self._deaths: dict[int, int] = {}  # by trial: the epochs that were done at the last one
        self._error: NnctlError | None = None

    @classmethod
    def begin(
        cls,
        directory: Path,
        plan: Plan,
        points: list[tuple[Point, Config]],
        maker: TrialMaker,
        work: Work = run_trial,
    ) -> Sweep:
        """Return a new sweep in an empty directory, its plan written down.

        Raises
        ------
        NnctlError
            A dataset cannot be had, or the directory is not empty or cannot be written.
        """
        sweep = cls(directory, plan, maker, work)
        sweep._lock = _lock(directory)
        try:
            # Another process may have trained here since the directory was chosen.
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
        sweep._agenda.plan(points)
        sweep._flush()
        sweep._files.write([])
        return sweep

    @classmethod
    def resume(
        cls,
        directory: Path,
        maker: TrialMaker,
        *,
        retry_failed: bool = False,
        work: Work = run_trial,
    ) -> Sweep:
        """Return a sweep that goes on where it was ended.

        Parameters
        ----------
        directory : Path
            Of the sweep.
        maker : TrialMaker
            Makes the trials that are still to do.
        retry_failed : bool
            Run those trials again that failed, and no others.
        work : callable
            Trains a trial.

        Raises
        ------
        NnctlError
            It is not the directory of a sweep, it is damaged, or a dataset cannot be had.
        UsageError
            No trial has failed, and there are others to do.
        """
        next(Journal(directory).read())  # else a file for the lock would be left where no sweep is
        lock = _lock(directory)
        Journal(directory).repair()
        record = Record(directory)
        if retry_failed and record.left and not record.failed:
            lock.unlock()
            raise UsageError(
                f"no trial of {directory} has failed",
                hint=f"Still to do: {record.left}; without --retry-failed, go on with: "
                f"{shell_command('nnctl', 'sweep', '--resume', directory)}",
            )
        sweep = cls(directory, record.plan, maker, work)
        rows = record.results
        open_trials = {number for number, row in rows.items() if not _is_final(row)}
        again = record.failed if retry_failed else open_trials
        sweep.results = {number: row for number, row in rows.items() if number not in again}
        sweep._lock = lock
        sweep._agenda.replay(record.lines, sweep.results, again if retry_failed else None)
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
        """How many trials there will be, as far as one knows."""
        return self._agenda.total

    @property
    def left(self) -> int:
        """How many trials are still to do, those that are being trained as well."""
        return self.total - sum(map(_is_final, self.results.values()))

    @property
    def waiting(self) -> int:
        """How many trials are not begun yet."""
        return self.total - len(self.results) - len(self.running)

    def train(
        self, workers: Workers, stop: Callable[[], bool], limits: Limits | None = None
    ) -> Iterator[TrialResult | None]:
        """Train what is left, and yield what comes of each trial when it is on the disk.

        Parameters
        ----------
        workers : Workers
            Where to train.
        stop : callable
            Tells whether to let the running trials save their state, and begin no others.
        limits : Limits, optional
            When to give up.

        Yields
        ------
        TrialResult or None
            None where nothing is new, a few times a second: a chance to look at `running`.

        Raises
        ------
        NnctlError
            The disk cannot be written; what is done is recorded, and can be gone on with.
        """
        limits = limits or Limits()
        ended: list[TrialResult] = []
        while True:
            ending = bool(stop() or self._error or self.ended_because)
            if not ending:
                self._begin_trials(workers)
            self._flush()
            self._files.add(ended)
            yield from ended
            if not ended:
                yield None
            if not self.running and (ending or self._agenda.is_done):
                break
            self._look_at_running(workers, limits, ending)
            ended = self._wait(limits)
        self._files.write(self.results.values())
        if self._error:
            raise self._error

    def _begin_trials(self, workers: Workers) -> None:
        """Give each worker that is free a trial, as long as there are any."""
        for _ in range(workers.free()):
            try:
                trial = self._agenda.next()
            except NnctlError as error:  # the dataset is gone, or another machine goes on
                self._error = self._error or error
                return
            if trial is None:
                return
            future = workers.submit(self._work, trial)
            curve = Curve(trial.directory / "metrics.jsonl", self.config.ranked_by)
            epochs = json.loads(trial.config)["training"]["epochs"]
            self.running[future] = Running(trial, curve, epochs, time.monotonic())
            self._lines.append({"event": "started", "time": _now(), "trial": trial.number})

    def _wait(self, limits: Limits) -> list[TrialResult]:
        """Wait for something to end, but no longer than a moment; return what did."""
        if not self.running:
            time.sleep(_TICK)  # no worker is free, but some may come
        done, _ = wait(self.running, _TICK, FIRST_COMPLETED)
        return [result for future in done if (result := self._conclude(future, limits))]

    def _look_at_running(self, workers: Workers, limits: Limits, ending: bool) -> None:
        """Read what the running trials have done, and end those that should not go on."""
        timeout = limits.trial_timeout or float("inf")
        for running in self.running.values():
            running.count_time()
            news = running.curve.read()
            if running.asked is None:
                if ending:
                    running.asked = "the end"
                elif running.seconds > timeout:
                    running.asked = "too long"
                elif news and self._agenda.is_hopeless(running.trial, running.curve.scores):
                    running.asked = "pruned"
                if running.asked:
                    workers.ask_to_stop(running.trial)
            if running.seconds > timeout + _GRACE:
                running.asked = "too long"
                workers.kill(running.trial)

    def _conclude(self, future: Future[TrialResult], limits: Limits) -> TrialResult | None:
        """Record what came of a trial; None, if it has to be begun again."""
        running = self.running.pop(future)
        trial = running.trial
        try:
            result = future.result()
        except CancelledError:
            self._agenda.put_back(trial)
            return None
        except BrokenExecutor:
            return self._conclude_dead(running, limits)
        except NnctlError as error:  # not the trial's fault: a full disk, an unfit cluster
            self._error = self._error or error
            self._agenda.put_back(trial)
            return None
        except Exception as error:
            result = failed(trial, f"{type(error).__name__}: {error}")
        if result.status == "interrupted" and running.asked is None:  # it was left alone
            self._agenda.put_back(trial)
            return None
        if result.status == "interrupted" and running.asked == "pruned":
            epoch = len(running.curve.scores)
            why = f"it did worse than others had done by epoch {epoch}"
            note(trial, why)
            result = replace(result, status="pruned", reason=why)
        elif result.status == "interrupted" and running.asked == "too long":
            why = f"it took longer than {limits.trial_timeout:g} s"
            note(trial, why)
            result = failed(trial, why)
        result = at_best_epoch(result, self.config.ranked_by)
        self._record(running, result, limits)
        return result

    def _conclude_dead(self, running: Running, limits: Limits) -> TrialResult | None:
        """Record the death of a worker; a single one does not prove that its trial is to blame."""
        trial = running.trial
        if running.asked == "too long":
            reason = f"it hung: it was killed after {limits.trial_timeout:g} s, and some to save"
        else:
            note(trial, "its worker process died")
            # From the disk: it may have got on since somebody last looked at its curve.
            epochs = len(metrics_so_far(trial.directory))
            before = self._deaths.get(trial.number, -1)
            self._deaths[trial.number] = epochs
            if epochs > before:
                self._agenda.put_back(trial, last=True)
                return None
            reason = "its worker process died twice at the same epoch: killed, or out of memory"
        note(trial, reason)
        result = failed(trial, reason)
        self._record(running, result, limits)
        return result

    def _record(self, running: Running, result: TrialResult, limits: Limits) -> None:
        self.results[result.trial] = result
        row = {key: value for key, value in result.to_json().items() if key != "run_dir"}
        if self.config.early_terminate:
            # Other trials are compared with all scores, also with those since the last look.
            running.curve.read()
            self._agenda.is_hopeless(running.trial, running.curve.scores)
            row["scores"] = running.curve.scores
        self._lines.append({"event": "ended", "time": _now(), **row})
        if result.status == "interrupted":
            return
        self._agenda.learn(result)
        if result.status in FAILED:
            self._give_up_where_all_fails(limits)

    def _give_up_where_all_fails(self, limits: Limits) -> None:
        if self.waiting <= 0 or self.ended_because:
            return
        reasons = [row.reason for row in self.results.values() if row.status in FAILED]
        if limits.max_failures is not None and len(reasons) >= limits.max_failures:
            count = "a trial has" if len(reasons) == 1 else f"{len(reasons)} trials have"
            self.ended_because = f"{count} failed"
        elif len(self.results) == 3 == len(reasons) and len(set(map(_kind, reasons))) == 1:
            self.ended_because = f"the first three trials failed alike: {reasons[0]}"

    def _flush(self) -> None:
        """Bring what has happened to the disk."""
        lines, self._lines[:] = list(self._lines), []
        self._journal.append(lines)


def _kind(reason: str) -> str:
    """Return a reason without its numbers: those that differ in no more are alike."""
    return re.sub(r"\d[\d.]*(e[-+]?\d+)?", "", reason)


def _is_final(row: TrialResult) -> bool:
    return row.status != "interrupted"


def _lock(directory: Path) -> DirectoryLock:
    """Let no other process go on with a sweep, until it is unlocked or forgotten."""
    return DirectoryLock(directory, "is a sweep that is being trained")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

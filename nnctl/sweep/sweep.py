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
from nnctl.config import Config
from nnctl.errors import NnctlError, UsageError
from nnctl.runs.directory import RunLock
from nnctl.sweep.agenda import Agenda
from nnctl.sweep.journal import FORMAT_VERSION, Journal
from nnctl.sweep.plan import Plan, TrialMaker, trial_name
from nnctl.sweep.results import ResultFiles
from nnctl.sweep.space import Point
from nnctl.sweep.trials import FAILED, Curve, Trial, TrialResult, failed, note, run_trial
from nnctl.sweep.workers import Work, Workers

_TICK = 0.2  # seconds between looks at what changed
_GRACE = 10.0  # seconds to save, for a trial that has taken too long


@dataclass(frozen=True)
class Limits:
    """When to give a trial up, and when the sweep.

    Parameters
    ----------
    max_failures : int, optional
        End the sweep when so many trials have failed.
    trial_timeout : float, optional
        Seconds that a trial may take.
    """

    max_failures: int | None = None
    trial_timeout: float | None = None


@dataclass
class Running:
    """A trial that is being trained."""

    trial: Trial
    curve: Curve
    since: float
    epochs: int
    asked: Literal["pruned", "too long", "the end"] | None = None
    """Why it was asked to stop."""


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
        self.plan = Plan.from_json(header["plan"])
        self.planned = [line for line in self.lines if line["event"] == "planned"]
        self.results: dict[int, TrialResult] = {}
        """What came of each trial last, by its number; nothing, if it was begun again."""
        for line in self.lines:
            if line["event"] == "started":
                self.results.pop(line["trial"], None)
            elif line["event"] == "ended":
                row = {key: value for key, value in line.items() if key not in ("event", "time")}
                run_dir = str(directory / trial_name(line["trial"]))
                self.results[line["trial"]] = TrialResult(**row, run_dir=run_dir)


class Sweep:
    """A sweep in its directory.

    Parameters
    ----------
    directory : Path
        That nobody else writes to; see `RunLock`.
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
        self._lock: RunLock | None = None
        self._journal = Journal(directory)
        self._lines: list[Mapping[str, Any]] = []
        self._files = ResultFiles(directory, list(plan.sweep.space))
        self._agenda = Agenda(directory, plan, maker, self._lines.append)
        self._deaths: dict[int, int] = {}
        self._failures = 0
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
            A dataset cannot be had, or the directory cannot be written.
        """
        sweep = cls(directory, plan, maker, work)
        sweep._lock = _lock(directory)
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
        """
        lock = _lock(directory)
        Journal(directory).repair()
        record = Record(directory)
        sweep = cls(directory, record.plan, maker, work)
        rows = record.results
        again = {
            number
            for number, row in rows.items()
            if row.status in (FAILED if retry_failed else ("interrupted",))
        }
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
    def total(self) -> int:
        """How many trials there will be, as far as one knows."""
        return self._agenda.total

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
            trial = self._agenda.next()
            if trial is None:
                break
            future = workers.submit(self._work, trial)
            curve = Curve(trial.directory / "metrics.jsonl", self.config.ranked_by)
            epochs = json.loads(trial.config)["training"]["epochs"]
            self.running[future] = Running(trial, curve, time.monotonic(), epochs)
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
            seconds = time.monotonic() - running.since
            news = running.curve.read()
            if running.asked is None:
                if ending:
                    running.asked = "the end"
                elif seconds > timeout:
                    running.asked = "too long"
                elif news and self._agenda.is_hopeless(running.trial, running.curve.scores):
                    running.asked = "pruned"
                if running.asked:
                    workers.ask_to_stop(running.trial)
            if seconds > timeout + _GRACE:
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
            why = f"it did worse than others had done after {len(running.curve.scores)} epochs"
            result = replace(result, status="pruned", reason=why)
        elif result.status == "interrupted" and running.asked == "too long":
            result = failed(trial, f"it took longer than {limits.trial_timeout:g} s")
        self._record(trial, result, limits)
        return result

    def _conclude_dead(self, running: Running, limits: Limits) -> TrialResult | None:
        """Record the death of a worker; a single one does not prove that its trial is to blame."""
        trial = running.trial
        if running.asked == "too long":
            reason = f"it hung: it was killed after {limits.trial_timeout:g} s, and some to save"
        else:
            note(trial, "its worker process died")
            self._deaths[trial.number] = self._deaths.get(trial.number, 0) + 1
            if self._deaths[trial.number] == 1:
                self._agenda.put_back(trial, last=True)
                return None
            reason = "its worker process died twice: killed, or out of memory"
        result = failed(trial, reason)
        self._record(trial, result, limits)
        return result

    def _record(self, trial: Trial, result: TrialResult, limits: Limits) -> None:
        self.results[trial.number] = result
        row = {key: value for key, value in result.to_json().items() if key != "run_dir"}
        self._lines.append({"event": "ended", "time": _now(), **row})
        if result.status == "interrupted":
            return
        self._agenda.learn(result)
        self._failures += result.status in FAILED
        self._give_up_where_all_fails(limits)

    def _give_up_where_all_fails(self, limits: Limits) -> None:
        if self.waiting <= 0 or self.ended_because:
            return
        if limits.max_failures is not None and self._failures >= limits.max_failures:
            count = "a trial has" if self._failures == 1 else f"{self._failures} trials have"
            self.ended_because = f"{count} failed"
        elif len(self.results) == 3 == self._failures:
            # They are alike if they differ in no more than numbers.
            reasons = [result.reason for result in self.results.values()]
            if len({re.sub(r"[-+.\d]+", "", reason) for reason in reasons}) == 1:
                self.ended_because = f"the first three trials failed alike: {reasons[0]}"

    def _flush(self) -> None:
        """Bring what has happened to the disk."""
        lines, self._lines[:] = list(self._lines), []
        self._journal.append(lines)


def _lock(directory: Path) -> RunLock:
    """Let no other process go on with a sweep, until it is unlocked or forgotten."""
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}")
    return RunLock(directory, "is a sweep that is being trained")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

"""The scheduler of a sweep: starts, watches and records its trials, each exactly once.

The result of a trial is in the journal, synced to the disk, before it is in the result files and
before it is shown. So a sweep that is killed at any moment can be restored from its journal, and
the unfinished trials resume from their run directories.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from nnctl.config import Config
from nnctl.config.sweeps import SweepConfig
from nnctl.errors import NnctlError, UsageError
from nnctl.runs.history import epochs_of
from nnctl.runs.lock import DirectoryLock
from nnctl.runs.run import require_empty
from nnctl.sweeps import events
from nnctl.sweeps.journal import Journal
from nnctl.sweeps.plan import Plan, TrialFactory, trial_id
from nnctl.sweeps.results import ResultFiles, at_best_epoch
from nnctl.sweeps.space import Params, to_key
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import (
    FAILED,
    MetricHistory,
    Trial,
    TrialResult,
    append_log,
    history_so_far,
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
    history : MetricHistory
        Its metric so far.
    checked_at : float
        Time of the last check, from `time.monotonic`.
    seconds : float
        Training time so far.
    stop_reason : str, optional
        Why the sweep requested the trial to stop.
    """

    trial: Trial
    history: MetricHistory
    checked_at: float
    seconds: float = 0.0
    stop_reason: Literal["pruned", "timeout", "end of sweep"] | None = None

    def count_time(self) -> None:
        """Add the time since the last call, at most one second in case of a suspension."""
        now = time.monotonic()
        self.seconds += min(now - self.checked_at, _LONGEST_STEP)
        self.checked_at = now


class Sweep:
    """A sweep that is trained in its directory, which is locked until the sweep is closed.

    Parameters
    ----------
    state : SweepState
        State of the sweep, with its search.
    lock : DirectoryLock
        Lock of the sweep directory.
    factory : TrialFactory
        Factory of the trials.
    work : callable
        Function that trains a trial.
    """

    def __init__(
        self, state: SweepState, lock: DirectoryLock, factory: TrialFactory, work: TrainTrial
    ) -> None:
        self.state = state
        self.results = state.results
        """Results by trial number."""
        self.directory = state.directory
        self.warning = lock.warning
        """A warning for the user if nothing locks the directory; see `DirectoryLock`."""
        self.running: dict[Future[TrialResult], RunningTrial] = {}
        self.ended_because: str | None = None
        """Why the sweep stopped before its last trial, unless the user interrupted it."""
        self._lock = lock
        self._work = work
        self._journal = Journal(state.directory)
        self._pending: list[events.Event] = []  # not in the journal yet
        self._files = ResultFiles(state.directory, list(self.config.space))
        self._factory = factory
        self._waiting: deque[int] = deque()  # trial numbers
        self._only_known = False  # no new points are suggested
        self._limits = Limits()
        self._deaths: dict[int, int] = {}  # by trial: complete epochs when its worker last died
        self._error: NnctlError | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        plan: Plan,
        points: list[tuple[Params, Config]],
        factory: TrialFactory,
        work: TrainTrial = run_trial,
    ) -> Sweep:
        """Return a new sweep in an empty directory, after writing its plan to the journal.

        Raises
        ------
        NnctlError
            A dataset is not available, or the directory is not empty or cannot be written.
        """
        with _locked(directory) as lock:
            # Another process may have written here since the directory was chosen.
            require_empty(directory)
            sweep = cls(SweepState(directory, plan, searching=True), lock, factory, work)
            sweep._log(events.Created(plan=plan.to_json()))
            sweep._plan(points)
            sweep._flush()
            sweep._files.write([])
        return sweep

    @classmethod
    def resume(
        cls,
        directory: Path,
        factory: TrialFactory,
        extension: Mapping[str, Any] | None = None,
        *,
        retry_failed: bool = False,
        work: TrainTrial = run_trial,
    ) -> Sweep:
        """Return a sweep that resumes where it stopped.

        Parameters
        ----------
        directory : Path
            Sweep directory.
        factory : TrialFactory
            Factory of the unfinished trials.
        extension : mapping, optional
            Arguments of `Plan.extended`.
        retry_failed : bool
            Whether to train only the failed trials, again.
        work : callable
            Function that trains a trial.

        Raises
        ------
        NnctlError
            It is not a sweep directory, the journal is damaged, or a dataset is not available.
        UsageError
            `retry_failed` is set and no trial has failed, but some are unfinished; or the sweep
            cannot be extended in this way.
        """
        next(Journal(directory).read())  # fails before a lock file is created
        with _locked(directory) as lock:
            Journal(directory).repair()
            state = SweepState.read(directory, searching=True)
            if retry_failed and state.left and not state.failed:
                raise UsageError(
                    f"no trial of {directory} has failed",
                    hint=f"Unfinished trials: {state.left}. To resume without --retry-failed: "
                    f"{shell_command('nnctl', 'sweep', '--resume', directory)}",
                )
            plan = state.plan.extended(**extension or {})
            if plan is not state.plan:
                _check_extension(plan, state, factory)
            sweep = cls(state, lock, factory, work)
            if plan is not state.plan:
                sweep._log(events.Extended(plan=plan.to_json()))
            for trial in state.failed if retry_failed else state.unfinished:
                state.results.pop(trial, None)
            sweep._restore(only=state.failed if retry_failed else None)
            sweep._files.write(state.results.values())
        return sweep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.unlock()

    @property
    def config(self) -> SweepConfig:
        """The configuration of the sweep."""
        return self.state.plan.sweep

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
        self._limits = limits or Limits()
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
            if not self.running and (ending or self._is_done):
                break
            self._check_running(workers, ending)
            ended = self._wait()
        self._files.write(self.results.values())
        if self._error:
            raise self._error

    def _start_trials(self, workers: WorkerPool) -> None:
        """Start a trial on each free worker while trials remain."""
        for _ in range(workers.free()):
            try:
                trial = self._next_trial()
            except NnctlError as error:  # for example, a dataset was removed
                self._error = self._error or error
                return
            if trial is None:
                return
            future = workers.submit(self._work, trial)
            history = MetricHistory(trial.directory, self.config.ranked_by)
            self.running[future] = RunningTrial(trial, history, time.monotonic())
            self._log(events.Started(trial=trial.number))

    def _wait(self) -> list[TrialResult]:
        """Wait a moment for trials to end; return their results."""
        if not self.running:
            time.sleep(_TICK)  # no worker yet, but one may join
        done, _ = wait(self.running, _TICK, FIRST_COMPLETED)
        return [result for future in done if (result := self._conclude(future))]

    def _check_running(self, workers: WorkerPool, ending: bool) -> None:
        """Read the metrics of the running trials, and stop trials that should not continue."""
        timeout = self._limits.trial_timeout or math.inf
        for running in self.running.values():
            running.count_time()
            updated = running.history.read()
            if running.stop_reason is None:
                if ending:
                    running.stop_reason = "end of sweep"
                elif running.seconds > timeout:
                    running.stop_reason = "timeout"
                elif updated and self._should_prune(running):
                    running.stop_reason = "pruned"
                if running.stop_reason:
                    workers.request_stop(running.trial)
            if running.seconds > timeout + _GRACE:
                running.stop_reason = "timeout"
                workers.kill(running.trial)

    def _should_prune(self, running: RunningTrial) -> bool:
        point = self.state.planned[running.trial.number].point
        search = self.state.search
        return search is not None and search.should_prune(point, running.history.scores)

    def _conclude(self, future: Future[TrialResult]) -> TrialResult | None:
        """Record the result of a trial; return None if the trial has to start again."""
        running = self.running.pop(future)
        trial, result = running.trial, None
        try:
            result = future.result()
        except CancelledError:
            pass
        except BrokenExecutor:
            return self._conclude_dead(running)
        except NnctlError as error:  # for example a full disk, which does not depend on the trial
            self._error = self._error or error
        except Exception as error:
            result = TrialResult.failure(trial, f"{type(error).__name__}: {error}")
        stop_reason = running.stop_reason
        if result is None or (result.status == "interrupted" and stop_reason is None):
            self._waiting.appendleft(trial.number)
            return None
        if result.status == "interrupted" and stop_reason == "pruned":
            reason = f"pruned: worse than other trials after epoch {running.history.epoch}"
            append_log(trial, reason)
            result = result.model_copy(update={"status": "pruned", "reason": reason})
        elif result.status == "interrupted" and stop_reason == "timeout":
            reason = f"timeout: it took longer than {self._limits.trial_timeout:g} s"
            append_log(trial, reason)
            result = TrialResult.failure(trial, reason)
        return self._record(running, at_best_epoch(result, self.config.ranked_by))

    def _conclude_dead(self, running: RunningTrial) -> TrialResult | None:
        """Record that a worker died; the trial fails if it died before in the same epoch."""
        trial = running.trial
        if running.stop_reason == "timeout":
            reason = (
                f"timeout: it did not stop after {self._limits.trial_timeout:g} s and was killed"
            )
        else:
            append_log(trial, "the worker process died")
            # Read from the disk, as the trial may have progressed since its history was last read.
            epochs = epochs_of(history_so_far(trial.directory))
            previous = self._deaths.get(trial.number, -1)
            self._deaths[trial.number] = epochs
            if epochs > previous:
                self._waiting.append(trial.number)
                return None
            reason = "the worker process died twice in the same epoch: killed, or out of memory"
        append_log(trial, reason)
        return self._record(running, TrialResult.failure(trial, reason))

    def _record(self, running: RunningTrial, result: TrialResult) -> TrialResult:
        """Record a result, and stop the sweep if too many trials have failed."""
        scores, epochs = None, None
        if self.config.early_terminate:
            # Other trials are compared with all scores, including those since the last check.
            running.history.read()
            scores = [*running.history.scores.values()]
            if len(scores) != running.history.epoch:
                epochs = [*running.history.scores]
        self._log(events.Ended(**vars(result), scores=scores, scored_epochs=epochs))
        if result.status in FAILED:
            self._stop_after_failures()
        return result

    def _stop_after_failures(self) -> None:
        if self._is_done or self.ended_because:
            return
        reasons = [row.reason for row in self.results.values() if row.status in FAILED]
        if len(reasons) >= (self._limits.max_failures or math.inf):
            count = "1 trial" if len(reasons) == 1 else f"{len(reasons)} trials"
            self.ended_because = f"stopped after {count} failed"
        elif len(self.results) == 3 == len(reasons) and len(set(map(_error_kind, reasons))) == 1:
            self.ended_because = f"the first three trials failed with the same error: {reasons[0]}"

    # The queue: each point has one trial per seed and fold.

    def _plan(self, points: Iterable[tuple[Params, Config]]) -> None:
        """Queue the trials of a grid or of random points; the points of tpe are not known yet.

        Trials that are planned already stay unchanged.
        """
        state = self.state
        if self.config.method != "tpe":
            for point, config in points:
                # A process may have died after it planned only some of a point's trials.
                latest = state.planned.get(len(state.planned))
                is_new = latest is None or latest.parameters != point
                self._plan_point(state.last_point + is_new, point, config)
        self._log(events.PlanComplete(trials=len(state.planned)))

    def _restore(self, only: Container[int] | None = None) -> None:
        """Queue the trials without a result again, and complete the plan of a killed sweep.

        Parameters
        ----------
        only : container of int, optional
            Trial numbers; only these are queued, and no points are suggested.
        """
        state = self.state
        self._only_known = only is not None
        self._waiting.extend(
            trial
            for trial in state.planned
            if trial not in state.results and (only is None or trial in only)
        )
        last = state.planned.get(len(state.planned))
        if not state.is_planned:
            self._plan(state.plan.checked_points())
        elif last and last.suggestion is not None:
            config = state.plan.config_at(last.parameters)
            self._plan_point(last.point, last.parameters, config, last.suggestion)

    def _next_trial(self) -> Trial | None:
        """Return the trial to start next, or None if no trial can start now."""
        while not self._is_done and not self._waiting:
            self._suggest()
        if not self._waiting:
            return None
        planned = self.state.planned[self._waiting.popleft()]
        return self._factory.make(self.directory, planned)

    @property
    def _is_done(self) -> bool:
        """Whether the queue is empty and the search adds no more points."""
        return not self._waiting and (self._only_known or not self.state.to_suggest)

    def _suggest(self) -> None:
        """Queue the trials of the next suggested point."""
        state = self.state
        assert state.search is not None
        number = state.last_point + 1
        point, suggestion = state.search.ask(number)
        # Each value was checked alone, but some combinations may still be invalid.
        if not state.plan.allows(point):
            self._log(events.Impossible(point=number, suggestion=suggestion))
            return
        config = state.plan.config_at(point)
        if not self._plan_point(number, point, config, suggestion):
            same = state.numbers[trial_id(self._factory.resolve(config, config.training.seed))]
            self._log(events.Repeated(point=number, trial=same, suggestion=suggestion))

    def _plan_point(
        self,
        number: int,
        point: Params,
        config: Config,
        suggestion: events.Suggestion | None = None,
    ) -> bool:
        """Queue the trials of a point; return whether any of them is new."""
        state = self.state
        before = len(state.planned)
        first, sweep = config.training.seed, self.config
        folds = range(1, sweep.folds + 1) if sweep.folds else [None]
        for seed, fold in itertools.product(range(first, first + sweep.seeds), folds):
            if suggestion is None and (to_key(point), seed, fold) in state.known:
                continue
            resolved = self._factory.resolve(config, seed, fold)
            planned = events.Planned(
                trial=len(state.planned) + 1,
                id=trial_id(resolved),
                point=number,
                seed=seed,
                fold=fold,
                parameters=point,
                suggestion=suggestion,
                config=resolved,
            )
            if planned.id not in state.numbers:
                self._log(planned)
                self._waiting.append(planned.trial)
        return len(state.planned) > before

    def _log(self, event: events.Event) -> None:
        """Apply an event to the state; `_flush` adds it to the journal."""
        self.state.apply(event)
        self._pending.append(event)

    def _flush(self) -> None:
        """Append the new events to the journal."""
        pending, self._pending = self._pending, []
        self._journal.append(pending)


def _check_extension(plan: Plan, state: SweepState, factory: TrialFactory) -> None:
    """Check all points of an extended plan, and that new trials have the dataset of the others."""
    points = plan.checked_points()
    factory.fetch(points)
    first = state.planned.get(1)
    if first is None or plan.sweep.method == "tpe":
        return
    for point, config in points:
        if point == first.parameters:
            before = first.config["data"]["dataset"]
            now = factory.resolve(config, first.seed, first.fold)["data"]["dataset"]
            if now != before:
                raise UsageError(
                    f"the trials of {state.directory} have the dataset {before}; new ones would "
                    f"have {now}",
                    hint="Start a new sweep.",
                )


def _error_kind(reason: str) -> str:
    """Return a reason without its numbers, to compare errors by kind."""
    return re.sub(r"\d[\d.]*(e[-+]?\d+)?", "", reason)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[DirectoryLock]:
    """Lock a sweep directory against other processes; unlock it only if an error is raised."""
    lock = DirectoryLock(directory, "is a sweep that is being trained")
    try:
        yield lock
    except NnctlError:
        lock.unlock()
        raise

"""Workers in this process, for tests of sweeps that are not about processes."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from nnctl.sweeps.trials import Trial, TrialResult
from nnctl.sweeps.workers import TrainTrial, WorkerPool


class ThreadWorkers(WorkerPool):
    """Trains one trial after another in a thread; ignores the requested size.

    If `work` is given, it replaces the work of the sweep.
    """

    def __init__(self, size: int = 1, work: TrainTrial | None = None) -> None:
        self.size = size
        self.killed: list[int] = []
        self._work = work
        self._executor = ThreadPoolExecutor(1)
        self._trial: int | None = None
        self._stop = threading.Event()

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        assert self._trial is None
        self._trial = trial.number
        self._stop.clear()
        return self._executor.submit(self._train, self._work or work, trial)

    def _train(self, work: TrainTrial, trial: Trial) -> TrialResult:
        try:
            return work(trial, trial.dataset, self._stop.is_set)
        finally:
            self._trial = None

    def free(self) -> int:
        return int(self._trial is None)

    def request_stop(self, trial: Trial) -> None:
        if self._trial == trial.number:
            self._stop.set()

    def kill(self, trial: Trial) -> None:
        """Record the trial; its work has to check this, as a thread cannot be killed."""
        self.killed.append(trial.number)

    def kill_all(self) -> None:
        self._stop.set()

    def shutdown(self) -> None:
        self._executor.shutdown()

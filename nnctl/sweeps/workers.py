"""Interface of the worker pools: local processes (`pool`) and Dask clusters (`dask_cluster`)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, Self

from nnctl.data.dataset import Dataset
from nnctl.sweeps.trials import Trial, TrialResult

TrainTrial = Callable[[Trial, Dataset, Callable[[], bool]], TrialResult]
"""Function that trains a trial; it saves and stops when its last argument returns True.

See `run_trial`.
"""


class WorkerPool(Protocol):
    """Pool of workers, each of which trains one trial at a time.

    While a trial trains, its run directory on *this* machine grows, wherever the worker is.
    """

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start to train a trial, or resume it from its run directory.

        The future raises BrokenExecutor if the worker process died. It is cancelled if the trial
        was lost for another reason and should start again.
        """

    def free(self) -> int:
        """Return the number of trials that can start now."""

    def request_stop(self, trial: Trial) -> None:
        """Request that a running trial saves its state and stops; its status is ``interrupted``."""

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial; its future raises BrokenExecutor."""

    def kill_all(self) -> None:
        """Kill all worker processes."""

    def shutdown(self) -> None:
        """Stop the workers when they are idle, and wait until they have stopped."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # such as a second Ctrl-C: do not wait for trials to save
            self.kill_all()
        self.shutdown()

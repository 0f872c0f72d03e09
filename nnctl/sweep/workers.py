"""What a sweep asks of the processes that train its trials, whether they are here or elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor, Future

from nnctl.data.dataset import Dataset
from nnctl.sweep.trials import Trial, TrialResult

Work = Callable[[Trial, Dataset, Callable[[], bool]], TrialResult]
"""Trains a trial; the last argument tells whether to save and end. See `run_trial`."""


class Workers(Executor):
    """Processes that train trials, one each at a time: an executor that knows its trials.

    While a trial is trained, its run directory *here* grows as if it were trained here. A future
    ends in a `TrialResult`; in BrokenExecutor, when the process that trained it has died; or it is
    cancelled, when it was lost through no fault of its own and should be begun again.
    """

    @abstractmethod
    def submit(self, work: Work, /, trial: Trial) -> Future[TrialResult]:  # type: ignore[override]
        """Begin to train a trial, or go on with it where its run directory stands."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # a second Ctrl-C, among others: wait for no trial to save
            self.kill_all()
        self.shutdown(wait=True)

    @abstractmethod
    def free(self) -> int:
        """Return how many more trials could begin now."""

    @abstractmethod
    def ask_to_stop(self, trial: Trial) -> None:
        """Let a trial that is trained save its state and end: its result is ``interrupted``."""

    @abstractmethod
    def kill(self, trial: Trial) -> None:
        """End the process that trains a trial at once: its future ends in BrokenExecutor."""

    @abstractmethod
    def kill_all(self) -> None:
        """End all processes that train, at once."""

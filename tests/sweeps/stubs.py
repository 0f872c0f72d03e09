"""Functions that replace the training of a trial; worker processes import them."""

from __future__ import annotations

import errno
import faulthandler
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor

from nnctl.data.dataset import Dataset
from nnctl.errors import StorageError
from nnctl.sweeps import process, trials
from nnctl.sweeps.trials import Trial, TrialResult, history_so_far, run_trial

Stop = Callable[[], bool]


def hold_after_two_epochs(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Train two epochs, then wait for the request to stop."""
    return _train_and_hold(trial, dataset, stop, lambda: 2)


def train_as_far_as_allowed(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Train `allowed_epochs` epochs; a test in the same process increases this number."""
    return _train_and_hold(trial, dataset, stop, lambda: allowed_epochs)


allowed_epochs = 0


def _train_and_hold(
    trial: Trial, dataset: Dataset, stop: Stop, epochs: Callable[[], int]
) -> TrialResult:
    def hold() -> bool:
        while not stop():
            if len(history_so_far(trial.directory)) < epochs():
                return False
            time.sleep(0.01)
        return True

    while len(history_so_far(trial.directory)) >= epochs():
        if stop():
            trials.append_log(trial, f"started by process {os.getpid()}, to hold")
            return TrialResult.failure(trial, "held").model_copy(update={"status": "interrupted"})
        time.sleep(0.01)
    return run_trial(trial, dataset, hold)


def print_and_raise_in_the_first(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Print from Python and from outside it, and raise during the first trial."""

    def fail() -> bool:
        print("printed by Python", file=sys.stderr)  # noqa: T201
        os.write(1, b"printed by a library\n")
        raise ZeroDivisionError("division")

    return run_trial(trial, dataset, fail if trial.number == 1 else stop)


def raise_differently(trial: Trial, *_: object) -> TrialResult:
    """Raise an error with a different message for each trial."""
    raise ValueError("abcdef"[trial.number])


def raise_with_a_number(trial: Trial, *_: object) -> TrialResult:
    """Raise errors whose messages differ only in a number."""
    raise ValueError(f"the loss was {10.0 ** (6 * trial.number):.4g}")


def raise_an_error(*_: object) -> TrialResult:
    """Raise an error that is not one of nnctl's."""
    raise ArithmeticError("two and two are five")


def wait_to_be_stopped(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Start to train only when the trial should stop."""
    while not stop():
        time.sleep(0.01)
    return run_trial(trial, dataset, stop)


class _Death(BaseException):
    pass


def die_every_two_epochs(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Behave, in a thread, like a process that dies after every two epochs."""
    done = len(history_so_far(trial.directory))

    def die() -> bool:
        if len(history_so_far(trial.directory)) >= done + 2:
            raise _Death
        return stop()

    try:
        return run_trial(trial, dataset, die)
    except _Death:
        raise BrokenExecutor from None


def die_at_once(*_: object) -> TrialResult:
    """Behave, in a thread, like a process that dies immediately."""
    raise BrokenExecutor


def crash_in_the_first(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Access invalid memory in the first trial."""
    if trial.number == 1:
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    return run_trial(trial, dataset, stop)


def hang(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Never end; write to the log when the trial should stop."""
    process._PATIENCE = 0.01
    trials.append_log(trial, f"started on {dataset.name}, to hang")
    while not stop():
        time.sleep(0.01)
    trials.append_log(trial, "requested to stop")
    while True:
        time.sleep(0.01)
        stop()


def find_the_disk_full(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Fail with a full disk, except for the first trial."""
    if trial.number > 1:
        raise StorageError(os.strerror(errno.ENOSPC), hint="Make room.")
    return run_trial(trial, dataset, stop)

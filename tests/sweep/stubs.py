"""Trials that go wrong, or slowly, for worker processes to import."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

from nnctl.data.dataset import Dataset
from nnctl.errors import StorageError
from nnctl.sweep import trials
from nnctl.sweep.trials import Trial, TrialResult, run_trial

Stop = Callable[[], bool]


def raise_in_the_first(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Raise what nobody foresaw, in the midst of the first trial."""
    if trial.number > 1:
        return run_trial(trial, dataset, stop)
    with mock.patch.object(trials, "TrainingRun", _Broken):
        return run_trial(trial, dataset, stop)


class _Broken:
    @staticmethod
    def begin(*_: object) -> None:
        """Do what no training does."""
        raise ZeroDivisionError("division")


def print_and_raise(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Print from Python and from another program, and raise."""
    print("said by Python", file=sys.stderr)  # noqa: T201
    subprocess.run([sys.executable, "-c", "print('said by a library')"], check=True)
    return raise_in_the_first(trial, dataset, stop)


def raise_differently(trial: Trial, *_: object) -> TrialResult:
    """Raise for another reason each time."""
    raise ValueError("abcdef"[trial.number])


def raise_with_a_number(trial: Trial, *_: object) -> TrialResult:
    """Raise alike, but for a number."""
    raise ValueError(f"the loss was {10.0 ** (6 * trial.number):.4g}")


def wait_for_the_word(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Begin to train when the word to stop has been given."""
    while not stop():
        time.sleep(0.01)
    return run_trial(trial, dataset, stop)


def die_after_two_epochs(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Train two epochs more than there are, and die as by the memory killer."""
    done = len(trials.metrics_so_far(trial.directory))

    def die() -> bool:
        if len(trials.metrics_so_far(trial.directory)) >= done + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return stop()

    return run_trial(trial, dataset, die)


def kill_the_first(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Die as by the memory killer."""
    if trial.number == 1:
        trials.note(trial, "about to die")
        os.kill(os.getpid(), signal.SIGKILL)
    return run_trial(trial, dataset, stop)


def crash(*_: object) -> TrialResult:
    """Touch memory that is not ours."""
    faulthandler._sigsegv()  # type: ignore[attr-defined]
    raise AssertionError


def hang_in_the_first(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Never listen to the word to stop."""
    while trial.number == 1:
        time.sleep(0.1)
    return run_trial(trial, dataset, stop)


def find_the_disk_full(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Find no room to write, except for the first trial."""
    if trial.number > 1:
        raise StorageError(os.strerror(errno.ENOSPC))
    return run_trial(trial, dataset, stop)


def hang(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Train until the word to stop, and then do not stop."""
    trials.note(trial, f"begun on {dataset.name}, to hang")
    while True:
        time.sleep(0.05)
        stop()


def train_slowly(trial: Trial, dataset: Dataset, stop: Stop) -> TrialResult:
    """Train, but take about a third of a second for an epoch."""

    def look_and_wait() -> bool:
        time.sleep(0.05)
        return stop()

    return run_trial(trial, dataset, look_and_wait)


def raise_an_error(*_: object) -> TrialResult:
    """Fail as nothing should."""
    raise ArithmeticError("two and two are five")

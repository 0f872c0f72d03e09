"""The local workers: processes of this machine, each of which may die without the others."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from nnctl.data.dataset import Dataset
from nnctl.sweep.trials import LOG, Trial, TrialResult
from nnctl.sweep.workers import Work, Workers

_GRACE = 10.0  # seconds that a worker without a parent has to save its state
_PATIENCE = 5.0  # seconds after the word to stop in which a trial that goes on must be stuck


class LocalPool(Workers):
    """Worker processes that begin when they are needed first, and train one trial after another.

    Each is an executor of a single process: so it is known which trial a process that dies was
    training, and all others go on.

    Parameters
    ----------
    size : int
        The number of processes.
    """

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")  # the same on every system
        words = context.RawArray("b", size)
        processes = context.RawArray("q", size)
        self._slots = [_Slot(index, context, words, processes) for index in range(size)]

    def submit(self, work: Work, /, trial: Trial) -> Future[TrialResult]:  # type: ignore[override]
        """Begin a trial in a process that is free."""
        slot = next(slot for slot in self._slots if slot.trial is None)
        return slot.begin(work, trial)

    def free(self) -> int:
        """Return the number of processes that train nothing."""
        return sum(slot.trial is None for slot in self._slots)

    def ask_to_stop(self, trial: Trial) -> None:
        """Let the process save the trial."""
        for slot in self._training(trial):
            slot.ask_to_stop()

    def kill(self, trial: Trial) -> None:
        """End the process at once."""
        for slot in self._training(trial):
            slot.kill()

    def kill_all(self) -> None:
        """End all processes at once.

        They ignore every signal but this, so that Ctrl-C in a terminal and a SIGTERM to the whole
        group leave it to the parent to let them save.
        """
        for slot in self._slots:
            slot.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end."""
        for slot in self._slots:
            slot.shutdown(wait, cancel_futures)

    def _training(self, trial: Trial) -> Iterator[_Slot]:
        return (slot for slot in self._slots if slot.trial == trial.number)


class _Slot:
    """One process at a time, and what of it is shared with it: a word to stop, and its number.

    The word is a byte in shared memory: a lock, as of an Event, could die with a worker.
    """

    def __init__(self, index: int, context: Any, words: Any, processes: Any) -> None:
        self.trial: int | None = None
        self._index = index
        self._context = context
        self._words = words
        self._processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def begin(self, work: Work, trial: Trial) -> Future[TrialResult]:
        self._words[self._index] = 0
        self.trial = trial.number
        try:
            future = self._started().submit(_work, work, trial)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._executor = None
            future = self._started().submit(_work, work, trial)
        future.add_done_callback(self._ended)
        return future

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            shared = (self._words, self._processes, self._index)
            self._executor = ProcessPoolExecutor(1, self._context, _start_worker, shared)
        return self._executor

    def _ended(self, future: Future[TrialResult]) -> None:
        if isinstance(future.exception(), BrokenProcessPool):
            self._executor = None
        self.trial = None

    def ask_to_stop(self) -> None:
        self._words[self._index] = 1

    def kill(self) -> None:
        for process in multiprocessing.active_children():
            if process.pid == self._processes[self._index]:
                process.kill()

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        if self._executor:
            self._executor.shutdown(wait, cancel_futures=cancel_futures)


class _Worker:
    """The state of a worker process."""

    words: Any
    index: int
    busy = False
    datasets: dict[str, Dataset]

    @classmethod
    def should_stop(cls) -> bool:
        return bool(cls.words[cls.index])


def _start_worker(words: Any, processes: Any, index: int) -> None:
    """Prepare a worker: its parent tells it to stop, no signal does; it ends with its parent."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _Worker.words, _Worker.index, _Worker.datasets = words, index, {}
    processes[index] = os.getpid()
    for watch in (_end_with_parent, _tell_where_it_is_stuck):
        threading.Thread(target=watch, daemon=True).start()


def _work(work: Work, trial: Trial) -> TrialResult:
    """Train a trial in a worker; what its process prints goes to the trial's log."""
    # Its images, once read, are there for the next trial.
    dataset = _Worker.datasets.setdefault(trial.dataset.name, trial.dataset)
    _Worker.busy = True
    try:
        with _printing_to(trial.directory / LOG):
            return work(trial, dataset, _Worker.should_stop)
    finally:
        _Worker.busy = False


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Let stdout and stderr, also of libraries that are not Python's, be added to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab", buffering=0)
    except OSError:  # the training itself will tell
        yield
        return
    with log:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            faulthandler.enable(2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def _end_with_parent() -> None:
    """Save what is being trained when the parent has died, and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    deadline = time.monotonic() + _GRACE
    _Worker.words[_Worker.index] = 1
    while _Worker.busy and time.monotonic() < deadline:
        time.sleep(0.05)
    os._exit(1)


def _tell_where_it_is_stuck() -> None:
    """Print the stack of a trial that does not listen to the word to stop, to its log."""
    asked: float | None = None
    while True:
        time.sleep(1)
        if not (_Worker.busy and _Worker.should_stop()):
            asked = None
        elif asked is None:
            asked = time.monotonic()
        elif time.monotonic() - asked > _PATIENCE:
            asked = float("inf")  # once is enough
            faulthandler.dump_traceback(2)

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
from nnctl.files import require_own
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
        self._slots = [_Slot(index, context, words) for index in range(size)]

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
    """One process at a time, and what is shared with it: a word to stop.

    It is a byte in shared memory: a lock, as of an Event, could die with a worker.
    """

    def __init__(self, index: int, context: Any, words: Any) -> None:
        self.trial: int | None = None
        self._index = index
        self._context = context
        self._words = words
        self._executor: ProcessPoolExecutor | None = None

    def begin(self, work: Work, trial: Trial) -> Future[TrialResult]:
        self._words[self._index] = 0
        self.trial = trial.number
        with _signals_held_back():
            try:
                future = self._started().submit(_work, work, trial)
            except BrokenProcessPool:  # it died while it had nothing to do
                self._executor = None
                future = self._started().submit(_work, work, trial)
        future.add_done_callback(self._ended)
        return future

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            shared = (self._words, self._index)
            self._executor = ProcessPoolExecutor(1, self._context, _start_worker, shared)
        return self._executor

    def _ended(self, future: Future[TrialResult]) -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenProcessPool):
            self._executor = None
        self.trial = None

    def ask_to_stop(self) -> None:
        self._words[self._index] = 1

    def kill(self) -> None:
        # Before Python 3.14 an executor has no other way to end its process, and a process that
        # is only starting is known to nobody else.
        started: dict[int, Any] = dict(getattr(self._executor, "_processes", None) or {})
        for process in started.values():
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


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let a process that is started here hear no signal until it can ignore them.

    Windows cannot do that; there an interrupt while a process starts is told by that process, too.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signals() -> list[signal.Signals]:
    """Return the signals that are the parent's to hear."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _start_worker(words: Any, index: int) -> None:
    """Prepare a worker: its parent tells it to stop, no signal does; it ends with its parent."""
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals())
    _Worker.words, _Worker.index, _Worker.datasets = words, index, {}
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
        require_own(path)
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
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as where there is no console
                    stream.flush()
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

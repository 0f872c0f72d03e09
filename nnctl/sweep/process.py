"""What a local worker process runs: it trains one trial after another until its parent is gone.

Imports only the standard library and small modules at the top, so that signals are ignored, and
output is redirected, before NumPy is imported; an import that fails is then reported to the parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnctl.errors import NnctlError
from nnctl.files import require_own

if TYPE_CHECKING:
    from nnctl.data.dataset import Dataset

STOP = "stop"
"""Sent to a worker: save the trial and return it as interrupted."""
READY = "ready"
"""Sent by a worker first: it has started, and reads what it is sent."""
GRACE = 10.0
"""Seconds that a worker without a parent has to save its state."""
_PATIENCE = 5.0  # seconds after STOP before the stack of a trial that goes on is logged


def signals_of_the_parent() -> list[signal.Signals]:
    """Return the signals that only the parent handles."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def serve(orders: Connection, results: Connection, log: Path) -> None:
    """Train trials until the parent closes the pipe or dies.

    Parameters
    ----------
    orders : Connection
        Receives pairs of a `Work` and a `Trial`, and `STOP`.
    results : Connection
        Sends `READY`, then the `TrialResult` of each trial or the exception it ended in. An
        exception in place of `READY` says why the worker cannot start.
    log : Path
        File for the output of this process until the first trial begins.
    """
    for number in signals_of_the_parent():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals_of_the_parent())
    _print_to(log)
    faulthandler.enable(2)
    inbox = _Inbox()
    message: Any = READY
    try:
        from nnctl.sweep.trials import LOG

        threading.Thread(target=inbox.receive, args=(orders,), daemon=True).start()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        message = NnctlError(f"a worker process cannot start: {reason}", hint=f"See also {log}.")
        inbox.trials.put(None)
    datasets: dict[str, Dataset] = {}
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        results.send(message)
        while (order := inbox.trials.get()) is not None:
            if isinstance(order, Exception):
                results.send(order)
                continue
            work, trial = order
            # The images of a dataset are read once and kept for the next trial.
            dataset = datasets.setdefault(trial.dataset.name, trial.dataset)
            _print_to(trial.directory / LOG)
            try:
                outcome = work(trial, dataset, inbox.should_stop)
            except Exception as error:
                outcome = error
            inbox.rest()
            results.send(outcome)


class _Inbox:
    """What the parent has sent."""

    def __init__(self) -> None:
        self.trials: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stop = False
        self._busy = False
        self._lock = threading.Lock()

    def should_stop(self) -> bool:
        return self._stop

    def rest(self) -> None:
        """Note that the trial has ended."""
        with self._lock:
            self._busy = False
            faulthandler.cancel_dump_traceback_later()

    def receive(self, orders: Connection) -> None:
        """Receive, in a thread, until the parent closes the pipe or dies; then end the process."""
        while True:
            try:
                message = orders.recv()
            except (EOFError, OSError):
                break
            except Exception as error:  # its module cannot be imported here
                message = error
            if message == STOP:
                self._ask_to_stop()
            else:
                with self._lock:
                    self._busy, self._stop = True, False  # an earlier STOP came too late
                self.trials.put(message)
        self._stop = True
        self.trials.put(None)
        time.sleep(GRACE)
        os._exit(1)

    def _ask_to_stop(self) -> None:
        self._stop = True
        with self._lock:
            if self._busy:
                # Without a thread for this, a trial that hangs leaves no stack in its log.
                with contextlib.suppress(RuntimeError):
                    faulthandler.dump_traceback_later(_PATIENCE, file=2)


def _print_to(path: Path) -> None:
    """Append stdout and stderr to a file, including those of libraries that are not Python's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_own(path)
        log = path.open("ab", buffering=0)
    except OSError:  # the training reports it
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as where there is no console
            stream.flush()
    with log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)

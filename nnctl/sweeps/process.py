"""Main function of a local worker process: trains trials until the parent process is gone.

The top of this module imports only the standard library and small modules. So signals are ignored
and output is redirected before NumPy is imported, and a failed import is reported to the parent.
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
"""Message to a worker: save the trial and return it as interrupted."""
READY = "ready"
"""First message of a worker: it has started and reads messages."""
GRACE = 10.0
"""Seconds in which a worker whose parent is gone may save its state."""
_PATIENCE = 5.0  # seconds after STOP until the stack of a trial that still runs is logged


def signals_of_the_parent() -> list[signal.Signals]:
    """Return the signals that only the parent handles."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def serve(tasks: Connection, results: Connection, log: Path) -> None:
    """Train trials until the parent closes the pipe or dies.

    Parameters
    ----------
    tasks : Connection
        Pipe that receives pairs of a `TrainTrial` and a `Trial`, and `STOP`.
    results : Connection
        Pipe that sends `READY`, then for each trial its `TrialResult` or the exception that it
        raised. An exception instead of `READY` is the reason why the worker cannot start.
    log : Path
        File for the output of this process until the first trial starts.
    """
    for number in signals_of_the_parent():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals_of_the_parent())
    _redirect_output(log)
    faulthandler.enable(2)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        try:
            from nnctl.sweeps.trials import LOG

            threading.Thread(target=_receive, args=(tasks, received, stop), daemon=True).start()
        except Exception as error:
            reason = f"cannot start a worker process: {type(error).__name__}: {error}"
            results.send(NnctlError(reason, hint=f"See also {log}."))
            return
        results.send(READY)
        datasets: dict[str, Dataset] = {}
        while (task := received.get()) is not None:
            if isinstance(task, Exception):
                results.send(task)
                continue
            work, trial = task
            # The dataset object caches its images, so the next trial does not read them again.
            dataset = datasets.setdefault(trial.dataset.name, trial.dataset)
            _redirect_output(trial.directory / LOG)
            try:
                outcome = work(trial, dataset, stop.is_set)
            except Exception as error:
                outcome = error
            faulthandler.cancel_dump_traceback_later()
            results.send(outcome)


def _receive(tasks: Connection, received: queue.SimpleQueue[Any], stop: threading.Event) -> None:
    """Receive messages until the parent closes the pipe or dies; then exit."""
    while True:
        try:
            message = tasks.recv()
        except (EOFError, OSError):
            break
        except Exception as error:  # the module of a pickled object cannot be imported
            message = error
        if message == STOP:
            stop.set()
            # If no thread can start for this, the log of a hanging trial has no stack.
            with contextlib.suppress(RuntimeError):
                faulthandler.dump_traceback_later(_PATIENCE, file=2)
        else:
            stop.clear()  # an earlier STOP came too late
            faulthandler.cancel_dump_traceback_later()
            received.put(message)
    stop.set()
    received.put(None)
    time.sleep(GRACE)
    os._exit(1)


def _redirect_output(path: Path) -> None:
    """Append stdout and stderr to a file, including the output of C libraries."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_own(path)
        log = path.open("ab", buffering=0)
    except OSError:  # the training reports it
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if the process has no console
            stream.flush()
    with log:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(log.fileno(), number)
            # On Windows, the stream of a console cannot write to a file.
            stream = open(number, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)

"""Local workers: processes of this machine, each of which may die without the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from nnctl.errors import NnctlError, UsageError, limit_hint
from nnctl.sweep.process import GRACE, STOP, serve, signals_of_the_parent
from nnctl.sweep.trials import LOG, Trial, TrialResult
from nnctl.sweep.workers import Work, Workers

_START = 120.0  # seconds in which a worker must have started, however busy the machine is

_ENVIRONMENT = {
    # `python -c`, with which multiprocessing starts an interpreter, imports from the current
    # directory first, and somebody else may have written what is there.
    "PYTHONSAFEPATH": "1",
    # Trials use BLAS on one thread each. Where OpenBLAS cannot start another thread, it sends
    # itself a SIGINT, which workers ignore, and then waits for that thread forever.
    "OPENBLAS_NUM_THREADS": "1",
}


class LocalPool(Workers):
    """Worker processes that start when they are first needed, and train one trial after another.

    Each has pipes of its own, and no lock or memory is shared: so it is known which trial a process
    that dies was training, and all others go on.

    Parameters
    ----------
    size : int
        Number of processes.

    Raises
    ------
    UsageError
        The current directory was removed, where no process can start.
    """

    def __init__(self, size: int) -> None:
        try:
            Path.cwd()
        except FileNotFoundError as error:
            raise _cannot_start(error) from None
        self._size = size
        self._workers: list[_Worker] = []

    def submit(self, work: Work, /, trial: Trial) -> Future[TrialResult]:  # type: ignore[override]
        """Begin a trial in a process that is free."""
        self._workers = [worker for worker in self._workers if worker.is_running]
        for worker in self._workers:
            if worker.future is None and (future := worker.begin(work, trial)):
                return future
        worker = _Worker()
        self._workers.append(worker)  # first, so that an interrupt while it starts finds it
        return worker.start(work, trial)

    def free(self) -> int:
        """Return the number of processes that train nothing."""
        return self._size - sum(worker.future is not None for worker in self._workers)

    def ask_to_stop(self, trial: Trial) -> None:
        """Ask the process to save the trial."""
        for worker in self._training(trial):
            worker.ask_to_stop()

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial."""
        for worker in self._training(trial):
            worker.kill()

    def kill_all(self) -> None:
        """Kill all processes.

        They ignore every other signal: after Ctrl-C in a terminal or a SIGTERM to the whole group,
        the parent asks them to save.
        """
        for worker in self._workers:
            worker.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers if wait else ():
            worker.join()

    def _training(self, trial: Trial) -> list[_Worker]:
        return [it for it in self._workers if it.future and it.trial == trial.number]


class _Worker:
    """A process, and the thread that receives what it sends."""

    _process: SpawnProcess
    _orders: Connection
    _results: Connection

    def __init__(self) -> None:
        self.future: Future[TrialResult] | None = None
        self.trial = 0
        self.is_running = False
        self._order: tuple[Work, Trial]
        self._asked = self._is_ready = False
        self._lock = threading.Lock()  # for all of these
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def start(self, work: Work, trial: Trial) -> Future[TrialResult]:
        """Start the process, for its first trial."""
        future = self.future = Future()
        self.trial, self._order = trial.number, (work, trial)
        context = multiprocessing.get_context("spawn")  # the same on every system
        try:
            with _starting():
                orders, self._orders = context.Pipe(duplex=False)
                self._results, results = context.Pipe(duplex=False)
                with orders, results:  # the process gets copies
                    arguments = orders, results, trial.directory / LOG
                    self._process = context.Process(target=serve, args=arguments)
                    self._process.start()
                self.is_running = True
                self._thread.start()
        except (OSError, RuntimeError) as error:  # there can be no process, or no thread
            self.kill()
            self.is_running = False
            self._settle(_cannot_start(error))
        return future

    def begin(self, work: Work, trial: Trial) -> Future[TrialResult] | None:
        """Begin another trial; return None if the process has ended."""
        with self._lock:
            if not self.is_running:
                return None
            future = self.future = Future()
            self.trial = trial.number
            self._order, self._asked = (work, trial), False
            self._send(self._order)
        return future

    def ask_to_stop(self) -> None:
        with self._lock:
            self._asked = True
            if self._is_ready:
                self._send(STOP)

    def kill(self) -> None:
        if self.is_running:
            self._process.kill()

    def dismiss(self) -> None:
        """Let the process end when it is idle."""
        if self.is_running:
            with self._lock:
                self._orders.close()

    def join(self) -> None:
        """Wait for the end of the process; kill it if it does not end."""
        if self.is_running:
            self._thread.join(GRACE)
            self.kill()
            self._thread.join(GRACE)

    def _send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it has just died, as `_receive` finds, or is dismissed
            self._orders.send(message)

    def _receive(self) -> None:
        """Receive, in the thread, until the process ends."""
        error: Exception = BrokenExecutor("the worker process died")
        try:
            if not self._results.poll(_START):
                self._process.kill()
            started = self._results.recv()
            if isinstance(started, Exception):
                raise started
            with self._lock:
                self._is_ready = True
                self._send(self._order)
                if self._asked:
                    self._send(STOP)
            while True:
                self._settle(self._results.recv())
        except (EOFError, OSError):
            pass
        except Exception as other:  # why it could not start, or that a message cannot be read
            error = other
        with self._lock:
            self.is_running = False
        self._results.close()
        self._process.kill()
        self._process.join()
        self._settle(error)

    def _settle(self, outcome: TrialResult | Exception) -> None:
        with self._lock:
            future, self.future = self.future, None
        if future is None:
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _cannot_start(error: OSError | RuntimeError) -> NnctlError:
    if isinstance(error, FileNotFoundError):  # also when it is removed later
        return UsageError(
            "no worker process can start: the current directory does not exist any more",
            hint="Change to another directory (cd), and name the sweep by its absolute path.",
        )
    return NnctlError(
        f"a worker process cannot be started: {getattr(error, 'strerror', None) or error}",
        hint=limit_hint(error)
        or "Use fewer --workers, or raise the limits on processes and memory (ulimit -u, "
        "ulimit -v; in a container, its limits on pids and memory).",
    )


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Prepare this process for starting another one, which inherits environment and signal mask.

    The new process receives no signal before it ignores them. Windows cannot do that: there, an
    interrupt while a process starts is reported by that process, too.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    mask = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            from multiprocessing import resource_tracker

            with warnings.catch_warnings():
                # If somebody killed the tracker: it has nothing to track here.
                warnings.simplefilter("ignore")
                resource_tracker.ensure_running()  # it would unblock signals later
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals_of_the_parent())
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

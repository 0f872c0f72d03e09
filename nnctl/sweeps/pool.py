"""Pool of worker processes on this machine; one can die without affecting the others."""

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
from nnctl.sweeps.process import GRACE, STOP, serve, signals_of_the_parent
from nnctl.sweeps.trials import LOG, Trial, TrialResult
from nnctl.sweeps.workers import TrainTrial, WorkerPool

_START = 120.0  # seconds for a worker to start, even on a busy machine

_ENVIRONMENT = {
    # multiprocessing starts interpreters with `python -c`, which imports from the current
    # directory first; its files may come from other users.
    "PYTHONSAFEPATH": "1",
    # Each trial uses BLAS on one thread. If OpenBLAS cannot start another thread, it sends itself
    # a SIGINT, which workers ignore, and then waits for that thread forever.
    "OPENBLAS_NUM_THREADS": "1",
}


class LocalPool(WorkerPool):
    """Pool of local worker processes, which start on demand and train one trial after another.

    Each worker has its own pipes and shares no lock and no memory with others. So when a process
    dies, it is clear which trial it was training, and the other workers continue.

    Parameters
    ----------
    size : int
        Number of processes.

    Raises
    ------
    UsageError
        The current directory does not exist any more, so no process can start.
    """

    def __init__(self, size: int) -> None:
        try:
            Path.cwd()
        except FileNotFoundError as error:
            raise _cannot_start(error) from None
        self._size = size
        self._workers: list[_Worker] = []

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start a trial in an idle process, or in a new one."""
        self._workers = [worker for worker in self._workers if worker.is_running]
        for worker in self._workers:
            if worker.future is None and (future := worker.begin(work, trial)):
                return future
        worker = _Worker()
        self._workers.append(worker)  # first, so that an interrupt while it starts finds it
        return worker.start(work, trial)

    def free(self) -> int:
        """Return the number of trials that can start now."""
        return self._size - sum(worker.future is not None for worker in self._workers)

    def request_stop(self, trial: Trial) -> None:
        """Request that the process saves the trial and stops training it."""
        for worker in self._workers_of(trial):
            worker.request_stop()

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial."""
        for worker in self._workers_of(trial):
            worker.kill()

    def kill_all(self) -> None:
        """Kill all processes.

        They ignore all other signals: after Ctrl-C in a terminal, or SIGTERM to the process group,
        only the parent requests that they save.
        """
        for worker in self._workers:
            worker.kill()

    def shutdown(self) -> None:
        """Stop the processes once they are idle, and wait for them."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.join()

    def _workers_of(self, trial: Trial) -> list[_Worker]:
        return [w for w in self._workers if w.future and w.trial == trial.number]


class _Worker:
    """A worker process, and the thread that receives its results."""

    _process: SpawnProcess
    _tasks: Connection
    _results: Connection

    def __init__(self) -> None:
        self.future: Future[TrialResult] | None = None
        self.trial = 0
        self.is_running = False
        self._task: tuple[TrainTrial, Trial]
        self._stop_requested = self._is_ready = False
        self._lock = threading.Lock()  # protects the attributes above
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def start(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start the process with its first trial."""
        future = self.future = Future()
        self.trial, self._task = trial.number, (work, trial)
        context = multiprocessing.get_context("spawn")  # the same on every system
        try:
            with _starting():
                tasks, self._tasks = context.Pipe(duplex=False)
                self._results, results = context.Pipe(duplex=False)
                with tasks, results:  # the process gets copies
                    arguments = tasks, results, trial.directory / LOG
                    self._process = context.Process(target=serve, args=arguments)
                    self._process.start()
                self.is_running = True
                self._thread.start()
        except (OSError, RuntimeError) as error:  # the system allows no more processes or threads
            self.kill()
            self.is_running = False
            self._resolve(_cannot_start(error))
        return future

    def begin(self, work: TrainTrial, trial: Trial) -> Future[TrialResult] | None:
        """Start another trial; return None if the process has exited."""
        with self._lock:
            if not self.is_running:
                return None
            future = self.future = Future()
            self.trial = trial.number
            self._task, self._stop_requested = (work, trial), False
            self._send(self._task)
        return future

    def request_stop(self) -> None:
        with self._lock:
            self._stop_requested = True
            if self._is_ready:
                self._send(STOP)

    def kill(self) -> None:
        if self.is_running:
            self._process.kill()

    def close(self) -> None:
        """Let the process exit when it is idle."""
        if self.is_running:
            with self._lock:
                self._tasks.close()

    def join(self) -> None:
        """Wait until the process exits; kill it after a timeout."""
        if self.is_running:
            self._thread.join(GRACE)
            self.kill()
            self._thread.join(GRACE)

    def _send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it died, which `_receive` reports, or it was closed
            self._tasks.send(message)

    def _receive(self) -> None:
        """Receive results, in the thread, until the process exits."""
        error: Exception = BrokenExecutor("the worker process died")
        try:
            if not self._results.poll(_START):
                self._process.kill()
            first = self._results.recv()
            if isinstance(first, Exception):
                raise first
            with self._lock:
                self._is_ready = True
                self._send(self._task)
                if self._stop_requested:
                    self._send(STOP)
            while True:
                self._resolve(self._results.recv())
        except (EOFError, OSError):
            pass
        except Exception as reason:  # it could not start, or a message cannot be unpickled
            error = reason
        with self._lock:
            self.is_running = False
        self._results.close()
        self._process.kill()
        self._process.join()
        self._resolve(error)

    def _resolve(self, outcome: TrialResult | Exception) -> None:
        with self._lock:
            future, self.future = self.future, None
        if future is None:
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _cannot_start(error: OSError | RuntimeError) -> NnctlError:
    if isinstance(error, FileNotFoundError):  # the directory was removed
        return UsageError(
            "cannot start a worker process: the current directory does not exist any more",
            hint="Change to another directory (cd) and give the absolute path of the sweep.",
        )
    return NnctlError(
        f"cannot start a worker process: {getattr(error, 'strerror', None) or error}",
        hint=limit_hint(error)
        or "Use fewer --workers, or raise the limits on processes and memory (ulimit -u, "
        "ulimit -v; in a container, the pids and memory limits).",
    )


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Set the environment and signal mask that a new process inherits, then restore them.

    Signals stay blocked in the new process until it ignores them. Windows cannot block signals:
    there, a process that is interrupted while it starts also prints the interrupt.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    mask = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            from multiprocessing import resource_tracker

            with warnings.catch_warnings():
                # It warns if the tracker was killed, but there is nothing to track here.
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

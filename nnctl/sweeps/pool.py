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
    "VECLIB_MAXIMUM_THREADS": "1",  # BLAS of macOS, which threadpoolctl cannot limit
}


class LocalPool(WorkerPool):
    """Pool of local worker processes, which start on demand and train one trial after another.

    Each worker has its own pipes and shares no lock and no memory with others. So when a process
    dies, it is clear which trial it was training, and the other workers continue. A thread waits
    for the result of each running trial.

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
        self._workers = [_Worker() for _ in range(size)]
        self._idle = list(self._workers)
        self._busy: dict[int, _Worker] = {}  # by trial number

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start a trial in an idle process, or in a new one."""
        future: Future[TrialResult] = Future()
        worker = self._busy[trial.number] = self._idle.pop()

        def resolve(outcome: TrialResult | Exception) -> None:
            self._idle.append(self._busy.pop(trial.number))
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        try:
            worker.begin(work, trial)
            threading.Thread(target=lambda: resolve(worker.receive()), daemon=True).start()
        except (OSError, RuntimeError) as error:  # the system allows no more processes or threads
            worker.kill()
            resolve(_cannot_start(error))
        return future

    def free(self) -> int:
        """Return the number of trials that can start now."""
        return len(self._idle)

    def request_stop(self, trial: Trial) -> None:
        """Request that the process saves the trial and stops training it."""
        if worker := self._busy.get(trial.number):
            worker.send(STOP)

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial."""
        if worker := self._busy.get(trial.number):
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


class _Worker:
    """A worker process, which starts with its first trial and again if it has died.

    All methods are called in the thread of the sweep, except `receive`.
    """

    _process: SpawnProcess | None = None
    _tasks: Connection
    _results: Connection
    _is_starting = False

    def begin(self, work: TrainTrial, trial: Trial) -> None:
        """Send a trial to the process; start the process if it does not run."""
        if self._process is None or not self._process.is_alive():
            self._start(trial.directory / LOG)
        self.send((work, trial))

    def _start(self, log: Path) -> None:
        context = multiprocessing.get_context("spawn")  # the same on every system
        with _starting():
            tasks, self._tasks = context.Pipe(duplex=False)
            self._results, results = context.Pipe(duplex=False)
            with tasks, results:  # the process gets copies
                process = context.Process(target=serve, args=(tasks, results, log))
                process.start()
            self._process, self._is_starting = process, True

    def send(self, message: object) -> None:
        """Send a message, unless the process has died, which `receive` reports."""
        with contextlib.suppress(OSError):
            self._tasks.send(message)

    def receive(self) -> TrialResult | Exception:
        """Wait for the result of the trial, or for the reason why there is none."""
        try:
            if self._is_starting:
                if not self._results.poll(_START):
                    self.kill()
                if isinstance(problem := self._results.recv(), Exception):
                    raise problem
                self._is_starting = False
            outcome: TrialResult | Exception = self._results.recv()
        except (EOFError, OSError):
            outcome = BrokenExecutor("the worker process died")
        except Exception as error:  # it could not start, or a message cannot be unpickled
            outcome = error
        else:
            return outcome
        self.kill()
        self.join()
        return outcome

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """Let the process exit when it is idle."""
        if self._process:
            self._tasks.close()

    def join(self) -> None:
        """Wait until the process exits; kill it after a timeout."""
        if self._process:
            self._process.join(GRACE)
            self._process.kill()
            self._process.join(GRACE)


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

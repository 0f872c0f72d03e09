"""The local executor: trials in worker processes, which a dead worker does not end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nnctl.data.dataset import Dataset
from nnctl.sweep.trials import Trial, TrialResult, failed, run_trial

_TICK = 0.25  # seconds between looks at what changed
_GRACE = 10.0  # seconds that a worker without a parent has to save its state


_MOST_WORKERS = 61  # Windows cannot wait for more processes at once


class _Worker:
    """The state of a worker process: the word to stop, and the datasets that it has read.

    The word is a byte in shared memory: a lock, as of an Event, could die with a worker.
    """

    stop: Any
    datasets: dict[str, Dataset]

    @classmethod
    def should_stop(cls) -> bool:
        return bool(cls.stop.value)


def _start_worker(stop: Any) -> None:
    """Prepare a worker: its parent tells it to stop, no signal does; it ends with its parent."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _Worker.stop, _Worker.datasets = stop, {}
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _Worker.stop.value = 1
    time.sleep(_GRACE)
    os._exit(1)


def _work(trial: Trial) -> TrialResult | None:
    """Run a trial in a worker; None for one that was not begun before the word to stop."""
    if _Worker.should_stop():
        return None
    dataset = _Worker.datasets.setdefault(trial.dataset.name, trial.dataset)
    return run_trial(trial, dataset, _Worker.should_stop)


def run_trials(
    trials: Sequence[Trial], workers: int, stop: Callable[[], bool]
) -> Iterator[TrialResult | None]:
    """Run trials in worker processes, and yield each result when it is there.

    When a worker dies (killed, or out of memory), the trials that were running are suspects: they
    go on alone, one after the other, and the one that kills its worker again has failed.

    Parameters
    ----------
    trials : sequence of Trial
        In the order in which they begin.
    workers : int
        The number of processes.
    stop : callable
        Tells whether to let the running trials save their state, and begin no others.

    Yields
    ------
    TrialResult or None
        None where nothing is new, a few times a second: a chance to look at the metrics.
    """
    waiting = {trial.number: trial for trial in trials}
    while waiting and not stop():
        try:
            for result in _run_pool(list(waiting.values()), workers, stop):
                if result:
                    del waiting[result.number]
                yield result
            return
        except BrokenProcessPool:
            suspects = [trial for trial in waiting.values() if trial.directory.exists()]
            if not suspects:  # the workers die before they begin: so would the next ones
                for trial in waiting.values():
                    yield failed(trial, "no worker process could be started")
                return
        for suspect in suspects:
            del waiting[suspect.number]
            try:
                yield from _run_pool([suspect], 1, stop)
            except BrokenProcessPool:
                yield failed(suspect, "its worker process died: killed, or out of memory")


def _run_pool(
    trials: Sequence[Trial], workers: int, stop: Callable[[], bool]
) -> Iterator[TrialResult | None]:
    """Run trials in one pool of processes; raise BrokenProcessPool when one of them dies."""
    context = multiprocessing.get_context("spawn")  # the same on every system
    stop_workers = context.RawValue("b", 0)
    pool = ProcessPoolExecutor(
        min(workers, len(trials), _MOST_WORKERS), context, _start_worker, (stop_workers,)
    )
    try:
        pending = {pool.submit(_work, trial) for trial in trials}
        while pending:
            done, pending = wait(pending, _TICK, FIRST_COMPLETED)
            if stop():
                stop_workers.value = 1
            if not done:
                yield None
            for future in done:
                if result := future.result():
                    yield result
    except (KeyboardInterrupt, BrokenProcessPool):
        _kill(pool)
        raise
    finally:
        stop_workers.value = 1
        pool.shutdown(wait=True, cancel_futures=True)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: a second Ctrl-C, or the siblings of a dead one.

    They ignore every signal but this, so that Ctrl-C in a terminal and a SIGTERM to the whole group
    leave it to the parent to let them save.
    """
    processes: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    for process in processes.values():
        process.kill()

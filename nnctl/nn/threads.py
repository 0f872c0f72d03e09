"""A team of threads that share the work of a training, synchronized by a barrier."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import numpy as np

Work = Callable[[int], None]


class ThreadTeam:
    """A team of threads; the first `run` starts them, and `stop` ends them.

    NumPy releases the interpreter lock while it computes with large arrays, so the threads run in
    parallel, and sleep between two runs. The threads of a multithreaded BLAS wait for each other in
    a busy loop instead: if other programs occupy the cores, a matrix product of 0.05 ms can take
    20 ms.

    With `size` 1 no thread is started, and `run` calls the work directly. With more, the calling
    thread only waits, because an interrupt (Ctrl-C) can stop it at any moment, also while other
    threads wait at the barrier.

    Parameters
    ----------
    size : int
        Number of threads.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        # One queue per thread: with a shared one, a fast thread could take the work of two.
        self._inboxes: list[queue.SimpleQueue[Work | None]] = []

    def run(self, work: Work) -> None:
        """Call `work` in every thread with the thread's number, and wait until all are done.

        Raises the first error of a thread, after all threads have ended their work.
        """
        if self.size == 1:
            work(0)
            return
        if not self._inboxes:
            self._start()
        for inbox in self._inboxes:
            inbox.put(work)
        errors = [self._outcomes.get() for _ in self._inboxes]
        for error in errors:
            if error and not isinstance(error, threading.BrokenBarrierError):
                self._barrier.reset()
                raise error

    def wait(self) -> None:
        """Wait at the barrier, within `run`, until all threads have reached it."""
        if self.size > 1:
            self._barrier.wait()

    def split(self, count: int) -> list[slice]:
        """Split `count` rows into one slice per thread; with few rows some slices are empty."""
        return [
            slice(count * i // self.size, count * (i + 1) // self.size) for i in range(self.size)
        ]

    def stop(self) -> None:
        """End the threads; the next `run` starts new ones."""
        self._barrier.abort()
        for inbox in self._inboxes:
            inbox.put(None)
        self._inboxes, self._outcomes = [], queue.SimpleQueue()

    def _start(self) -> None:
        self._barrier = threading.Barrier(self.size)
        self._inboxes = [queue.SimpleQueue() for _ in range(self.size)]
        for number, inbox in enumerate(self._inboxes):
            arguments = (number, inbox, self._outcomes, self._barrier)
            threading.Thread(target=_work_loop, args=arguments, daemon=True).start()


def _work_loop(
    number: int,
    inbox: queue.SimpleQueue[Work | None],
    outcomes: queue.SimpleQueue[BaseException | None],
    barrier: threading.Barrier,
) -> None:
    """Run the work from the inbox until it is None, and report the outcome of each."""
    np.seterr(over="ignore", invalid="ignore")  # no warning: the loss shows an overflow
    while (work := inbox.get()) is not None:
        try:
            work(number)
        except BaseException as error:  # `run` raises it in the calling thread
            barrier.abort()  # no other thread may wait for this one
            outcomes.put(error)
        else:
            outcomes.put(None)

"""Threads that take the same steps side by side, and wait for each other asleep."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

Work = Callable[[int], None]


class Crew:
    """Some threads; enter it to start them. Of one, nothing is started: it is this thread.

    NumPy lets other threads run while it works on large arrays. In a BLAS of its own threads these
    wait for each other in a loop: where other programs keep the cores busy, a product of a
    twentieth of a millisecond was seen to take twenty.

    Of several, none is the thread that asks for the work, since that one can be interrupted at any
    moment, also while the others wait for it.

    Parameters
    ----------
    size : int
        The number of threads.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> Self:
        self._barrier = threading.Barrier(self.size)
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        # A queue for each, so that nobody takes the work of another and all can meet.
        others = self.size if self.size > 1 else 0
        self._inboxes: list[queue.SimpleQueue[Work | None]] = [
            queue.SimpleQueue() for _ in range(others)
        ]
        for number, inbox in enumerate(self._inboxes):
            arguments = (number, inbox, self._ended, self._barrier)
            threading.Thread(target=_follow, args=arguments, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._barrier.abort()
        for inbox in self._inboxes:
            inbox.put(None)

    def run(self, work: Work) -> None:
        """Call `work` on every thread, each with its number, and return when all are done."""
        if self.size == 1:
            work(0)
            return
        if self._barrier.broken:
            self._barrier.reset()
        for inbox in self._inboxes:
            inbox.put(work)
        errors = [self._ended.get() for _ in self._inboxes]
        for error in errors:
            if error and not isinstance(error, threading.BrokenBarrierError):
                raise error

    def wait(self) -> None:
        """Wait, in the midst of `run`, until all threads have come so far."""
        if self.size > 1:
            self._barrier.wait()

    def divide(self, count: int) -> list[slice]:
        """Divide so many rows: a stretch for each thread, empty if there are too few."""
        return [
            slice(count * i // self.size, count * (i + 1) // self.size) for i in range(self.size)
        ]


def _follow(
    number: int,
    inbox: queue.SimpleQueue[Work | None],
    ended: queue.SimpleQueue[BaseException | None],
    barrier: threading.Barrier,
) -> None:
    """Do one work after the other, on a thread of its own."""
    np.seterr(over="ignore", invalid="ignore")  # no warning: an overflow is found by the loss
    while (work := inbox.get()) is not None:
        try:
            work(number)
        except BaseException as error:  # whatever it is, the thread that asked raises it
            barrier.abort()  # let nobody wait for this thread
            ended.put(error)
        else:
            ended.put(None)

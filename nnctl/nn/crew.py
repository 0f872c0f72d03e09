"""Threads that take the same steps side by side, and wait for each other asleep."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np


class Crew:
    """Some threads, this one among them; enter it to start the others.

    NumPy lets other threads run while it works on large arrays. In a BLAS of its own threads these
    wait for each other in a loop: where other programs keep the cores busy, a product of a
    twentieth of a millisecond was seen to take twenty.

    Parameters
    ----------
    size : int
        The number of threads; nothing is started, and nobody waits, for one.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)

    def __enter__(self) -> Self:
        self._barrier.reset()
        self._others = ThreadPoolExecutor(self.size, initializer=_ignore_overflow)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._others.shutdown()

    def run(self, work: Callable[[int], None]) -> None:
        """Call `work` on every thread, each with its number, and return when all are done."""
        others = [self._others.submit(self._work, work, i) for i in range(1, self.size)]
        try:
            self._work(work, 0)
        finally:
            for error in [other.exception() for other in others]:
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

    def _work(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException:
            self._barrier.abort()  # let nobody wait for this thread
            raise


def _ignore_overflow() -> None:
    """Let an overflow be no warning in a thread: it is found by the loss."""
    np.seterr(over="ignore", invalid="ignore")

"""A team of threads waits at the barrier, stops after errors, and does not warn of overflows."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading

import numpy as np
import pytest

from nnctl.nn.parallel import ThreadTeam
from nnctl.nn.types import Array

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_thread_runs_the_work_once(size: int) -> None:
    done: dict[int, str] = {}

    def work(i: int) -> None:
        done[i] = threading.current_thread().name
        crew.wait()

    with ThreadTeam(size) as crew:
        crew.run(work)
    assert set(range(size)) == set(done)
    assert (size == 1) == (threading.current_thread().name in done.values())
    assert len(set(done.values())) == size


def test_no_thread_passes_the_barrier_before_all_reach_it() -> None:
    size = 3
    written = np.zeros(size, int)
    seen: list[list[int]] = [[] for _ in range(size)]

    def work(i: int) -> None:
        for _ in range(200):
            written[i] += 1
            crew.wait()
            seen[i].append(int(written.min()))
            crew.wait()

    with ThreadTeam(size) as crew:
        crew.run(work)
    assert [[*range(1, 201)]] * size == seen


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_one_thread_is_raised_and_stops_all_threads(failing: int) -> None:
    def work(i: int) -> None:
        if i == failing:
            raise MemoryError(f"thread {i}")
        crew.wait()

    with ThreadTeam(3) as crew, pytest.raises(MemoryError, match=f"thread {failing}"):
        crew.run(work)
    done: list[int] = []
    with crew:
        crew.run(done.append)
        crew.run(lambda _: crew.wait())
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 1), (1, 3), (7, 3), (512, 4)])
def test_rows_are_divided_evenly(count: int, size: int) -> None:
    rows = [range(count)[part] for part in ThreadTeam(size).divide(count)]
    assert [*range(count)] == [row for part in rows for row in part]
    assert size == len(rows)
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_an_overflow_in_another_thread_does_not_warn() -> None:
    def overflow(i: int) -> None:
        results[i] = np.exp(np.full(4, 1e3, np.float32))

    results: dict[int, Array] = {}
    with ThreadTeam(3) as crew, np.errstate(over="ignore"):
        crew.run(overflow)
    assert all(np.isinf(results[i]).all() for i in range(3))


def test_the_barrier_works_after_any_earlier_work() -> None:
    for _ in range(100):
        with ThreadTeam(4) as crew:
            crew.run(lambda _: None)
            crew.run(lambda _: crew.wait())


def test_an_interrupt_leaves_no_thread_waiting() -> None:
    # A shell starts background processes with interrupts ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_crews()
    finally:
        signal.signal(signal.SIGINT, previous)


def interrupt_crews() -> None:
    for i in range(100):
        timer = threading.Timer(1e-5 * i, _thread.interrupt_main)
        with contextlib.suppress(KeyboardInterrupt), ThreadTeam(2) as crew:
            timer.start()
            while True:
                crew.run(lambda _: crew.wait())
        timer.join()
    with ThreadTeam(2) as crew:
        crew.run(lambda _: crew.wait())

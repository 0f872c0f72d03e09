"""Threads: as many as a step is worth, and none of the BLAS's own."""

from __future__ import annotations

from pathlib import Path

import threadpoolctl

from nnctl.config import from_mapping
from nnctl.runs.machine import cores, threads_that_fit
from tests.runs.helpers import begin


def test_a_large_step_gets_the_cores_there_are() -> None:
    """But no more than have some dozen examples each, and a step of one example gets one."""

    def threads(units: int, batch_size: int) -> int:
        layers = [{"units": units, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
        config = {
            "network": {"layers": layers},
            "optimizer": {"learning_rate": 0.1},
            "training": {"batch_size": batch_size},
        }
        return threads_that_fit(from_mapping(config, "test"), 784)

    assert threads(1024, 64) == min(cores(), 2)
    assert threads(512, 1024) == min(cores(), 32)
    assert [threads(100, 32), threads(30, 10), threads(4096, 1)] == [1, 1, 1]


def blas_threads() -> list[int]:
    """Return the threads that each BLAS of this process may use."""
    return [
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]


def test_the_blas_has_one_thread_while_a_run_is_trained_and_what_it_had_afterwards(
    tmp_path: Path,
) -> None:
    """Its threads wait for each other in a loop, which on busy cores takes very long."""
    before, training = blas_threads(), begin(tmp_path / "run")
    events = training.events(lambda: False)
    next(events)
    assert set(blas_threads()) == {1}
    assert [*events]
    assert before == blas_threads()

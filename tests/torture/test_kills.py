"""A training that is killed or interrupted repeatedly, at any moment, loses nothing."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.processes import Done, Processes, end_of
from tests.torture.conftest import Torture
from tests.torture.faults import Fault, Nursery
from tests.torture.hostile import PATIENCE
from tests.torture.trained import QUICK, Trained, assert_saved_whole

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    PATIENCE,
]

INTERRUPTS = {
    ("SIGTERM",): 50,
    ("SIGINT",): 25,
    ("SIGINT", "SIGINT"): 25,
    ("SIGHUP",): 12,
    ("SIGHUP", "SIGTERM"): 12,
}
"""Signals that a process receives, and the number of cases."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, nurseries: Nursery) -> Trained:
    """A training of short epochs."""
    return Trained(QUICK, tmp_path_factory.mktemp("quick"), nurseries)


def test_a_training_killed_before_any_write_resumes_to_the_same_bits(
    scratch: Path, nursery: Nursery, quick: Trained, torture: Torture
) -> None:
    rng = torture.random("steps")
    kills, run = 0, scratch / "run"
    while kills < torture.cases(3, full=60):
        torn = rng.choice([1, rng.random()])
        fault = Fault(below=str(run), kill_at=rng.randrange(1, 24), torn=torn)
        done = nursery.run(fault, *quick.arguments(run), "--quiet")
        if done.returncode == 0:
            quick.assert_is(run)
            shutil.rmtree(run)
            continue
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, ""), fault
        kills += 1
        assert_saved_whole(run)
    quick.assert_completes(run)
    torture.tried("kill -9 before a step of writing, or in the middle of it", kills)


@pytest.mark.parametrize("names", INTERRUPTS, ids=" ".join)
def test_a_training_interrupted_at_any_call_resumes_to_the_same_bits(
    scratch: Path, nursery: Nursery, quick: Trained, torture: Torture, names: tuple[str, ...]
) -> None:
    if not torture.full and names not in (("SIGTERM",), ("SIGINT", "SIGINT")):
        pytest.skip("tried by make torture")
    rng = torture.random("calls", *names)
    cases, run = torture.cases(3, full=INTERRUPTS[names]), scratch / "run"
    interrupted = 0
    for _ in range(cases):
        fault = interrupt(run, names, quick.calls, rng)
        done = nursery.run(fault, *quick.arguments(run))
        interrupted += quick.was_interrupted(run, done, once=len(names) == 1)
    assert interrupted > cases // 4
    quick.assert_completes(run)
    torture.tried(f"{' and '.join(names)} at a random call", cases)


def interrupt(run: Path, names: tuple[str, ...], calls: int, rng: random.Random) -> Fault:
    """Return signals at a random call, the second one soon after the first."""
    first = rng.randrange(1, calls)
    at = [first, first + rng.choice([rng.randrange(1, 50), rng.randrange(1, calls // 5)])]
    numbers = [getattr(signal, name) for name in names]
    return Fault(below=str(run), signals=numbers, signal_at=at[: len(names)])


def test_a_command_interrupted_at_any_call_prints_no_traceback(
    scratch: Path, quick: Trained, processes: Processes, torture: Torture
) -> None:
    def run_with(fault: Fault) -> Done:
        words = fault.command(*quick.arguments(run))
        return end_of(processes.start(words, stdout=PIPE, stderr=PIPE, encoding="utf-8"))

    rng, run = torture.random("imports"), scratch / "run"
    calls = quick.calls  # without the imports
    if torture.full:
        counting = Fault(below=str(run), counts=str(scratch / "counts.json"))
        run_with(counting)
        calls = counting.read_counts()["calls"]
        shutil.rmtree(run)
    cases, interrupted = torture.cases(1, full=20), 0
    for _ in range(cases):
        names = rng.choice(list(INTERRUPTS))
        done = run_with(interrupt(run, names, calls, rng))
        interrupted += quick.was_interrupted(run, done, once=len(names) == 1)
    assert interrupted > cases // 4
    torture.tried("a signal at a random call, while modules are imported", cases)

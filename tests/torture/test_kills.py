"""A training that is killed or interrupted at any moment, again and again, loses nothing."""

from __future__ import annotations

import gzip
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from nnctl.data.registry import TRAIN_IMAGES
from tests.conftest import CONFIGS
from tests.processes import Done, Processes, end_of
from tests.torture.conftest import Torture
from tests.torture.faults import HANGS, Fault, Nursery
from tests.torture.hostile import PATIENCE
from tests.torture.trained import QUICK, Trained, assert_saved_whole

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    PATIENCE,
]

HEAVY = {
    **QUICK,
    "network": {
        "layers": [{"units": 1500, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    },
    "training": {**QUICK["training"], "epochs": 8, "batch_size": 500},
}
"""Checkpoints of ten megabytes, which take as long to write as an epoch takes to train."""
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
INTERRUPTS = {
    ("SIGTERM",): 50,
    ("SIGINT",): 25,
    ("SIGINT", "SIGINT"): 25,
    ("SIGHUP",): 12,
    ("SIGHUP", "SIGTERM"): 12,
}
"""Signals that a process gets, and the number of cases."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, nurseries: Nursery) -> Trained:
    """A training of short epochs."""
    return Trained(QUICK, tmp_path_factory.mktemp("quick"), nurseries)


@pytest.fixture(scope="module")
def heavy(
    full_only: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
    nurseries: Nursery,
) -> Trained:
    """A training of large checkpoints."""
    return Trained(HEAVY, tmp_path_factory.mktemp("heavy"), nurseries)


def test_a_training_killed_before_any_step_of_writing_goes_on_to_the_same_bits(
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


def wait_for_a_checkpoint(run: Path, nursery: Nursery, rng: random.Random) -> None:
    """Wait until a checkpoint is being written."""
    before = set(run.glob(".*.npz.*"))
    while not set(run.glob(".*.npz.*")) - before and not nursery.is_over():
        time.sleep(0.0002)
    time.sleep(rng.uniform(0, 0.02))


def wait_for_an_epoch(run: Path, nursery: Nursery, _: random.Random) -> None:
    """Wait until the metrics have another line, perhaps before its checkpoint is written."""
    path = run / "metrics.jsonl"
    before = path.stat().st_size if path.exists() else 0
    while (not path.exists() or path.stat().st_size <= before) and not nursery.is_over():
        time.sleep(0.0002)


def test_a_training_killed_while_it_writes_much_goes_on_to_the_same_bits(
    scratch: Path, nursery: Nursery, heavy: Trained, torture: Torture
) -> None:
    rng = torture.random("moments")
    kills, run = 0, scratch / "run"
    while kills < 30:
        wait = (wait_for_a_checkpoint, wait_for_an_epoch, None)[kills % 3]
        nursery.start(Fault(below=str(run)), *heavy.arguments(run), "--quiet")
        if wait:
            wait(run, nursery, rng)
        else:
            time.sleep(rng.uniform(0, 0.4))
        nursery.kill()
        done = nursery.end()
        if done.returncode == 0:
            heavy.assert_is(run)
            shutil.rmtree(run)
            continue
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
        kills += 1
        assert_saved_whole(run)
    heavy.assert_completes(run)
    torture.tried("kill -9 at a random moment, or while a checkpoint is written", kills)


@pytest.mark.usefixtures("full_only")
def test_a_first_reading_of_mnist_that_is_killed_leaves_no_damaged_copy_that_is_used(
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    mnist_cache: Path,
    nursery: Nursery,
    torture: Torture,
) -> None:
    cache = scratch / "cache"
    monkeypatch.setenv("NNCTL_DATA_DIR", str(cache))
    copies, rng = cache / "uncompressed", torture.random("mnist")
    words = ("train", CONFIGS / "smoke.yaml", "--dataset", "mnist", "--subset", 100, "--epochs", 1)
    cases = 4
    for case in range(cases):
        cache.mkdir()
        (cache / "mnist").symlink_to(mnist_cache / "mnist")
        fault = Fault(below=str(copies), kill_at=rng.randrange(1, 5), torn=rng.random())
        killed = nursery.run(fault, *words, "--run-dir", f"killed-{case}")
        assert killed.returncode == -signal.SIGKILL, killed
        done = nursery.run(Fault(below=str(copies)), *words, "--run-dir", f"run-{case}")
        assert done.returncode == 0, done
        with gzip.open(cache / "mnist" / f"{TRAIN_IMAGES}.gz") as images:
            assert [path.read_bytes() for path in copies.iterdir()] == [images.read()]
        shutil.rmtree(cache)
    torture.tried("kill -9 while MNIST is read first", cases)


@pytest.mark.parametrize("names", INTERRUPTS, ids=" ".join)
def test_a_training_interrupted_at_any_call_goes_on_to_the_same_bits(
    scratch: Path, nursery: Nursery, quick: Trained, torture: Torture, names: tuple[str, ...]
) -> None:
    if not torture.full and names not in (("SIGTERM",), ("SIGINT", "SIGINT")):
        pytest.skip("tried by make torture")
    rng = torture.random("calls", *names)
    cases, run = torture.cases(4, full=INTERRUPTS[names]), scratch / "run"
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


def test_a_command_interrupted_at_any_call_from_its_first_line_on_shows_no_traceback(
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


@pytest.mark.usefixtures("full_only")
@pytest.mark.parametrize("name", NAMES)
def test_a_signal_from_outside_at_any_time_is_answered_with_130(
    scratch: Path, quick: Trained, processes: Processes, torture: Torture, name: str
) -> None:
    rng = torture.random("times", name)
    number = getattr(signal, name)
    run = scratch / "run"
    cases, before, interrupted = 8, 0, 0

    def saved() -> int:
        path = run / "last.npz"
        return path.stat().st_mtime_ns if path.exists() else 0

    for _ in range(cases):
        saved_before = saved()
        words = Fault(below=str(run)).command(*quick.arguments(run))
        process = processes.start(words, stdout=PIPE, stderr=PIPE, encoding="utf-8")
        once, trains = rng.random() < 0.5, rng.random() < 0.5
        while trains and saved() == saved_before and process.poll() is None:
            time.sleep(0.001)
        for seconds in [rng.uniform(0, 0.1 if trains else 1)] + [rng.expovariate(20)] * (not once):
            time.sleep(seconds)
            process.send_signal(number)  # nothing happens if it has ended
        done = end_of(process, HANGS)
        if done.returncode == -number or "init_import_site" in done.stderr:
            assert "nnctl/cli" not in done.stderr, done.stderr
            before += 1
            continue
        interrupted += quick.was_interrupted(run, done, once=once)
    torture.tried(f"{name} from outside, in time", interrupted)
    torture.tried(f"{name} from outside, when all was done", cases - before - interrupted)
    torture.tried(f"{name} from outside, before nnctl's first lines", before)

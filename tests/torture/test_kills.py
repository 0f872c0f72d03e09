"""A training is killed or interrupted at any moment, again and again: nothing is lost by it."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnctl.data.registry import TRAIN_IMAGES
from tests.conftest import CONFIGS
from tests.torture.conftest import Torture
from tests.torture.faults import HANGS, Child, Fault, Nursery
from tests.torture.trained import QUICK, Trained, assert_saved_whole, leave_to_those_who_try_all

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    pytest.mark.timeout(3600),  # a test is many cases, each of which has its own time to hang
]

HEAVY = {
    **QUICK,
    "network": {
        "layers": [{"units": 1500, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    },
    "training": {**QUICK["training"], "epochs": 8, "batch_size": 500},
}
"""Checkpoints of ten megabytes, which take as long to write as an epoch to train."""
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
INTERRUPTS = {
    ("SIGTERM",): 100,
    ("SIGINT",): 50,
    ("SIGINT", "SIGINT"): 50,
    ("SIGHUP",): 25,
    ("SIGHUP", "SIGTERM"): 25,
}
"""What a process is sent, and how often where all is tried."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Trained:
    """A training of short epochs."""
    return Trained(QUICK, tmp_path_factory.mktemp("quick"), nursery)


@pytest.fixture(scope="module")
def heavy(torture: Torture, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Trained:
    """A training of large checkpoints."""
    leave_to_those_who_try_all(torture)
    return Trained(HEAVY, tmp_path_factory.mktemp("heavy"), nursery)


def run_with(fault: Fault, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Carry out a command, in a process that imports all itself, that something happens to."""
    return subprocess.run(
        fault.command(*arguments), capture_output=True, encoding="utf-8", timeout=HANGS, check=False
    )


def test_a_training_killed_before_any_step_of_writing_goes_on_to_the_same_bits(
    scratch: Path, nursery: Nursery, quick: Trained, torture: Torture
) -> None:
    rng = torture.random("steps")
    kills, run = 0, scratch / "run"
    while kills < torture.cases(3, full=120):
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
    quick.assert_ends_as_ever(run)
    torture.tried("kill -9 before a step of writing, or in the middle of it", kills)


def wait_for_a_checkpoint(run: Path, child: Child, rng: random.Random) -> None:
    """Wait until a checkpoint is being written."""
    before = set(run.glob(".*.npz.*"))
    while not set(run.glob(".*.npz.*")) - before and not child.is_over():
        time.sleep(0.0002)
    time.sleep(rng.uniform(0, 0.02))


def wait_for_an_epoch(run: Path, child: Child, _: random.Random) -> None:
    """Wait until there is a line more of the metrics, and perhaps no checkpoint of it yet."""
    path = run / "metrics.jsonl"
    before = path.stat().st_size if path.exists() else 0
    while (not path.exists() or path.stat().st_size <= before) and not child.is_over():
        time.sleep(0.0002)


def test_a_training_killed_while_it_writes_much_goes_on_to_the_same_bits(
    scratch: Path, nursery: Nursery, heavy: Trained, torture: Torture
) -> None:
    rng = torture.random("moments")
    kills, run = 0, scratch / "run"
    while kills < 80:
        wait = (wait_for_a_checkpoint, wait_for_an_epoch, None)[kills % 3]
        child = nursery.start(Fault(below=str(run)), *heavy.arguments(run), "--quiet")
        if wait:
            wait(run, child, rng)
        else:
            time.sleep(rng.uniform(0, 0.4))
        child.kill()
        done = child.end()
        if done.returncode == 0:
            heavy.assert_is(run)
            shutil.rmtree(run)
            continue
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
        kills += 1
        assert_saved_whole(run)
    heavy.assert_ends_as_ever(run)
    torture.tried("kill -9 at a random moment, or while a checkpoint is written", kills)


def test_a_first_reading_of_mnist_that_is_killed_leaves_nothing_that_is_trusted(
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    mnist_cache: Path,
    nursery: Nursery,
    torture: Torture,
) -> None:
    leave_to_those_who_try_all(torture)
    cache = scratch / "cache"
    monkeypatch.setenv("NNCTL_DATA_DIR", str(cache))
    copies, rng = cache / "uncompressed", torture.random("mnist")
    words = ("train", CONFIGS / "smoke.yaml", "--dataset", "mnist", "--subset", 100, "--epochs", 1)
    cases = 6
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
    if names not in (("SIGTERM",), ("SIGINT", "SIGINT")):
        leave_to_those_who_try_all(torture)
    rng = torture.random("calls", *names)
    cases, run = torture.cases(4, full=INTERRUPTS[names]), scratch / "run"
    interrupted = 0
    for _ in range(cases):
        fault = interrupt(run, names, quick.calls, rng)
        done = nursery.run(fault, *quick.arguments(run))
        interrupted += quick.was_interrupted(run, done, once=len(names) == 1)
    assert interrupted > cases // 4
    quick.assert_ends_as_ever(run)
    torture.tried(f"{' and '.join(names)} at a random call", cases)


def interrupt(run: Path, names: tuple[str, ...], calls: int, rng: random.Random) -> Fault:
    """Return signals at one of so many calls, the second one soon after the first."""
    first = rng.randrange(1, calls)
    at = [first, first + rng.choice([rng.randrange(1, 50), rng.randrange(1, calls // 5)])]
    numbers = [getattr(signal, name) for name in names]
    return Fault(below=str(run), signals=numbers, signal_at=at[: len(names)])


def test_a_command_interrupted_at_any_call_from_its_first_line_on_shows_no_traceback(
    scratch: Path, quick: Trained, torture: Torture
) -> None:
    rng = torture.random("imports")
    told, run = scratch / "told.json", scratch / "run"
    run_with(Fault(below=str(run), told=str(told)), *quick.arguments(run))
    calls = json.loads(told.read_text("utf-8"))["calls"]
    shutil.rmtree(run)
    cases, interrupted = torture.cases(1, full=40), 0
    for _ in range(cases):
        names = rng.choice(list(INTERRUPTS))
        done = run_with(interrupt(run, names, calls, rng), *quick.arguments(run))
        interrupted += quick.was_interrupted(run, done, once=len(names) == 1)
    assert interrupted > cases // 4
    torture.tried("a signal at a random call, while modules are imported", cases)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_from_outside_at_any_time_is_answered_with_130(
    scratch: Path, quick: Trained, torture: Torture, name: str
) -> None:
    leave_to_those_who_try_all(torture)
    rng = torture.random("times", name)
    number = getattr(signal, name)
    run = scratch / "run"
    cases, before, interrupted = 12, 0, 0

    def saved() -> int:
        path = run / "last.npz"
        return path.stat().st_mtime_ns if path.exists() else 0

    for _ in range(cases):
        saved_before = saved()
        process = subprocess.Popen(
            Fault(below=str(run)).command(*quick.arguments(run)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        once, trains = rng.random() < 0.5, rng.random() < 0.5
        while trains and saved() == saved_before and process.poll() is None:
            time.sleep(0.001)
        for seconds in [rng.uniform(0, 0.1 if trains else 1)] + [rng.expovariate(20)] * (not once):
            time.sleep(seconds)
            process.send_signal(number)  # nothing happens where it has ended by itself
        stdout, stderr = process.communicate(timeout=HANGS)
        if process.returncode == -number or "init_import_site" in stderr:
            assert "nnctl/cli" not in stderr, stderr
            before += 1
            continue
        done = subprocess.CompletedProcess("nnctl", process.returncode, stdout, stderr)
        interrupted += quick.was_interrupted(run, done, once=once)
    torture.tried(f"{name} from outside, in time", interrupted)
    torture.tried(f"{name} from outside, when all was done", cases - before - interrupted)
    torture.tried(f"{name} from outside, before nnctl's first lines", before)

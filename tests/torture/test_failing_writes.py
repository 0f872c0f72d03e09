"""Writes that fail give an error and exit code 1, and saved files stay intact."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from nnctl.runs.run import Run
from tests.processes import Done
from tests.torture.conftest import Torture
from tests.torture.faults import Fault, Nursery
from tests.torture.hostile import PATIENCE
from tests.torture.trained import QUICK, Trained, assert_saved_whole

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="forks processes"),
    PATIENCE,
]

SHORT = {**QUICK, "training": {**QUICK["training"], "epochs": 3}}
SYNCING = ["fsync"]
CHANGING = ["open", "os.rename", "os.remove", "os.mkdir", "os.truncate"]
FAILURES = {
    "a full disk": (errno.ENOSPC, SYNCING),
    "a quota": (errno.EDQUOT, SYNCING),
    "a disk that fails": (errno.EIO, [*SYNCING, *CHANGING]),
    "no new files": (errno.ENOSPC, ["open", "os.mkdir"]),
    "a disk that became read-only": (errno.EROFS, CHANGING),
    "permissions removed": (errno.EACCES, CHANGING),
}
"""Number of the error, and the steps of writing that fail."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, nurseries: Nursery) -> Trained:
    """A training of three epochs."""
    return Trained(SHORT, tmp_path_factory.mktemp("short"), nurseries)


def assert_error(done: Done, what: str) -> None:
    """Check that a command ended with an error message that names the failure."""
    assert done.returncode == 1, done
    assert "Error: " in done.stderr
    assert what in done.stderr, done.stderr
    for word in ("Traceback", "Exception"):
        assert word not in done.stderr, done.stderr


def assert_resumable(run: Path, done: Done, number: int) -> None:
    """Check the error of a training that could not write; a started one has a hint."""
    assert_error(done, os.strerror(number))
    if "train loss" in done.stderr:
        assert f"resume with: nnctl train --resume {run}" in done.stderr
    assert_saved_whole(run)


@pytest.mark.parametrize("what", FAILURES)
def test_a_training_whose_writes_fail_can_be_resumed_when_there_is_space(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture, what: str
) -> None:
    if not torture.full and what not in ("a full disk", "a disk that became read-only"):
        pytest.skip("tried by make torture")
    number, kinds = FAILURES[what]
    run = scratch / "run"
    steps = range(1, short.steps + 1)
    tried = torture.random(what).sample(steps, torture.cases(1, full=8))
    for step in tried:
        fault = Fault(below=str(run), fail_from=step, fail=kinds, error=number)
        done = nursery.run(fault, *short.arguments(run))
        if done.returncode:  # 0 if no such step followed
            assert_resumable(run, done, number)
        short.assert_completes(run)
        shutil.rmtree(run)
    torture.tried(f"{what}, from a random step of a training on", len(tried))


def test_a_limit_on_the_size_of_files_ends_a_training_with_an_error(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run = scratch / "run"
    checkpoint = (short.whole / "last.npz").stat().st_size
    cases, rng = torture.cases(1, full=10), torture.random("limits")
    for _ in range(cases):
        largest = rng.randrange(1000, checkpoint)
        fault = Fault(below=str(run), largest=largest)
        done = nursery.run(fault, *short.arguments(run), "--quiet")
        assert_resumable(run, done, errno.EFBIG)
        short.assert_completes(run)
        shutil.rmtree(run)
    torture.tried("a limit on the size of files, in a training", cases)


def begin_a_long_training(nursery: Nursery, short: Trained, run: Path) -> None:
    """Start a training that does not end on its own, and wait for its first checkpoint."""
    nursery.start(Fault(below=str(run)), *short.arguments(run), "--epochs", 100_000)
    while not (run / "last.npz").exists():
        assert not nursery.is_over(), nursery.end()
        time.sleep(0.001)


@pytest.mark.usefixtures("full_only")  # tests/runs has a faster one
def test_a_run_that_is_removed_during_training_ends_with_an_error(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run, cases = scratch / "run", torture.cases(1, full=6)
    for _ in range(cases):
        begin_a_long_training(nursery, short, run)
        while run.exists():
            shutil.rmtree(run, ignore_errors=True)
        done = nursery.end()
        assert_error(done, f"{run} cannot be written: {os.strerror(errno.ENOENT)}")
        assert "start a new run" in done.stderr
        assert "--resume" not in done.stderr
        assert not run.exists()
    torture.tried("a run directory that is removed during training", cases)


def test_a_run_that_is_moved_during_training_can_be_resumed_there(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run, moved = scratch / "run", scratch / "moved"
    cases = torture.cases(1, full=6)
    for _ in range(cases):
        begin_a_long_training(nursery, short, run)
        run.rename(moved)
        assert_error(nursery.end(), f"{run} cannot be written")
        assert_saved_whole(moved)
        epochs = len(Run(moved).history) + 2
        done = nursery.run(
            Fault(below=str(moved)), "train", "--resume", moved, "--epochs", epochs, "--quiet"
        )
        assert done.returncode == 0, done
        assert [epoch.epoch for epoch in Run(moved).history] == list(range(1, epochs + 1))
        shutil.rmtree(moved)
    torture.tried("a run directory that is moved during training", cases)


@pytest.mark.parametrize(
    ("needs", "arguments"),
    [
        ("safetensors", ("export", "run", "--format", "safetensors", "--output", "disk/file")),
        ("onnx", ("export", "run", "--format", "onnx", "--output", "disk/file")),
        ("matplotlib", ("report", "run", "--output", "disk/file.html")),
    ],
)
def test_a_result_that_is_too_large_leaves_no_partial_file(
    scratch: Path,
    nursery: Nursery,
    short: Trained,
    torture: Torture,
    needs: str,
    arguments: tuple[str, ...],
) -> None:
    if not torture.full and needs != "safetensors":
        pytest.skip("tried by make torture")
    pytest.importorskip(needs)
    disk = scratch / "disk"
    disk.mkdir()
    (scratch / "run").symlink_to(short.whole)
    done = nursery.run(Fault(below=str(disk), largest=16_000), *arguments)
    assert_error(done, f"cannot be written: {os.strerror(errno.EFBIG)}")
    assert not list(disk.iterdir())
    torture.tried("a result that exceeds the limit on file sizes")

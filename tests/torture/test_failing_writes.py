"""Disks that fill up, fail or are taken away: a sentence, exit code 1, and what was saved stays."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnctl.runs.directory import Run
from tests.conftest import CONFIGS
from tests.sweep.helpers import table
from tests.torture.conftest import Torture
from tests.torture.faults import Child, Fault, Nursery
from tests.torture.trained import QUICK, Trained, assert_saved_whole, leave_to_those_who_try_all

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="splits off processes"),
    pytest.mark.timeout(3600),  # a test is many cases, each of which has its own time to hang
]

SHORT = {**QUICK, "training": {**QUICK["training"], "epochs": 3}}
SYNCING = ["fsync"]
CHANGING = ["open", "os.rename", "os.remove", "os.mkdir", "os.truncate"]
FAILURES = {
    "a full disk": (errno.ENOSPC, SYNCING),
    "a quota": (errno.EDQUOT, SYNCING),
    "a disk that fails": (errno.EIO, [*SYNCING, *CHANGING]),
    "no file more": (errno.ENOSPC, ["open", "os.mkdir"]),
    "a disk that became read-only": (errno.EROFS, CHANGING),
    "rights taken away": (errno.EACCES, CHANGING),
}
"""What the system says, and which steps of writing no longer work."""
SWEEP = (
    "sweep", CONFIGS / "smoke.yaml", "-p", "training.seed=0,1,2", "--epochs", 1, "--workers", 1,
    "--quiet", "--sweep-dir",
)  # fmt: skip

Mount = Callable[[str], Path]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Trained:
    """A training of three epochs."""
    return Trained(SHORT, tmp_path_factory.mktemp("short"), nursery)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small disk in memory: ``disk = mount("size=200k")``; again, to change it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root mounts disks, and this is how Linux does it")
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options: str) -> Path:
        again = "remount," if disk.is_mount() else ""
        words = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(disk)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("root may mount nothing here, as in a container")
        return disk

    yield mounted
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


def assert_told(done: subprocess.CompletedProcess[str], what: str) -> None:
    """Assert that a command ended in a sentence that says what it is."""
    assert done.returncode == 1, done
    assert "Error: " in done.stderr
    assert what in done.stderr, done.stderr
    for word in ("Traceback", "Exception"):
        assert word not in done.stderr, done.stderr


def assert_told_how_to_go_on(
    run: Path, done: subprocess.CompletedProcess[str], number: int
) -> None:
    """Assert that a training that could not write says so, and once it had begun how to go on."""
    assert_told(done, os.strerror(number))
    if "train loss" in done.stderr:
        assert f"go on with: nnctl train --resume {run}" in done.stderr
    assert_saved_whole(run)


@pytest.mark.parametrize("what", FAILURES)
def test_a_training_whose_writing_fails_from_any_step_on_goes_on_when_there_is_room(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture, what: str
) -> None:
    if what not in ("a full disk", "a disk that became read-only"):
        leave_to_those_who_try_all(torture)
    number, kinds = FAILURES[what]
    run = scratch / "run"
    steps = range(1, short.steps + 1)
    tried = torture.random(what).sample(steps, torture.cases(1, full=12))
    for step in tried:
        fault = Fault(below=str(run), fail_from=step, fail=kinds, error=number)
        done = nursery.run(fault, *short.arguments(run))
        if done.returncode:  # else all such steps had been taken
            assert_told_how_to_go_on(run, done, number)
        short.assert_ends_as_ever(run)
        shutil.rmtree(run)
    torture.tried(f"{what}, from a random step of a training on", len(tried))


def test_a_file_that_may_not_be_so_large_ends_a_training_in_a_sentence(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run = scratch / "run"
    checkpoint = (short.whole / "last.npz").stat().st_size
    cases, rng = torture.cases(1, full=15), torture.random("limits")
    for _ in range(cases):
        largest = rng.randrange(1000, checkpoint)
        fault = Fault(below=str(run), largest=largest)
        done = nursery.run(fault, *short.arguments(run), "--quiet")
        assert_told_how_to_go_on(run, done, errno.EFBIG)
        short.assert_ends_as_ever(run)
        shutil.rmtree(run)
    torture.tried("a limit to the size of files, in a training", cases)


def test_a_disk_that_is_full_for_some_time_costs_no_epoch(
    mount: Mount, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    rng = torture.random("disks")
    needed = 3 * (short.whole / "last.npz").stat().st_size // 1000
    cases = 0
    while cases < torture.cases(1, full=20):
        size = rng.randrange(4, needed // 2)
        run = mount(f"size={size}k") / "run"
        while True:
            done = nursery.run(Fault(below=str(run)), *short.arguments(run), "--quiet")
            if done.returncode == 0:
                break
            assert_told_how_to_go_on(run, done, errno.ENOSPC)
            cases += 1
            size += rng.randrange(4, needed // 2)
            mount(f"size={size}k")
        short.assert_is(run)
        shutil.rmtree(run)
    torture.tried("a small disk that is full, in a training", cases)


@pytest.mark.parametrize("begun", [False, True], ids=["a new run", "a run to go on with"])
def test_a_disk_that_is_read_only_ends_a_training_in_a_sentence(
    mount: Mount, nursery: Nursery, short: Trained, torture: Torture, begun: bool
) -> None:
    run = mount("size=10m") / "run"
    if begun:
        fault = Fault(below=str(run), kill_at=short.steps // 2)
        assert nursery.run(fault, *short.arguments(run)).returncode < 0
    mount("ro")
    done = nursery.run(Fault(below=str(run)), *short.arguments(run))
    assert_told(done, f"cannot be written: {os.strerror(errno.EROFS)}")
    mount("rw")
    short.assert_ends_as_ever(run)
    torture.tried("a disk that is read-only, in a training")


def begin_a_long_training(nursery: Nursery, short: Trained, run: Path) -> Child:
    """Return a training that has done some epochs, and will not end by itself."""
    child = nursery.start(Fault(below=str(run)), *short.arguments(run), "--epochs", 100_000)
    while not (run / "last.npz").exists():
        assert not child.is_over(), child.end()
        time.sleep(0.001)
    return child


def test_a_run_that_is_removed_while_it_is_trained_ends_in_a_sentence(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run, cases = scratch / "run", torture.cases(1, full=10)
    for _ in range(cases):
        child = begin_a_long_training(nursery, short, run)
        while run.exists():
            shutil.rmtree(run, ignore_errors=True)
        done = child.end()
        assert_told(done, f"{run} cannot be written: {os.strerror(errno.ENOENT)}")
        assert "begin it again" in done.stderr
        assert "--resume" not in done.stderr
        assert not run.exists()
    torture.tried("a run directory that is removed while it is trained", cases)


def test_a_run_that_is_moved_while_it_is_trained_goes_on_elsewhere(
    scratch: Path, nursery: Nursery, short: Trained, torture: Torture
) -> None:
    run, moved = scratch / "run", scratch / "moved"
    cases = torture.cases(1, full=10)
    for _ in range(cases):
        child = begin_a_long_training(nursery, short, run)
        run.rename(moved)
        assert_told(child.end(), f"{run} cannot be written")
        assert_saved_whole(moved)
        epochs = len(Run(moved).metrics) + 2
        done = nursery.run(
            Fault(below=str(moved)), "train", "--resume", moved, "--epochs", epochs, "--quiet"
        )
        assert done.returncode == 0, done
        assert [row["epoch"] for row in Run(moved).metrics] == list(range(1, epochs + 1))
        shutil.rmtree(moved)
    torture.tried("a run directory that is moved while it is trained", cases)


@pytest.fixture(scope="module")
def swept(torture: Torture, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Path:
    """A sweep that nobody disturbed."""
    leave_to_those_who_try_all(torture)
    sweep = tmp_path_factory.mktemp("swept") / "sweep"
    assert nursery.run(Fault(below=str(sweep)), *SWEEP, sweep).returncode == 0
    return sweep


def go_on_with_a_sweep(nursery: Nursery, sweep: Path) -> subprocess.CompletedProcess[str]:
    """Go on with a sweep, or begin it, if nothing of it is written."""
    journal = sweep / "journal.jsonl"
    if journal.exists() and journal.stat().st_size:
        words: tuple[object, ...] = ("sweep", "--resume", sweep, "--workers", 1, "--quiet")
    else:
        shutil.rmtree(sweep, ignore_errors=True)
        words = (*SWEEP, sweep)
    return nursery.run(Fault(below=str(sweep)), *words)


@pytest.mark.parametrize("what", FAILURES)
def test_a_sweep_whose_writing_fails_from_any_step_on_goes_on_when_there_is_room(
    scratch: Path, nursery: Nursery, swept: Path, torture: Torture, what: str
) -> None:
    number, kinds = FAILURES[what]
    rng, sweep, cases = torture.random("sweep", what), scratch / "sweep", 2
    for _ in range(cases):
        step = rng.randrange(1, 16)
        fault = Fault(below=str(sweep), fail_from=step, fail=kinds, error=number)
        done = nursery.run(fault, *SWEEP, sweep)
        if done.returncode:
            assert_told(done, os.strerror(number))
            done = go_on_with_a_sweep(nursery, sweep)
            assert done.returncode == 0, done
        assert table(swept) == table(sweep)
        shutil.rmtree(sweep)
    torture.tried("a disk that fails from a random step of a sweep on", cases)


def test_a_sweep_on_a_disk_that_is_full_goes_on_when_there_is_room(
    mount: Mount, nursery: Nursery, swept: Path, torture: Torture
) -> None:
    rng, cases = torture.random("sweep on a disk"), 0
    while cases < 3:
        sweep = mount(f"size={rng.randrange(16, 2000)}k") / "sweep"
        done = nursery.run(Fault(below=str(sweep)), *SWEEP, sweep)
        if done.returncode:
            assert_told(done, os.strerror(errno.ENOSPC))
            cases += 1
            mount("size=50m")
            done = go_on_with_a_sweep(nursery, sweep)
        assert done.returncode == 0, done
        assert table(swept) == table(sweep)
        shutil.rmtree(sweep)
    torture.tried("a small disk that is full, in a sweep", cases)


@pytest.mark.parametrize(
    ("needs", "arguments"),
    [
        ("safetensors", ("export", "run", "--format", "safetensors", "--output", "disk/file")),
        ("onnx", ("export", "run", "--format", "onnx", "--output", "disk/file")),
        ("matplotlib", ("report", "run", "--output", "disk/file.html")),
    ],
)
def test_a_result_that_does_not_fit_on_the_disk_leaves_no_part_of_it(
    scratch: Path,
    mount: Mount,
    nursery: Nursery,
    short: Trained,
    torture: Torture,
    needs: str,
    arguments: tuple[str, ...],
) -> None:
    if needs != "safetensors":
        leave_to_those_who_try_all(torture)
    pytest.importorskip(needs)
    disk = mount("size=16k")
    (scratch / "disk").symlink_to(disk)
    (scratch / "run").symlink_to(short.whole)
    done = nursery.run(Fault(below=str(disk)), *arguments)
    assert_told(done, f"cannot be written: {os.strerror(errno.ENOSPC)}")
    assert not list(disk.iterdir())
    torture.tried("a result that does not fit on the disk")

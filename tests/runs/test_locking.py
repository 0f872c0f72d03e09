"""A run directory belongs to one process, also on file systems that do not support locks."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

import nnctl as api
from nnctl.errors import UsageError
from nnctl.runs.lock import DirectoryLock
from nnctl.runs.run import Run
from tests.conftest import CONFIGS, Nnctl

fcntl = pytest.importorskip("fcntl")

SMOKE = CONFIGS / "smoke.yaml"
QUICK = ("--epochs", 1, "--subset", 200, "--quiet")
WARNING = "{} cannot be locked: the file system does not support locks ({}); do not start a second"


@pytest.fixture(params=["EOPNOTSUPP", "ENOLCK", "ENOSYS"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make every flock fail, as on a file system without locks; return the error message."""
    number = getattr(errno, request.param)

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(number)


def test_without_locks_a_run_is_trained_and_resumed_with_one_warning(
    nnctl: Nnctl, no_locks: str
) -> None:
    for words in ((SMOKE, "--run-dir", "run"), ("--resume", "run", "--epochs", 2)):
        done = nnctl("train", *words, *(QUICK if words[0] == SMOKE else ["--quiet"]))
        assert done.stderr == f"Warning: {WARNING.format('run', no_locks)} training there\n"
        assert done.stdout.splitlines()[-1] == "run"
    assert not list(Path("run").glob(".*"))
    assert len(Run(Path("run")).history) == 2


def test_without_locks_a_sweep_prints_one_warning(nnctl: Nnctl, no_locks: str) -> None:
    # The workers are other processes, in which flock works.
    sweep = ("sweep", SMOKE, "-p", "training.seed=0,1", "--workers", 1, "--sweep-dir", "sweep")
    done = nnctl(*sweep, *QUICK)
    assert done.stderr == f"Warning: {WARNING.format('sweep', no_locks)} training there\n"
    shown = nnctl("sweep", "--show", "sweep", "--json").stdout.splitlines()
    assert [json.loads(line)["status"] for line in shown] == ["finished", "finished"]


def test_without_locks_python_code_gets_the_warning(scratch: Path, no_locks: str) -> None:
    with pytest.warns(UserWarning, match=f"does not support locks .{no_locks}") as caught:
        api.train(SMOKE, epochs=1, subset=200, run_dir=scratch / "run")
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


def test_without_locks_two_trainings_may_share_a_directory_and_leave_no_lock_file(
    tmp_path: Path, no_locks: str
) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    assert no_locks in str(first.warning)
    second.unlock()
    first.unlock()
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_is_still_an_error(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    stderr = nnctl("train", SMOKE, "--run-dir", "run", code=1).stderr
    assert "run cannot be written: Input/output error" in stderr


OTHERS = {
    "train": ("train", SMOKE, "--run-dir", "dir", *QUICK),
    "sweep": (
        "sweep",
        SMOKE,
        "-p",
        "training.seed=0",
        "--sweep-dir",
        "dir",
        "--workers",
        1,
        *QUICK,
    ),
}


@pytest.mark.parametrize("first", OTHERS)
@pytest.mark.parametrize("second", OTHERS)
def test_a_directory_that_another_process_fills_after_the_check_is_refused(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    create_at = Run.create_at
    before: dict[Path, bytes] = {}

    def create_after_another_process(directory: Path) -> Run:
        run = create_at(directory)
        monkeypatch.setattr(Run, "create_at", create_at)
        nnctl(*OTHERS[first])
        before.update({path: path.read_bytes() for path in files()})
        return run

    def files() -> list[Path]:
        return [path for path in Path("dir").rglob("*") if path.is_file()]

    monkeypatch.setattr(Run, "create_at", create_after_another_process)
    assert "dir is not empty" in nnctl(*OTHERS[second], code=2).stderr
    assert before
    assert before == {path: path.read_bytes() for path in files()}


def test_a_refused_training_unlocks_the_directory(nnctl: Nnctl, copied_run: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        Run.create_at(copied_run)
    nnctl("train", "--resume", copied_run, "--epochs", 1, code=2)
    DirectoryLock(copied_run).unlock()

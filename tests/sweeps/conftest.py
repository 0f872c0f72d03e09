"""Fixtures: a finished sweep for all tests, and sweeps that train in a thread."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nnctl.sweeps.workers import TrainTrial
from tests.sweeps.helpers import SMALL
from tests.sweeps.workers import ThreadWorkers


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make ``nnctl sweep`` train in a thread; call the fixture with a work to replace training."""

    def use(work: TrainTrial | None = None) -> None:
        workers = functools.partial(ThreadWorkers, work=work)
        monkeypatch.setattr("nnctl.cli.sweep.LocalPool", workers)

    use()
    monkeypatch.setattr("nnctl.sweeps.scheduler._TICK", 0.02)
    return use


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of three trials, without its base configuration, and the output of the command."""
    from nnctl.cli import main

    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(SMALL, folder / "base.yaml")
    words = ("sweep", "base.yaml", "-p", "training.seed=0,1,2", "--sweep-dir", "sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NNCTL_DATA_DIR", str(folder / "cache"))
        patch.setattr("nnctl.cli.sweep.LocalPool", ThreadWorkers)
        done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (folder / "base.yaml").unlink()
    return folder / "sweep", done.stdout


@pytest.fixture
def sweep(finished: tuple[Path, str], scratch: Path) -> Path:
    """A copy of the finished sweep, in the working folder."""
    shutil.copytree(finished[0], scratch / "sweep")
    return Path("sweep")

"""``nnctl sweep --scheduler``: what holds on one machine holds on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Nnctl
from tests.processes import ROOT, Processes, check_done, end_of
from tests.sweep.clusters import Dask, dask
from tests.sweep.helpers import SMALL, environment, epochs_of, table, wait_until

pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dask"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    pytest.mark.usefixtures("in_threads"),
]

EPOCHS = 200
"""As many as take some seconds."""
PLAN = (
    "sweep", SMALL, "-p", "training.seed=0,1,2", "-p", "optimizer.learning_rate=0.05,1e30",
    "--epochs", EPOCHS, "--sweep-dir", "sweep",
)  # fmt: skip
"""Three trials of some seconds, and three that diverge."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The results of the sweep on the processes of this machine."""
    folder = tmp_path_factory.mktemp("alone")
    with Processes() as processes:
        processes.run_nnctl(*PLAN, cwd=folder)
    return table(folder / "sweep")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A scheduler with two workers, which all tests leave as they are."""
    with dask(tmp_path_factory.mktemp("dask"), "one", "two") as running:
        with running.connect(2):
            pass
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Dask]:
    """A scheduler that may be killed, without workers."""
    with dask(tmp_path / "dask") as running:
        yield running


def start(processes: Processes, cluster: Dask) -> subprocess.Popen[str]:
    """Start the sweep on a cluster."""
    return processes.start_nnctl(*PLAN, "--scheduler", cluster.address)


def end(sweep: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a sweep; return its stderr."""
    return check_done(("sweep",), end_of(sweep), code).stderr


def epochs(*trials: int) -> int:
    """Return how many epochs each of some trials has at least."""
    return min(epochs_of(f"sweep/trial-{trial:03d}") for trial in trials)


def test_a_worker_that_is_killed_costs_no_trial(
    scratch: Path, processes: Processes, cluster: Dask, alone: list[dict[str, str]]
) -> None:
    worker = cluster.start_worker("three")
    with cluster.connect(3):
        pass
    sweep = start(processes, cluster)
    wait_until(lambda: epochs(1, 3, 5) > 2)
    worker.kill()
    end(sweep)
    assert table("sweep") == alone
    logs = [path.read_text("utf-8") for path in scratch.glob("sweep/*/log.txt")]
    assert sum(log.count("its worker process died") for log in logs) == 1


@pytest.mark.usefixtures("scratch")
def test_a_scheduler_that_is_restarted_costs_no_trial(
    processes: Processes, own: Dask, alone: list[dict[str, str]]
) -> None:
    own.start_worker("one")
    sweep = start(processes, own)
    wait_until(lambda: epochs(1) > 2)
    own.scheduler.kill()
    own.start_scheduler()
    own.start_worker("two")
    assert "does not answer; waiting for it" in end(sweep)
    assert table("sweep") == alone


def test_ctrl_c_lets_the_workers_save_and_the_sweep_can_go_on_anywhere(
    nnctl: Nnctl, processes: Processes, cluster: Dask, alone: list[dict[str, str]]
) -> None:
    sweep = start(processes, cluster)
    wait_until(lambda: epochs(1, 3) > 2)
    os.killpg(sweep.pid, signal.SIGINT)
    assert "nnctl sweep --resume sweep" in end(sweep, 130)
    assert Path("sweep/trial-001/last.npz").exists()
    nnctl("sweep", "--resume", "sweep")
    assert table("sweep") == alone


def test_the_demo_runs_a_sweep(processes: Processes) -> None:
    pipe = subprocess.PIPE
    demo = processes.start(
        [sys.executable, "-m", "tests.sweep.cluster_demo"],
        cwd=ROOT,
        env=environment(),
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
    )
    done = check_done(("cluster_demo",), end_of(demo), 0)
    assert "4 of 4 done" in done.stderr
    assert "Best by validation accuracy" in done.stdout

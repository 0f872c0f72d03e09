"""``nnctl sweep --scheduler``: what holds on one machine holds on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import CONFIGS, Nnctl, nnctl_command
from tests.sweep.clusters import Dask, closed_port, dask, wait_until
from tests.sweep.helpers import table

pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
]

PLAN = (
    "sweep", CONFIGS / "smoke.yaml", "-p", "training.seed=0,1,2",
    "-p", "optimizer.learning_rate=0.05,1e30", "--set", "training.epochs=100",
)  # fmt: skip
"""Three trials of some seconds, and three that diverge."""


def epochs(trial: int) -> int:
    """Return how many epochs of a trial are here."""
    try:
        text = Path(f"sweep/trial-{trial:03d}/metrics.jsonl").read_text("utf-8")
    except FileNotFoundError:
        return 0
    return len(text.splitlines())


class Sweep:
    """A sweep on a cluster, as a process."""

    def __init__(self, cluster: Dask, *arguments: object) -> None:
        words = arguments or (*PLAN, "--sweep-dir", "sweep")
        self.process = subprocess.Popen(
            nnctl_command(*words, "--scheduler", cluster.address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def end(self, code: int = 0) -> str:
        """Wait for its end, and return what it told on stderr."""
        _, told = self.process.communicate(timeout=240)
        assert self.process.returncode == code, told
        assert "Traceback" not in told
        return told


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return the results of the sweep on the processes of this machine."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run(nnctl_command(*PLAN, "--sweep-dir", "sweep"), cwd=folder, check=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        return table("sweep")
    finally:
        os.chdir(here)


@pytest.fixture
def cluster(scratch: Path) -> Iterator[Dask]:
    """A scheduler with two workers."""
    with dask(scratch.parent / "dask", "one", "two") as running:
        yield running


def test_a_sweep_has_the_same_table_as_here(cluster: Dask, alone: list[dict[str, str]]) -> None:
    Sweep(cluster).end()
    assert table("sweep") == alone
    assert Path("sweep/trial-001/best.npz").exists()
    subprocess.run(nnctl_command("eval", "sweep/trial-001", "--json"), check=True)


def test_a_worker_that_is_killed_costs_no_trial(cluster: Dask, alone: list[dict[str, str]]) -> None:
    worker = cluster.start_worker("three")
    sweep = Sweep(cluster)
    wait_until(lambda: min(map(epochs, (1, 3, 5))) > 2)
    worker.kill()
    sweep.end()
    assert table("sweep") == alone
    logs = [path.read_text("utf-8") for path in Path("sweep").glob("*/log.txt")]
    assert sum(log.count("its worker process died") for log in logs) == 1


def test_a_worker_that_joins_late_is_waited_for(scratch: Path, alone: list[dict[str, str]]) -> None:
    with dask(scratch.parent / "dask") as cluster:
        sweep = Sweep(cluster)
        wait_until(lambda: Path("sweep/journal.jsonl").exists())
        cluster.start_worker("late")
        told = sweep.end()
    assert table("sweep") == alone
    assert "6 trials in sweep" in told


def test_a_scheduler_that_is_restarted_costs_no_trial(
    cluster: Dask, alone: list[dict[str, str]]
) -> None:
    sweep = Sweep(cluster)
    wait_until(lambda: min(map(epochs, (1, 3))) > 2)
    cluster.scheduler.kill()
    cluster.start_scheduler()
    for name in ("three", "four"):
        cluster.start_worker(name)
    told = sweep.end()
    assert "does not answer; waiting for it" in told
    assert table("sweep") == alone


def test_a_client_that_is_killed_is_gone_on_with(
    cluster: Dask, alone: list[dict[str, str]]
) -> None:
    sweep = Sweep(cluster)
    wait_until(lambda: epochs(1) > 20)
    sweep.process.kill()
    sweep.process.communicate()
    done = Path("sweep/trial-001/metrics.jsonl").read_bytes()
    Sweep(cluster, "sweep", "--resume", "sweep").end()
    kept = Path("sweep/trial-001/metrics.jsonl").read_bytes()
    assert kept[: len(done) // 2] == done[: len(done) // 2]
    assert table("sweep") == alone


def test_ctrl_c_lets_the_workers_save_and_the_sweep_can_go_on_anywhere(
    cluster: Dask, alone: list[dict[str, str]]
) -> None:
    sweep = Sweep(cluster)
    wait_until(lambda: min(map(epochs, (1, 3))) > 2)
    os.killpg(sweep.process.pid, signal.SIGINT)
    told = sweep.end(130)
    assert "nnctl sweep --resume sweep" in told
    assert epochs(1) < 100
    assert Path("sweep/trial-001/last.npz").exists()
    subprocess.run(nnctl_command("sweep", "--resume", "sweep"), check=True)
    assert table("sweep") == alone


def test_what_hangs_there_is_ended_from_here(cluster: Dask) -> None:
    sweep = Sweep(
        cluster, "sweep", CONFIGS / "smoke.yaml", "-p", "training.epochs=1000000,2",
        "--trial-timeout", 4, "--sweep-dir", "sweep",
    )  # fmt: skip
    sweep.end()
    assert [row["status"] for row in table("sweep")] == ["failed", "finished"]
    assert table("sweep")[0]["reason"] == "it took longer than 4 s"


def test_no_scheduler_is_told(nnctl: Nnctl) -> None:
    where = f"127.0.0.1:{closed_port()}"
    told = nnctl(*PLAN, "--sweep-dir", "sweep", "--scheduler", where, code=2).stderr
    assert f"no Dask scheduler answers at {where}" in told
    assert not Path("sweep").exists()


def test_the_demo_runs_a_sweep_and_stops_its_processes(scratch: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.cluster_demo"],
        cwd=CONFIGS.parent,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 done" in done.stderr
    assert "Best by validation accuracy" in done.stdout
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [words for words in commands if str(scratch) in " ".join(words)]

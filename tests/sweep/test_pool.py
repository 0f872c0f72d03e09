"""The worker processes: they share the work, and none of them can end a sweep."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nnctl.config import to_mapping
from nnctl.data.dataset import Dataset, open_dataset
from nnctl.runs.plan import load_config, settle
from nnctl.sweep import pool
from nnctl.sweep.trials import Trial, run_trial
from tests.conftest import CONFIGS, nnctl_command

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    pytest.mark.usefixtures("scratch"),
]

SWEEP = (
    "sweep", CONFIGS / "smoke.yaml", "-p", "training.seed=0,1,2,3,4,5", "--workers", 2,
    "--sweep-dir", "sweep",
)  # fmt: skip


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a sweep as a terminal would, in a process group of its own."""
    return subprocess.Popen(
        nnctl_command(*SWEEP, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begun(trial: int) -> bool:
    """Tell whether a trial has complete epochs."""
    return Path(f"sweep/trial-{trial:03d}/metrics.jsonl").exists()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the worker processes of a sweep."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_a_killed_worker_does_not_end_the_sweep() -> None:
    """The trials that were running go on where they were; all six are complete."""
    process = start("--set", "training.epochs=30")
    wait_until(lambda: begun(1), process)
    workers_of(process)[0].kill()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 6, rows
    assert stdout.splitlines()[-1].startswith("sweep/trial-")


@pytest.mark.parametrize("to_group", [True, False], ids=["Ctrl-C", "SIGTERM to the parent"])
def test_a_signal_lets_the_workers_save_and_leaves_no_orphan(to_group: bool) -> None:
    """Exit 130; the running trials are rows, and each can be gone on with."""
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    workers = workers_of(process)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted: 0 of 6 trials are complete" in stderr
    assert "Traceback" not in stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",interrupted," in row for row in rows) == 2, rows
    assert not any(worker.is_running() for worker in workers)
    for trial in (1, 2):
        assert Path(f"sweep/trial-{trial:03d}/last.npz").exists()


def test_a_sigterm_to_the_whole_group_lets_the_workers_save() -> None:
    """As ``timeout`` and service managers send it."""
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",interrupted," in row for row in rows) == 2, rows


def test_a_trial_whose_worker_died_at_its_very_beginning_is_begun_again() -> None:
    """Its directory is there, without a configuration."""
    dataset = open_dataset("mini", notify=lambda _: None)
    config = to_mapping(settle(load_config(CONFIGS / "smoke.yaml"), dataset))
    config["training"]["epochs"] = 1
    directory = Path("trial-001")
    directory.mkdir()
    (directory / ".lock").touch()
    (directory / ".config.yaml.0badcafe.nnctl-tmp").touch()
    trial = Trial(1, {}, config, dataset, directory)
    assert run_trial(trial, dataset, lambda: False).status == "finished"
    assert not list(directory.glob(".*"))


def test_workers_that_cannot_start_end_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial is a row with the reason, and no new workers are started for ever."""
    trials = [
        Trial(number, {}, {}, Dataset("mini", {}, {}), Path(f"trial-{number}"))
        for number in (1, 2, 3)
    ]
    monkeypatch.setattr(pool, "_start_worker", os._exit)
    results = [result for result in pool.run_trials(trials, 2, lambda: False) if result]
    assert [result.number for result in results] == [1, 2, 3]
    assert {"no worker process could be started"} == {result.reason for result in results}


def test_workers_end_when_their_parent_is_killed() -> None:
    """They save what they have, and do not stay behind."""
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    with contextlib.suppress(psutil.NoSuchProcess):
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive

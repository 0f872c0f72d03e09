"""A training of many epochs and a sweep of many trials do not leak memory or slow down.

The pace is measured in CPU time, which other programs do not change, and files are in memory where
the system has such a folder, because syncing a disk is not what is measured.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import numpy as np
import psutil
import pytest

from nnctl.runs.run import Run
from tests.conftest import Nnctl, nnctl_command
from tests.processes import DEADLINE, Processes
from tests.terminal import read_terminal, start_in_terminal
from tests.torture.conftest import Torture
from tests.torture.hostile import PATIENCE

AND: dict[str, Any] = {
    "data": {"dataset": "and"},
    "network": {"layers": [{"units": 1, "activation": {"name": "step", "surrogate": "sigmoid"}}]},
    "loss": "quadratic",
    "optimizer": {"learning_rate": 2.0},
    "training": {"batch_size": 4},
}
"""Three weights, one step per epoch: almost all time is spent outside the steps."""
TEN: dict[str, Any] = {
    "data": {"dataset": "mini", "subset": 10, "validation": 10},
    "network": {"layers": [{"units": 10, "activation": "softmax"}]},
    "loss": "cross_entropy",
    "optimizer": {"learning_rate": 0.1},
    "training": {"batch_size": 10, "epochs": 1},
}
"""Ten digits, one epoch: a short trial."""

pytestmark = [PATIENCE, pytest.mark.usefixtures("full_only")]

GROWS = 4e6
"""Growth in bytes during the second half of a process that is not a leak."""
SLOWER = 2.0
"""Maximum CPU time of the last tenth, relative to the second tenth."""
A_TRIAL = 4e3
"""Bytes that a sweep may keep per trial: its row of the results."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
"""Escape sequences that move the cursor or set colors."""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder in memory, if the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Life:
    """Written lines, CPU seconds and memory of a process at several moments."""

    done: np.ndarray[Any, Any]
    seconds: np.ndarray[Any, Any]
    memory: np.ndarray[Any, Any]

    @property
    def growth(self) -> float:
        """Bytes per line: the slope of a straight line through the second half."""
        late = self.done > self.done[-1] / 2
        return float(np.polyfit(self.done[late], self.memory[late], 1)[0])

    @property
    def slowdown(self) -> float:
        """Time of the last tenth, divided by that of the second tenth."""
        ends = np.array([0.1, 0.2, 0.9, 1.0]) * self.done[-1]
        times = np.interp(ends, self.done, self.seconds)
        return float((times[3] - times[2]) / (times[1] - times[0]))


def watch(process: Popen[bytes], path: Path) -> Life:
    """Return the measurements of a process while it writes the lines of a file."""
    observed, moments = psutil.Process(process.pid), [(0, 0.0, 0)]
    done = offset = 0
    while process.poll() is None:
        time.sleep(0.02)
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
            done, offset = done + new.count(b"\n"), offset + len(new)
        try:
            times, memory = observed.cpu_times(), observed.memory_info().rss
        except psutil.Error:  # it has ended
            break
        if done > moments[-1][0] and memory:
            moments.append((done, times.user + times.system, memory))
    # The last moment may include work after the last line.
    return Life(*np.array(moments[1:-1]).T)


def write(folder: Path, config: dict[str, Any], epochs: int | None = None) -> Path:
    """Write a configuration."""
    path = folder / "tiny.yaml"
    data = {**config, "training": {**config["training"], **({"epochs": epochs} if epochs else {})}}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_table_of_very_many_epochs_does_not_slow_down(
    torture: Torture, home: Path, processes: Processes
) -> None:
    epochs, run = 10_000, home / "run"
    process, ours = start_in_terminal(
        processes, "train", write(home, AND, epochs), "--run-dir", run
    )
    with ThreadPoolExecutor(1) as pool:
        printing = pool.submit(read_terminal, ours)
        life = watch(process, run / "metrics.jsonl")
        printed = CONTROL.sub("", printing.result().decode())
    assert process.wait(DEADLINE) == 0
    shown = [int(row[1]) for row in re.finditer(r" (\d+)  +\d\.\d{4} ", printed)]
    torture.tried("epochs in the table of a terminal", epochs)
    torture.tried("% of the second tenth's time: the last tenth of these epochs", _percent(life))
    assert shown == sorted({*shown})
    assert shown[-1] == epochs
    assert 100 < len(shown) < 1000  # some of them, at equal distances
    assert life.slowdown < SLOWER
    assert life.growth * epochs / 2 < GROWS


def test_a_training_of_very_many_epochs_does_not_leak_memory_or_slow_down(
    torture: Torture, home: Path, processes: Processes, nnctl: Nnctl
) -> None:
    epochs, run = 50_000, home / "run"
    command = nnctl_command("train", write(home, AND, epochs), "--run-dir", run, "--quiet")
    process = processes.start(command, stdout=DEVNULL)
    life = watch(process, run / "metrics.jsonl")
    assert process.wait(DEADLINE) == 0
    torture.tried("epochs of one training", epochs)
    torture.tried("bytes an epoch by which its process grew", round(life.growth))
    torture.tried("% of the second tenth's time: the last tenth of that training", _percent(life))
    nnctl("train", "--resume", run, "--epochs", epochs + 5, "--quiet")
    assert [*range(1, epochs + 6)] == [epoch.epoch for epoch in Run(run).history]
    checked = json.loads(nnctl("check", run, "--json").stdout)
    assert epochs + 5 == checked["epochs"]
    page = Path(nnctl("report", run, "--output", home / "page.html").stdout.splitlines()[-1])
    torture.tried("KB of the page about that training", page.stat().st_size // 1000)
    assert page.stat().st_size < 1e6
    assert life.growth * epochs / 2 < GROWS
    assert life.slowdown < SLOWER


def test_a_sweep_of_very_many_trials_keeps_only_one_row_per_trial_in_memory(
    torture: Torture, home: Path, processes: Processes, nnctl: Nnctl
) -> None:
    trials, directory = 2_500, home / "sweep"
    seeds = f"training.seed=int:1:{trials}:{trials}"
    planned = nnctl("sweep", write(home, TEN), "-p", seeds, "--dry-run", "--json").stdout
    assert trials == len(planned.splitlines())
    options = ("-p", seeds, "--workers", 1, "--quiet", "--sweep-dir", directory)
    command = nnctl_command("sweep", home / "tiny.yaml", *options)
    process = processes.start(command, stdout=DEVNULL)
    life = watch(process, directory / "results.csv")
    assert process.wait(DEADLINE) == 0
    torture.tried("trials of one sweep", trials)
    torture.tried("bytes a trial by which its process grew", round(life.growth))
    torture.tried("% of the second tenth's time: the last tenth of that sweep", _percent(life))
    assert [*range(1, trials + 1)] == numbers(directory)
    shown = nnctl("sweep", "--show", directory, "--json").stdout
    assert trials == len({json.loads(line)["trial"] for line in shown.splitlines()})
    nnctl("sweep", "--show", directory)
    assert life.growth * trials / 2 < GROWS + A_TRIAL * trials / 2
    assert life.slowdown < SLOWER


def numbers(directory: Path) -> list[int]:
    """Return the numbers of the trials in a sweep's table, all of which are finished."""
    with (directory / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(row["status"] == "finished" and None not in row for row in rows)
    return [int(row["trial"]) for row in rows]


def _percent(life: Life) -> int:
    return round(100 * life.slowdown)

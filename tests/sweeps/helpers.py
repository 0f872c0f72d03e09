"""Helpers for the tests of sweeps."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nnctl.runs.run import Run
from nnctl.sweeps import events
from nnctl.sweeps.plan import TrialFactory, read_plan, trial_id
from nnctl.sweeps.scheduler import Limits, Sweep
from nnctl.sweeps.space import Params
from nnctl.sweeps.trials import Trial, TrialResult, run_trial
from nnctl.sweeps.workers import TrainTrial, WorkerPool
from tests.processes import DEADLINE, ENVIRONMENT, ROOT
from tests.runs.helpers import ignore

SMALL = ROOT / "tests" / "sweeps" / "small.yaml"


def environment() -> dict[str, str]:
    """Return the environment for processes that import the tests."""
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}


def table(directory: Path | str) -> list[dict[str, str]]:
    """Return ``results.csv`` of a sweep, without durations, paths and logs."""
    with Path(directory, "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: row[key] for key in row if key not in ("seconds", "run_dir", "log")} for row in rows
    ]


def journal(directory: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a sweep's journal."""
    return list(map(json.loads, Path(directory, "journal.jsonl").read_text("utf-8").splitlines()))


def epochs_of(trial: Path | str) -> int:
    """Return the number of complete epochs in a run directory."""
    path = Path(trial, "metrics.jsonl")
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def begin_sweep(*varied: str, work: TrainTrial = run_trial, config: Path = SMALL) -> Sweep:
    """Return a new sweep in the folder ``sweep``."""
    plan = read_plan(config, varied or ["training.seed=0"])
    home = Run.create_at(Path("sweep").absolute()).directory
    return Sweep.create(home, plan, plan.checked_points(), TrialFactory(ignore), work)


def make_trial(number: int, *, epochs: int = 3, config: Path = SMALL) -> Trial:
    """Return a trial in the working folder, outside any sweep; its number is its seed."""
    plan = read_plan(config, [f"training.seed={number}", f"training.epochs={epochs}"])
    ((point, checked),) = plan.checked_points()
    factory = TrialFactory(ignore)
    return factory.make(Path.cwd(), planned(number, point, factory.resolve(checked, number)))


def planned(number: int, point: Params, config: dict[str, Any]) -> events.Planned:
    """Return the event that plans a trial; its seed is that of the configuration."""
    return events.Planned(
        trial=number,
        id=trial_id(config),
        point=number,
        seed=config["training"]["seed"],
        parameters=point,
        suggestion=None,
        config=config,
    )


def resume_sweep(work: TrainTrial = run_trial, *, retry_failed: bool = False) -> Sweep:
    """Resume the sweep in the folder ``sweep``."""
    factory, home = TrialFactory(ignore), Path("sweep").absolute()
    return Sweep.resume(home, factory, retry_failed=retry_failed, work=work)


def train_sweep(
    sweep: Sweep,
    workers: WorkerPool,
    limits: Limits | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[TrialResult]:
    """Train the unfinished trials of a sweep; return the new rows in the order of the trials."""
    with sweep:
        rows = [row for row in sweep.train(workers, stop, limits) if row]
    return sorted(rows, key=lambda row: row.trial)


def statuses(rows: Iterable[TrialResult]) -> list[str]:
    """Return the status of each row."""
    return [row.status for row in rows]

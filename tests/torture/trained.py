"""A training that tests disturb, and the result that it must still have."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nnctl.runs.run import Run, Which
from tests.runs.helpers import SMALL, outcome
from tests.torture.faults import Fault, Nursery, without_lost_interrupts

QUICK: dict[str, Any] = {
    **SMALL,
    "data": {"dataset": "mini", "validation": 100, "subset": 500},
    "training": {**SMALL["training"], "epochs": 12},
}
"""Short epochs: most of the time is spent starting, writing and ending."""
_WHICH: tuple[Which, ...] = ("last", "best")


class Trained:
    """A training that a nursery runs, and its undisturbed result."""

    def __init__(self, config: Mapping[str, Any], folder: Path, nursery: Nursery) -> None:
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        self.whole = folder / "run"
        self._nursery = nursery
        fault = Fault(below=str(self.whole), counts=str(folder / "counts.json"))
        done = nursery.run(fault, *self.arguments(self.whole))
        assert done.returncode == 0, done
        counted = fault.read_counts()
        self.steps, self.calls = counted["steps"], counted["calls"]
        self.epochs = len(Run(self.whole).history)

    def arguments(self, run: Path) -> list[object]:
        """Return the arguments that begin a training or resume it."""
        if (run / "config.yaml").exists():
            return ["train", "--resume", run]
        return ["train", self.config, "--run-dir", run]

    def assert_is(self, run: Path) -> None:
        """Check that a run is the same as the undisturbed one."""
        assert outcome(self.whole) == outcome(run)
        assert list(range(1, self.epochs + 1)) == [epoch.epoch for epoch in Run(run).history]
        assert summary(self.whole) == summary(run)
        assert {path.name for path in self.whole.iterdir()} == {path.name for path in run.iterdir()}

    def assert_completes(self, run: Path) -> None:
        """Check that a run that is resumed to its end is the same as the undisturbed one."""
        done = self._nursery.run(Fault(below=str(run)), *self.arguments(run), "--quiet")
        assert done.returncode == 0, done
        self.assert_is(run)

    def was_interrupted(
        self, run: Path, done: subprocess.CompletedProcess[str], *, once: bool
    ) -> bool:
        """Check a command that received signals: it is complete, or explains how to resume."""
        shown = without_lost_interrupts(done.stderr)
        for word in ("Traceback", "KeyboardInterrupt", "Exception"):
            assert word not in shown, done.stderr
        if done.returncode == 0:
            self.assert_is(run)
            shutil.rmtree(run)
            return False
        assert done.returncode == 130, done
        assert "Interrupted" in done.stderr
        assert_saved_whole(run)
        if once and "train loss" in done.stderr:  # the training has begun
            assert f"Resume with: nnctl train --resume {run}" in done.stderr
            assert summary(run)["status"] == "interrupted"
        return True


def summary(run: Path) -> dict[str, Any]:
    """Return the summary of a run without times and paths."""
    whole = json.loads(Run(run).summary_path.read_text("utf-8"))
    return {key: whole[key] for key in whole if key not in ("seconds", "run_dir")}


def assert_saved_whole(run: Path) -> None:
    """Check that the files of a run are readable, and the state is not ahead of the metrics.

    The best network may be ahead, if the training was resumed from before the epoch of its best.
    """
    left = Run(run)
    saved = {
        which: left.checkpoint(which) for which in _WHICH if left.checkpoint_path(which).exists()
    }
    epochs = [epoch.epoch for epoch in left.history]
    assert list(range(1, len(epochs) + 1)) == epochs
    assert "last" not in saved or saved["last"].progress.epoch <= len(epochs)

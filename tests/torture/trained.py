"""A training to disturb, and what must come of it all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nnctl.runs.directory import Run, Which
from tests.runs.helpers import SMALL, outcome
from tests.torture.conftest import Torture
from tests.torture.faults import Fault, Nursery

QUICK: dict[str, Any] = {
    **SMALL,
    "data": {"dataset": "mini", "validation": 100, "subset": 500},
    "training": {**SMALL["training"], "epochs": 12},
}
"""Epochs of a moment, so that most of the time goes into starting, writing and ending."""
_WHICH: tuple[Which, ...] = ("last", "best")


class Trained:
    """A training, and what comes of it when nobody disturbs it.

    Parameters
    ----------
    config : mapping
        Its configuration.
    folder : Path
        An empty one.
    nursery : Nursery
        Where it is trained.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, nursery: Nursery) -> None:
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        self.whole = folder / "run"
        self._nursery = nursery
        told = folder / "told.json"
        fault = Fault(below=str(self.whole), told=str(told))
        done = nursery.run(fault, *self.arguments(self.whole))
        assert done.returncode == 0, done
        counted = json.loads(told.read_text("utf-8"))
        self.steps, self.calls = counted["steps"], counted["calls"]
        self.epochs = len(Run(self.whole).metrics)

    def arguments(self, run: Path) -> list[object]:
        """Return what to type to begin, or to go on."""
        if (run / "config.yaml").exists():
            return ["train", "--resume", run]
        return ["train", self.config, "--run-dir", run]

    def assert_is(self, run: Path) -> None:
        """Assert that a run is what it would be if nobody had disturbed it."""
        assert outcome(self.whole) == outcome(run)
        assert list(range(1, self.epochs + 1)) == [row["epoch"] for row in Run(run).metrics]
        assert summary(self.whole) == summary(run)
        assert {path.name for path in self.whole.iterdir()} == {path.name for path in run.iterdir()}

    def assert_ends_as_ever(self, run: Path) -> None:
        """Assert that a run that is left alone now is what it would have been."""
        done = self._nursery.run(Fault(below=str(run)), *self.arguments(run), "--quiet")
        assert done.returncode == 0, done
        self.assert_is(run)

    def was_interrupted(
        self, run: Path, done: subprocess.CompletedProcess[str], *, once: bool
    ) -> bool:
        """Assert that an interrupted command says how to go on, unless it came to its end."""
        for word in ("Traceback", "KeyboardInterrupt", "Exception"):
            assert word not in done.stderr, done.stderr
        if done.returncode == 0:
            self.assert_is(run)
            shutil.rmtree(run)
            return False
        assert done.returncode == 130, done
        assert "Error: interrupted" in done.stderr
        assert_saved_whole(run)
        if once and "train loss" in done.stderr:  # from there on it is a word to stop, no more
            assert f"Go on with: nnctl train --resume {run}" in done.stderr
            assert Run(run).summary["status"] == "interrupted"
        return True


def summary(run: Path) -> dict[str, Any]:
    """Return what came of a run, without what a clock or a place is in."""
    told = Run(run).summary
    return {key: told[key] for key in told if key not in ("seconds", "run_dir")}


def assert_saved_whole(run: Path) -> None:
    """Assert that what a process has left is readable, and the state is not ahead of the metrics.

    The best network may be, where a training that went on from before it was killed as well.
    """
    left = Run(run)
    saved = {
        which: left.checkpoint(which) for which in _WHICH if left.checkpoint_path(which).exists()
    }
    epochs = [row["epoch"] for row in left.metrics]
    assert list(range(1, len(epochs) + 1)) == epochs
    assert "last" not in saved or saved["last"].progress.epoch <= len(epochs)


def leave_to_those_who_try_all(torture: Torture) -> None:
    """Skip a test where a few cases are tried, which others try already."""
    if not torture.full:
        pytest.skip("tried by make torture")

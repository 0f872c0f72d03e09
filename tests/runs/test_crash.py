"""A signal ends a training with its state saved; resuming it gives exactly the same result."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

from nnctl.views.training import TrainingView
from tests.conftest import Nnctl
from tests.processes import DEADLINE, Processes, end_of
from tests.runs.helpers import SMALL, begin, outcome, train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

ENDLESS = 1_000_000
"""Number of epochs that no test completes."""


def small(epochs: int) -> dict[str, Any]:
    return {**SMALL, "training": {**SMALL["training"], "epochs": epochs}}


@pytest.fixture
def config(scratch: Path) -> Path:
    path = scratch / "endless.yaml"
    path.write_text(yaml.safe_dump(small(ENDLESS)), encoding="utf-8")
    return path


def wait_for_epochs(run: Path, count: int, process: Popen[str]) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + DEADLINE
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status(run: Path) -> str:
    return str(json.loads((run / "summary.json").read_text("utf-8"))["status"])


def assert_resumes_to_the_same_bits(nnctl: Nnctl, run: Path) -> None:
    epochs = (run / "metrics.jsonl").read_bytes().count(b"\n") + 1
    nnctl("train", "--resume", run, "--epochs", epochs, "--quiet")
    assert status(run) == "finished"
    train(begin(run.parent / "undisturbed", small(epochs)))
    assert outcome(run.parent / "undisturbed") == outcome(run)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_the_state_and_the_run_resumes_to_the_same_bits(
    scratch: Path, nnctl: Nnctl, processes: Processes, config: Path, name: str
) -> None:
    run = scratch / "run"
    process = processes.start_nnctl("train", config, "--run-dir", run)
    wait_for_epochs(run, 3, process)
    process.send_signal(getattr(signal, name))
    done = end_of(process)
    assert done.returncode == 130, done
    assert f"nnctl train --resume {run}" in done.stderr
    assert "Traceback" not in done.stderr
    assert status(run) == "interrupted"
    assert_resumes_to_the_same_bits(nnctl, run)


def test_a_second_signal_stops_immediately_and_the_saved_state_remains(
    scratch: Path, nnctl: Nnctl, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, events = scratch / "run", []

    def interrupt_twice(_: object, event: object) -> None:
        events.append(event)
        if len(events) == 10:  # within the second epoch
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingView, "show", interrupt_twice)
    stderr = nnctl("train", config, "--run-dir", run, code=130).stderr
    monkeypatch.undo()
    assert len(events) == 10
    assert "Interrupted before the state was saved" in stderr
    assert f"nnctl train --resume {run}" in stderr
    assert not (run / "summary.json").exists()
    assert_resumes_to_the_same_bits(nnctl, run)

"""Real signals at a real process: what was trained is never lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import Nnctl, nnctl_command
from tests.runs.helpers import SMALL, outcome

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

LONG = {**SMALL, "training": {**SMALL["training"], "epochs": 40}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The outcome of the long training, left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = _write(folder)
    subprocess.run(
        nnctl_command("train", config, "--run-dir", folder / "run", "--quiet"),
        check=True,
        capture_output=True,
    )
    return outcome(folder / "run")


def _write(folder: Path) -> Path:
    path = folder / "long.yaml"
    path.write_text(yaml.safe_dump(LONG), encoding="utf-8")
    return path


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        nnctl_command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _wait_for_epochs(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many epochs are on the disk."""
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("no epoch within a minute")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_the_state_and_the_run_goes_on_to_the_same_bits(
    scratch: Path, nnctl: Nnctl, undisturbed: object, number: str
) -> None:
    run = scratch / "run"
    process = _start("train", _write(scratch), "--run-dir", run)
    _wait_for_epochs(run, 3, process)
    process.send_signal(getattr(signal, number))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert f"nnctl train --resume {run}" in stderr
    assert "Traceback" not in stderr
    assert json.loads((run / "summary.json").read_text("utf-8"))["status"] == "interrupted"
    nnctl("train", "--resume", run, "--quiet")
    assert undisturbed == outcome(run)
    assert json.loads((run / "summary.json").read_text("utf-8"))["status"] == "finished"


def test_a_second_signal_stops_at_once(scratch: Path, nnctl: Nnctl, undisturbed: object) -> None:
    run = scratch / "run"
    process = _start("train", _write(scratch), "--run-dir", run)
    _wait_for_epochs(run, 2, process)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert f"nnctl train --resume {run}" in stderr
    assert "Traceback" not in stderr
    nnctl("train", "--resume", run, "--quiet")
    assert undisturbed == outcome(run)

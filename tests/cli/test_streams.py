"""Exit codes and errors of commands whose standard streams are on a full disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONFIGS
from tests.processes import Done, Processes, end_of

SMOKE = str(CONFIGS / "smoke.yaml")
GATE = str(CONFIGS / "gates" / "and.yaml")
FULL = Path("/dev/full")

pytestmark = [
    pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full"),
    pytest.mark.usefixtures("scratch"),
]


def run(processes: Processes, arguments: tuple[str, ...], *, full: tuple[str, ...]) -> Done:
    """Run a command; some of its streams are files on a full disk."""
    with FULL.open("w", encoding="utf-8") as disk:
        streams: dict[str, Any] = {
            name: disk if name in full else subprocess.PIPE for name in ("stdout", "stderr")
        }
        done = end_of(processes.start_nnctl(*arguments, **streams))
    assert "Traceback" not in (done.stderr or "")
    return done


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("check", SMOKE),
        ("train", SMOKE, "--dry-run"),
        ("sweep", SMOKE, "-p", "training.seed=1,2", "--dry-run"),
    ],
    ids=" ".join,
)
def test_stdout_on_a_full_disk_is_one_error(
    processes: Processes, arguments: tuple[str, ...]
) -> None:
    done = run(processes, arguments, full=("stdout",))
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ("train", GATE, "--epochs", "1", "--run-dir", "run")),
        (2, ("check", "nowhere.yaml")),
        (2, ("chekc",)),
        (3, ("train", SMOKE, "--dataset", "mnist", "--run-dir", "run")),
        (5, ("train", SMOKE, "--epochs", "1", "--subset", "100", "--fail-under", "1")),
    ],
    ids=str,
)
def test_stderr_on_a_full_disk_does_not_change_the_exit_code(
    processes: Processes, code: int, arguments: tuple[str, ...]
) -> None:
    assert code == run(processes, arguments, full=("stderr",)).returncode


@pytest.mark.parametrize("full", [("stdout",), ("stdout", "stderr")], ids=str)
def test_a_training_whose_results_cannot_be_printed_is_saved_and_exits_with_1(
    processes: Processes, full: tuple[str, ...]
) -> None:
    arguments = ("train", GATE, "--epochs", "1", "--run-dir", "run")
    assert run(processes, arguments, full=full).returncode == 1
    assert json.loads(Path("run/summary.json").read_text("utf-8"))["status"] == "finished"

"""Every command reads the runs and sweeps of all earlier versions.

Each folder here was written by an earlier version of nnctl, and its name ends with the version of
the format. The folders are never replaced: a change that cannot read them breaks the runs of users.
A new format adds a folder. The networks have 1,600 parameters and were trained on the bundled
'mini' dataset.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.runs.run import Run
from nnctl.sweeps.trials import TrialResult
from tests.conftest import Nnctl

HERE = Path(__file__).parent
RUNS = sorted(path.name for path in HERE.glob("run-*"))
SWEEPS = sorted(path.name for path in HERE.glob("sweep-*"))


@pytest.fixture
def directory(scratch: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of one of the folders."""
    return Path(shutil.copytree(HERE / request.param, scratch / request.param))


@pytest.mark.usefixtures("sketched_reports")
@pytest.mark.parametrize("directory", [*RUNS, *SWEEPS], indirect=True)
def test_a_report_of_an_earlier_version_is_written(nnctl: Nnctl, directory: Path) -> None:
    page = Path(nnctl("report", directory).stdout.splitlines()[-1]).read_text("utf-8")
    assert "Confusion matrix" in page


@pytest.mark.parametrize("directory", RUNS, indirect=True)
def test_every_other_command_reads_a_run_of_an_earlier_version(
    nnctl: Nnctl, directory: Path
) -> None:
    run = Run.open(directory)
    assert run.summary
    expected = {"validation": run.summary.best_val_accuracy}
    for split in ("validation", "train", "test"):
        result = json.loads(nnctl("eval", directory, "--split", split, "--json").stdout)
        assert expected.get(split, result["accuracy"]) == result["accuracy"]
    nnctl("eval", directory, "--checkpoint", "last")
    assert len(run.history) == json.loads(nnctl("check", directory, "--json").stdout)["epochs_done"]
    answers = nnctl("predict", directory, MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz").stdout
    assert len(answers.splitlines()) == 1000
    for file_format in ("onnx", "safetensors"):
        nnctl("export", directory, "--format", file_format, "--quiet")


@pytest.mark.parametrize("directory", RUNS, indirect=True)
def test_a_run_of_an_earlier_version_can_be_extended(nnctl: Nnctl, directory: Path) -> None:
    before = Run.open(directory).history
    nnctl("train", "--resume", directory, "--epochs", len(before) + 1, "--quiet")
    after = Run.open(directory).history
    assert before == after[: len(before)]
    assert len(before) + 1 == len(after)


@pytest.mark.parametrize("directory", SWEEPS, indirect=True)
def test_a_sweep_of_an_earlier_version_can_be_shown_and_resumed(
    nnctl: Nnctl, directory: Path
) -> None:
    shown = nnctl("sweep", "--show", directory, "--json").stdout
    journal = directory / "journal.jsonl"
    *lines, ended = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines), "utf-8")
    shutil.rmtree(directory / f"trial-{json.loads(ended)['trial']:03d}")
    nnctl("sweep", "--resume", directory, "--workers", 1, "--quiet")
    again = nnctl("sweep", "--show", directory, "--json").stdout
    assert list(map(_without_time, shown.splitlines())) == [
        _without_time(line) for line in again.splitlines()
    ]


def _without_time(line: str) -> dict[str, Any]:
    row: dict[str, Any] = {**json.loads(line), "seconds": 0.0}
    assert row.keys() == TrialResult.model_fields.keys()
    # Early versions did not record the last epoch.
    return {key: value for key, value in row.items() if not key.startswith("last_")}


def summary_of_version_99(directory: Path) -> Path:
    path = directory / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(summary | {"format_version": 99}), "utf-8")
    return path


def journal_of_version_99(directory: Path) -> Path:
    path = directory / "journal.jsonl"
    header, *lines = path.read_text("utf-8").splitlines()
    newer = json.dumps({**json.loads(header), "format_version": 99})
    path.write_text("\n".join([newer, *lines, ""]), "utf-8")
    return path


@pytest.mark.parametrize(
    ("directory", "change", "commands"),
    [
        *(
            (name, summary_of_version_99, ["check", "report", "train --epochs 3 --resume"])
            for name in RUNS
        ),
        *(
            (name, journal_of_version_99, ["sweep --show", "sweep --resume", "report"])
            for name in SWEEPS
        ),
    ],
    indirect=["directory"],
)
def test_a_later_format_version_is_an_error_with_a_hint(
    nnctl: Nnctl, directory: Path, change: Callable[[Path], Path], commands: list[str]
) -> None:
    path = change(directory)
    before = path.read_bytes()
    for command in commands:
        stderr = nnctl(*command.split(), directory, code=3).stderr
        assert f"{path.name} has format version 99; this nnctl reads 1" in stderr
        assert "Install the version of nnctl that wrote it." in stderr
    assert before == path.read_bytes()

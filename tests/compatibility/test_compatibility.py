"""What earlier versions have written is read by every command, for ever.

The folders beside this file are as a version of nnctl left them; their names end in the version of
the format. They are never written anew: a change that cannot read them strands a user's runs. A new
format adds a folder. Each holds a network of 1,600 parameters, trained on the digits that ship.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.runs.directory import Run
from nnctl.sweep.trials import TrialResult
from tests.conftest import Nnctl

HERE = Path(__file__).parent
RUNS = sorted(path.name for path in HERE.glob("run-*"))
SWEEPS = sorted(path.name for path in HERE.glob("sweep-*"))

_NEWER = "Install the version of nnctl that wrote it."


@pytest.fixture
def kept(scratch: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of what was kept, to work in."""
    return Path(shutil.copytree(HERE / request.param, scratch / request.param))


@pytest.mark.parametrize("kept", RUNS, indirect=True)
def test_a_run_of_an_earlier_version_is_read_by_every_command(nnctl: Nnctl, kept: Path) -> None:
    run = Run.open(kept)
    for split, key in (("validation", "best_val_accuracy"), ("train", None), ("test", None)):
        told = json.loads(nnctl("eval", kept, "--split", split, "--json").stdout)
        if key:
            assert run.summary[key] == told["accuracy"]
    nnctl("eval", kept, "--checkpoint", "last")
    assert len(run.metrics) == json.loads(nnctl("check", kept, "--json").stdout)["epochs_done"]
    told = nnctl("predict", kept, MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz").stdout
    assert len(told.splitlines()) == 1000
    page = Path(nnctl("report", kept).stdout.splitlines()[-1]).read_text("utf-8")
    assert "Confusion matrix" in page
    for file_format in ("onnx", "safetensors"):
        nnctl("export", kept, "--format", file_format, "--quiet")


@pytest.mark.parametrize("kept", RUNS, indirect=True)
def test_a_run_of_an_earlier_version_is_trained_further(nnctl: Nnctl, kept: Path) -> None:
    before = Run.open(kept).metrics
    nnctl("train", "--resume", kept, "--epochs", len(before) + 1, "--quiet")
    after = Run.open(kept).metrics
    assert before == after[: len(before)]
    assert len(before) + 1 == len(after)


@pytest.mark.parametrize("kept", SWEEPS, indirect=True)
def test_a_sweep_of_an_earlier_version_is_shown_reported_and_gone_on_with(
    nnctl: Nnctl, kept: Path
) -> None:
    shown = nnctl("sweep", "--show", kept, "--json").stdout
    nnctl("report", kept)
    journal = kept / "journal.jsonl"
    *lines, ended = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines), "utf-8")
    shutil.rmtree(kept / f"trial-{json.loads(ended)['trial']:03d}")
    nnctl("sweep", "--resume", kept, "--workers", 1, "--quiet")
    again = nnctl("sweep", "--show", kept, "--json").stdout
    assert list(map(_without_time, shown.splitlines())) == [
        _without_time(line) for line in again.splitlines()
    ]


def _without_time(line: str) -> TrialResult:
    return TrialResult(**{**json.loads(line), "seconds": 0.0})


@pytest.mark.parametrize("kept", RUNS, indirect=True)
def test_a_run_of_a_later_version_is_refused_with_what_to_do(nnctl: Nnctl, kept: Path) -> None:
    path = kept / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(summary | {"format_version": 99}), "utf-8")
    for words in (("check", kept), ("report", kept), ("train", "--resume", kept, "--epochs", 3)):
        told = nnctl(*words, code=3).stderr
        assert "summary.json has format version 99; this nnctl reads 1" in told
        assert _NEWER in told
    assert json.loads(path.read_text("utf-8"))["format_version"] == 99


@pytest.mark.parametrize("kept", SWEEPS, indirect=True)
def test_a_sweep_of_a_later_version_is_refused_with_what_to_do(nnctl: Nnctl, kept: Path) -> None:
    path = kept / "journal.jsonl"
    header, *lines = path.read_text("utf-8").splitlines()
    newer = json.dumps({**json.loads(header), "format_version": 99})
    path.write_text("\n".join([newer, *lines, ""]), "utf-8")
    before = path.read_bytes()
    for words in (("sweep", "--show", kept), ("sweep", "--resume", kept), ("report", kept)):
        told = nnctl(*words, code=3).stderr
        assert "journal.jsonl has format version 99; this nnctl reads 1" in told
        assert _NEWER in told
    assert before == path.read_bytes()

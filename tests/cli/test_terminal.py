"""Commands in a terminal of 80 or 200 columns, without color, and with a pipe."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nnctl.nn.events import EpochDone, Finished
from nnctl.views.training import TrainingView
from tests.conftest import CONFIGS
from tests.processes import ENVIRONMENT, Processes, end_of, nnctl_command
from tests.runs.helpers import SMALL, begin
from tests.terminal import COLOR, in_terminal, on_screen

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal"),
    pytest.mark.usefixtures("scratch"),
    pytest.mark.xdist_group("terminal"),
]

SMOKE = ("train", CONFIGS / "smoke.yaml", "--epochs", 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a training of six epochs in a terminal of 80 columns."""
    run = tmp_path_factory.mktemp("terminal") / "run"
    return in_terminal("train", CONFIGS / "smoke.yaml", "--epochs", 6, "--run-dir", run)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_fits_the_window(trained: str, columns: int) -> None:
    printed = trained if columns == 80 else in_terminal(*SMOKE, columns=columns)
    lines = on_screen(printed, columns)
    header = next(line for line in lines if "train loss" in line)
    rows = [line for line in lines if re.match(r"[ *] +\d+  +\d+\.\d{4}", line)]
    assert len(rows) == (6 if columns == 80 else 3)
    assert {header.index("health")} == {row.index("ok") for row in rows}
    assert header.index("health") + len("exploding") <= 80
    assert "batches" not in "".join(lines)


def test_a_row_has_all_digits_of_its_epoch(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = begin(scratch / "run")
    done = next(event for event in training.events(lambda: False) if isinstance(event, EpochDone))
    view = TrainingView(training, quiet=False)
    for epoch in (7, 123_456, 12_345_678):
        view.show(replace(done, epoch=epoch))
    shown = [row.split()[0] for row in capsys.readouterr().err.splitlines()]
    assert shown == ["*", "*123456", "*12345678"]


def test_a_run_of_many_epochs_has_some_rows_and_always_the_last_one(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = begin(scratch / "run", {**SMALL, "training": {"epochs": 15_000, "threads": 1}})
    done = next(event for event in training.events(lambda: False) if isinstance(event, EpochDone))
    view = TrainingView(training, quiet=False)
    for epoch in range(1, 14_851):
        view.show(replace(done, epoch=epoch))
    view.show(Finished("diverged"))
    shown = re.findall(r"^[* ] *(\d+) ", capsys.readouterr().err, re.MULTILINE)
    assert [int(epoch) for epoch in shown] == [1, *range(100, 14_801, 100), 14_850]


def test_a_run_of_many_epochs_with_few_validations_has_a_row_for_each(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"epochs": 1000, "validate_every": 300, "batch_size": 20, "threads": 1}
    data = {**SMALL["data"], "validation": 1000, "subset": 20, "fold": {"number": 2, "of": 5}}
    training = begin(scratch / "run", {**SMALL, "data": data, "training": options})
    with TrainingView(training, quiet=False) as view:
        for event in training.events(lambda: False):
            view.show(event)
    printed = capsys.readouterr().err
    assert " held out (fold 2 of 5)\n" in printed
    assert "one row per" not in printed
    rows = re.findall(r"^[* ] *(\d+)  ", printed, re.MULTILINE)
    assert rows == ["300", "600", "900", "1000"]


def test_a_bar_moves_and_curves_are_drawn_at_the_end(trained: str) -> None:
    assert "epoch 1/" in trained
    assert " left" in trained
    lines = COLOR.sub("", trained).splitlines()
    drawn = [line for line in lines if any("\u2801" <= letter <= "\u28ff" for letter in line)]
    assert len(drawn) == 4
    assert all(name in trained for name in ("train loss", "val. loss", "val. accuracy"))
    assert "the last mark is the best epoch" in trained
    assert all(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= 80 for line in drawn)


def test_a_training_of_one_epoch_has_no_curves() -> None:
    assert "val. accuracy" not in in_terminal(*SMOKE, "--epochs", 1)


def test_a_download_shows_a_bar_for_each_file_and_names_the_mirror_that_failed(
    serve: Callable[[Path], str], mnist_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    nothing, everything = serve(tmp_path / "empty"), serve(mnist_folder)
    lines = on_screen(in_terminal("download", "--mirror", nothing, "--mirror", everything))
    bars = [line for line in lines if re.match(r"[\w-]+-ubyte +━+ .*/[\d.]+ .B", line)]
    assert len(bars) == 4
    assert "".join(lines).count("answered 404") == 4
    assert any(line.startswith("MNIST is in ") for line in lines)


def test_a_download_that_fails_leaves_no_bar() -> None:
    lines = on_screen(in_terminal("download", env=ENVIRONMENT, code=3))
    assert not any("━" in line for line in lines)
    assert any("no mirror served" in line for line in lines)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_progress_is_plain_lines_where_animation_is_off(env: dict[str, str]) -> None:
    printed = in_terminal(*SMOKE, env=env)
    assert "batches" not in printed
    if "CI" not in env:
        assert not COLOR.search(printed)


def test_the_confusion_matrix_is_colored_and_the_worst_mistakes_are_pictures(
    trained_run: Path,
) -> None:
    printed = in_terminal("eval", trained_run, "--mistakes", 3)
    matrix, mistakes = printed.split("Worst mistakes")
    assert COLOR.search(matrix)
    rows = [line for line in on_screen(matrix) if re.match(r" +\d +(\d+|·) +(\d+|·) ", line)]
    assert len(rows) == 11  # the header, and a row per digit
    lines = COLOR.sub("", mistakes).splitlines()
    blocks = [line.count("\u2580") for line in lines]
    assert [count for count in blocks if count] == [56] * 14 + [28] * 14
    assert sum(line.count(" predicted as ") for line in lines) == 3


def test_a_sweep_shows_its_trials_and_a_leaderboard() -> None:
    choices = ("-p", "training.batch_size=16,32", "--epochs", 1, "--subset", 300, "--workers", 1)
    lines = on_screen(in_terminal("sweep", CONFIGS / "smoke.yaml", *choices))
    assert sum(bool(re.match(r"trial \d+ \(\d of 2 done\)", line)) for line in lines) == 2
    assert any("batch_size" in line and "accuracy" in line for line in lines)
    assert not any("running" in line for line in lines)


def test_a_narrow_window_leaves_out_curves_time_and_size() -> None:
    choices = ("-p", "training.batch_size=16", "--epochs", 1, "--subset", 300, "--workers", 1)
    assert "val. accuracy" not in in_terminal(
        "sweep", CONFIGS / "smoke.yaml", *choices, "--name", "narrow", columns=60
    )
    _, header, _, row = on_screen(in_terminal("runs", columns=60), 60)[:4]
    assert header.split() == ["name", "state", "validation", "test", "epochs"]
    assert row.split()[0] == "narrow"
    assert row.endswith("1 trial")


def test_a_closed_pipe_ends_quietly(processes: Processes, trained_run: Path) -> None:
    command = shlex.join(nnctl_command("eval", trained_run))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    done = end_of(processes.start(["sh", "-c", f"{command} | head -n 1"], **streams))
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_file_name_cannot_move_the_cursor() -> None:
    printed = in_terminal("eval", "no\x1b[2Jwhere", code=2)
    assert "no\\x1b[2Jwhere: run directory not found" in " ".join(printed.split())
    assert "\x1b[2J" not in printed

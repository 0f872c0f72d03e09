"""What people see in a terminal: at 80 and at 200 columns, without colour, on a pipe."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nnctl.nn.training import EpochDone
from nnctl.views.training import TrainingView
from tests.conftest import CONFIGS, nnctl_command
from tests.runs.helpers import begin
from tests.terminal import COLOR, in_terminal, on_screen

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal"),
    pytest.mark.usefixtures("scratch"),
]

SMOKE = ("train", CONFIGS / "smoke.yaml", "--epochs", 3)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_fits_the_window(columns: int) -> None:
    lines = on_screen(in_terminal(*SMOKE, columns=columns), columns)
    header = next(line for line in lines if "train loss" in line)
    rows = [line for line in lines if re.match(r"[ *] +\d+  +\d+\.\d{4}", line)]
    assert len(rows) == 3
    assert [header.index("health")] * 3 == [row.index("ok") for row in rows]
    assert header.index("health") + len("exploding") <= 80
    assert "batches" not in "".join(lines)


def test_a_row_tells_every_digit_of_its_epoch(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = begin(scratch / "run")
    done = next(event for event in training.events(lambda: False) if isinstance(event, EpochDone))
    view = TrainingView(training, quiet=False)
    for epoch in (7, 123_456, 12_345_678):
        view.show(replace(done, epoch=epoch))
    shown = [row.split()[0] for row in capsys.readouterr().err.splitlines()]
    assert shown == ["*", "*123456", "*12345678"]


def test_a_bar_moves_in_a_terminal() -> None:
    assert "batches" in in_terminal(*SMOKE)


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
    env = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    printed = in_terminal("download", env={**env, "HTTPS_PROXY": env["https_proxy"]}, code=3)
    lines = on_screen(printed)
    assert not any("━" in line for line in lines)
    assert any("no mirror served" in line for line in lines)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_plain_lines_where_nothing_may_move(env: dict[str, str]) -> None:
    printed = in_terminal(*SMOKE, env=env)
    assert "batches" not in printed
    if "CI" not in env:
        assert not COLOR.search(printed)


def test_the_confusion_matrix_is_coloured_in_a_terminal_and_fits_80_columns() -> None:
    in_terminal(*SMOKE, "--run-dir", "run", "--quiet")
    printed = in_terminal("eval", "run")
    assert COLOR.search(printed)
    lines = on_screen(printed)
    matrix = [line for line in lines if re.match(r" +\d +(\d+|·) +(\d+|·) ", line)]
    assert len(matrix) == 11  # the header, and a row a digit


@pytest.mark.parametrize("columns", [80, 200])
def test_a_sweep_shows_its_trials_and_a_leaderboard(columns: int) -> None:
    lines = on_screen(
        in_terminal(
            "sweep",
            CONFIGS / "smoke.yaml",
            "-p",
            "training.batch_size=16,32,64",
            "-p",
            "optimizer.learning_rate=0.05,0.1",
            "--epochs",
            1,
            columns=columns,
        ),
        columns,
    )
    assert sum(bool(re.match(r"trial \d+ \(\d of 6 done\)", line)) for line in lines) == 6
    assert any("batch_size" in line and "accuracy" in line for line in lines)
    assert not any("running" in line for line in lines)


def test_a_closed_pipe_ends_quietly() -> None:
    in_terminal(*SMOKE, "--run-dir", "run", "--quiet")
    command = subprocess.list2cmdline(nnctl_command("eval", "run"))
    done = subprocess.run(
        f"{command} | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("epochs", [3, 6])
def test_curves_are_drawn_after_a_training_that_is_long_enough(epochs: int) -> None:
    shown = in_terminal("train", CONFIGS / "smoke.yaml", "--epochs", epochs)
    lines = COLOR.sub("", shown).splitlines()
    drawn = [line for line in lines if any("\u2801" <= letter <= "\u28ff" for letter in line)]
    assert len(drawn) == (4 if epochs > 4 else 0)
    assert ("validation accuracy:" in shown) == (epochs > 4)
    assert all(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= 80 for line in drawn)


def test_the_worst_mistakes_are_pictures_in_a_terminal() -> None:
    in_terminal("train", CONFIGS / "smoke.yaml", "--epochs", 1, "--run-dir", "run")
    shown = in_terminal("eval", "run", "--mistakes", 3)
    lines = COLOR.sub("", shown.split("Worst mistakes")[1]).splitlines()
    blocks = [line.count("\u2580") for line in lines]
    assert [count for count in blocks if count] == [56] * 14 + [28] * 14
    assert sum(line.count(" taken for ") for line in lines) == 3


def test_what_a_file_is_called_moves_no_cursor() -> None:
    printed = in_terminal("eval", "no\x1b[2Jwhere", code=2)
    assert "there is no run directory no\\x1b[2Jwhere" in " ".join(printed.split())
    assert "\x1b[2J" not in printed

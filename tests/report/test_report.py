"""The command ``nnctl report`` and the text of its page, without a browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import nnctl as api
from nnctl.analysis.comparison import mcnemar
from nnctl.nn.events import EpochDone
from nnctl.report import weights
from nnctl.report.charts import import_matplotlib
from nnctl.text import p_equals
from tests.conftest import CONFIGS, Nnctl
from tests.runs.helpers import begin

pytestmark = [
    pytest.mark.xdist_group("report"),  # one process draws the charts of `report`
    pytest.mark.usefixtures("sketched_reports"),
]

SMOKE = CONFIGS / "smoke.yaml"


def read(file: Path | str = "report.html") -> str:
    return Path(file).read_text("utf-8")


def text_of(file: Path | str = "report.html") -> str:
    """Return the text of a page without tags, with normalized spaces."""
    without_tags = re.sub(r"(?s)<(style|script).*?</\1>|<[^>]*>", " ", read(file))
    return " ".join(html.unescape(without_tags).split())


# The page of one run ----------------------------------------------------------------------------


def test_the_page_is_a_single_file_that_fetches_nothing(report: Path) -> None:
    page = read(report)
    assert len(page.encode()) < 3_000_000
    without_names = page.replace('"http://www.w3.org/', "")
    assert "http://" not in without_names
    assert "https://" not in without_names
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert "default-src 'none'" in page


def test_the_page_has_all_sections_and_charts(report: Path) -> None:
    page = read(report)
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    for heading in (
        *("Summary", "Draw a digit", "Learning curves", "Confusion matrix", "Worst mistakes"),
        *("Calibration", "Corrupted images", "Layers", "Configuration"),
    ):
        assert heading in headings
    for name in (
        *("Loss", "Accuracy", "Learning rate", "Accuracy by confidence", "Dead units"),
        "Accuracy by strength of corruption",
    ):
        assert f'aria-label="{name}"' in page


def test_the_page_shows_the_same_figures_as_eval(report: Path, trained_run: Path) -> None:
    evaluation = api.evaluate(trained_run)
    text = text_of(report)
    assert f"test accuracy {100 * evaluation.accuracy:.2f} %" in text
    assert f"test images wrong {round(1000 * (1 - evaluation.accuracy))} of 1,000" in text
    counts = [int(n) for n in re.findall(r'data-cell="\d-\d"[^>]*>(\d+)<', read(report))]
    assert sorted(counts) == sorted(evaluation.confusion[evaluation.confusion > 0].tolist())


def test_the_same_run_gives_the_same_page(nnctl: Nnctl, trained_run: Path, scratch: Path) -> None:
    pages = set()
    for _ in range(2):
        nnctl("report", trained_run, "-o", "report.html")
        pages.add((scratch / "report.html").read_bytes())
    assert len(pages) == 1


def test_the_page_states_that_weights_are_rounded_or_the_network_is_too_large(
    nnctl: Nnctl, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nnctl("report", trained_run, "-o", "report.html")
    assert "rounded to 16 bits" in text_of()
    monkeypatch.setattr(weights, "MAX_WEIGHTS", 10_000)
    nnctl("report", trained_run, "-o", "report.html")
    assert "too large for this page" in text_of()


@pytest.mark.parametrize("config", ["gates/xor.yaml", "gates/and.yaml", "is-it-a-nine.yaml"])
def test_gates_and_binary_classifiers_have_a_page(nnctl: Nnctl, config: str) -> None:
    is_picture = not config.startswith("gates")
    only = ["--dataset", "mini"] if is_picture else []
    nnctl("train", CONFIGS / config, "--epochs", 2, *only, "--run-dir", "run", "--quiet")
    nnctl("report", "run", "-o", "report.html")
    text = text_of()
    assert ("Draw a digit" in text) == is_picture
    assert "Confusion matrix" in text
    assert "Learning curves" in text


def test_figures_that_were_monitored_have_charts(nnctl: Nnctl) -> None:
    monitor = ("--set", "training.monitor=[cost, train_accuracy, test]")
    steps = ("--set", "training.monitor_every=20", "--set", "training.validate_every=2")
    done = nnctl("train", CONFIGS / "smoke.yaml", "--epochs", 3, *monitor, *steps, "--name", "a")
    header, *rows = re.findall(r"^[ *] *(?:epoch|\d+)  .*", done.stderr, re.MULTILINE)
    assert [header.index(title) + len(title) for title in ("cost", "on train", "on test")] == [
        match.end() for match in [*re.finditer(r"\d+\.\d+( %)?", rows[0])][4:7]
    ]
    assert [row.split()[1 if row[0] == "*" else 0] for row in rows] == ["2", "3"]
    nnctl("report", "runs/a", "-o", "report.html")
    page = read(Path("report.html"))
    for name in ("Cost with its regularization term", "Loss by step"):
        assert f'aria-label="{name}"' in page
    assert all(line in text_of() for line in ("training, after the epoch", "test"))
    Path("runs/a/steps.jsonl").write_text("{}\n", "utf-8")
    assert "steps.jsonl:1 is damaged" in nnctl("report", "runs/a", code=3).stderr


# The file and the command -----------------------------------------------------------------------


def test_the_last_line_is_the_file_and_json_lists_the_runs(nnctl: Nnctl, trained_run: Path) -> None:
    run = Path(shutil.copytree(trained_run, "a run"))
    done = nnctl("report", run)
    assert done.stdout.splitlines()[-1] == str(run / "report.html")
    assert (run / "report.html").resolve().as_uri() in done.stderr
    result = json.loads(nnctl("report", trained_run, "-o", "other.html", "--json").stdout)
    assert result["file"] == "other.html"
    assert result["bytes"] == Path("other.html").stat().st_size
    accuracy = api.evaluate(trained_run).accuracy
    assert result["runs"] == [
        {"run_dir": str(trained_run), "test_accuracy": accuracy, "lacking": None}
    ]


@pytest.mark.parametrize("status", [0, 1], ids=["a browser", "no browser"])
def test_open_shows_the_page_in_a_browser_or_reports_that_none_starts(
    nnctl: Nnctl, trained_run: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    opened = []

    def launch(url: str) -> int:
        opened.append(url)
        return status

    monkeypatch.setattr(click, "launch", launch)
    done = nnctl("report", trained_run, "--open", "-o", "report.html")
    assert opened == [str((scratch / "report.html").resolve())]
    assert done.stdout == "report.html\n"
    assert ("could not start a browser" in done.stderr) == (status != 0)


def test_an_earlier_page_is_replaced_but_no_other_file(nnctl: Nnctl, trained_run: Path) -> None:
    nnctl("report", trained_run, "-o", "report.html")
    nnctl("report", trained_run, "-o", "report.html")
    mine = Path("mine.sh")
    mine.write_text("nnctl report $1", "utf-8")
    assert (
        "exists and its name does not end with .html"
        in nnctl("report", trained_run, "-o", mine, code=2).stderr
    )
    assert mine.read_text("utf-8") == "nnctl report $1"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (".", 2, "is a directory"),
        ("no/folder/report.html", 1, "Hint: Use another file with --output."),
        pytest.param("x" * 250, 2, f"{'x' * 250} cannot be written", id="no room for a suffix"),
        pytest.param("x" * 5000, 2, f"{'x' * 5000} cannot be written", id="too long"),
    ],
)
def test_a_page_that_cannot_be_written_is_an_error(
    nnctl: Nnctl, trained_run: Path, name: str, code: int, message: str
) -> None:
    if sys.platform == "win32" and name.startswith("x"):
        pytest.skip("Windows has another error")
    assert message in nnctl("report", trained_run, "-o", name, code=code).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_pipe_is_not_replaced_and_does_not_block(nnctl: Nnctl, trained_run: Path) -> None:
    os.mkfifo("pipe")
    done = nnctl("report", trained_run, "-o", "pipe", code=2)
    assert "is a folder, a pipe or a device" in done.stderr
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("module", "name"), [("matplotlib", "matplotlib"), ("jinja2", "Jinja"), ("PIL", "Pillow")]
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    nnctl: Nnctl, trained_run: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    import_matplotlib.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    stderr = nnctl("report", trained_run, code=2).stderr
    assert f"a report requires {name}" in stderr
    assert '[plot]"' in stderr


# Several runs -----------------------------------------------------------------------------------


def test_two_runs_are_compared(nnctl: Nnctl, trained_run: Path) -> None:
    nnctl("train", SMOKE, "--epochs", 1, "--run-dir", "other", "--quiet")
    nnctl("report", "other", trained_run, "-o", "report.html")
    text = text_of()
    ours, theirs = (api.evaluate(run).predictions.right for run in (trained_run, "other"))
    p = mcnemar(ours, theirs)
    assert "run has the best validation accuracy" in text
    differing = np.count_nonzero(ours != theirs)
    assert f"Of the {differing} test images that only one of the two runs gets right" in text
    assert p_equals(p) in text
    assert f"{np.count_nonzero(theirs & ~ours)} : {np.count_nonzero(ours & ~theirs)}" in text
    assert "Best run: run" in text
    assert " epochs 2 " in text  # training.epochs, the key in which the runs differ


def test_runs_with_the_same_name_are_listed_by_path(nnctl: Nnctl, trained_run: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(trained_run, Path(folder, "run"))
    nnctl("report", "a/run", "b/run", "a/../a/run", "-o", "report.html")
    text = text_of()
    assert "2 runs" in text
    assert str(Path("a/run")) in text
    assert str(Path("b/run")) in text


def test_a_sweep_has_charts_of_its_parameters(nnctl: Nnctl) -> None:
    nnctl(
        *("sweep", SMOKE, "-p", "optimizer.learning_rate=0.01,0.1"),
        *("-p", "network.layers.0.activation=relu,tanh"),
        *("--set", "data.subset=100", "--set", "training.epochs=1"),
        *("--workers", 1, "--sweep-dir", "sweep", "--quiet"),
    )
    nnctl("report", "sweep", "-o", "report.html")
    page = read()
    assert "4 trials complete" in text_of()
    for key in ("optimizer.learning_rate", "network.layers.0.activation"):
        assert f'aria-label="{key}"' in page
    assert len(re.findall(r'<th scope="row">trial-', page)) == 4


# Runs that are not complete ---------------------------------------------------------------------


def test_a_run_in_training_is_shown_up_to_its_last_complete_epoch(
    nnctl: Nnctl, scratch: Path
) -> None:
    training = begin(scratch / "run")
    events = training.events(lambda: False)
    while not isinstance(next(events), EpochDone):
        pass
    nnctl("report", "run", "-o", "report.html")
    text = text_of()
    assert "not ended" in text
    assert "Learning curves" in text
    assert "Confusion matrix" in text
    assert [*events]  # the training continues


def test_a_run_without_a_complete_epoch_has_no_evaluation(nnctl: Nnctl, copied_run: Path) -> None:
    for name in ("best.npz", "last.npz", "metrics.jsonl", "summary.json"):
        (copied_run / name).unlink()
    assert (
        "no epoch of this run was completed" in nnctl("report", "run", "-o", "report.html").stderr
    )
    text = text_of()
    assert "no epoch of this run was completed" in text
    assert "784-64-10" in text
    assert "Confusion matrix" not in text


def test_a_run_that_diverged_shows_its_diagnosis(nnctl: Nnctl) -> None:
    nnctl("train", CONFIGS / "lessons" / "divergence.yaml", "--run-dir", "run", "--quiet", code=4)
    nnctl("report", "run", "-o", "report.html")
    text = text_of()
    assert "What could be better" in text
    assert "were not finite" in text
    assert "Try:" in text


def test_without_its_dataset_a_run_shows_everything_except_the_evaluation(
    nnctl: Nnctl, mini_folder: Path
) -> None:
    nnctl("train", SMOKE, "--dataset", mini_folder, "--epochs", 1, "--run-dir", "run", "--quiet")
    for file in mini_folder.iterdir():
        file.unlink()
    assert "was not evaluated" in nnctl("report", "run", "-o", "report.html").stderr
    text = text_of()
    assert "No evaluation on test images" in text
    assert "Draw a digit" in text
    assert "Learning curves" in text


def test_a_folder_that_is_corrupt_or_not_a_run_is_an_error(nnctl: Nnctl, copied_run: Path) -> None:
    assert "run directory not found" in nnctl("report", "nowhere", code=2).stderr
    Path("empty").mkdir()
    assert "not a run directory" in nnctl("report", "empty", code=2).stderr
    assert "Missing argument" in nnctl("report", code=2).stderr
    Path("empty/journal.jsonl").write_text("{}\n", "utf-8")
    assert "journal.jsonl" in nnctl("report", "empty", code=3).stderr
    best = copied_run / "best.npz"
    best.write_bytes(best.read_bytes()[:-100])
    assert "is damaged" in nnctl("report", "run", "-o", "report.html").stderr
    (copied_run / "metrics.jsonl").write_text("not JSON\n", "utf-8")
    assert "is damaged" in nnctl("report", "run", code=3).stderr

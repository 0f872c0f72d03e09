"""``nnctl report`` as a user sees it, without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import nnctl as face
from nnctl.runs.comparison import mcnemar
from nnctl.runs.directory import Run
from nnctl.runs.evaluation import evaluate
from tests.conftest import CONFIGS, Nnctl, nnctl_command
from tests.runs.helpers import ignore


def read(file: Path) -> str:
    """Return a page."""
    return file.read_text("utf-8")


def text_of(file: Path) -> str:
    """Return what a page says, without tags and styles, each stretch of white space a space."""

    class Reader(HTMLParser):
        hidden = 0
        texts: list[str] = []  # noqa: RUF012 - of the one instance

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.hidden += tag in ("style", "script")

        def handle_endtag(self, tag: str) -> None:
            self.hidden -= tag in ("style", "script")

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                self.texts.append(data)

    reader = Reader()
    reader.texts = []
    reader.feed(read(file))
    return " ".join(" ".join(reader.texts).split())


def test_the_page_is_one_file_that_fetches_nothing(report: Path) -> None:
    page = read(report)
    assert len(page.encode()) < 3_000_000
    without_names = page.replace('"http://www.w3.org/', "")
    assert "http://" not in without_names
    assert "https://" not in without_names
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert "default-src 'none'" in page


def test_its_figures_are_those_of_eval(report: Path, trained: Path) -> None:
    evaluation = face.evaluate(trained)
    told = text_of(report)
    assert f"test accuracy {100 * evaluation.accuracy:.2f} %" in told
    assert f"test images wrong {round(1000 * (1 - evaluation.accuracy))} of 1,000" in told
    counts = [int(n) for n in re.findall(r'data-cell="\d-\d"[^>]*>(\d+)<', read(report))]
    assert sorted(counts) == sorted(evaluation.confusion[evaluation.confusion > 0].tolist())


def test_faults_are_drawn_at_the_accuracies_of_eval(report: Path, trained: Path) -> None:
    _, figure = read(report).split('aria-label="Accuracy by the strength of a fault"')
    paths = re.findall(r'<path d="([^"]*)"[^>]*var\(--series-', figure[: figure.index("</figure>")])
    drawn = np.array([re.findall(r"[ML] \S+ (\S+)", path) for path in paths], float)
    told = evaluate(Run(trained), corrupt=True, notify=ignore)
    expected = np.array([[told.accuracy, *row.accuracies] for row in told.corrupted])
    ends = [drawn.min(), drawn.max()], [expected.max(), expected.min()]
    np.testing.assert_allclose(np.interp(drawn, *ends), expected, atol=1e-4)


def test_the_last_line_is_the_file_and_json_tells_its_runs(nnctl: Nnctl, trained: Path) -> None:
    assert nnctl("report", trained).stdout.splitlines()[-1] == "report.html"
    done = nnctl("report", trained, "-o", "other.html", "--json")
    told = json.loads(done.stdout)
    assert told["file"] == "other.html"
    assert told["bytes"] == Path("other.html").stat().st_size
    assert told["runs"] == [
        {
            "run_dir": str(trained),
            "test_accuracy": face.evaluate(trained).accuracy,
            "lacking": None,
        }
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="finds its browser by the path")
def test_without_a_browser_the_page_is_there_all_the_same(nnctl: Nnctl, trained: Path) -> None:
    done = nnctl("report", trained, "--open", env={"PATH": ""})
    assert done.stdout == "report.html\n"
    assert "no browser could be started" in done.stderr


def test_a_browser_gets_the_page(nnctl: Nnctl, trained: Path, scratch: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("a script stands in for the browser of Linux")
    opener = scratch / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text('#!/bin/sh\necho "$@" > opened.txt\n', "utf-8")
    opener.chmod(0o755)
    nnctl("report", trained, "--open", env={"PATH": f"{opener.parent}:/usr/bin:/bin"})
    for _ in range(100):
        if (scratch / "opened.txt").exists() and (scratch / "opened.txt").read_text("utf-8"):
            break
        time.sleep(0.05)
    opened = (scratch / "opened.txt").read_text("utf-8").strip()
    assert opened == str((scratch / "report.html").resolve())


def test_a_page_is_replaced_and_no_other_file(nnctl: Nnctl, trained: Path, scratch: Path) -> None:
    nnctl("report", trained)
    nnctl("report", trained)
    mine = scratch / "mine.sh"
    mine.write_text("nnctl report $1", "utf-8")
    done = nnctl("report", trained, "-o", mine, code=2)
    assert "is no report of nnctl" in done.stderr
    assert mine.read_text("utf-8") == "nnctl report $1"
    assert "is a directory" in nnctl("report", trained, "-o", scratch, code=2).stderr
    missing = nnctl("report", trained, "-o", "no/folder/report.html", code=1)
    assert "cannot be written" in missing.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_pipe_is_neither_waited_for_nor_replaced(
    nnctl: Nnctl, trained: Path, scratch: Path
) -> None:
    os.mkfifo(scratch / "pipe")
    done = nnctl("report", trained, "-o", "pipe", code=2)
    assert "is a folder, a pipe or a device" in done.stderr
    assert (scratch / "pipe").is_fifo()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such error")
@pytest.mark.parametrize("length", [250, 5000])  # of which the first leaves no room for a suffix
def test_a_name_that_no_file_can_have_is_a_usage_error(
    nnctl: Nnctl, trained: Path, length: int
) -> None:
    done = nnctl("report", trained, "-o", "x" * length, code=2)
    assert f"{'x' * length} cannot be written" in done.stderr


def test_two_runs_are_compared(nnctl: Nnctl, trained: Path, scratch: Path) -> None:
    other = scratch / "other"
    nnctl("train", CONFIGS / "smoke.yaml", "--epochs", 1, "--run-dir", other, "--quiet")
    nnctl("report", other, trained)
    told = text_of(scratch / "report.html")
    ours, theirs = (face.evaluate(run).answers.right for run in (trained, other))
    p = mcnemar(ours, theirs)
    assert "smoke is the best by validation accuracy" in told
    differing = np.count_nonzero(ours != theirs)
    assert f"Of the {differing} test images that only one of the two gets right" in told
    assert f"p = {p:.2g}" in told
    assert f"{np.count_nonzero(theirs & ~ours)} : {np.count_nonzero(ours & ~theirs)}" in told
    assert "The best of them: smoke" in told
    assert " epochs 10 " in told  # training.epochs, in which they differ


def test_runs_of_one_name_are_told_apart_by_their_paths(nnctl: Nnctl, scratch: Path) -> None:
    for folder in ("a", "b"):
        nnctl("train", CONFIGS / "smoke.yaml", "--epochs", 1, "--run-dir", f"{folder}/run", "-q")
    nnctl("report", "a/run", "b/run", "a/../a/run")
    told = text_of(scratch / "report.html")
    assert "2 runs" in told
    assert str(Path("a/run")) in told
    assert str(Path("b/run")) in told


def test_a_sweep_has_plots_of_its_parameters(nnctl: Nnctl, scratch: Path) -> None:
    nnctl(
        *("sweep", CONFIGS / "smoke.yaml", "-p", "optimizer.learning_rate=0.01,0.1"),
        *("-p", "network.layers.0.activation=relu,tanh,step"),
        *("--epochs", 1, "--workers", 1, "--sweep-dir", "sweep", "--quiet"),
    )
    nnctl("report", "sweep")
    page, told = read(scratch / "report.html"), text_of(scratch / "report.html")
    assert "6 trials complete" in told
    for key in ("optimizer.learning_rate", "network.layers.0.activation"):
        assert f'aria-label="{key}"' in page
    for name in ("relu", "tanh", "step"):
        assert re.search(rf"<text[^>]*>{name}</text>", page)
    assert len(re.findall(r'<th scope="row">trial-', page)) == 6


def test_a_run_that_still_trains_is_shown_as_far_as_it_has_come(
    nnctl: Nnctl, scratch: Path
) -> None:
    command = nnctl_command(
        *("train", CONFIGS / "smoke.yaml", "--epochs", 100_000, "--run-dir", "run", "--quiet"),
    )
    with subprocess.Popen(command, cwd=scratch, stderr=subprocess.DEVNULL) as training:
        metrics = scratch / "run" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
            assert training.poll() is None
            time.sleep(0.02)
        nnctl("report", "run")
        told = text_of(scratch / "report.html")
        assert "not ended" in told
        assert "Learning curves" in told
        assert "Confusion matrix" in told
        assert training.poll() is None
        training.send_signal(signal.SIGTERM)
        training.wait(60)
    for left in ("best.npz", "last.npz", "metrics.jsonl", "summary.json"):
        (scratch / "run" / left).unlink()
    done = nnctl("report", "run")
    told = text_of(scratch / "report.html")
    assert "no epoch of this run was complete" in done.stderr
    assert "no epoch of this run was complete" in told
    assert "784-64-10" in told
    assert "Confusion matrix" not in told


def test_a_run_that_diverged_says_why(nnctl: Nnctl, scratch: Path) -> None:
    nnctl("train", CONFIGS / "lessons" / "divergence.yaml", "--run-dir", "run", "--quiet", code=4)
    nnctl("report", "run")
    told = text_of(scratch / "report.html")
    assert "What could be better" in told
    assert "were not finite" in told
    assert "Cure:" in told


@pytest.mark.parametrize("config", ["gates/xor.yaml", "gates/and.yaml", "is-it-a-nine.yaml"])
def test_gates_and_single_questions_have_a_page(nnctl: Nnctl, scratch: Path, config: str) -> None:
    only = ["--dataset", "mini"] if config.startswith("is") else []
    nnctl("train", CONFIGS / config, "--epochs", 2, *only, "--run-dir", "run", "--quiet")
    nnctl("report", "run")
    told = text_of(scratch / "report.html")
    assert ("Draw a digit" in told) == bool(only)
    assert "Confusion matrix" in told
    assert "Learning curves" in told


def test_without_its_dataset_a_run_shows_the_rest(nnctl: Nnctl, mini_folder: Path) -> None:
    nnctl(
        *("train", CONFIGS / "smoke.yaml", "--dataset", mini_folder, "--epochs", 1),
        *("--run-dir", "run", "--quiet"),
    )
    for file in mini_folder.iterdir():
        file.unlink()
    done = nnctl("report", "run")
    told = text_of(Path("report.html"))
    assert "was not evaluated" in done.stderr
    assert "There is no evaluation on test images" in told
    assert "Draw a digit" in told
    assert "Learning curves" in told


def test_what_is_damaged_or_no_run_is_told(nnctl: Nnctl, trained: Path, scratch: Path) -> None:
    assert "no run directory" in nnctl("report", "nowhere", code=2).stderr
    (scratch / "empty").mkdir()
    assert "not a run directory" in nnctl("report", "empty", code=2).stderr
    assert "Missing argument" in nnctl("report", code=2).stderr
    (scratch / "empty" / "journal.jsonl").write_text("{}\n", "utf-8")
    assert "journal.jsonl" in nnctl("report", "empty", code=3).stderr
    run = scratch / "run"
    run.mkdir()
    for name in ("config.yaml", "best.npz", "last.npz"):
        (run / name).write_bytes((trained / name).read_bytes())
    (run / "best.npz").write_bytes((trained / "best.npz").read_bytes()[:-100])
    assert "is damaged" in nnctl("report", run).stderr
    (run / "metrics.jsonl").write_text("not JSON\n", "utf-8")
    assert "is damaged" in nnctl("report", run, code=3).stderr


@pytest.mark.parametrize(("module", "name"), [("matplotlib", "matplotlib"), ("jinja2", "Jinja")])
def test_a_library_that_lacks_is_named_with_the_command_to_install_it(
    trained: Path, scratch: Path, module: str, name: str
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from nnctl.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(trained)],
        cwd=scratch,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"a report needs {name}" in done.stderr
    assert "pip install 'nnctl[plot]'" in done.stderr


def test_the_same_run_has_the_same_page(nnctl: Nnctl, trained: Path, scratch: Path) -> None:
    pages = []
    for _ in range(2):
        nnctl("report", trained)
        pages.append((scratch / "report.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands in for LaTeX")
@pytest.mark.parametrize(
    "content",
    ["text.usetex: True\nfont.size: 30\n", "no.such.key: 1\nbackend garbage\n", None],
    ids=["LaTeX", "mistakes", "a pipe"],
)
def test_a_file_for_matplotlib_in_the_working_folder_is_not_read(
    nnctl: Nnctl, report: Path, trained: Path, scratch: Path, content: str | None
) -> None:
    programs = scratch / "bin"
    programs.mkdir()
    for name in ("latex", "kpsewhich", "dvipng"):
        (programs / name).write_text(f'#!/bin/sh\ntouch "{scratch}/started"\nexit 1\n', "utf-8")
        (programs / name).chmod(0o755)
    if content is None:
        os.mkfifo("matplotlibrc")
    else:
        Path("matplotlibrc").write_text(content, "utf-8")
    done = nnctl("report", trained, env={"PATH": f"{programs}:/usr/bin:/bin"})
    assert done.stderr == ""
    assert not (scratch / "started").exists()
    assert (scratch / "report.html").read_bytes() == report.read_bytes()


@pytest.mark.parametrize("backend", ["garbage", "module://matplotlib_inline.backend_inline"])
def test_the_environment_of_matplotlib_is_not_heard(
    nnctl: Nnctl, report: Path, trained: Path, scratch: Path, backend: str
) -> None:
    rc = scratch / "my.rc"
    rc.write_text("font.size: 30\n", "utf-8")
    told = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(rc), "MPLCONFIGDIR": str(rc)}
    done = nnctl("report", trained, env=told)
    assert done.stderr == ""
    assert (scratch / "report.html").read_bytes() == report.read_bytes()

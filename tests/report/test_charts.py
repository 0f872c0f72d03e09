"""Charts of a report: values, axis labels, and independence from matplotlib settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnctl.analysis.evaluation import Corrupted
from nnctl.report import sections
from nnctl.report.charts import Line, draw_lines, draw_points
from nnctl.report.run_report import RunReport
from nnctl.runs.run import Run
from tests.processes import Processes, end_of
from tests.runs.helpers import ignore


def test_corruptions_are_drawn_at_their_accuracies(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = {"noise": [0.8, 0.4], "rotation": [0.7, 0.1]}
    rows = [Corrupted(name, "", [1.0, 2.0], values) for name, values in accuracies.items()]
    monkeypatch.setattr(sections, "measure_corrupted", lambda *_: rows)
    run_report = RunReport.of(Run(trained_run), ignore)
    chart = sections.draw_corruptions(run_report)
    assert chart is not None
    assert run_report.evaluation is not None
    paths = re.findall(r'<path d="([^"]*)"[^>]*var\(--series-', chart.svg)
    drawn = np.array([re.findall(r"[ML] \S+ (\S+)", path) for path in paths], float)
    expected = np.array([[run_report.evaluation.accuracy, *row] for row in accuracies.values()])
    ends = [drawn.min(), drawn.max()], [expected.max(), expected.min()]
    np.testing.assert_allclose(np.interp(drawn, *ends), expected, atol=1e-4)


def test_a_categorical_axis_shows_shortened_names() -> None:
    names = ["relu", "tanh", "an activation of a long name"]
    chart = draw_points("activation", names, [0.5, 0.7, 0.9], percent=True, best=2)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert [text for text in texts if "%" not in text] == ["relu", "tanh", "an activati…"]


LINE = Line("name", [1.0, 2.0], [1.0, 2.0], 0)
PRINT_A_CHART = (
    "from nnctl.report.charts import draw_lines, Line\n"
    "print(draw_lines('title', [Line('name', [1.0, 2.0], [1.0, 2.0], 0)]).svg, end='')"
)


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands in for LaTeX")
@pytest.mark.parametrize(
    ("content", "backend"),
    [
        ("text.usetex: True\nfont.size: 30\n", "module://matplotlib_inline.backend_inline"),
        ("no.such.key: 1\nbackend garbage\n", "garbage"),
        (None, "agg"),
    ],
    ids=["LaTeX", "mistakes", "a pipe"],
)
def test_matplotlib_settings_in_the_working_folder_and_environment_do_not_change_charts(
    processes: Processes, scratch: Path, content: str | None, backend: str
) -> None:
    Path("bin").mkdir()
    for name in ("latex", "kpsewhich", "dvipng"):
        Path("bin", name).write_text(f'#!/bin/sh\ntouch "{scratch}/started"\nexit 1\n', "utf-8")
        Path("bin", name).chmod(0o755)
    Path("my.rc").write_text("axes.linewidth: 9\n", "utf-8")
    if content is None:
        os.mkfifo("matplotlibrc")
    else:
        Path("matplotlibrc").write_text(content, "utf-8")
    rc = str(scratch / "my.rc")
    settings = {"MPLBACKEND": backend, "MATPLOTLIBRC": rc, "MPLCONFIGDIR": rc}
    process = processes.start(
        [sys.executable, "-c", PRINT_A_CHART],
        env={**os.environ, **settings, "PATH": f"{scratch}/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    done = end_of(process)
    assert done.stderr == ""
    assert not Path("started").exists()
    chart = draw_lines("title", [LINE])
    assert chart is not None
    assert chart.svg == done.stdout
